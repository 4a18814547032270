#!/usr/bin/env bash
# Runs the fuzz targets with libFuzzer: deploy/fuzz.sh SECONDS [TARGET...]
#
# SECONDS is the time for all of them together, an equal part each. The flags are those of `cargo fuzz build -s none`: coverage is a pass of LLVM's that
# the stable toolchain has too. What is found while it runs goes to target-fuzz/corpus, what fails to target-fuzz/.
set -euo pipefail

cd "$(dirname "$0")/.."
seconds=${1:?SECONDS [TARGET...]}
shift
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
    for file in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
host=$(rustc -vV | sed -n 's/^host: //p')
out=$PWD/target-fuzz

passes="-Cpasses=sancov-module"
for option in -sanitizer-coverage-level=4 -sanitizer-coverage-inline-8bit-counters -sanitizer-coverage-pc-table \
    -sanitizer-coverage-trace-compares -simplifycfg-branch-fold-threshold=0; do
    passes+=" -Cllvm-args=$option"
done
passes+=" -Ccodegen-units=1 -Cdebug-assertions --cfg fuzzing"
# The dependencies are those that ship.
cp Cargo.lock fuzz/Cargo.lock
# With --target only what is fuzzed is compiled so, and no build script.
CARGO_TARGET_DIR=$out RUSTFLAGS=$passes ${CARGO:-cargo} build --release --target "$host" --manifest-path fuzz/Cargo.toml --bins

for target in "${targets[@]}"; do
    mkdir -p "$out/corpus/$target"
    printf 'fuzz: %s\n' "$target" >&2
    "$out/$host/release/$target" "$out/corpus/$target" "fuzz/corpus/$target" -artifact_prefix="$out/$target-" \
        -max_total_time=$(((seconds + ${#targets[@]} - 1) / ${#targets[@]})) -rss_limit_mb=512 -timeout=10 \
        -print_final_stats=1
done
