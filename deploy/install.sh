#!/usr/bin/env bash
# Installs Ternwatch on a Raspberry Pi or another Debian machine: deploy/install.sh PACKAGE.deb
#
# Checks that the package fits, installs it, asks for the broker and the camera, and shows how the service does.
# Settings that are there already are shown and stay if you press return. Nothing is asked without a terminal.
set -euo pipefail

config=/etc/ternwatch/ternwatch.toml
password_file=/etc/ternwatch/mqtt-password
drop_in=/etc/systemd/system/ternwatch.service.d

say() { printf '%s\n' "$*"; }
die() { printf 'install: %s\n' "$*" >&2; exit 1; }

[ $# -eq 1 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 64; }
package=$(realpath -e "$1") || die "there is no file $1"
command -v apt-get >/dev/null || die "this is neither Raspberry Pi OS nor another Debian: there is no apt"
[ -d /run/systemd/system ] || die "this system is not run by systemd, which the service needs"

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "only root may install: run this as root"
    as_root=(sudo)
fi

# The package must be for this machine, and this machine must be able to run it.
[ "$(dpkg-deb -f "$package" Package)" = ternwatch ] || die "$package is not the package ternwatch"
here=$(dpkg --print-architecture)
for_what=$(dpkg-deb -f "$package" Architecture)
[ "$for_what" = "$here" ] || die "$package is for $for_what, this system is $here: take the package whose name ends in _$here.deb"
case $(uname -m) in
    armv6l) die "this board's processor (ARMv6) is too old: Ternwatch needs a Pi 2 or newer, or a Zero 2" ;;
esac
# The first argument of `sort -V` that is the oldest: at least glibc 2.36.
glibc=$(getconf GNU_LIBC_VERSION | cut -d ' ' -f 2)
[ "$(printf '%s\n' 2.36 "$glibc" | sort -V | head -1)" = 2.36 ] ||
    die "this system has glibc $glibc, Ternwatch needs 2.36 (Debian 12, Raspberry Pi OS of 2023)"

say "Installing $(basename "$package")"
"${as_root[@]}" apt-get update -q -o Acquire::Retries=0 -o Acquire::http::Timeout=15 || say "The package lists are not to be had: trying with those that are there"
# Without a terminal nobody answers dpkg, which asks what to keep of changed settings: what is there.
keep=()
[ -t 0 ] || keep=(-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold)
"${as_root[@]}" apt-get install -y "${keep[@]}" "$package"

# The value of a key in a section of the settings, as TOML has it.
setting() {
    awk -v section="[$1]" -v key="$2" '
        /^\[/ { inside = ($0 == section) }
        inside && $1 == key && $2 == "=" { sub(/^[^=]*= */, ""); print; exit }' <("${as_root[@]}" cat "$config")
}

# Replaces the value of a key that is there; every key is in the packaged settings.
set_setting() {
    local changed
    changed=$(mktemp)
    awk -v section="[$1]" -v key="$2" -v value="$3" '
        /^\[/ { inside = ($0 == section) }
        inside && $1 == key && $2 == "=" && !done { print key " = " value; done = 1; next }
        { print }
        END { exit !done }' <("${as_root[@]}" cat "$config") >"$changed" || die "$config has no $2 in [$1]: set it by hand"
    # Written in place: owner and mode stay.
    "${as_root[@]}" tee "$config" <"$changed" >/dev/null
    rm "$changed"
}

# A text as TOML has it. What would need escapes is no host, device or address.
quoted() {
    case $1 in
        *[\"\\]* | *[[:cntrl:]]*) die "quotes, backslashes and control characters are not possible here: set it in $config" ;;
    esac
    printf '"%s"' "$1"
}

# Asks for the value of a setting, which is written as `form` (quoted, number or yes_no) makes it; return keeps it.
ask() {
    local section=$1 key=$2 question=$3 form=${4:-quoted} before answer value
    before=$(setting "$section" "$key")
    read -r -p "$question [$before] " answer
    [ -n "$answer" ] || return 0
    # On a line of its own: a refusal has to end the script.
    value=$("$form" "$answer")
    set_setting "$section" "$key" "$value"
}

number() {
    case $1 in
        *[!0-9]*) die "$1 is not a number" ;;
    esac
    printf '%s' "$1"
}

yes_no() {
    case ${1,,} in
        y | yes | true) printf true ;;
        n | no | false) printf false ;;
        *) die "$1 is neither yes nor no" ;;
    esac
}

# Asks for the broker's password, without showing it; return keeps the one of before. It goes into a file that only root can
# read, and that the service manager hands to the service.
ask_password() {
    local before=none answer
    "${as_root[@]}" test ! -e "$password_file" || before="as before"
    read -r -s -p "Password: [$before] " answer
    say
    if [ -n "$answer" ]; then
        printf '%s\n' "$answer" | "${as_root[@]}" install -m 600 /dev/stdin "$password_file"
        "${as_root[@]}" install -d -m 755 "$drop_in"
        printf '[Service]\nLoadCredential=mqtt-password:%s\n' "$password_file" | "${as_root[@]}" install -m 644 /dev/stdin "$drop_in/mqtt-password.conf"
        "${as_root[@]}" systemctl daemon-reload
        set_setting mqtt password_file '"mqtt-password"'
    fi
}

# The doctor, with the rights of the service and the credentials that it gets.
examine() {
    local options=(--quiet --collect --pipe --wait -p User=ternwatch -p SupplementaryGroups=video) credential
    while read -r credential; do
        options+=(-p "LoadCredential=$credential")
    done < <(systemctl cat ternwatch | sed -n 's/^LoadCredential=//p')
    "${as_root[@]}" systemd-run "${options[@]}" ternwatchd doctor
}

if [ -t 0 ]; then
    say
    ask device id "Name of this device, if not the host's:"
    say
    say "Events go to an MQTT broker. \`sudo apt install mosquitto\` makes this machine one: then it is localhost."
    ask mqtt host "Broker:"
    ask mqtt port "Port:" number
    ask mqtt username "User, if it wants to know one:"
    [ "$(setting mqtt username)" = '""' ] || ask_password
    ask home_assistant enabled "Does Home Assistant use this broker (yes or no)?" yes_no
    say
    say "Cameras that are here:"
    found=no
    for link in /dev/v4l/by-id/*-index0; do
        [ -e "$link" ] || continue
        found=yes
        say "  $link -> $(realpath "$link")"
    done
    [ "$found" = yes ] || say "  no USB camera"
    say "v4l2 is a USB camera, rtsp one in the network, rpicam one on the ribbon connector."
    ask camera source "Kind of camera:"
    case $(setting camera source) in
        '"v4l2"') ask camera.v4l2 device "Device:" ;;
        '"rtsp"') ask camera.rtsp url "Address (rtsp://...):" ;;
        '"rpicam"') command -v rpicam-vid >/dev/null || say "This needs a program: sudo apt install rpicam-apps" ;;
        *) ;;
    esac
fi

"${as_root[@]}" ternwatchd check-config >/dev/null || die "mend $config and run \`sudo systemctl restart ternwatch\`"
"${as_root[@]}" systemctl restart ternwatch || true
say
say "What the board has to say (ternwatchd doctor):"
examine || true
say
systemctl --no-pager --lines=5 status ternwatch || true
say
say "\`journalctl -fu ternwatch\` shows what it does; settings are in $config."
