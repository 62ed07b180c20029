# shellcheck shell=bash
# The story of the demo, and how it is cleaned up. Part of quickstart; the steps are in demo_steps.sh.

QUICK_LAB_ID=${LAB_ID:-90}
# shellcheck disable=SC2034 # used by the fragments
DEMO_RPO_S=5
DEMO_RUN_S=20
DEMO_VM=shop
DEMO_WORK=
DEMO_MADE_LAB=
DEMO_KEEP=
DEMO_FULL=
DEMO_HOST_AT_END=b
DEMO_JSON=

lab() {
    "$QUICK_TOP/tests/lab/lab" "$@"
}

# on HOST COMMAND...: as an administrator of that host would type it.
on() {
    lab exec "$@"
}

demo_options() {
    while (($# > 0)); do
        case $1 in
        --json)
            [[ -n ${2:-} ]] || bad_usage "demo: --json needs a file"
            DEMO_JSON=$(realpath -m "$2")
            shift
            ;;
        --keep) DEMO_KEEP=yes ;;
        --full) DEMO_FULL=yes ;;
        *) bad_usage "demo: '$1' is not an option" ;;
        esac
        shift
    done
    [[ $QUICK_LAB_ID =~ ^(0|[1-9][0-9]?)$ ]] || bad_usage "LAB_ID '$QUICK_LAB_ID': not a number from 0 to 99"
    [[ -z $DEMO_JSON || -w $(dirname "$DEMO_JSON") ]] ||
        fail "--json '$DEMO_JSON': its folder cannot be written to"
}

# Only a lab that this run has made is taken down.
demo_end() {
    local status=$?

    trap '' INT TERM HUP
    stop_step
    if [[ -n $DEMO_MADE_LAB && -n $DEMO_KEEP ]]; then
        echo
        echo "The hosts are kept. Look around, then take them down:"
        echo "    export LAB_ID=$LAB_ID LAB_BUILD=$LAB_BUILD"
        echo "    tests/lab/lab status; tests/lab/lab exec b virt-dr list"
        echo "    tests/lab/lab down"
    elif [[ -n $DEMO_MADE_LAB ]]; then
        lab down || echo "quickstart: the lab could not be taken down, see above" >&2
    fi
    [[ -z $DEMO_WORK ]] || rm -rf "$DEMO_WORK"
    exit "$status"
}

need_lab() {
    local folder=${LAB_DIR:-/var/tmp/virt-dr-lab}-$LAB_ID

    [[ $(uname -m) == x86_64 ]] || fail "the demo's guests are x86_64 machines; this one is $(uname -m)"
    unshare --net --mount true ||
        fail "no namespaces can be made here, see above; in a container the demo needs --privileged"
    [[ ! -e $folder ]] || fail "$folder exists: another demo runs, or one was kept." \
        "'LAB_ID=$LAB_ID tests/lab/lab down' removes it; or set another LAB_ID"
}

# story_step SENTENCE COMMAND [PERCENT]
story_step() {
    step "$1" "$DEMO_WORK/$2.log" "${3:-unknown_percent}" "$2"
}

story_before() {
    story_step "The guest's kernel and program are in the cache." fill_cache
    DEMO_MADE_LAB=yes
    story_step "Hosts a and b run: each has its own network, libvirtd and virtdrd." make_hosts
    story_step "Host b invited, host a joined: both know the other's certificate." pair_hosts
    story_step "A guest runs on a and writes numbered blocks over two disks." start_guest
    story_step "First sync of '$DEMO_VM' to b." protect_guest percent_synced
    story_step "Ran for $DEMO_RUN_S s under replication." run_guest percent_run
}

story_after() {
    story_step "Site a is lost: its power and its network are gone at once." lose_site
    story_step "Failed '$DEMO_VM' over to b." fail_over
    story_step "The guest found its disks whole on b and goes on writing." wait_for_guest
    story_step "Read the recovered disks block by block." check_blocks
    story_step "Host a is back and learnt that b has taken '$DEMO_VM' over." bring_back
    story_step "The guard on a refuses 'virsh start $DEMO_VM'." try_guard
}

command_demo() {
    local packages

    demo_options "$@"
    ((EUID == 0)) || fail "the demo makes network and mount namespaces: run it as root"
    mapfile -t packages < <(demo_packages)
    install_packages "${packages[@]}"
    build "$QUICK_TOP/build/quickstart"
    export LAB_ID=$QUICK_LAB_ID LAB_BUILD=$QUICK_TOP/build/quickstart
    need_lab
    DEMO_WORK=$(mktemp -d /var/tmp/virt-dr-demo.XXXXXX)
    trap demo_end EXIT
    story_before
    if [[ -n $DEMO_FULL ]]; then
        DEMO_HOST_AT_END=a
        story_full
        make_full_result >"$DEMO_WORK/result.json"
    else
        story_after
        make_result >"$DEMO_WORK/result.json"
    fi
    [[ -z $DEMO_JSON ]] || cp "$DEMO_WORK/result.json" "$DEMO_JSON"
    print_result
}
