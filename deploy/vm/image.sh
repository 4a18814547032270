#!/usr/bin/env bash
# Makes a Debian 12 for 64-bit ARM that qemu boots, with a broken-in camera: deploy/vm/image.sh
#
# Needs root, for the ownership of files and to run ARM programs while packages are set up. Into target/vm/ come
#   vmlinuz, initrd.img   the distribution's kernel, and an initial RAM disk that finds the disk
#   base.ext4             the disk: systemd, ssh for the key `key`, two cameras (below), no Ternwatch
#   street.mjpeg          real street frames, which the unit `feeder` shows to the first camera
#   small.mjpeg           the same ones in another size, of the unit `feeder-small`
# /dev/video0 is a v4l2loopback device, which gives what `feeder` writes into it; /dev/video1 is the kernel's own test
# camera, vivid, with moving bars. What is there already is kept: remove target/vm/ to begin anew.
set -euo pipefail
cd "$(dirname "$0")/../.."

say() { printf 'vm image: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

readonly here=$PWD/deploy/vm work=$PWD/target/vm
readonly video=${DEMO_VIDEO:-/usr/share/doc/opencv-doc/examples/data/vtest.avi}
readonly gnu=aarch64-linux-gnu target=aarch64-unknown-linux-gnu
readonly packages=systemd-sysv,udev,dbus,openssh-server,kmod,iproute2,procps,ca-certificates,adduser,netbase

# Lets the kernel of this machine start ARM programs, also inside another root folder.
allow_arm_programs() {
    local folder=/proc/sys/fs/binfmt_misc
    [ -e $folder/register ] || mount -t binfmt_misc binfmt_misc $folder || die "binfmt_misc cannot be mounted here"
    [ -e $folder/qemu-aarch64 ] || printf '%s' ':qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:FP' >$folder/register
}

# The packages' files, and beside them the packages that are not installed but taken apart.
fetch() {
    local folder=$work/packages
    rm -rf "$folder" "$work/root.part"
    mkdir -p "$folder"
    cat >"$work/fetch-more" <<'HOOK'
set -eu
cd "$1"
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
image=$(apt-cache depends linux-image-arm64:arm64 | sed -n 's/.*Depends: \(linux-image-[^:]*\).*/\1/p' | head -1)
release=${image#linux-image-}
apt-get download -q "$image:arm64" "linux-headers-$release:arm64" "linux-headers-${release%-arm64}-common" \
    linux-kbuild-6.1:amd64 busybox-static:arm64 v4l2loopback-dkms
echo "$release" >release
HOOK
    mmdebstrap --quiet --mode=root --architectures=arm64,amd64 --variant=minbase --include="$packages" \
        --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Retries "3"' --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --customize-hook="sh '$work/fetch-more' '$folder'" --skip=output/dev bookworm "$work/root.part"
    mv "$work/root.part" "$work/root"
}

unpack() { mkdir -p "$2" && dpkg-deb -x "$work"/packages/$1 "$2"; }

# The kernel, its modules, and the loopback camera's module, compiled for it.
make_kernel() {
    local release=$1 folder=$work/kernel headers=$work/headers source
    rm -rf "$folder" "$headers"
    unpack "linux-image-*.deb" "$folder"
    for package in "$work"/packages/linux-headers-*.deb "$work"/packages/linux-kbuild-*.deb "$work"/packages/v4l2loopback-dkms*.deb; do
        unpack "$(basename "$package")" "$headers"
    done
    sed -i "s|^include /usr/src/|include $headers/usr/src/|" "$headers/usr/src/linux-headers-$release/Makefile"
    source=$(echo "$headers"/usr/src/v4l2loopback-*)
    make -s -C "$headers/usr/src/linux-headers-$release" M="$source" DEB_BUILD_ARCH=amd64 DEB_HOST_ARCH=arm64 \
        DEB_HOST_GNU_TYPE=$gnu modules >"$work/log" 2>&1 || { cat "$work/log" >&2; die "v4l2loopback does not compile"; }
    $gnu-strip -g "$source/v4l2loopback.ko"
    install -D -m 644 "$source/v4l2loopback.ko" "$folder/lib/modules/$release/updates/v4l2loopback.ko"
    depmod -b "$folder" "$release"
    cp "$folder/boot/vmlinuz-$release" "$work/vmlinuz"
}

# Files of these modules and of what they need, in the order to load them.
module_files() {
    local release=$1 module
    shift
    for module; do
        modprobe -d "$work/kernel" -S "$release" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
    done | awk '!seen[$0]++'
}

# Debian's kernel has the disk's driver and the file system as modules.
make_initrd() {
    local release=$1 folder=$work/initrd file
    rm -rf "$folder"
    mkdir -p "$folder"/{bin,dev,proc,sys,disk,modules}
    unpack "busybox-static_*.deb" "$work/busybox"
    install "$work/busybox/bin/busybox" "$folder/bin/busybox"
    module_files "$release" virtio_pci virtio_blk crc32c_generic ext4 | while read -r file; do
        cp "$file" "$folder/modules/"
        echo "/modules/${file##*/}" >>"$folder/modules/order"
    done
    install -m 755 "$here/init" "$folder/init"
    (cd "$folder" && find . | cpio --quiet -o -H newc | gzip -1) >"$work/initrd.img"
}

film() {
    local file=$work/$1.mjpeg
    [ ! -e "$file" ] || return 0
    ffmpeg -v error -y -i "$video" -t 60 -vf "scale=$2" -c:v mjpeg -q:v 4 -f mjpeg "$file.part"
    mv "$file.part" "$file"
}

make_disk() {
    local release=$1 root=$work/disk modules=usr/lib/modules/$1 file unit
    rm -rf "$root"
    cp -a "$work/root" "$root"
    # Only what this machine has: a tenth of the modules' size.
    mkdir -p "$root/$modules"
    module_files "$release" virtio_net virtio_rng autofs4 vivid v4l2loopback | while read -r file; do
        install -D -m 644 "$file" "$root/$modules/${file#"$work/kernel/lib/modules/$release/"}"
    done
    cp "$work/kernel/lib/modules/$release"/modules.{order,builtin,builtin.modinfo} "$root/$modules/"
    depmod -b "$root" "$release"

    cp -a "$here/etc/." "$root/etc/"
    chown -R root:root "$root/etc/systemd" "$root/etc/ssh"
    ln -sf /dev/null "$root/etc/systemd/system/systemd-networkd-wait-online.service"
    for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer e2scrub_reap.service getty@tty1.service; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    mkdir -p "$root/etc/systemd/system/multi-user.target.wants" "$root/var/log/journal" "$root/opt/feeder"
    ln -sf /etc/systemd/system/feeder.service "$root/etc/systemd/system/multi-user.target.wants/"
    ln -sf /lib/systemd/system/systemd-networkd.service "$root/etc/systemd/system/multi-user.target.wants/"
    # A Pi has its own id from its first start; here every start would be the first one.
    echo 7465726e776174636830303030303031 >"$root/etc/machine-id"
    rm -f "$root/etc/resolv.conf" "$work/key" "$work/key.pub"
    ssh-keygen -q -t ed25519 -N '' -f "$work/key"
    install -m 600 "$work/key.pub" "$root/etc/ssh/bench_keys"
    install "target-cross/$target/release/ternwatch-feeder" "$root/opt/feeder/feeder"
    cp "$work"/{street,small}.mjpeg "$root/opt/feeder/"
    rm -rf "$root"/var/cache/apt/*.bin "$root"/var/lib/apt/lists/*

    truncate -s 1200M "$work/base.part"
    mkfs.ext4 -q -F -E root_owner=0:0 -m 0 -d "$root" "$work/base.part"
    rm -rf "$root"
    mv "$work/base.part" "$work/base.ext4"
}

[ "$(id -u)" -eq 0 ] || die "only root may set up another system's packages"
mkdir -p "$work"
export PATH=$PATH:/usr/sbin:/sbin
allow_arm_programs
if [ ! -e "$work/root" ]; then
    say "fetching packages and setting them up"
    fetch
fi
release=$(cat "$work/packages/release")
if [ ! -e "$work/vmlinuz" ]; then
    say "kernel $release with v4l2loopback"
    make_kernel "$release"
fi
film street 640:480
film small 320:240
if [ ! -e "$work/base.ext4" ]; then
    say "the disk"
    deploy/cross.sh build $target --locked -p ternwatch-feeder
    make_initrd "$release"
    make_disk "$release"
fi
say "$(du -h "$work/base.ext4" | cut -f1) in ${work#"$PWD"/}/base.ext4, kernel $release"
