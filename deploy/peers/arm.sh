#!/usr/bin/env bash
# The whole network in our kernels, tract, onnxruntime and ncnn on 64-bit ARM, counted under QEMU: deploy/peers/arm.sh [BUNDLE] [KEY]
#
# Counts instructions, and estimates cycles of three cores with deploy/cycles/estimate.py where llvm 22 is there. One run
# is half of the difference between three runs and one, so that Python and the making of the network do not count. First
# `make bench-peers` has to write the networks of the other engines. Fetches their packages for ARM and a Python to run
# them into target/peers/arm, nothing of it is installed; writes target/peers/arm.txt, a line for each engine and core, and with
# cycles target/peers/arm.svg.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly bundle=${1:-models/person.tern} key=${2:-models/default.pub}
readonly out=target/peers arm=target/peers/arm
readonly root=$PWD/$arm/root
readonly packages=(python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libstdc++6 libgcc-s1 zlib1g libexpat1
    libssl3 libffi8 libbz2-1.0 liblzma5 libgomp1)
readonly wheels=(onnxruntime==1.32.0 ncnn==1.0.20261020 numpy==2.4.6 flatbuffers packaging)
readonly engines=(onnxruntime-f32 onnxruntime-int8 ncnn-f32 ncnn-int8)
# QEMU's name of the core, its number in /proc/cpuinfo, its name for deploy/cycles/estimate.py, our kernels for it, and what it has besides.
readonly cores=('cortex-a53 0xd03 a53 neon-in-order' 'cortex-a72 0xd08 a72 neon' 'neoverse-n1 0xd0b a76 neon asimddp')
readonly qemu=${QEMU_AARCH64:-qemu-aarch64}
readonly examples=target-cross/aarch64-unknown-linux-gnu/release/examples

say() { printf 'peers: %s\n' "$*" >&2; }

main() {
    [ -s $out/ncnn-int8.param ] || { say "there is no $out/ncnn-int8.param: \`make bench-peers\` writes it"; exit 66; }
    [ -e "$root/complete" ] || fetch
    export CARGO_PROFILE_RELEASE_LTO=off
    local build=(deploy/cross.sh build aarch64-unknown-linux-gnu --locked)
    "${build[@]}" -p ternwatch-detector --features testing --example network_work
    "${build[@]}" -p quant-tool --example engine_time
    gcc -O2 -shared -fPIC -o $arm/count.so deploy/instructions/count.c
    : >$out/arm.txt
    local core
    for core in "${cores[@]}"; do
        # shellcheck disable=SC2086 # the parts are arguments of their own
        measure_core $core
    done
    ! can_estimate || python3 deploy/peers/arm_chart.py $out/arm.txt $out/arm.svg
}

# Debian's packages and PyPI's wheels for 64-bit ARM, unpacked.
fetch() {
    rm -rf $arm
    mkdir -p $arm/{state/lists/partial,cache/archives/partial,packages,wheels} "$root"/{site,proc}
    touch $arm/state/status
    local apt=(-q -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o Dir::State=$PWD/$arm/state
        -o Dir::State::status=$PWD/$arm/state/status -o Dir::Cache=$PWD/$arm/cache -o APT::Sandbox::User=root)
    apt-get "${apt[@]}" update >&2
    (cd $arm/packages && apt-get "${apt[@]}" download "${packages[@]}" >&2)
    local file
    for file in $arm/packages/*.deb; do dpkg-deb -x "$file" "$root"; done
    $out/venv/bin/pip download -q --no-deps --only-binary=:all: --python-version 3.11 -d $arm/wheels \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 "${wheels[@]}"
    for file in $arm/wheels/*.whl; do $out/venv/bin/python -m zipfile -e "$file" "$root/site"; done
    touch "$root/complete"
}

# measure_core CPU PART CORE ISA [FEATURE]
measure_core() {
    # onnxruntime and tract look there for what the processor can do.
    printf 'processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid %s\nCPU implementer\t: 0x41\n%s\n%s\t: %s\n%s\n\n' \
        "${5:-}" $'CPU architecture: 8\nCPU variant\t: 0x0' 'CPU part' "$2" $'CPU revision\t: 3' >"$root/proc/cpuinfo"
    measure "$1" "$3" ours /usr/aarch64-linux-gnu $examples/network_work "$4" RUNS real "$bundle"
    measure "$1" "$3" tract-f32 "$root" $examples/engine_time tract "$bundle" "$key" RUNS
    local engine
    for engine in "${engines[@]}"; do
        measure "$1" "$3" "$engine" "$root" -E PYTHONHOME="$root/usr" -E PYTHONPATH="$root/site" -E PYTHONDONTWRITEBYTECODE=1 \
            -E OMP_NUM_THREADS=1 "$root/usr/bin/python3.11" deploy/peers/engines.py "$engine" $out RUNS plain
    done
}

# Cycles are estimated where llvm 22 is there (Debian: llvm-22).
can_estimate() { command -v llvm-mca-22 llvm-mc-22 >/dev/null; }

# measure CPU CORE ENGINE ROOT ARGUMENTS: the engine, the core, instructions and, perhaps, cycles of one run.
measure() {
    if can_estimate; then
        deploy/cycles/estimate.py --qemu "$qemu" --cpu "$1" --sysroot "$4" "$2" "${@:5}" |
            awk -v engine="$3" -v core="$2" '{ n[NR] = $2 } END { printf "%s %s %.0f %.0f\n", engine, core, n[1], n[2] }' |
            tee -a $out/arm.txt
        return
    fi
    local one three
    one=$(count "$1" 1 "${@:4}")
    three=$(count "$1" 3 "${@:4}")
    [ -n "$one" ] && [ -n "$three" ] || { say "counting $3 on $2 failed"; exit 70; }
    echo "$3 $2 $(((three - one) / 2))" | tee -a $out/arm.txt
}

# count CPU RUNS ROOT ARGUMENTS: the instructions of the whole process.
count() {
    local arguments=("${@:4}")
    arguments=("${arguments[@]/#RUNS/$2}")
    "$qemu" -cpu "$1" -L "$3" -plugin $arm/count.so "${arguments[@]}" 2>&1 >/dev/null | awk '$1 == "instructions" { print $2 }'
}

main
