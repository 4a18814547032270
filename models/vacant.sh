#!/usr/bin/env bash
# False alarms in a room where nobody is: models/vacant.sh VIDEO [QUANT_TOOL]
#
# VIDEO is `one-by-one-person-detection.mp4` of Intel's sample videos (CC BY 4.0), where people come one after the other to a table. The frames between
# them are what the models that ship look at.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 64; }
video=$(realpath "$1")
cd "$(dirname "$0")/.."
readonly tool=${2:-target/train/quant-tool} folder=target/vacant
# First and last of each stretch, as seen; counted from 0.
readonly stretches=(0,58 212,226 462,490 714,744 882,912 1216,1234 1374,1393)

rm -rf "$folder"
mkdir -p "$folder/images"
select=$(printf '+between(n,%s)' "${stretches[@]}")
ffmpeg -nostdin -v error -i "$video" -vf "select='${select#+}'" -fps_mode passthrough "$folder/images/%03d.png"
images=$(cd "$folder/images" && printf '{"id":%d,"file_name":"%s"}\n' $(ls | awk '{ print NR, $0 }') | paste -sd,)
echo "{\"categories\":[{\"id\":1,\"name\":\"person\"}],\"annotations\":[],\"images\":[$images]}" >"$folder/annotations.json"
for bundle in models/*.tern; do
    "$tool" evaluate --bundle "$bundle" --data "$folder" | grep -E 'version|regions'
done
