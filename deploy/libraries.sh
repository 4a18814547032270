#!/usr/bin/env bash
# Prints NAME VERSION LICENCE of every library of others that a program contains: deploy/libraries.sh CRATE TARGET
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -eq 2 ] || { sed -n '2s/^# //p' "$0" >&2; exit 64; }

# Libraries of our own have a path at the end; procedural macros are used by the compiler only.
cargo tree --locked --package "$1" --edges normal --target "$2" --prefix none --format '{p}|{l}' |
    grep -v -e '(/' -e '(proc-macro)' | sed 's/ (\*)$//; s/^\([^ ]*\) v\([^ |]*\)[^|]*|/\1 \2 /' | sort -u
