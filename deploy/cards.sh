#!/usr/bin/env bash
# Writes models/NAME.md, NAME.svg and NAME-failures.jpg for every model that ships: deploy/cards.sh QUANT_TOOL [VIDEO]
#
# The failures are those in the frames of VIDEO (vtest.avi of Debian's opencv-doc) that models/street/annotations.json speaks of: twelve, with 77 people who
# stand apart, beside each other, behind a sign and far away.
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -ge 1 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 64; }
readonly tool=$1 video=${2:-/usr/share/doc/opencv-doc/examples/data/vtest.avi} street=target/street
readonly caption="Of twelve frames of a street video that it has not learned from (vtest.avi of Debian's opencv-doc), labelled by hand in [street](street/annotations.json), those with most mistakes."
rm -rf "$street"
mkdir -p "$street/images"
cp models/street/annotations.json "$street/"
frames=$(grep -o 'frame-[0-9]*' models/street/annotations.json | cut -d- -f2)
for frame in $frames; do
    ffmpeg -nostdin -v error -i "$video" -vf "select=eq(n\\,$frame)" -frames:v 1 "$street/images/frame-$frame.png"
    [ -s "$street/images/frame-$frame.png" ] || { echo "cards: $video has no frame $frame" >&2; exit 66; }
done
for bundle in models/*.tern; do
    name=$(basename "$bundle" .tern)
    "$tool" evaluate --bundle "$bundle" --data "$street" --failures "models/$name-failures.jpg"
    "$tool" card --bundle "$bundle" --picture "$name-failures.jpg" --caption "$caption" --out models
done
