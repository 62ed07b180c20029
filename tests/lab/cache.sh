# shellcheck shell=bash
# The cache: kernel, initramfs and helper programs, shared by all labs. Part of lab.
#
# Everything in it is made under a lock, in a folder of its own, and renamed into place; a name
# contains a hash of what it was made from, so nothing that a running guest uses is ever changed.

GUEST_SOURCES=(writer.c machine.c firmware.c agent.c files.c scan.c block.c)
CHECK_SOURCES=(check.c scan.c block.c)
GUEST_CFLAGS=(-std=gnu17 -O2 -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes
    -Wswitch-enum -D_GNU_SOURCE)
# In the order in which they are loaded.
GUEST_MODULES=(drivers/virtio/virtio_ring drivers/virtio/virtio
    drivers/virtio/virtio_pci_modern_dev drivers/virtio/virtio_pci_legacy_dev
    drivers/virtio/virtio_pci drivers/block/virtio_blk drivers/char/virtio_console
    drivers/acpi/button drivers/input/evdev net/core/failover drivers/net/net_failover
    drivers/net/virtio_net)
# Loaded only where there is such firmware.
GUEST_FIRMWARE_MODULES=(fs/efivarfs/efivarfs)

cache_lock() {
    mkdir -p "$LAB_CACHE"
    exec {CACHE_LOCK}<"$LAB_CACHE"
    flock -w 300 "$CACHE_LOCK" || fail "$LAB_CACHE: locked by another lab for 300 s"
}

cache_unlock() {
    exec {CACHE_LOCK}<&-
}

sources_hash() {
    cat "$LAB_SOURCE/cache.sh" "$LAB_SOURCE"/guest/* | sha256sum | cut -c 1-12
}

check_program() {
    echo "$LAB_CACHE/check-$(sources_hash)"
}

guest_folder() {
    echo "$LAB_CACHE/guest-$(sources_hash)"
}

# Its name says which modules it has, so that a new one among them makes a new folder.
kernel_folder() {
    echo "$LAB_CACHE/kernel-$(echo "${GUEST_MODULES[@]}" "${GUEST_FIRMWARE_MODULES[@]}" | sha256sum | cut -c 1-12)"
}

make_check() {
    local program

    program=$(check_program)
    [[ ! -x $program ]] || return 0
    (cd "$LAB_SOURCE/guest" && gcc "${GUEST_CFLAGS[@]}" -o "$program.new" "${CHECK_SOURCES[@]}") ||
        fail "compile the checker: see above"
    mv "$program.new" "$program"
}

download_kernel() {
    local package

    package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        awk '/Depends: linux-image/ && !name { name = $2 } END { print name }')
    [[ -n $package ]] ||
        fail "no kernel package known; run 'apt-get update', or set LAB_KERNEL_DEB to a linux-image .deb"
    (cd "$1" && apt-get -q -o APT::Sandbox::User=root download "$package" >&2) ||
        fail "download '$package': see above; or set LAB_KERNEL_DEB to a linux-image .deb"
}

# Only what guests need is kept: the kernel and a dozen modules.
make_kernel() {
    local folder work module root

    folder=$(kernel_folder)
    work=$folder.new
    [[ ! -d $folder ]] || return 0
    rm -rf "$work"
    mkdir -p "$work/modules" "$work/unpacked"
    if [[ -n ${LAB_KERNEL_DEB:-} ]]; then
        cp "$LAB_KERNEL_DEB" "$work/"
    else
        download_kernel "$work"
    fi
    dpkg -x "$work"/*.deb "$work/unpacked" || fail "unpack the kernel package in $work"
    root=$(echo "$work"/unpacked/lib/modules/*/kernel)
    cp "$work"/unpacked/boot/vmlinuz-* "$work/vmlinuz"
    for module in "${GUEST_MODULES[@]}" "${GUEST_FIRMWARE_MODULES[@]}"; do
        cp "$root/$module.ko" "$work/modules/" || fail "the kernel package has no module '$module'"
    done
    rm -rf "$work/unpacked" "$work"/*.deb
    mv "$work" "$folder"
}

write_init() {
    local module

    cat <<'END'
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
exec </dev/console >/dev/console 2>&1
echo
END
    for module in "${GUEST_MODULES[@]}"; do
        echo "/bin/busybox insmod /modules/${module##*/}.ko"
    done
    cat <<'END'
if [ -d /sys/firmware/efi/efivars ]; then
    /bin/busybox insmod /modules/efivarfs.ko
    /bin/busybox mount -t efivarfs efivarfs /sys/firmware/efi/efivars
fi
if /bin/busybox grep -q lab.fs= /proc/cmdline; then
    disk=$(/bin/busybox sed 's/.*lab.fs=\([a-z]*\).*/\1/' /proc/cmdline)
    /bin/busybox mount -t ext4 "/dev/$disk" /fs
fi
if [ -e /sys/class/net/eth0 ]; then
    /bin/busybox ip link set eth0 up
    /bin/busybox udhcpc -i eth0 -b -s /bin/dhcp >/dev/null 2>&1 &
    /bin/busybox httpd -p 80 -h /dev
fi
exec /bin/writer
END
}

write_dhcp() {
    cat <<'END'
#!/bin/busybox sh
if [ "$1" = bound ] || [ "$1" = renew ]; then
    /bin/busybox ip address flush dev "$interface"
    /bin/busybox ip address add "$ip/${mask:-24}" dev "$interface"
    [ -z "$router" ] || /bin/busybox ip route replace default via "${router%% *}"
    echo "address $ip" >/dev/console
fi
END
}

make_guest() {
    local folder root work

    folder=$(guest_folder)
    work=$folder.new
    root=$work/root
    [[ ! -d $folder ]] || return 0
    rm -rf "$work"
    mkdir -p "$root"/{bin,dev,proc,sys,fs,modules}
    (cd "$LAB_SOURCE/guest" && gcc "${GUEST_CFLAGS[@]}" -static -pthread -o "$root/bin/writer" \
        "${GUEST_SOURCES[@]}") || fail "compile the guest's program: see above"
    cp /bin/busybox "$root/bin/"
    ! ldd "$root/bin/busybox" >/dev/null 2>&1 || fail "/bin/busybox is not static; install busybox-static"
    cp "$(kernel_folder)/modules/"*.ko "$root/modules/"
    write_init >"$root/init"
    write_dhcp >"$root/bin/dhcp"
    chmod 0755 "$root/init" "$root/bin/dhcp"
    # Unpacking counts in each boot: with TCG no compression is faster than any.
    (cd "$root" && find . | cpio -o -H newc --quiet) >"$work/initramfs"
    ln "$(kernel_folder)/vmlinuz" "$work/vmlinuz"
    rm -rf "$root"
    mv "$work" "$folder"
}

cache_fill() {
    cache_lock
    make_check
    make_kernel
    make_guest
    cache_unlock
}

command_cache() {
    cache_fill
    guest_folder
}
