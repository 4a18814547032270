#!/usr/bin/env bash
# Builds a package twice, in two folders of different names, and compares the bytes: deploy/reproducible.sh [ARCHITECTURE]
#
# What is committed is built, nothing else. Takes as long as two builds from nothing. (A folder with a space in its name is not for debhelper.)
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'reproducible: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

commit=$(git rev-parse HEAD)
architecture=${1:-$(dpkg --print-architecture)}
work=$PWD/target/reproducible
rm -rf "$work"
for folder in "$work/once" "$work/again/in-another-folder"; do
    mkdir -p "$folder"
    git archive "$commit" | tar -x -C "$folder"
    say "building in $folder"
    (cd "$folder" && deploy/deb.sh ternwatch "$architecture") >"$work/log" 2>&1 || { tail -30 "$work/log" >&2; die "the build failed"; }
done
mapfile -t built < <(find "$work" -path "*/target/deb/ternwatch_*_$architecture.deb" | sort)
[ ${#built[@]} -eq 2 ] || die "expected two packages, found: ${built[*]}"
sha256sum "${built[@]}" | cut -d ' ' -f 1 | sort | uniq -c
if ! cmp -s "${built[@]}"; then
    # Which of the files in them.
    for i in 0 1; do
        dpkg-deb -R "${built[$i]}" "$work/unpacked$i"
    done
    diff -rq "$work/unpacked0" "$work/unpacked1" >&2 || true
    die "the packages differ; they are in $work"
fi
say "the same bytes twice: $(sha256sum <"${built[0]}" | cut -d ' ' -f 1) for $architecture"
rm -rf "$work"
