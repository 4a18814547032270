#!/usr/bin/env bash
# How well a source is known that was not learned from: models/leave-out.sh DATA KEY SOURCE[,SOURCE...] [NAME=VALUE[,NAME=VALUE...]]
#
# Trains `person` for a sixth of its steps (5,000 float, 400 soft and 1,600 hard steps) with nothing of these sources, `none` for with all of them, and
# prints the AP50 of every source in DATA/val, of the float network and of the 2-bit one. NAME=VALUE are other settings of [augment], numbers like
# patches=0.5. A stopped call goes on.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 64; }
data=$(realpath "$1")
key=$(realpath "$2")
readonly data key others=${4:-}
cd "$(dirname "$0")/.."
readonly run=target/leave-out/$3${others:+-$others}
IFS=, read -ra sources <<<"$3"
IFS=, read -ra settings <<<"$others"

changes=()
for source in "${sources[@]}"; do
    [ "$source" = none ] || grep -q "^source_weights.*\b$source = " models/person.toml ||
        { echo "leave-out: models/person.toml has no weight of a source $source" >&2; exit 65; }
    changes+=(-e "/^source_weights/s/\b$source = [0-9.]*/$source = 0.0/")
done
for setting in "${settings[@]}"; do
    [[ $setting =~ ^[a-z_]+=[0-9.]+$ ]] || { echo "leave-out: $setting is no NAME=VALUE" >&2; exit 64; }
    name=${setting%=*}
    # In place of what the recipe says of it.
    changes+=(-e "/^\[augment\]/,/^\[card\]/{/^$name = /d}" -e "s/^\[augment\].*/&\n$name = ${setting#*=}/")
done
mkdir -p "$run"
sed -e 's/^steps = .*/steps = 5000/' -e 's/^soft_steps = .*/soft_steps = 400/' -e 's/^hard_steps = .*/hard_steps = 1600/' \
    "${changes[@]}" models/person.toml >"$run/recipe.toml"
make train-default MODEL=person RECIPE="$run/recipe.toml" RUN="$run" DATA="$data" KEY="$key"
