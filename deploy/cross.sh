#!/usr/bin/env bash
# Builds, tests or type-checks for an architecture: deploy/cross.sh build|test|check TARGET [cargo arguments]
#
# TARGET is aarch64-unknown-linux-gnu, armv7-unknown-linux-gnueabihf or x86_64-unknown-linux-gnu. All take the release profile, so
# that tests (under qemu-user) run what ships and share what was built; `check` links nothing. The machine's folders are kept out of
# programs: the same sources give the same bytes anywhere. Results go to target-cross/TARGET/. One of four
# ways is taken, the first that this machine has (CROSS_WAY=host|rustup|cross|debian forces one):
#   host    the machine is of that architecture itself
#   rustup  the target's standard library, added with `rustup target add TARGET`, and Debian's C toolchain
#   cross   the program `cross` with a running Docker, configured by cross.toml
#   debian  Debian's rustc-web and C toolchain; the standard library is Debian's where its version is the compiler's,
#           and is compiled from rust-web-src otherwise
set -euo pipefail
cd "$(dirname "$0")/.."

# The oldest systems to support are Debian 12 and the Raspberry Pi OS made from it.
readonly glibc_max=2.36

say() { printf 'cross: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
usage() { sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 64; }

[ $# -ge 2 ] || usage
action=$1 target=$2
shift 2
case $action in build | test | check) ;; *) usage ;; esac
case $target in
    aarch64-unknown-linux-gnu) debian_arch=arm64 gnu=aarch64-linux-gnu qemu=qemu-aarch64-static ;;
    armv7-unknown-linux-gnueabihf) debian_arch=armhf gnu=arm-linux-gnueabihf qemu=qemu-arm-static ;;
    x86_64-unknown-linux-gnu) debian_arch=amd64 gnu=x86_64-linux-gnu qemu=qemu-x86_64-static ;;
    *) usage ;;
esac
target_dir=$PWD/target-cross
underscored=${target//-/_}
upper=${underscored^^}

choose_way() {
    if [ -n "${CROSS_WAY:-}" ]; then
        echo "$CROSS_WAY"
    elif [ "$(dpkg --print-architecture)" = "$debian_arch" ]; then
        echo host
    elif command -v rustup >/dev/null && rustup target list --installed 2>/dev/null | grep -qx "$target"; then
        echo rustup
    elif command -v cross >/dev/null && docker info >/dev/null 2>&1; then
        echo cross
    else
        echo debian
    fi
}

# Names of files in the program, for messages of panics, begin at the sources and at the registry, wherever these are.
hide_folders() {
    local registry=${CARGO_HOME:-$HOME/.cargo}/registry/src from
    for from in "$registry"/*; do
        [ ! -d "$from" ] || rustflags+=("--remap-path-prefix=$from=registry")
    done
    rustflags+=("--remap-path-prefix=$PWD=ternwatch")
    printf -v "CFLAGS_$underscored" '%q ' "-ffile-prefix-map=$registry=registry" "-ffile-prefix-map=$PWD=ternwatch"
    export CC_SHELL_ESCAPED_FLAGS=1 "CFLAGS_$underscored"
}

# Debian's C compiler, headers and qemu for the target, for every way that runs outside of Docker.
use_debian_c_toolchain() {
    deploy/install-deps.sh "cross-$debian_arch"
    export "CARGO_TARGET_${upper}_LINKER=$gnu-gcc" "CC_$underscored=$gnu-gcc" "AR_$underscored=$gnu-ar"
    # The binary may not run on this machine, so that cargo needs the emulator and the target's shared libraries.
    export "CARGO_TARGET_${upper}_RUNNER=$qemu -L /usr/$gnu"
    # bindgen passes the target itself; the headers of V4L2 must be the target's.
    export "BINDGEN_EXTRA_CLANG_ARGS_$underscored=--sysroot=/usr/$gnu -I/usr/$gnu/include"
}

# Prints a sysroot that holds Debian's standard library for the target, in the very version of the compiler, or
# fails where the archive has none. The machine's own architectures, lists and cache stay untouched.
debian_sysroot() {
    local version sysroot apt source
    version=$(dpkg-query -W -f '${Version}' rustc-web)
    sysroot=$target_dir/sysroot/$target-$version
    if [ ! -e "$sysroot/complete" ]; then
        apt=$target_dir/apt-$debian_arch
        rm -rf "$apt" "$sysroot"
        mkdir -p "$apt"/{lists/partial,cache/archives/partial,debs} "$sysroot/lib/rustlib"
        # The archive that the compiler's own standard library comes from.
        source=$(apt-cache madison libstd-rust-web-dev |
            awk -F ' *\\| *' -v v="$version" '$2 == v { split($3, f, " "); sub("/", " ", f[2]); print f[1], f[2]; exit }')
        [ -n "$source" ] || return 1
        local keyring=/usr/share/keyrings/debian-archive-keyring.gpg signed=
        [ ! -e "$keyring" ] || signed=" signed-by=$keyring"
        echo "deb [arch=$debian_arch$signed] $source" >"$apt/sources.list"
        cat >"$apt/apt.conf" <<CONF
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$apt/lists";
Dir::Cache "$apt/cache";
#clear APT::Architectures;
APT::Architectures { "$(dpkg --print-architecture)"; "$debian_arch"; };
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Acquire::Retries "3";
CONF
        APT_CONFIG=$apt/apt.conf apt-get update -q >"$apt/log" 2>&1 || return 1
        (cd "$apt/debs" && APT_CONFIG=$apt/apt.conf \
            apt-get download -q "libstd-rust-web-dev:$debian_arch=$version") >>"$apt/log" 2>&1 || return 1
        dpkg-deb -x "$apt"/debs/libstd-rust-web-dev_*.deb "$apt/unpacked"
        mv "$apt/unpacked/usr/lib/rustlib/$target" "$sysroot/lib/rustlib/"
        # Procedural macros run in the compiler and are looked up in the same sysroot.
        ln -s "$(/usr/bin/rustc --print sysroot)/lib/rustlib/$(/usr/bin/rustc --print host-tuple)" "$sysroot/lib/rustlib/"
        rm -rf "$apt"
        touch "$sysroot/complete"
    fi
    echo "$sysroot"
}

# Fails where a program of the release folder asks for a newer glibc than the oldest supported system has.
check_glibc() {
    local program newest
    for program in "$target_dir/$target/release"/*; do
        [ -f "$program" ] && [ -x "$program" ] || continue
        newest=$("$gnu-objdump" -T "$program" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -Vu | tail -1)
        [ "$(printf '%s\n' "$newest" "$glibc_max" | sort -V | tail -1)" = "$glibc_max" ] ||
            die "${program##*/} needs glibc $newest, the oldest supported system has $glibc_max: build on Debian 12 or with \`cross\`"
        say "${program#"$PWD"/}: $(stat -c %s "$program") bytes, needs glibc $newest"
    done
}

way=$(choose_way)
say "$action for $target, way: $way"
export CARGO_TARGET_DIR=$target_dir CARGO_INCREMENTAL=0
# What stands between cargo and the machine's own compiler, for its lints, is not this one's.
unset RUSTC_WORKSPACE_WRAPPER
cargo=(cargo)
read -ra rustflags <<<"${RUSTFLAGS:-}"
read -ra rustdocflags <<<"${RUSTDOCFLAGS:-}"
options=(--target "$target" --release)
case $way in
    host) ;;
    rustup) use_debian_c_toolchain ;;
    cross)
        # `cross` looks for Cross.toml unless it is told otherwise.
        export CROSS_CONFIG=$PWD/cross.toml
        cargo=(cross)
        ;;
    debian)
        use_debian_c_toolchain
        deploy/install-deps.sh cross-rust
        # A rustup installation comes first in PATH and would not find Debian's standard library.
        export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc
        cargo=(/usr/bin/cargo)
        if sysroot=$(debian_sysroot); then
            say "standard library: Debian's, ${sysroot##*/}"
            rustflags+=(--sysroot "$sysroot")
            rustdocflags+=(--sysroot "$sysroot")
        else
            say "standard library: Debian has none of this version for $debian_arch, compiling it"
            deploy/install-deps.sh cross-rust-src
            # Building the standard library is an unstable option of cargo.
            export RUSTC_BOOTSTRAP=1
            crates=std,panic_unwind,panic_abort
            [ "$action" != test ] || crates+=,test
            options+=("-Zbuild-std=$crates")
        fi
        ;;
    *) die "CROSS_WAY=$way is none of host, rustup, cross, debian" ;;
esac
if [ "$way" != cross ]; then
    # Before the first fetch the registry has no folder. In a container names are the same ones anyway.
    "${cargo[@]}" fetch --quiet --locked
    hide_folders
fi
# Flags are of the target's code alone; they may hold spaces, and have a separator of their own.
separated() { local IFS=$'\x1f'; printf '%s' "$*"; }
[ ${#rustflags[@]} -eq 0 ] || export CARGO_ENCODED_RUSTFLAGS="$(separated "${rustflags[@]}")"
[ ${#rustdocflags[@]} -eq 0 ] || export CARGO_ENCODED_RUSTDOCFLAGS="$(separated "${rustdocflags[@]}")"
"${cargo[@]}" "$action" "${options[@]}" "$@"
if [ "$action" = build ] && command -v "$gnu-objdump" >/dev/null; then
    check_glibc
fi
