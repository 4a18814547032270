#!/usr/bin/env bash
# Judges what a model finds by pycocotools, COCO's own program, beside quant-tool evaluate: deploy/coco/check.sh DATA [BUNDLE [KEY]]
# DATA is a folder that quant-tool evaluate takes. Installs pycocotools from PyPI into target/coco/venv.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ $# -ge 1 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 64; }
data=$1 bundle=${2:-models/person.tern} key=${3:-models/default.pub}
out=target/coco
cargo build --profile train --locked -p quant-tool
if [ ! -x $out/venv/bin/python ]; then
    python3 -m venv $out/venv
    $out/venv/bin/pip install --quiet pycocotools==2.0.11
fi
target/train/quant-tool evaluate --bundle "$bundle" --key "$key" --data "$data" --json --coco $out >$out/ours.json
$out/venv/bin/python deploy/coco/check.py $out
