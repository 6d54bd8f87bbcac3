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
# named NAME MASK LINE...: a certificate whose subject is built of these lines, in kinds of string by MASK; its name as openssl
# prints it is in NAME.name
named() {
    name=$1
    { printf 'oid_section=o\n[o]\nbadge=1.3.6.1.4.1.55555.1\n[req]\ndistinguished_name=d\nprompt=no\nstring_mask=%s\n[d]\n' "$2"
      shift 2
      printf '%s\n' "$@"; } >named.conf
    key "$name"
    openssl req -new -utf8 -config named.conf -key "$name-key.pem" -out req.pem
    openssl x509 -req -in req.pem -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days 30 -out "$name-cert.pem"
    openssl x509 -noout -subject -nameopt RFC2253 -in "$name-cert.pem" | sed 's/^subject=//' >"$name.name"
}
# usage NAME USAGE: like the client's, for one extended key usage
usage() {
    key "$1"
    openssl req -new -config conf -key "$1-key.pem" -subj /C=DE/O=Example/CN=localhost -addext "subjectAltName=$local" \
        -addext "extendedKeyUsage=$2" -out req.pem
    openssl ca -batch -notext -config conf -cert ca-cert.pem -keyfile ca-key.pem -in req.pem -out "$1-cert.pem"
}
label=123456789012345678901234567890123456789012345678901234567890.
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
    usage only-server serverAuth
    usage only-client clientAuth
    named name-umlauts utf8only C=DE 'O=Müller GmbH' CN=François
    named name-wide utf8only 'CN=日本 𝄞'
    named name-edges utf8only 'O=" blanks "' 'OU=\#' 'CN=\#hash'
    named name-escapes utf8only 'O="a,b+c;d<e>f"' 'OU=back\\slash' 'CN=quo\"te = abc=='
    named name-two-in-one utf8only C=DE O=Example 0.OU=x +CN=fred
    named name-three-in-one utf8only C=DE O=Example UID=7 +OU=x +CN=fred
    named name-types utf8only CN=fred serialNumber=42 UID=fred1 DC=example GN=Fred SN=Smith title=Dr street=Main postalCode=1 \
        emailAddress=f@example.org organizationIdentifier=VATDE-1 businessCategory=Private dnQualifier=q pseudonym=p jurisdictionC=DE
    named name-unknown utf8only CN=fred badge=4711
    named name-bmp MASK:0x800 O=Müller CN=fred
    named name-universal MASK:0x100 O=Müller CN=fred
    named name-latin1 MASK:0x4 CN=Fréd
    named name-comma utf8only 'CN="fred,O=Example,C=DE"'
    cert words ca '/CN=words' DNS:abcd
    cert wide ca '/CN=wide' IP:7f00:1::
    # names of 4095 and of 4096 letters
    long=$(for i in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 \
        40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59; do
        echo "$i.OU=0123456789012345678901234567890123456789012345678901234567890123"
    done)
    named name-4095 utf8only "$long" 60.OU=1234 CN=fred
    named name-4096 utf8only "$long" 60.OU=12345 CN=fred
    # a certificate that fills a message of the handshake nearly alone, and one whose key is too weak
    many=$local
    for i in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 \
        45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62; do
        many=$many,DNS:n$i.$label$label$label$label
    done
    cert large ca '/C=DE/O=Example/CN=localhost' "$many"
    openssl genrsa -out weak-key.pem 1024
    openssl req -new -config conf -key weak-key.pem -subj /C=DE/O=Example/CN=localhost -addext "subjectAltName=$local" -out req.pem
    openssl ca -batch -notext -config conf -cert ca-cert.pem -keyfile ca-key.pem -in req.pem -out weak-cert.pem
    openssl ca -config conf -cert ca-cert.pem -keyfile ca-key.pem -gencrl -crl_lastupdate 20200101000000Z -crl_nextupdate 20200201000000Z \
        -out old-crl.pem
    openssl ca -config conf -cert ca-cert.pem -keyfile ca-key.pem -revoke revoked-cert.pem
    openssl ca -config conf -cert ca-cert.pem -keyfile ca-key.pem -gencrl -out crl.pem
} >log 2>&1
mkdir server client
cp ca-cert.pem server-cert.pem server-key.pem server
cp ca-cert.pem client-cert.pem client-key.pem client
printf 'fred:00112233445566778899aabbccddeeff\r\n# a comment\n\nana:ffeeddccbbaa99887766554433221100\n' >keys.psk
printf 'fred:00112233445566778899aabbccddeeff\nan\000a:ffee\n' >zero.psk
printf 'fred:0000000000000000000000000000dead\neve:00112233445566778899aabbccddeeff\n' >wrong.psk
{ cat ca-cert.pem && printf -- '-----BEGIN CERTIFICATE-----\nMIIBAAAA\n-----END CERTIFICATE-----\n'; } >bundle.pem
chmod 600 ./*.psk
