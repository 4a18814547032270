#!/usr/bin/env bash
# Prints what a program is made of, as CycloneDX 1.5: deploy/sbom.sh CRATE TARGET
#
# Names, versions, licences and checksums are those of Cargo.lock and of the libraries' own descriptions.
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -eq 2 ] || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 64; }
crate=$1 target=$2
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
libraries=$(deploy/libraries.sh "$crate" "$target")

# NAME VERSION CHECKSUM of everything that came from a registry.
checksums=$(awk -F '"' '/^name = / { name = $2 } /^version = / { version = $2 } /^checksum = / { print name, version, $2 }' Cargo.lock)

awk -v crate="$crate" -v target="$target" -v version="$version" '
    NR == FNR { checksum[$1 " " $2] = $3; next }
    FNR == 1 {
        print "{"
        print "  \"bomFormat\": \"CycloneDX\","
        print "  \"specVersion\": \"1.5\","
        print "  \"version\": 1,"
        printf "  \"metadata\": { \"component\": { \"type\": \"application\", \"name\": \"%s\", \"version\": \"%s\",\n", crate, version
        printf "    \"properties\": [{ \"name\": \"target\", \"value\": \"%s\" }] } },\n", target
        print "  \"components\": ["
    }
    {
        name = $1; number = $2; licence = $0
        sub(/^[^ ]* [^ ]* /, "", licence)
        # Older descriptions separate a choice of licences by a slash.
        gsub(/\//, " OR ", licence)
        if (FNR > 1) print ","
        printf "    { \"type\": \"library\", \"name\": \"%s\", \"version\": \"%s\", \"purl\": \"pkg:cargo/%s@%s\"", name, number, name, number
        if (licence != "") printf ", \"licenses\": [{ \"expression\": \"%s\" }]", licence
        if ((name " " number) in checksum) printf ", \"hashes\": [{ \"alg\": \"SHA-256\", \"content\": \"%s\" }]", checksum[name " " number]
        printf " }"
    }
    END { print "\n  ]\n}" }
' <(printf '%s\n' "$checksums") <(printf '%s\n' "$libraries")
