#!/bin/sh
# Brings a C compiler that has the headers of many systems: zig, from the npm registry's two archives, below build/zig. Prints how to call
# it (`zig.sh` alone) and fails with a reason where it can't be had.
#   zig=$(sh tests/cross/zig.sh) && $zig cc -target aarch64-macos ...
cd "$(dirname "$0")/../.." || exit 1
set -e
version=0.16.0
place=$PWD/build/zig-$version
registry=${npm_config_registry:-https://registry.npmjs.org}

say() { echo "$1" >&2 && exit 1; }

bring() { # NAME SHA256
    archive=$place/$1-$version.tgz
    curl -fsSL --retry 3 -o "$archive" "${registry%/}/@zigc/$1/-/$1-$version.tgz" || say "@zigc/$1 $version can't be fetched from $registry"
    echo "$2  $archive" | sha256sum -c --quiet - >&2 || say "@zigc/$1 $version is not what it was"
    mkdir -p "$place/$1" && tar xzf "$archive" -C "$place/$1" --strip-components=1 && rm "$archive"
}

if [ ! -f "$place/complete" ]; then
    [ "$(uname -sm)" = "Linux x86_64" ] || say "the archive is for Linux on x86_64"
    command -v curl >/dev/null || say "curl is not installed"
    mkdir -p "$place"
    bring linux-x64 37c09efd717ae2fc83423f6c2b6c494a0e8daa7daebf4fdc27271b4b8c3e8ce3
    bring lib e9fe416cf0d2e8303c08de32dc934af0cd13d22f255b65127bceb722cc3dcbcc
    chmod +x "$place/linux-x64/bin/zig"
    touch "$place/complete"
fi
echo "env ZIG_LIB_DIR=$place/lib ZIG_GLOBAL_CACHE_DIR=$place/cache ZIG_LOCAL_CACHE_DIR=$place/cache $place/linux-x64/bin/zig"
