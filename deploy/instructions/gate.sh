#!/usr/bin/env bash
# Counts the instructions that the networks which ship and the making of their inputs take, and fails where they became more:
# deploy/instructions/gate.sh
#
#   (no argument)  compares with deploy/instructions/expected.txt, fails at 2 % more
#   --whole        also fails where a count that is expected there was not taken
#   --update       writes the counts there
#
# Counts do not depend on how busy a machine is, unlike times. One run is half of the difference between three
# runs and one, so that building layers and tables does not count. For ARM it takes Debian's qemu-user (not the static one, which
# takes no plugins; QEMU_AARCH64 and QEMU_ARM name others) and deploy/cross.sh, for x86-64 valgrind. What is missing is skipped
# with a message, unless the whole is asked for: `deploy/install-deps.sh gate` installs all of it.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly expected=deploy/instructions/expected.txt
# Model whose layers run, and how many in a hundred of the drawn weights are zero: its own ones would change with every training.
readonly networks=(person-50 person-65 person-lite-50)
# Format and size of the frame, size of the input.
readonly frames=(YUYV-640x480-320x240 YUYV-640x480-384x288 YUYV-1280x720-320x240 YUYV-1280x720-384x288
    NV12-640x480-320x240 NV12-640x480-384x288 NV12-1280x720-320x240 NV12-1280x720-384x288
    RGB8-640x480-320x240 RGB8-640x480-384x288)
readonly more_max_percent=2
readonly arm64=aarch64-unknown-linux-gnu
readonly arm32=armv7-unknown-linux-gnueabihf
readonly examples=(--locked -p ternwatch-detector --features testing --example network_work --example preprocess_work)
# What computes is in two crates, whose optimization is fixed in Cargo.toml: optimization across crates would only take time.
export CARGO_PROFILE_RELEASE_LTO=off
# Clippy in the compiler's place optimizes less.
unset RUSTC_WORKSPACE_WRAPPER

say() { printf 'gate: %s\n' "$*" >&2; }

case ${1:-} in
    '') update=false whole=false ;;
    --whole) update=false whole=true ;;
    --update) update=true whole=false ;;
    *) sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# count_COUNTER PROGRAM ARGUMENTS: the instructions of a whole process. A fixed model of a processor, because the C library
# chooses its functions by it.
count_arm64() { count_qemu "$qemu64" cortex-a72 aarch64-linux-gnu "$arm64" "$@"; }
count_arm32() { count_qemu "$qemu32" cortex-a7 arm-linux-gnueabihf "$arm32" "$@"; }
count_qemu() {
    "$1" -cpu "$2" -L "/usr/$3" -plugin "$work/count.so" "target-cross/$4/release/examples/$5" "${@:6}" 2>&1 >/dev/null |
        awk '$1 == "instructions" { print $2 }'
}
count_valgrind() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "target/release/examples/$1" "${@:2}" 2>&1 >/dev/null |
        awk '$2 == "Collected" { print $4 }'
}

# measure_one COUNTER PROGRAM ISA NAME ARGUMENTS: one line.
measure_one() {
    local one three
    # Side by side: counting takes one core, and nobody's time is measured.
    "count_$1" "$2" "$3" 1 "${@:5}" >"$work/one" &
    three=$("count_$1" "$2" "$3" 3 "${@:5}")
    wait $!
    one=$(<"$work/one")
    [ -n "$one" ] && [ -n "$three" ] || { say "counting $3 failed"; exit 70; }
    printf '%s %s %s\n' "$3" "$4" $(((three - one) / 2)) | tee -a "$work/found"
}

# measure_networks COUNTER ISA, measure_input COUNTER ISA: a line for each network, or for each kind of frames.
measure_networks() {
    local network
    for network in "${networks[@]}"; do
        measure_one "$1" network_work "$2" "$network" "${network##*-}" "models/${network%-*}.tern"
    done
}
measure_input() {
    local frame
    for frame in "${frames[@]}"; do
        # shellcheck disable=SC2046 # the parts are arguments of their own
        measure_one "$1" preprocess_work "$2" "$frame" $(tr x- '  ' <<<"$frame")
    done
}

# can_count NAME COMPILER QEMU: whether programs of that ARM can be built and counted here; says why not.
can_count() {
    if ! command -v "$2" >/dev/null; then
        say "skipped $1: there is no $2"
    elif ! "$3" --help 2>/dev/null | grep -q -- -plugin; then
        say "skipped $1: there is no ${3##*/} that takes plugins"
    elif ! gcc -O2 -shared -fPIC -o "$work/count.so" deploy/instructions/count.c; then
        say "skipped $1: the plugin cannot be built"
    else
        return 0
    fi
    return 1
}

: >"$work/found"
qemu64=${QEMU_AARCH64:-qemu-aarch64} qemu32=${QEMU_ARM:-qemu-arm}
if can_count "64-bit ARM" aarch64-linux-gnu-gcc "$qemu64"; then
    deploy/cross.sh build "$arm64" "${examples[@]}"
    measure_networks arm64 neon
    measure_networks arm64 neon-in-order
    measure_input arm64 neon
fi
if can_count "32-bit ARM" arm-linux-gnueabihf-gcc "$qemu32"; then
    deploy/cross.sh build "$arm32" "${examples[@]}"
    measure_networks arm32 neon32
    measure_input arm32 neon32
fi
if [ "$(uname -m)" != x86_64 ]; then
    say "skipped x86-64: this machine is none"
elif ! grep -qw avx2 /proc/cpuinfo; then
    say "skipped x86-64: this processor has no AVX2"
elif ! command -v valgrind >/dev/null; then
    say "skipped x86-64: there is no valgrind"
else
    "${CARGO:-cargo}" build --release "${examples[@]}"
    measure_networks valgrind avx2
    measure_input valgrind avx2
fi

if $update; then
    [ -e "$expected" ] || : >"$expected"
    {
        echo "# ISA, model and its zero weights in percent, or a frame and the size of the input that is made of it, instructions of one"
        echo "# run: made by deploy/instructions/gate.sh --update"
        # What could not be counted here stays as it was.
        cat "$work/found" "$expected" | awk '!/^#/ && !seen[$1, $2]++'
    } >"$work/expected"
    mv "$work/expected" "$expected"
    say "wrote $expected"
    exit
fi
awk -v more_max="$more_max_percent" -v whole="$whole" '
    /^#/ { next }
    NR == FNR { expected[$1, $2] = $3; next }
    !(($1, $2) in expected) { print "gate: no figure for " $1 ", " $2; failed = 1; next }
    {
        counted[$1, $2] = 1
        more = 100 * ($3 / expected[$1, $2] - 1)
        printf "gate: %s, %s: %d instructions, %+.2f %%\n", $1, $2, $3, more
        if (more > more_max) { printf "gate: more than %s %% above %d\n", more_max, expected[$1, $2]; failed = 1 }
    }
    END {
        for (line in expected) if (!(line in counted)) {
            split(line, name, SUBSEP)
            print "gate: not counted: " name[1] ", " name[2]
            if (whole == "true") failed = 1
        }
        exit failed
    }' "$expected" "$work/found" >&2
