#!/usr/bin/env bash
# How well a source is known that was not learned from: models/leave-out.sh DATA KEY SOURCE[,SOURCE...] [PATCHES]
#
# Trains `person` for a quarter of its time (5,000 float, 400 soft and 1,600 hard steps) with nothing of these sources, `none` for with all of them, and
# prints the AP50 of every source in DATA/val, of the float network and of the 2-bit one. PATCHES is `patches` of [augment]. A stopped call goes on.
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -ge 3 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 64; }
readonly data=$1 key=$2 patches=${4:-0}
readonly run=target/leave-out/$3-$patches
IFS=, read -ra sources <<<"$3"

without=()
for source in "${sources[@]}"; do
    [ "$source" = none ] || grep -q "^source_weights.*\b$source = " models/person.toml ||
        { echo "leave-out: models/person.toml has no weight of a source $source" >&2; exit 65; }
    without+=(-e "/^source_weights/s/\b$source = [0-9.]*/$source = 0.0/")
done
mkdir -p "$run"
sed -e 's/^steps = .*/steps = 5000/' -e 's/^soft_steps = .*/soft_steps = 400/' -e 's/^hard_steps = .*/hard_steps = 1600/' \
    -e "s/^noise = .*/&\npatches = $patches/" "${without[@]}" models/person.toml >"$run/recipe.toml"
make train-default MODEL=person RECIPE="$run/recipe.toml" RUN="$run" DATA="$data" KEY="$key"
