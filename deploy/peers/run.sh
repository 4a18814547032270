#!/usr/bin/env bash
# The whole network in our kernels, tract, onnxruntime and ncnn, side by side: builds, installs from PyPI into
# target/peers/venv, measures, writes target/peers/peers.{md,json,svg}. Arguments: [BUNDLE] [KEY] [ROUNDS].
set -euo pipefail
cd "$(dirname "$0")/../.."
bundle=${1:-models/person.tern} key=${2:-models/default.pub} rounds=${3:-5}
out=target/peers

cargo build --profile train --locked -p quant-tool --bin quant-tool --example engine_time
if [ ! -x $out/venv/bin/python ]; then
    python3 -m venv $out/venv
    $out/venv/bin/pip install --quiet onnx==1.23.2 onnxruntime==1.32.0 ncnn==1.0.20261020 numpy
fi
target/train/quant-tool onnx --bundle "$bundle" --key "$key" --folded --out $out/folded.onnx
$out/venv/bin/python deploy/peers/run.py target/train/examples/engine_time "$bundle" "$key" $out/folded.onnx $out "$rounds"
