#!/usr/bin/env bash
# What `[motion]` saves and whether it costs an event: the same videos with and without it.
# deploy/motion.sh [FOLDER] makes them in FOLDER (target/motion); needs ffmpeg, jq and Debian's opencv-doc.
set -euo pipefail
cd "$(dirname "$0")/.."
street=/usr/share/doc/opencv-doc/examples/data/vtest.avi
out=$(realpath -m "${1:-target/motion}")
mkdir -p "$out"
daemon=${TERNWATCHD:-target/release/ternwatchd}
[ -n "${TERNWATCHD:-}" ] || cargo build --release --locked -p ternwatchd
encode=(-c:v libx264 -preset veryfast -crf 26)

make_video() {
    local name=$1
    shift
    [ -e "$out/$name.mp4" ] || {
        ffmpeg -v error -y "$@" -pix_fmt yuv420p "${encode[@]}" "$out/$name.partial.mp4"
        mv "$out/$name.partial.mp4" "$out/$name.mp4"
    }
}

# One picture, as many as the filter leaves of the street, with a camera's noise.
make_still() {
    local name=$1 filter=$2
    [ -e "$out/$name.png" ] || ffmpeg -v error -y -i "$street" -vf "$filter" -frames:v 1 "$out/$name.png"
    make_video "$name" -loop 1 -framerate 10 -i "$out/$name.png" -vf noise=alls=12:allf=t -frames:v 600
}

worn='eq=contrast=0.5:brightness=-0.1,scale=640:480,noise=alls=10:allf=t'
make_video street -i "$street"
make_video lower-left -i "$street" -vf "crop=256:192:0:384,$worn"
make_video lower-right -i "$street" -vf "crop=256:192:512:384,$worn"
make_still empty tmedian=radius=100
make_still standing null

run() {
    TERNWATCH_CAMERA__SOURCE=video TERNWATCH_CAMERA__VIDEO__PATH="$out/$1.mp4" \
        TERNWATCH_CAMERA__VIDEO__PACE=as-fast-as-possible TERNWATCH_PIPELINE__WHEN_BUSY=wait \
        TERNWATCH_MQTT__ENABLED=false TERNWATCH_STDOUT__ENABLED=true \
        TERNWATCH_UPDATE__STATE_DIR="$out/none" \
        TERNWATCH_MODEL__BUNDLE=models/person.tern TERNWATCH_MODEL__KEY=models/default.pub \
        TERNWATCH_MOTION__ENABLED="$2" \
        "$daemon" --config /dev/null >"$out/$1.$2.json" 2>"$out/$1.$2.log"
    # What happened to whom, and when; boxes and scores may differ by the noise of another frame.
    jq -c 'select(.type) | [.type, .track.id, .track.duration_s]' "$out/$1.$2.json" >"$out/$1.$2.events"
}

for name in street lower-left lower-right empty standing; do
    run "$name" false
    run "$name" true
    frames=$(grep -o '[0-9]* frames captured, [0-9]* examined, [0-9]* skipped' "$out/$name.true.log")
    events=$(wc -l <"$out/$name.false.events")
    verdict=different
    cmp -s "$out/$name.false.events" "$out/$name.true.events" && verdict="the same"
    printf '%-12s %s; %s events, %s\n' "$name" "$frames" "$events" "$verdict"
done
