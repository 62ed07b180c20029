# shellcheck shell=bash
# What has to be installed, on Debian. Part of quickstart. README.md has the same for Fedora.

# To build: a compiler, the tools, and the libraries that configure.ac asks for.
BUILD_PACKAGES=(gcc libc6-dev make autoconf automake libtool pkg-config
    libvirt-dev libnbd-dev libevent-dev libjson-c-dev libxml2-dev libsqlite3-dev libssl-dev
    libcurl4-openssl-dev libzstd-dev libxxhash-dev libinih-dev libsystemd-dev libcmocka-dev)
# To run: libvirt with QEMU, and qemu-storage-daemon.
RUN_PACKAGES=(libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86
    qemu-utils)
# To make hosts and guests on one machine.
LAB_PACKAGES=(busybox-static cpio dnsmasq-base file git iproute2 iptables jq openssl procps socat util-linux xz-utils)
# To test.
CHECK_PACKAGES=(clang-format-14 curl e2fsprogs faketime libnbd-bin mandoc ovmf shellcheck sqlite3 swtpm
    swtpm-tools tcpdump xfsprogs)
KERNEL_PACKAGE=linux-image-cloud-amd64

package_is_installed() {
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

demo_packages() {
    printf '%s\n' "${BUILD_PACKAGES[@]}" "${RUN_PACKAGES[@]}" "${LAB_PACKAGES[@]}"
}

all_packages() {
    demo_packages
    printf '%s\n' "${CHECK_PACKAGES[@]}"
}

missing_packages() {
    local package

    for package in "$@"; do
        package_is_installed "$package" || echo "$package"
    done
}

# The guest's kernel is unpacked, never installed; but apt must know where it is.
kernel_is_known() {
    [[ -n ${LAB_KERNEL_DEB:-} ]] || compgen -G "${LAB_CACHE:-/var/cache/virt-dr-lab}/kernel-*" >/dev/null ||
        apt-cache show "$KERNEL_PACKAGE" >/dev/null 2>&1
}

apt_get() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Options::=--force-confold "$@"
}

install_missing() {
    apt_get update
    (($# == 0)) || apt_get install --no-install-recommends "$@"
}

need_apt() {
    command -v apt-get >/dev/null && command -v dpkg-query >/dev/null && return
    fail "this is not Debian: there is no apt-get. On Fedora install by hand what README.md lists" \
        "for dnf, and build with ./configure && make; the demo needs Debian"
}

# install_packages PACKAGE...
install_packages() {
    local missing log

    need_apt
    mapfile -t missing < <(missing_packages "$@")
    if ((${#missing[@]} == 0)) && kernel_is_known; then
        return
    fi
    ((EUID == 0)) || fail "not root, and these packages are missing: ${missing[*]}." \
        "Run './quickstart deps' as root"
    log=$(mktemp /var/tmp/virt-dr-quickstart.XXXXXX)
    step "Installed ${#missing[@]} missing packages by apt-get." "$log" unknown_percent \
        install_missing "${missing[@]}"
    rm -f "$log"
}

command_deps() {
    local packages

    case ${1:-} in
    --list) all_packages ;;
    '')
        mapfile -t packages < <(all_packages)
        install_packages "${packages[@]}"
        echo "All packages that are needed are installed."
        ;;
    *) bad_usage "deps: '$1' is not an option" ;;
    esac
}
