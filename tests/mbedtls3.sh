#!/bin/sh
# test_tls with mbed TLS 3.6, which Debian 12 does not have: the source package of a newer Debian, from the mirror that this machine's
# apt uses, is built below build/ and linked. Ends with the count line of test_tls.
#   MBEDTLS_SUITE=NAME    the release that has it (default trixie)
cd "$(dirname "$0")/.." || exit 1
set -e
place=$PWD/build/mbedtls3
suite=${MBEDTLS_SUITE:-trixie}
mkdir -p "$place/lists/partial" "$place/cache/archives/partial"

mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Created-By: Packages' | grep -v security | head -n 1)
[ -n "$mirror" ] || { echo "apt names no mirror of Debian"; exit 1; }
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$place/sources.list"

fetch() { # apt-get ARGUMENT..., with that one source and nothing else
    apt-get -qq -o Dir::Etc::sourcelist="$place/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$place/lists" \
        -o Dir::Cache="$place/cache" -o APT::Sandbox::User=root "$@"
}

if [ ! -f "$place/libraries" ]; then
    fetch update
    (cd "$place" && fetch source --download-only mbedtls && mkdir -p source && tar xf mbedtls_*.orig.tar.* -C source --strip-components=1)
    make -s -C "$place/source/library" -j"$(nproc)" CFLAGS='-O2 -w' libmbedcrypto.a libmbedx509.a libmbedtls.a >/dev/null
    touch "$place/libraries"
fi
make -s B=build/mbedtls3 TLS=yes TLS_FLAGS="-DCHARDEV_MBEDTLS -isystem $place/source/include" \
    TLS_LIBS="-L$place/source/library -lmbedtls -lmbedx509 -lmbedcrypto" build/mbedtls3/tests/test_tls
sed -n 's/^#define MBEDTLS_VERSION_STRING_FULL *"\(.*\)"/test_tls with \1:/p' "$place/source/include/mbedtls/build_info.h"
build/mbedtls3/tests/test_tls
