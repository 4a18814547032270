#!/usr/bin/env bash
# Installs, upgrades, removes and purges the package of target/deb/ in a fresh Debian 12, and runs the programs of the
# packages for ARM under qemu: deploy/test-deb.sh [ARCHITECTURE...]
#
# Needs root. The fresh system is made by mmdebstrap once and kept as target/deb-test/root.tar.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'test-deb: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[ "$(id -u)" -eq 0 ] || die "only root may enter another root folder"
here=$(dpkg --print-architecture)
version=$(dpkg-parsechangelog -S Version)
work=$PWD/target/deb-test
root=$work/root
[ $# -gt 0 ] || set -- "$here"
for architecture; do
    [ -e "target/deb/ternwatch_${version}_$architecture.deb" ] || die "no package for $architecture: \`make deb\` builds them"
done
mkdir -p "$work"

# A program in the fresh system, with its own mounts.
inside() {
    unshare --mount --pid --fork --mount-proc="$root/proc" \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive chroot "$root" "$@"
}

as_ternwatch() { inside setpriv --reuid=ternwatch --regid=ternwatch --init-groups "$@"; }

# Fails unless a file or folder has this owner, group and mode.
expect() {
    local found
    found=$(inside stat -c '%U:%G %a' "$2") || die "$2 is not there"
    [ "$found" = "$1" ] || die "$2 has $found, expected $1"
}

# What is there, without what dpkg itself notes down.
inventory() {
    (cd "$root" && find . -xdev \( -path ./proc -o -path ./var/lib/dpkg -o -path ./var/log -o -path ./var/cache -o -path ./run \) \
        -prune -o -print | sort)
}

# A package of the next version, whose configuration has one more line.
next_package() {
    local folder=$work/next
    rm -rf "$folder"
    dpkg-deb -R "$1" "$folder"
    sed -i "s/^Version: .*/Version: $version+next/" "$folder/DEBIAN/control"
    echo '# The next version explains more.' >>"$folder/etc/ternwatch/ternwatch.toml"
    dpkg-deb --root-owner-group -b "$folder" "$work/next.deb" >/dev/null
    rm -rf "$folder"
}

test_fresh_system() {
    local deb=target/deb/ternwatch_${version}_$here.deb
    if [ ! -e "$work/root.tar" ]; then
        say "making a fresh Debian 12"
        mmdebstrap --quiet --variant=minbase --include=systemd,libgcc-s1,libc6 bookworm "$work/root.part.tar"
        mv "$work/root.part.tar" "$work/root.tar"
    fi
    rm -rf "$root"
    mkdir -p "$root"
    tar -C "$root" -xf "$work/root.tar" --exclude='./dev/*'
    mkdir -p "$root/dev" "$root/proc"
    : >"$root/dev/null"
    chmod 666 "$root/dev/null"
    cp "$deb" "$root/ternwatch.deb"
    next_package "$deb"
    cp "$work/next.deb" "$root/next.deb"
    inventory >"$work/before"

    say "install"
    inside dpkg -i /ternwatch.deb >"$work/log" 2>&1 || { cat "$work/log" >&2; die "it does not install"; }
    expect "root:root 755" /usr/bin/ternwatchd
    expect "root:ternwatch 640" /etc/ternwatch/ternwatch.toml
    expect "root:root 644" /usr/lib/ternwatch/models/person.tern
    expect "root:root 644" /usr/lib/ternwatch/models/person-lite.tern
    expect "root:root 644" /usr/lib/ternwatch/keys/default.pub
    expect "root:root 644" /lib/systemd/system/ternwatch.service
    [ -L "$root/etc/systemd/system/multi-user.target.wants/ternwatch.service" ] || die "the service is not enabled"
    inside id ternwatch | grep -q '(video)' || die "the user ternwatch is not in the group video"
    inside systemd-analyze verify ternwatch.service 2>&1 | grep -v -e RestartSteps -e RestartMaxDelaySec -e '^$' >"$work/verify" || true
    [ ! -s "$work/verify" ] || { cat "$work/verify" >&2; die "systemd does not like the unit"; }
    inside ternwatchd --version
    as_ternwatch ternwatchd check-config >/dev/null || die "the packaged configuration is refused"
    # The service manager makes the folder at the first start.
    inside install -d -o ternwatch -g ternwatch -m 700 /var/lib/ternwatch
    as_ternwatch ternwatchd model list | tee "$work/models"
    [ -s "$work/models" ] || die "no model is listed"

    # A fresh system has neither a camera nor a broker, and is told how to name them.
    local code=0
    as_ternwatch ternwatchd doctor >"$work/doctor" || code=$?
    cat "$work/doctor"
    [ "$code" = 66 ] || die "the doctor ends with $code, expected 66 for a missing camera"
    grep -q '^fail  camera  .*/dev/video0' "$work/doctor" || die "the doctor does not say which camera is missing"
    grep -q -- '-> .*camera.v4l2.device' "$work/doctor" || die "the doctor does not say how to name a camera"
    grep -q '^ok    model ' "$work/doctor" || die "the model does not run here"

    say "upgrade"
    echo '# Mine.' >>"$root/etc/ternwatch/ternwatch.toml"
    echo kept >"$root/var/lib/ternwatch/mine"
    inside dpkg -i --force-confold /next.deb >"$work/log" 2>&1 || { cat "$work/log" >&2; die "it does not upgrade"; }
    grep -q '^# Mine\.$' "$root/etc/ternwatch/ternwatch.toml" || die "an upgrade lost what was written in the configuration"
    grep -q kept "$root/var/lib/ternwatch/mine" || die "an upgrade lost the state"
    [ -L "$root/etc/systemd/system/multi-user.target.wants/ternwatch.service" ] || die "an upgrade disabled the service"

    say "remove"
    inside dpkg -r ternwatch >"$work/log" 2>&1 || { cat "$work/log" >&2; die "it cannot be removed"; }
    [ ! -e "$root/usr/bin/ternwatchd" ] || die "the program is still there"
    grep -q '^# Mine\.$' "$root/etc/ternwatch/ternwatch.toml" || die "removal lost the configuration"
    [ -e "$root/var/lib/ternwatch/mine" ] || die "removal lost the state"

    say "purge"
    inside dpkg -P ternwatch >"$work/log" 2>&1 || { cat "$work/log" >&2; die "it cannot be purged"; }
    inventory >"$work/after"
    # systemd-sysusers keeps the accounts of before as backups; the user stays on purpose (debian/ternwatch.postrm).
    if diff "$work/before" "$work/after" | grep '^>' | grep -v -e ' \./etc/\(passwd\|group\|shadow\|gshadow\)-$' -e ' \./etc/\.pwd\.lock$'; then
        die "a purge leaves this behind"
    fi
    rm -rf "$root"
}

# The model gives its recorded answers, and a picture is looked at, by the packaged program on an emulated processor.
test_emulated() {
    local gnu qemu folder=$work/$1
    case $1 in
        arm64) gnu=aarch64-linux-gnu qemu=qemu-aarch64-static ;;
        armhf) gnu=arm-linux-gnueabihf qemu=qemu-arm-static ;;
        *) die "$1 is not emulated here" ;;
    esac
    say "$1 on $qemu"
    rm -rf "$folder"
    dpkg-deb -x "target/deb/ternwatch_${version}_$1.deb" "$folder"
    mkdir "$folder/pictures"
    cp docs/contact-sheet.png "$folder/pictures/"
    local run=(env "TERNWATCH_MODEL__BUNDLE=$folder/usr/lib/ternwatch/models/person.tern"
        "TERNWATCH_MODEL__KEY=$folder/usr/lib/ternwatch/keys/default.pub"
        TERNWATCH_CAMERA__SOURCE=stills "TERNWATCH_CAMERA__STILLS__FOLDER=$folder/pictures"
        TERNWATCH_CAMERA__STALL_S=600 TERNWATCH_PUBLISH__FRAMES=true TERNWATCH_MQTT__ENABLED=false TERNWATCH_STDOUT__ENABLED=true TERNWATCH_LOG__LEVEL=warn
        "$qemu" -L "/usr/$gnu" "$folder/usr/bin/ternwatchd" --config "$folder/etc/ternwatch/ternwatch.toml")
    "${run[@]}" --version
    "${run[@]}" check-config >/dev/null
    "${run[@]}" >"$folder/documents"
    grep -q '"detections":' "$folder/documents" || die "the picture was not looked at"
    rm -rf "$folder"
}

for architecture; do
    if [ "$architecture" = "$here" ]; then
        test_fresh_system
    else
        test_emulated "$architecture"
    fi
done
say "passed: $*"
