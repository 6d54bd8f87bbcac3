#!/bin/sh
# test_tls for Windows, under Wine: mbed TLS from Debian's source package, of the release that apt knows or MBEDTLS_SUITE, is built by
# MinGW below build/ and linked; then tls_peers.py with a relay.exe that has it. Ends with the count line of test_tls.
cd "$(dirname "$0")/../.." || exit 1
set -e
place=$PWD/build/win/mbedtls
suite=${MBEDTLS_SUITE:-$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")}
cross=${WIN_CC:-x86_64-w64-mingw32-gcc}
archiver=$(echo "$cross" | sed 's/gcc$/ar/')
mkdir -p "$place/lists/partial" "$place/cache/archives/partial"

for WINE in "$(command -v wine64)" /usr/lib/wine/wine64 "$(command -v wine)" ''; do if [ -x "$WINE" ]; then break; fi; done
if [ -z "$WINE" ] || ! command -v "$cross" >/dev/null; then echo 'there is no Wine, or no compiler for Windows'; exit 77; fi

fetch() { # apt-get ARGUMENT..., with that one source and nothing else
    apt-get -qq -o Dir::Etc::sourcelist="$place/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$place/lists" \
        -o Dir::Cache="$place/cache" -o APT::Sandbox::User=root "$@"
}

if [ ! -f "$place/libraries" ]; then
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Created-By: Packages' | grep -v security | head -n 1)
    [ -n "$mirror" ] || { echo "apt names no mirror of Debian"; exit 1; }
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$place/sources.list"
    fetch update
    (cd "$place" && fetch source --download-only mbedtls && mkdir -p source && tar xf mbedtls_*.orig.tar.* -C source --strip-components=1)
    make -s -C "$place/source/library" CC="$cross" AR="$archiver" WINDOWS_BUILD=1 CFLAGS='-O2 -w' \
        libmbedcrypto.a libmbedx509.a libmbedtls.a >/dev/null
    touch "$place/libraries"
fi
make -s WIN_TLS=yes TLS=yes TLS_FLAGS="-DCHARDEV_MBEDTLS -isystem $place/source/include" \
    TLS_LIBS="-L$place/source/library -lmbedtls -lmbedx509 -lmbedcrypto -ladvapi32 -lbcrypt" build/win/tests/test_tls.exe
TEST_TLS_CERTS=$place/certs
rm -rf "$TEST_TLS_CERTS"
mkdir "$TEST_TLS_CERTS"
sh tests/tls_certs.sh "$TEST_TLS_CERTS" >/dev/null
WINEPREFIX=${WINEPREFIX:-$PWD/build/wine} WINEDEBUG=-all
export TEST_TLS_CERTS WINEPREFIX WINEDEBUG
if [ -x /usr/bin/python3 ]; then
    mkdir -p build/win/tls
    $cross -O1 -std=c99 -I. -DCHARDEV_THREADS -DCHARDEV_MBEDTLS -isystem "$place/source/include" examples/relay.c -o build/win/tls/relay.exe \
        -L"$place/source/library" -lmbedtls -lmbedx509 -lmbedcrypto -lws2_32 -ladvapi32 -lbcrypt
    WINE=$WINE BUILD=build/win/tls /usr/bin/python3 tests/windows/tls_peers.py
fi
"$WINE" build/win/tests/test_tls.exe "$@"
