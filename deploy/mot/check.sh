#!/usr/bin/env bash
# How well people are followed through sequences of MOTChallenge (motchallenge.net): deploy/mot/check.sh FOLDER [BUNDLE [KEY]]
# FOLDER holds sequences, each with seqinfo.ini, img1/, det/det.txt and gt/gt.txt. Prints MOTA, IDF1 and identity switches, by
# py-motmetrics from PyPI (into target/mot/venv), of model and tracker, and of the tracker on the benchmark's own detections;
# only one of both where img1/ or det/ is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ $# -ge 1 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 64; }
data=$1 bundle=${2:-models/person.tern} key=${3:-models/default.pub}
out=target/mot
cargo build --release --locked -p ternwatchd --example mot
if [ ! -x $out/venv/bin/python ]; then
    python3 -m venv $out/venv
    $out/venv/bin/pip install --quiet motmetrics==1.4.0 'numpy<2'
fi
rm -rf $out/model $out/detections
mkdir -p $out/model $out/detections
for sequence in "$data"/*/seqinfo.ini; do
    sequence=$(dirname "$sequence")
    name=$(basename "$sequence")
    [ ! -d "$sequence/img1" ] || target/release/examples/mot "$sequence" "$out/model/$name.txt" "$bundle" "$key"
    [ ! -e "$sequence/det/det.txt" ] || target/release/examples/mot "$sequence" "$out/detections/$name.txt" --detections
done
for kind in model detections; do
    compgen -G "$out/$kind/*.txt" >/dev/null || continue
    printf '\n%s\n' "$kind"
    $out/venv/bin/python deploy/mot/check.py "$data" $out/$kind
done
