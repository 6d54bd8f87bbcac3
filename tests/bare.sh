#!/bin/sh
# README's commands on a machine that has nothing but a compiler and make: `sh tests/bare.sh`, as root on Debian, with debootstrap.
# Two roots are made in BARE_DIR (default /var/tmp) out of the packages that this machine's apt knows: one with gcc, make and
# libc6-dev, one with clang and make. In each the commands of README's first code block run over the committed tree; what was built
# is tested once more by an ordinary user. There is no hosts file, no python3 and no mbed TLS. Nothing here is ever skipped.
set -u
cd "$(dirname "$0")/.." || exit 1
unset MAKEFLAGS MFLAGS
export LC_ALL=C

fail() {
    echo "bare: FAILED: $1"
    [ $# -lt 2 ] || grep -Ev '^CC |: skipped: |: [0-9]+ passed, 0 failed' "$2" | tail -n 100
    exit 1
}

[ "$(id -u)" = 0 ] || fail "only root can make a root"
for program in debootstrap unshare chroot; do
    command -v $program >/dev/null || fail "$program is not installed"
done

commands=$(awk '/^```/ { if (on) exit; on = 1; next } on && NF' README.md)
[ "$(echo "$commands" | grep -c '^make ')" -ge 2 ] || fail "README.md does not begin with its two commands"

# The mirror of the machine's own apt, and its proxy.
release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
mirror=$(apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
    awk -v release="$release" '$1 == release && $2 == "main" { print $3; exit }')
[ -n "$mirror" ] || fail "apt knows no mirror of $release: apt-get update"
eval "$(apt-config shell proxy Acquire::http::Proxy)"
if [ -n "${proxy:-}" ] && [ "$proxy" != DIRECT ]; then export http_proxy="$proxy"; fi

dir=$(mktemp -d -p "${BARE_DIR:-/var/tmp}" bare.XXXXXX) || exit 1
trap 'rm -rf --one-file-system "$dir"' EXIT
trap 'exit 130' HUP INT TERM

make_root() { # NAME PACKAGES
    for attempt in 1 2 3; do
        debootstrap --variant=minbase --include="$2" "$release" "$dir/$1" "$mirror" >"$dir/$1.log" 2>&1 && return
        rm -rf --one-file-system "${dir:?}/$1"
        sleep $((attempt * 5)) # The mirror may have had a bad moment.
    done
    return 1
}

committed_tree() {
    if [ -e .git ]; then git -c safe.directory='*' archive HEAD; else tar c --exclude=./build .; fi
}

# Runs a command in a root with its own /proc and terminals, which go with the process that has mounted them.
inside() { # ROOT USER COMMAND...
    unshare --mount sh -ec '
        root=$1 user=$2
        shift 2
        mount -t proc proc "$root/proc"
        mount -t devpts -o newinstance,ptmxmode=0666,gid=5,mode=620 devpts "$root/dev/pts"
        mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
        ln -sf pts/ptmx "$root/dev/ptmx"
        exec chroot --userspec="$user" "$root" /usr/bin/env -i PATH=/usr/bin:/bin HOME=/src "$@"' sh "$@" </dev/null
}

run() { # ROOT USER COMMAND
    began=$(date +%s) log=$dir/$1.log
    inside "$dir/$1" "$2" sh -c "cd /src && $3" >"$log" 2>&1 || fail "$1: $3" "$log"
    echo "bare: $1: $3: $(tail -n 1 "$log") ($(($(date +%s) - began)) s)"
}

try() { # ROOT VARIABLES FOREIGN-PROGRAMS...
    root=$1 variables=$2
    shift 2
    rm -f "$dir/$root/etc/hosts"
    for program in python3 pkg-config "$@"; do
        [ ! -e "$dir/$root/usr/bin/$program" ] || fail "there is a $program in the root with $root"
    done
    [ ! -e "$dir/$root/usr/include/mbedtls" ] || fail "there is mbed TLS in the root with $root"
    mkdir "$dir/$root/src" && committed_tree | tar x -C "$dir/$root/src" || fail "no tree to test"
    while read -r command; do
        run "$root" 0:0 "$command$variables"
    done <<-END
		$commands
	END
    grep -Eq '^[0-9]{4,} passed, 0 failed, [0-9]+ skipped$' "$dir/$root.log" || fail "$root: not the whole suite" "$dir/$root.log"
}

began=$(date +%s)
make_root clang clang,make &
other=$!
make_root gcc gcc,make,libc6-dev || fail "no root with gcc" "$dir/gcc.log"
wait $other || fail "no root with clang" "$dir/clang.log"
echo "bare: roots of $release: ok ($(($(date +%s) - began)) s)"

try gcc '' clang cc1plus
chown -R 1000:1000 "$dir/gcc/src"
run gcc 1000:1000 'make test'
rm -rf --one-file-system "$dir/gcc"
try clang ' CC=clang' gcc
echo "bare: ok"
