#!/usr/bin/env bash
# Prints which libraries of others a program contains, with their licences in full: deploy/licences.sh CRATE TARGET
#
# Licences that are equal to the letter are printed once. Reads what cargo has fetched.
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -eq 2 ] || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 64; }
crate=$1 target=$2
registry=${CARGO_HOME:-$HOME/.cargo}/registry/src
[ -d "$registry" ] || { echo "licences: there are no sources of libraries in $registry: run cargo fetch" >&2; exit 66; }

declare -A users texts
libraries=$(deploy/libraries.sh "$crate" "$target")
while read -r name version licence; do
    mapfile -t files < <(find "$registry"/*/"$name-$version" -maxdepth 1 -type f \
        \( -iname 'licen[sc]e*' -o -iname 'copying*' -o -iname 'notice*' -o -iname 'copyright*' -o -iname 'unlicense*' \) | sort)
    if [ ${#files[@]} -eq 0 ]; then
        # The archive of some has none; what Cargo.toml says is what there is.
        users[none]+="  $name $version ($licence)"$'\n'
        continue
    fi
    for file in "${files[@]}"; do
        sum=$(sha256sum <"$file" | cut -d ' ' -f 1)
        users[$sum]+="  $name $version ($licence)"$'\n'
        texts[$sum]=$file
    done
done <<<"$libraries"

echo "Libraries of others in $crate, and their licences."
if [ -n "${users[none]:-}" ]; then
    printf '\n%s\n\nTheir authors published no text with them; the licence is the one in parentheses:\n\n%s' \
        "$(printf '=%.0s' {1..80})" "${users[none]}"
    unset 'users[none]'
fi
# The order of an associative array is not the same everywhere, that of the libraries is.
for sum in "${!users[@]}"; do
    printf '%s %s\n' "$(head -1 <<<"${users[$sum]}" | tr -s ' ')" "$sum"
done | sort | while read -r line; do
    sum=${line##* }
    printf '\n%s\n\n%s\n' "$(printf '=%.0s' {1..80})" "${users[$sum]}"
    tr -d '\r' <"${texts[$sum]}"
done
