#!/usr/bin/env bash
# Counts the instructions that the default network and the making of its input take, and fails where they became more:
# deploy/instructions/gate.sh
#
#   (no argument)  compares with deploy/instructions/expected.txt, fails at 2 % more
#   --update       writes the counts there
#
# Counts do not depend on how busy a machine is, unlike times. One run is half of the difference between three
# runs and one, so that building layers and tables does not count. For 64-bit ARM it takes Debian's qemu-user (not the static one, which
# takes no plugins; QEMU_AARCH64 names another) and deploy/cross.sh, for x86-64 valgrind. What is missing is skipped
# with a message: `deploy/install-deps.sh gate` installs all of it.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly expected=deploy/instructions/expected.txt
readonly zeros_percent=(50 65)
# Format and size of the frame, size of the input.
readonly frames=(YUYV-640x480-320x240 YUYV-640x480-384x288 YUYV-1280x720-320x240 YUYV-1280x720-384x288
    NV12-640x480-320x240 NV12-640x480-384x288 NV12-1280x720-320x240 NV12-1280x720-384x288
    RGB8-640x480-320x240 RGB8-640x480-384x288)
readonly more_max_percent=2
readonly arm=aarch64-unknown-linux-gnu
readonly examples=(--locked -p ternwatch-kernels -p ternwatch-detector --features ternwatch-detector/testing
    --example network_work --example preprocess_work)
# What computes is in one crate: optimization across crates would only take time.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 CARGO_PROFILE_RELEASE_OPT_LEVEL=3

say() { printf 'gate: %s\n' "$*" >&2; }

case ${1:-} in
    '') update=false ;;
    --update) update=true ;;
    *) sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# count_COUNTER PROGRAM ARGUMENTS: the instructions of a whole process.
count_qemu() {
    # A fixed model, because the C library chooses its functions by the processor.
    "$qemu" -cpu cortex-a72 -L /usr/aarch64-linux-gnu -plugin "$work/count.so" \
        "target-cross/$arm/release/examples/$1" "${@:2}" 2>&1 >/dev/null | awk '$1 == "instructions" { print $2 }'
}
count_valgrind() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "target/release/examples/$1" "${@:2}" 2>&1 >/dev/null |
        awk '$2 == "Collected" { print $4 }'
}

# measure_one COUNTER PROGRAM ISA NAME ARGUMENTS: one line.
measure_one() {
    local one three
    one=$("count_$1" "$2" "$3" 1 "${@:5}")
    three=$("count_$1" "$2" "$3" 3 "${@:5}")
    [ -n "$one" ] && [ -n "$three" ] || { say "counting $3 failed"; exit 70; }
    printf '%s %s %s\n' "$3" "$4" $(((three - one) / 2)) | tee -a "$work/found"
}

# measure_network COUNTER ISA, measure_input COUNTER ISA: a line for each share of zeros, or for each kind of frames.
measure_network() {
    local zeros
    for zeros in "${zeros_percent[@]}"; do measure_one "$1" network_work "$2" "$zeros" "$zeros"; done
}
measure_input() {
    local frame
    for frame in "${frames[@]}"; do
        # shellcheck disable=SC2046 # the parts are arguments of their own
        measure_one "$1" preprocess_work "$2" "$frame" $(tr x- '  ' <<<"$frame")
    done
}

: >"$work/found"
qemu=${QEMU_AARCH64:-qemu-aarch64}
if ! command -v aarch64-linux-gnu-gcc >/dev/null; then
    say "skipped 64-bit ARM: there is no aarch64-linux-gnu-gcc"
elif ! "$qemu" --help 2>/dev/null | grep -q -- -plugin; then
    say "skipped 64-bit ARM: there is no qemu-aarch64 that takes plugins"
elif ! gcc -O2 -shared -fPIC -o "$work/count.so" deploy/instructions/count.c; then
    say "skipped 64-bit ARM: the plugin cannot be built"
else
    deploy/cross.sh build "$arm" "${examples[@]}"
    measure_network qemu neon
    measure_network qemu neon-in-order
    measure_input qemu neon
fi
if [ "$(uname -m)" != x86_64 ]; then
    say "skipped x86-64: this machine is none"
elif ! grep -qw avx2 /proc/cpuinfo; then
    say "skipped x86-64: this processor has no AVX2"
elif ! command -v valgrind >/dev/null; then
    say "skipped x86-64: there is no valgrind"
else
    "${CARGO:-cargo}" build --release "${examples[@]}"
    measure_network valgrind avx2
    measure_input valgrind avx2
fi

if $update; then
    [ -e "$expected" ] || : >"$expected"
    {
        echo "# ISA, zero weights of the default network in percent, or a frame and the size of the input that is made of it,"
        echo "# instructions of one run: made by deploy/instructions/gate.sh --update"
        # What could not be counted here stays as it was.
        cat "$work/found" "$expected" | awk '!/^#/ && !seen[$1, $2]++'
    } >"$work/expected"
    mv "$work/expected" "$expected"
    say "wrote $expected"
    exit
fi
awk -v more_max="$more_max_percent" '
    /^#/ { next }
    NR == FNR { expected[$1, $2] = $3; next }
    !(($1, $2) in expected) { print "gate: no figure for " $1 ", " $2; failed = 1; next }
    {
        more = 100 * ($3 / expected[$1, $2] - 1)
        printf "gate: %s, %s: %d instructions, %+.2f %%\n", $1, $2 ~ /^[0-9]+$/ ? $2 " % zeros" : $2, $3, more
        if (more > more_max) { printf "gate: more than %s %% above %d\n", more_max, expected[$1, $2]; failed = 1 }
    }
    END { exit failed }' "$expected" "$work/found" >&2
