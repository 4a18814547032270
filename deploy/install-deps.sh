#!/usr/bin/env bash
# Installs what a task needs and this machine lacks: deploy/install-deps.sh GROUP...
#
# Groups: build check demo cards test load transcript fuzz gate deb deb-test vm exposure deny cross-arm64 cross-armhf cross-amd64 cross-rust cross-rust-src
# Nothing is touched where everything is there. Otherwise apt installs the missing Debian packages, as root or with
# sudo; without root, network or apt the missing packages are named and the script fails.
set -euo pipefail

readonly rust_min=1.95.0
readonly cargo_deny=0.20.2
export PATH=$PATH:/usr/sbin:/sbin

say() { printf 'install-deps: %s\n' "$*" >&2; }
die() { say "$*"; exit 69; }

# Whether cargo comes from Debian's packages or, missing, would.
debian_cargo() {
    local cargo
    cargo=$(command -v cargo) || return 0
    dpkg-query -S "$(readlink -f "$cargo")" >/dev/null 2>&1
}

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null || true)" = installed ]; }

# Whether what a package is wanted for is there, be it from the package or from elsewhere.
present() {
    case $1 in
        gcc | g++ | git | make | ffmpeg | mosquitto | nats-server | openssl | strace) command -v "$1" >/dev/null ;;
        gcc-aarch64-linux-gnu) command -v aarch64-linux-gnu-gcc >/dev/null ;;
        gcc-x86-64-linux-gnu) command -v x86_64-linux-gnu-gcc >/dev/null ;;
        gcc-arm-linux-gnueabihf) command -v arm-linux-gnueabihf-gcc >/dev/null ;;
        qemu-system-arm) command -v qemu-system-aarch64 >/dev/null ;;
        qemu-user-static) command -v qemu-aarch64-static >/dev/null ;;
        # bindgen loads it for the V4L2 bindings.
        libclang-dev) [ -n "${LIBCLANG_PATH:-}" ] || compgen -G '/usr/lib/llvm-*/lib/libclang.so*' >/dev/null ;;
        # Images that leave documentation out lack the file although they have the package.
        opencv-doc) [ -n "${DEMO_VIDEO:-}" ] || [ -e /usr/share/doc/opencv-doc/examples/data/vtest.avi ] ;;
        rustfmt-web) cargo fmt --version >/dev/null 2>&1 || ! debian_cargo ;;
        rust-web-clippy) cargo clippy --version >/dev/null 2>&1 || ! debian_cargo ;;
        *) installed "$1" ;;
    esac
}

packages_of() {
    case $1 in
        build) echo gcc libc6-dev libclang-dev ;;
        demo) echo ffmpeg mosquitto opencv-doc ;;
        cards) echo ffmpeg opencv-doc ;;
        # The TLS test makes its certificates with openssl; strace lets the card and the power fail; git says which files
        # are the project's.
        test) echo ffmpeg git mosquitto opencv-doc openssl strace ;;
        load) echo mosquitto nats-server ;;
        transcript) echo ffmpeg mosquitto mosquitto-clients opencv-doc ;;
        # Debian has formatter and linter in packages of their own, rustup has them in the pinned toolchain.
        check) echo rustfmt-web rust-web-clippy ;;
        # libFuzzer is C++.
        fuzz) echo g++ ;;
        # The static qemu takes no plugins.
        gate) echo gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-user valgrind ;;
        deb) echo debhelper dpkg-dev lintian ;;
        deb-test) echo mmdebstrap ;;
        vm) echo qemu-system-arm qemu-user-static mmdebstrap arch-test kmod cpio e2fsprogs openssh-client make gcc-aarch64-linux-gnu ffmpeg mosquitto opencv-doc ;;
        exposure) echo systemd ;;
        deny) ;;
        cross-arm64) echo gcc-aarch64-linux-gnu libc6-dev-arm64-cross libclang-dev qemu-user-static ;;
        cross-armhf) echo gcc-arm-linux-gnueabihf libc6-dev-armhf-cross libclang-dev qemu-user-static ;;
        cross-amd64) echo gcc-x86-64-linux-gnu libc6-dev-amd64-cross libclang-dev qemu-user-static ;;
        cross-rust) echo rustc-web cargo-web ;;
        cross-rust-src) echo rust-web-src ;;
        *) say "no such group: $1"; exit 64 ;;
    esac
}

# Empty where cargo is missing or does not work.
cargo_version() { cargo --version 2>/dev/null | awk '{ print $2 }' || true; }

version_at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -1)" = "$2" ]; }

# A cargo that is new enough: rustup's, or Debian's packages rustc-web and cargo-web. Debian 12's packages `rustc` and
# `cargo` are of 2022; apt puts the new ones in their place, which provide the same names.
need_rust() {
    local version
    version=$(cargo_version)
    if [ -n "$version" ] && version_at_least "$version" "$rust_min"; then
        return
    fi
    debian_cargo ||
        die "cargo${version:+ $version} does not work or is older than $rust_min: \`rustup toolchain install $rust_min\` helps"
    say "${version:+cargo $version is too old: }Rust $rust_min or newer is needed, taking Debian's rustc-web and cargo-web"
    missing+=(rustc-web cargo-web)
}

# What runs apt-get as root, into `as_root`. Fails where nothing does.
become_root() {
    # Nobody is there to answer the questions of packages.
    as_root=(env DEBIAN_FRONTEND=noninteractive)
    [ "$(id -u)" -ne 0 ] || return 0
    command -v sudo >/dev/null || return
    # Whom sudo lets run apt-get without a password is not asked for one, but may not set variables for it either.
    if ! sudo -n true 2>/dev/null && sudo -n apt-get --version >/dev/null 2>&1; then
        as_root=(sudo)
    else
        sudo -v || return
        as_root=(sudo "${as_root[@]}")
    fi
}

install() {
    local as_root package
    if ! command -v apt-get >/dev/null; then
        die "missing here, and there is no apt to install it (names are Debian's): $*"
    fi
    become_root || die "missing, and only root may install it: apt-get install $*"
    say "installing: $*"
    local apt=("${as_root[@]}" apt-get -q -o Acquire::Retries=3)
    # One list that cannot be fetched must not stop what the others have.
    "${apt[@]}" update >&2 || say "apt-get update failed: trying with the lists that are there"
    # `--reinstall` and the include bring back the files that a trimmed image left out.
    if ! "${apt[@]}" install -y --no-install-recommends --reinstall \
        -o Dpkg::Options::=--path-include='/usr/share/doc/opencv-doc/*' "$@" >&2; then
        for package; do
            present "$package" || say "missing: $package"
        done
        die "apt could not install them: is this machine online, and does its archive have these packages?"
    fi
}

[ $# -gt 0 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 64; }
missing=()
for group; do
    [ "$group" != build ] || need_rust
    packages=$(packages_of "$group")
    for package in $packages; do
        present "$package" || missing+=("$package")
    done
done
if [ ${#missing[@]} -gt 0 ]; then
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    install "${missing[@]}"
fi
# From here on apt may have replaced cargo.
hash -r
for group; do
    case $group in
        build)
            version=$(cargo_version)
            version_at_least "${version:-0}" "$rust_min" || die "cargo${version:+ $version} is still older than $rust_min"
            ;;
        check)
            cargo fmt --version >/dev/null && cargo clippy --version >/dev/null ||
                die "missing: \`rustup component add rustfmt clippy\`"
            ;;
        deny)
            # It runs for seconds: without optimization it is there sooner.
            cargo deny --version >/dev/null 2>&1 || CARGO_PROFILE_DEV_DEBUG=false cargo install cargo-deny --debug --locked --version "$cargo_deny" ||
                die "missing: cargo-deny, and cargo could not install it: is this machine online?"
            ;;
    esac
done
