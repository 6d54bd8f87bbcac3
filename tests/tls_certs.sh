#!/bin/sh
# Certificates for the TLS tests, made anew each time: sh tests/tls_certs.sh DIR
# DIR/server and DIR/client hold what dir= wants; DIR/NAME-cert.pem and DIR/NAME-key.pem are the odd ones.
set -e
cd "$1"
printf '%s\n' '[ca]' 'default_ca=c' '[c]' 'database=index.txt' 'new_certs_dir=.' 'default_md=sha256' 'default_days=30' \
    'default_crl_days=30' 'policy=p' 'rand_serial=yes' 'unique_subject=no' 'copy_extensions=copy' '[p]' 'countryName=optional' \
    'organizationName=optional' 'commonName=supplied' '[req]' 'distinguished_name=d' 'string_mask=utf8only' '[d]' \
    '[v3ca]' 'basicConstraints=critical,CA:TRUE' 'keyUsage=critical,keyCertSign,cRLSign' >conf
: >index.txt
key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1-key.pem"; }
authority() {
    key "$1"
    openssl req -x509 -new -config conf -extensions v3ca -key "$1-key.pem" -subj "/CN=$1" -days 30 -sha256 -out "$1-cert.pem"
}
# cert NAME CA SUBJECT SAN [dates]
cert() {
    name=$1 ca=$2 subject=$3 san=$4
    shift 4
    key "$name"
    openssl req -new -config conf -key "$name-key.pem" -subj "$subject" -addext "subjectAltName=$san" -out req.pem
    openssl ca -batch -notext -config conf -cert "$ca-cert.pem" -keyfile "$ca-key.pem" -in req.pem -out "$name-cert.pem" "$@"
}
{
    authority ca
    authority other-ca
    local=DNS:localhost,IP:127.0.0.1,IP:::1
    cert server ca '/C=DE/O=Example/CN=localhost' $local
    cert client ca '/C=DE/O=Example/CN=fred' DNS:fred
    cert odd ca '/C=DE/O=Exam, ple/CN=fred\+x' DNS:odd
    cert elsewhere ca '/CN=elsewhere' DNS:elsewhere
    cert foreign other-ca '/C=DE/O=Example/CN=localhost' $local
    cert expired ca '/C=DE/O=Example/CN=localhost' $local -startdate 20200101000000Z -enddate 20200201000000Z
    cert future ca '/C=DE/O=Example/CN=localhost' $local -startdate 20450101000000Z -enddate 20460101000000Z
    cert revoked ca '/C=DE/O=Example/CN=mallory' DNS:mallory
    openssl ca -config conf -cert ca-cert.pem -keyfile ca-key.pem -revoke revoked-cert.pem
    openssl ca -config conf -cert ca-cert.pem -keyfile ca-key.pem -gencrl -out crl.pem
} >log 2>&1
mkdir server client
cp ca-cert.pem server-cert.pem server-key.pem server
cp ca-cert.pem client-cert.pem client-key.pem client
printf 'fred:00112233445566778899aabbccddeeff\r\n# a comment\n\nana:ffeeddccbbaa99887766554433221100\n' >keys.psk
printf 'fred:0000000000000000000000000000dead\neve:00112233445566778899aabbccddeeff\n' >wrong.psk
