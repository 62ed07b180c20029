# shellcheck shell=bash
# Guests that write numbered blocks. Part of lab.

size_bytes() {
    numfmt --from=auto "${1%B}" 2>/dev/null || bad_usage "'$1' is not a size like 64MiB"
}

UEFI_CODE=/usr/share/OVMF/OVMF_CODE.fd
UEFI_VARIABLES=/usr/share/OVMF/OVMF_VARS.fd
UEFI_MEMORY=256

guest_defaults() {
    declare -gA GUEST=([disk-size]=64MiB [disks]=2 [format]=qcow2 [rate]=50 [span]=0 [fill]=random
        [memory]=96 [cache]=none [network]="" [agent]="" [agent-fault]=none [deaf]="" [filesystem]="" [kvm]="" [autostart]="" [no-start]=""
        [uefi]="" [tpm]="" [tpm-secret]="" [print-xml]="")
}

guest_options() {
    local option

    while (($# > 0)); do
        option=${1#--}
        case $1 in
        --agent | --deaf | --filesystem | --uefi | --tpm | --kvm | --autostart | --no-start | --print-xml) GUEST[$option]=yes ;;
        --disk-size | --disks | --format | --rate | --span | --fill | --memory | --cache | --network | \
            --agent-fault | --tpm-secret)
            [[ -n ${2:-} ]] || bad_usage "$1 needs a value"
            GUEST[$option]=$2
            shift
            ;;
        *) bad_usage "'$1' is not an option" ;;
        esac
        shift
    done
    [[ ${GUEST[disks]} =~ ^([1-9]|1[0-6])$ ]] || bad_usage "--disks ${GUEST[disks]}: 1 to 16"
    [[ ${GUEST[format]} == qcow2 || ${GUEST[format]} == raw ]] ||
        bad_usage "--format ${GUEST[format]}: qcow2 or raw"
    [[ ${GUEST[rate]} =~ ^([0-9]+(\.[0-9]+)?|max)$ ]] || bad_usage "--rate ${GUEST[rate]}: a number or max"
    [[ ${GUEST[memory]} =~ ^[0-9]+$ ]] || bad_usage "--memory ${GUEST[memory]}: MiB"
    [[ ${GUEST[agent-fault]} =~ ^(none|freeze-hangs|freeze-fails|thaw-fails|freeze-late|freeze-slow|silent|dies)$ ]] ||
        bad_usage "--agent-fault ${GUEST[agent-fault]}: no such fault"
    [[ ${GUEST[tpm-secret]} =~ ^([0-9a-f-]{36})?$ ]] || bad_usage "--tpm-secret ${GUEST[tpm-secret]}: a secret's UUID"
    [[ -z ${GUEST[tpm-secret]} ]] || GUEST[tpm]=yes
    # The firmware alone takes more than the guest does.
    [[ -z ${GUEST[uefi]} || ${GUEST[memory]} -ge $UEFI_MEMORY ]] || GUEST[memory]=$UEFI_MEMORY
    GUEST[disk-size]=$(size_bytes "${GUEST[disk-size]}")
    GUEST[span]=$(size_bytes "${GUEST[span]}")
}

disk_letter() {
    printf '%b' "\\x$(printf '%x' $((97 + $1)))"
}

guest_image() {
    echo "/var/lib/libvirt/images/$1-vd$(disk_letter "$2").${GUEST[format]}"
}

# The numbered disks, and one more for the file system.
n_disks() {
    echo $((GUEST[disks] + (${#GUEST[filesystem]} > 0 ? 1 : 0)))
}

xml_disks() {
    local i

    for ((i = 0; i < $(n_disks); i++)); do
        cat <<END
    <disk type='file' device='disk'>
      <driver name='qemu' type='${GUEST[format]}' cache='${GUEST[cache]}' discard='unmap'/>
      <source file='$(guest_image "$1" "$i")'/>
      <target dev='vd$(disk_letter "$i")' bus='virtio'/>
      <serial>$1-vd$(disk_letter "$i")</serial>
    </disk>
END
    done
}

xml_firmware() {
    [[ -z ${GUEST[uefi]} ]] || cat <<END
    <loader readonly='yes' type='pflash'>$UEFI_CODE</loader>
    <nvram template='$UEFI_VARIABLES'>/var/lib/libvirt/qemu/nvram/$1_VARS.fd</nvram>
END
}

xml_tpm() {
    local encryption=''

    [[ -z ${GUEST[tpm-secret]} ]] || encryption="<encryption secret='${GUEST[tpm-secret]}'/>"
    [[ -z ${GUEST[tpm]} ]] || cat <<END
    <tpm model='tpm-crb'>
      <backend type='emulator' version='2.0'>$encryption</backend>
    </tpm>
END
}

xml_extras() {
    [[ -z ${GUEST[network]} ]] || cat <<END
    <interface type='network'>
      <source network='${GUEST[network]}'/>
      <model type='virtio'/>
    </interface>
END
    [[ -z ${GUEST[agent]} ]] || cat <<END
    <channel type='unix'>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
END
}

# No clock of a real CPU to calibrate against, nothing to probe: that is what makes a boot short.
guest_cmdline() {
    echo "console=ttyS0 quiet loglevel=4 panic=5 mitigations=off tsc=reliable no_timer_check" \
        "lab.disks=${GUEST[disks]} lab.rate=${GUEST[rate]} lab.span=${GUEST[span]}" \
        "lab.fill=${GUEST[fill]} lab.agent=${GUEST[agent-fault]}" \
        "${GUEST[deaf]:+lab.deaf=yes}" \
        "${GUEST[filesystem]:+lab.fs=vd$(disk_letter "${GUEST[disks]}")}"
}

guest_xml() {
    local name=$1 type=qemu cpu=''

    if [[ -n ${GUEST[kvm]} ]]; then
        type=kvm
        cpu="<cpu mode='host-passthrough'/>"
    fi
    cat <<END
<domain type='$type'>
  <name>$name</name>
  <memory unit='MiB'>${GUEST[memory]}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
$(xml_firmware "$name")
    <kernel>$(guest_folder)/vmlinuz</kernel>
    <initrd>$(guest_folder)/initramfs</initrd>
    <cmdline>$(guest_cmdline)</cmdline>
  </os>
  <features><acpi/></features>
  $cpu
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
$(xml_disks "$name")
    <controller type='usb' model='none'/>
    <controller type='pci' model='pcie-root'/>
$(for _ in 1 2 3 4 5 6 7 8; do echo "    <controller type='pci' model='pcie-root-port'/>"; done)
    <serial type='file'>
      <source path='$(console_path "$name")' append='on'/>
      <target port='0'/>
    </serial>
$(xml_tpm)
$(xml_extras)
    <memballoon model='none'/>
  </devices>
</domain>
END
}

filesystem_create() {
    local raw

    raw=$(mktemp /var/tmp/virt-dr-lab-fs.XXXXXX)
    truncate -s "${GUEST[disk-size]}" "$raw"
    mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 "$raw" &&
        host_exec "$1" qemu-img convert -f raw -O "${GUEST[format]}" "$raw" "$2"
    local status=$?
    rm -f "$raw"
    ((status == 0)) || fail "no file system could be made for '$2': see above"
}

guest_disks_create() {
    local i image

    for ((i = 0; i < GUEST[disks]; i++)); do
        image=$(guest_image "$2" "$i")
        [[ ! -e $LAB_STATE/$1$image ]] ||
            fail "guest '$2' on host '$1': $image exists; remove it or choose another name"
        host_exec "$1" qemu-img create -q -f "${GUEST[format]}" "$image" "${GUEST[disk-size]}"
    done
    [[ -z ${GUEST[filesystem]} ]] || filesystem_create "$1" "$(guest_image "$2" "${GUEST[disks]}")"
}

# KVM that is there may still hang a guest in its firmware: one must really reach its program.
kvm_probe() {
    local log status=1 pid

    [[ -e /dev/kvm ]] || return 1
    log=$(mktemp /var/tmp/virt-dr-lab-kvm.XXXXXX)
    qemu-system-x86_64 -accel kvm -M q35 -m 96 -display none -serial "file:$log" -no-reboot \
        -kernel "$(guest_folder)/vmlinuz" -initrd "$(guest_folder)/initramfs" \
        -append "console=ttyS0 quiet lab.rate=0" </dev/null >/dev/null 2>&1 &
    pid=$!
    if wait_for 10 grep -q '^idle' "$log"; then
        status=0
    fi
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    rm -f "$log"
    return $status
}

guest_firmware_check() {
    [[ -z ${GUEST[uefi]} || -r $UEFI_CODE ]] || fail "guest '$1': no $UEFI_CODE here; install ovmf"
    [[ -z ${GUEST[tpm]} ]] || command -v swtpm_setup >/dev/null ||
        fail "guest '$1': no swtpm_setup here; install swtpm and swtpm-tools"
}

command_guest() {
    local host=${1:-} name=${2:-} xml

    host_need_up "$host"
    [[ $name =~ ^[A-Za-z0-9][A-Za-z0-9_.-]*$ ]] || bad_usage "'$name' cannot be a guest's name"
    shift 2
    guest_defaults
    guest_options "$@"
    guest_firmware_check "$name"
    cache_fill
    if [[ -n ${GUEST[kvm]} ]] && ! kvm_probe; then
        fail "guest '$name': KVM does not boot a guest within 10 s here; leave --kvm out"
    fi
    if [[ -n ${GUEST[print-xml]} ]]; then
        guest_xml "$name"
        return
    fi
    guest_disks_create "$host" "$name"
    xml=$LAB_STATE/$host/.lab/$name.xml
    guest_xml "$name" >"$xml"
    host_exec "$host" virsh -q define "$xml" >/dev/null
    [[ -z ${GUEST[autostart]} ]] || host_exec "$host" virsh -q autostart "$name"
    [[ -n ${GUEST[no-start]} ]] || host_exec "$host" virsh -q start "$name"
}
