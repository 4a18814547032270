#!/usr/bin/env bash
# Builds Debian packages into target/deb/: deploy/deb.sh PACKAGE ARCHITECTURE...
#
# PACKAGE is `ternwatch` (amd64, arm64, armhf) or `ternwatch-quant-tool` (this machine's architecture only).
# debian/ says what is in them. PROGRAMS=FOLDER takes FOLDER/ARCHITECTURE/PROGRAM instead of building the program.
set -euo pipefail
# A failed build is no program, also where its output is captured.
shopt -s inherit_errexit
cd "$(dirname "$0")/.."

say() { printf 'deb: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[ $# -ge 2 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 64; }
package=$1
shift
case $package in
    ternwatch) crate=ternwatchd program=ternwatchd profile=release ;;
    ternwatch-quant-tool) crate=quant-tool program=quant-tool profile=train ;;
    *) die "no such package: $package" ;;
esac
readonly bytes_max=12000000
here=$(dpkg --print-architecture)
stage=target/deb/stage

rust_target() {
    case $1 in
        amd64) echo x86_64-unknown-linux-gnu ;;
        arm64) echo aarch64-unknown-linux-gnu ;;
        armhf) echo armv7-unknown-linux-gnueabihf ;;
        *) die "no packages for the architecture $1" ;;
    esac
}

# Builds the program for an architecture and prints where it is.
build() {
    local target
    target=$(rust_target "$1")
    if [ -n "${PROGRAMS:-}" ]; then
        echo "$PROGRAMS/$1/$program"
    elif [ "$package" = ternwatch ]; then
        deploy/cross.sh build "$target" --locked -p "$crate" >&2
        echo "target-cross/$target/release/$program"
    elif [ "$1" = "$here" ]; then
        deploy/install-deps.sh build >&2
        cargo build --profile "$profile" --locked -p "$crate" >&2
        echo "target/$profile/$program"
    else
        die "$package is built on the architecture that it is for: this is $here, not $1"
    fi
}

# The daemon promises to be small; what is built in a hurry, for tests of the package, is not what ships.
check_size() {
    local bytes
    bytes=$(stat -c %s "$1")
    say "$1: $bytes bytes"
    [ -n "${CARGO_PROFILE_RELEASE_OPT_LEVEL:-}" ] || [ "$bytes" -le "$bytes_max" ] || die "$1 is larger than $bytes_max bytes"
}

# The package's version is the programs'.
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
[ "$(dpkg-parsechangelog -S Version)" = "$version" ] ||
    die "debian/changelog has version $(dpkg-parsechangelog -S Version), Cargo.toml has $version"
mkdir -p target/deb

for architecture; do
    built=$(build "$architecture")
    [ -x "$built" ] || die "there is no program $built"
    [ "$package" != ternwatch ] || check_size "$built"
    rm -rf "$stage"
    mkdir -p "$stage"/{bin,completions,manual}
    install "$built" "$stage/bin/$program"
    deploy/licences.sh "$crate" "$(rust_target "$architecture")" >"$stage/third-party.txt"
    if [ "$package" = ternwatch ]; then
        # The pages and completions come from the command line itself; they are the same everywhere.
        # With the whole workspace's features, as the tests are: nothing is built twice.
        cargo build --quiet --workspace --locked --example manual
        target/debug/examples/manual "$stage/manual"
        mv "$stage/manual/ternwatchd.bash" "$stage/completions/ternwatchd"
    fi
    # One package at a time: cleaning first, so that nothing of the architecture before stays.
    dpkg-architecture -a "$architecture" -c env DH_OPTIONS="-p$package" SOURCE_DATE_EPOCH="$(dpkg-parsechangelog -S Timestamp)" \
        sh -c 'debian/rules clean && debian/rules binary' >target/deb/log 2>&1 || { cat target/deb/log >&2; die "$package for $architecture failed"; }
    debian/rules clean >/dev/null
    deb=target/deb/${package}_${version}_$architecture.deb
    say "$deb: $(stat -c %s "$deb") bytes"
done
