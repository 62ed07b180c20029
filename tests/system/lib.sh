# shellcheck shell=bash
# What the system tests share: TAP, two paired hosts of the lab, guests, and what may be expected of them.
#
#     . "$top_srcdir/tests/system/lib.sh"
#     system_up                     # hosts a and b, paired; removed at exit, however that comes
#     guest a g1 --rate 100         # makes it, starts it, waits until it writes
#     check "the VM is protected" protect g1 --rpo 2s
#     fails_with DOMAIN_NOT_FOUND "a domain that is not there" a protect nosuch --to b
#     message_has "nosuch"
#     tests_done                    # the plan; a script that dies before it has none, and fails
#
# A test's name is a sentence. Nothing here sleeps for luck: wait_for takes a condition and a deadline.
# The file sets LAB, LAB_STATE and WORK (a folder that is removed at exit), and after each
# run_status, exits, fails_with: STATUS, and the files $WORK/out, $WORK/err.

set -u
export LC_ALL=C

TOP=$(readlink -f "${top_srcdir:-$(dirname "${BASH_SOURCE[0]}")/../..}")
BUILD=$(readlink -f "${top_builddir:-$TOP}")
export LAB_ID=${LAB_ID:-8}
export LAB_BUILD=${LAB_BUILD:-$BUILD}
LAB=$TOP/tests/lab/lab
LAB_STATE=${LAB_DIR:-/var/tmp/virt-dr-lab}-$LAB_ID
PATIENCE=${PATIENCE:-60} # seconds: the deadline of whoever gives none
WORK=''
STATUS=0
TEST_NUMBER=0
TEST_FAILURES=0
TEST_LAB_IS_OURS=''
TEST_LOCK=''

# --- TAP ---------------------------------------------------------------------

# diag TEXT... or, without text, what comes in.
diag() {
    if (($# > 0)); then
        printf '%s\n' "$*"
    else
        cat
    fi | tr -d '\0' | sed 's/^/# /'
}

ok() {
    TEST_NUMBER=$((TEST_NUMBER + 1))
    printf 'ok %d - %s\n' "$TEST_NUMBER" "$1"
}

# not_ok NAME [DIAGNOSTIC...]
not_ok() {
    TEST_NUMBER=$((TEST_NUMBER + 1))
    TEST_FAILURES=$((TEST_FAILURES + 1))
    printf 'not ok %d - %s\n' "$TEST_NUMBER" "$1"
    shift
    (($# == 0)) || diag "$@"
    dump_logs
}

# check NAME COMMAND...: ok if the command succeeds; what it printed is told if it does not.
check() {
    local name=$1 output status=0

    shift
    output=$("$@" 2>&1) || status=$?
    if ((status == 0)); then
        ok "$name"
    else
        not_ok "$name" "'$*' ended with $status"$'\n'"$output"
        return 1
    fi
}

# is NAME GOT WANTED
is() {
    if [[ $2 == "$3" ]]; then
        ok "$1"
    else
        not_ok "$1" "got '$2', wanted '$3'"
        return 1
    fi
}

tests_done() {
    printf '1..%d\n' "$TEST_NUMBER"
    ((TEST_FAILURES == 0))
    exit
}

# skip_all REASON: with REQUIRE_REAL=1 a test that cannot be done is one that failed.
skip_all() {
    if [[ ${REQUIRE_REAL:-} == 1 ]]; then
        printf '1..1\nnot ok 1 - the test can be run here\n# %s\n' "$1"
        exit 1
    fi
    printf '1..0 # SKIP %s\n' "$1"
    exit 0
}

# need PROGRAM...: for a whole script. For a part of one: `have PROGRAM || skip NAME REASON`.
need() {
    local program

    for program in "$@"; do
        have "$program" || skip_all "$program is not installed"
    done
}

have() {
    command -v "$1" >/dev/null
}

skip() {
    if [[ ${REQUIRE_REAL:-} == 1 ]]; then
        not_ok "$1" "$2"
        return
    fi
    ok "$1 # SKIP $2"
}

# wait_for SECONDS COMMAND...: until it succeeds; false at the deadline.
wait_for() {
    local end=$((${EPOCHREALTIME/./} + $1 * 1000000))

    shift
    until "$@" >/dev/null 2>&1; do
        ((${EPOCHREALTIME/./} < end)) || return 1
        sleep 0.1
    done
}

not() {
    ! "$@"
}

# comes_true NAME SECONDS COMMAND...: ok as soon as the command succeeds.
comes_true() {
    local name=$1 seconds=$2

    shift 2
    if wait_for "$seconds" "$@"; then
        ok "$name"
    else
        not_ok "$name" "not within $seconds s: $*"$'\n'"$("$@" 2>&1)"
        return 1
    fi
}

# --- the lab -------------------------------------------------------------------

lab() {
    "$LAB" "$@"
}

# on HOST COMMAND...
on() {
    local host=$1

    shift
    "$LAB" exec "$host" "$@"
}

# dr HOST ARGUMENT...: virt-dr on that host. js does the same and answers in JSON, for jq.
dr() {
    local host=$1

    shift
    "$LAB" exec "$host" virt-dr --no-progress "$@"
}

js() {
    local host=$1

    shift
    "$LAB" exec "$host" virt-dr --no-progress -o json "$@"
}

virsh_on() {
    local host=$1

    shift
    "$LAB" exec "$host" virsh -q "$@"
}

# The file PATH of a host, as it is called outside.
host_file() {
    echo "$LAB_STATE/$1$2"
}

daemon_log_file() {
    echo "$LAB_STATE/$1/var/log/virt-dr/virtdrd.out"
}

daemon_pid() {
    cut -d ' ' -f 1 "$LAB_STATE/$1/.lab/virtdrd.pid"
}

dump_logs() {
    local host file

    [[ -n $TEST_LAB_IS_OURS ]] || return 0
    for host in "$LAB_STATE"/?/; do
        host=$(basename "$host")
        file=$(daemon_log_file "$host")
        [[ -f $file ]] || continue
        diag "the end of virtdrd's log on host $host:"
        tail -n "${DUMP_LINES:-25}" "$file" | diag
    done
}

system_down() {
    local status=$?

    if [[ -n $TEST_LAB_IS_OURS && -z ${KEEP_LAB:-} ]]; then
        "$LAB" down >&2 || status=1
    fi
    [[ -z $WORK ]] || rm -rf "$WORK"
    exit "$status"
}

# For what needs no lab, and is the first part of system_up.
system_work() {
    [[ -z $WORK ]] || return 0
    [[ $EUID == 0 ]] || skip_all "needs root, for namespaces and mounts"
    WORK=$(mktemp -d "/var/tmp/virt-dr-test-$LAB_ID.XXXXXX")
    trap system_down EXIT
    trap 'exit 130' INT TERM
}

# system_up [HOSTS]: two hosts (a and b, the pair of most tests) or three, all of them paired.
system_up() {
    need jq qemu-img virsh flock
    system_work
    # make -j runs several of these: those with the same lab come one after the other.
    exec {TEST_LOCK}>"$LAB_STATE.lock"
    flock -w 1800 "$TEST_LOCK" || bail_out "another test uses lab $LAB_ID for half an hour"
    if [[ -d $LAB_STATE ]]; then # of a run that was killed: the id is this test's own
        "$LAB" down >&2 || skip_all "the lab in $LAB_STATE is not ours to remove"
    fi
    TEST_LAB_IS_OURS=yes
    "$LAB" up "${1:-2}" >"$WORK/up" 2>&1 || {
        dump_logs
        skip_all "the lab does not come up: $(tail -n 3 "$WORK/up" | tr '\n' ' ')"
    }
    pair a b || bail_out "the hosts could not be paired"
    [[ ${1:-2} == 3 ]] || return 0
    { pair a c && pair b c; } || bail_out "the third host could not be paired"
}

bail_out() {
    dump_logs
    echo "Bail out! $*"
    exit 1
}

# pair A B: B invites, A joins.
pair() {
    local token

    token=$(js "$2" peer-invite | jq -r .token) && dr "$1" peer-join "$token" >&2
}

# guest HOST NAME [OPTION...]: as `lab guest`, and waits until it writes.
guest() {
    "$LAB" guest "$@" >&2 || bail_out "guest $2 cannot be made"
    case " $* " in
    *" --no-start "* | *" --rate 0 "*) return 0 ;;
    esac
    "$LAB" wait-guest "$1" "$2" --timeout "$PATIENCE" >&2 || bail_out "guest $2 does not write"
}

# protect VM [OPTION...]: from a to b, until the first point is there.
protect() {
    dr a protect "$1" --to b --wait "${@:2}"
}

# info HOST VM FILTER: one value of `virt-dr info`; nothing if there is no such replication.
info() {
    js "$1" info "$2" 2>/dev/null | jq -r "$3"
}

# The number of the newest recovery point that a host knows; 0 without one.
newest() {
    info "$1" "$2" '.latestInstance.sequenceNumber // 0'
}

newest_above() {
    local now

    now=$(newest "$1" "$2")
    [[ -n $now ]] && ((now > $3))
}

# advances NAME VM SECONDS [FROM]: a point newer than FROM (now's, if not given) gets durable on b.
advances() {
    local before=${4:-$(newest b "$2")}

    comes_true "$1" "$3" newest_above b "$2" "${before:-0}"
}

state_is() {
    [[ $(info "$1" "$2" .state) == "$3" ]]
}

# --- exit statuses, codes, messages ------------------------------------------------

# run_status COMMAND...: sets STATUS; $WORK/out and $WORK/err have what it printed.
run_status() {
    STATUS=0
    "$@" >"$WORK/out" 2>"$WORK/err" </dev/null || STATUS=$?
}

tell_run() {
    diag "'$*' ended with $STATUS"
    diag <"$WORK/out"
    diag <"$WORK/err"
}

# exits STATUS NAME COMMAND...
exits() {
    local wanted=$1 name=$2

    shift 2
    run_status "$@"
    if [[ $STATUS == "$wanted" ]]; then
        ok "$name"
    else
        not_ok "$name" "wanted exit status $wanted"
        tell_run "$@"
        return 1
    fi
}

# code_exit NAME: the exit status of DOMAIN_NOT_FOUND, as error_codes.def has it.
code_exit() {
    sed -n "s/^ERROR_CODE($1, \"[A-Za-z]*\", [0-9]*, \([0-9]*\),.*/\1/p" "$TOP/common/error_codes.def"
}

code_string() {
    sed -n "s/^ERROR_CODE($1, \"\([A-Za-z]*\)\",.*/\1/p" "$TOP/common/error_codes.def"
}

# fails_with CODE NAME HOST ARGUMENT...: virt-dr on HOST ends with the exit status of that code.
fails_with() {
    local code wanted name=$2 host=$3

    code=$1
    wanted=$(code_exit "$code")
    [[ -n $wanted ]] || bail_out "error_codes.def has no code '$code'"
    shift 3
    exits "$wanted" "$name ($(code_string "$code"))" dr "$host" "$@"
}

# message_has PATTERN...: what the last run wrote to standard error matches all of them (grep -E).
message_has() {
    local pattern

    for pattern in "$@"; do
        grep -qE -- "$pattern" "$WORK/err" || {
            not_ok "the message says '$pattern'"
            diag <"$WORK/err"
            return 1
        }
    done
    ok "its message says: $*"
}

# --- events and logs ----------------------------------------------------------------

# log_mark HOST: how long the log is now; for the two below.
log_mark() {
    wc -c <"$(daemon_log_file "$1")"
}

log_since() {
    tail -c "+$(($2 + 1))" "$(daemon_log_file "$1")"
}

# logged HOST EVENT [MARK]: has virtdrd written a line with that event's name (since the mark)?
logged() {
    log_since "$1" "${3:-0}" | grep -qE "^[^ ]+ +(ERROR|WARN|INFO|DEBUG) +$2 "
}

# logs NAME HOST EVENT [MARK]: such a line comes, or is there.
logs() {
    comes_true "$1" "$PATIENCE" logged "$2" "$3" "${4:-0}"
}

# has_event HOST TYPE: is it among the events that virtdrd keeps for clients?
has_event() {
    js "$1" events | jq -es --arg type "$2" 'any(.[]; .type == $type)' >/dev/null
}

# --- data -----------------------------------------------------------------------------

# The disks' paths of a domain, as its host sees them.
disks_of() {
    virsh_on "$1" domblklist --details "$2" | awk '$2 == "disk" { print $4 }'
}

backing_of() {
    on "$1" qemu-img info -U --output json "$2" | jq -r '."full-backing-filename"'
}

# consistent HOST VM [OPTION...]: `lab check-disk` of the domain's disks; its output is in $WORK/check.
consistent() {
    local host=$1 disks

    mapfile -t disks < <(disks_of "$host" "$2")
    shift 2
    "$LAB" check-disk --json --host "$host" --force-share "$@" "${disks[@]}" >"$WORK/check" ||
        { cat "$WORK/check"; return 1; }
}

# Nothing makes the disks of a VM one image: where QEMU has put what it copies is not all in the image,
# however still the VM is.
images_are_still() {
    [[ $(js "$1" task-list | jq --arg vm "$2" '[.items[] | select(.type == "flatten" and
        .state == "RUNNING" and .workflowInfo.resourceName == $vm)] | length') == 0 ]]
}

# holds_all NAME HOST VM ACKED: a VM that runs after a failover has lost nothing that was
# acknowledged: ACKED is a number, or a file with the output of `lab acked`.
holds_all() {
    wait_for "$((PATIENCE * 2))" images_are_still "$2" "$3" || diag "its images are still made one"
    virsh_on "$2" suspend "$3"
    check "$1" consistent "$2" "$3" --acked "$4" &&
        is "  ... and lost no block of them" "$(jq .lost_blocks "$WORK/check")" 0
    virsh_on "$2" resume "$3"
}

# same_bytes VM: b's failed-over disks began (below what the VM has written since) as a's are now,
# to the byte. For a VM that was suspended, or off, on a since before its last point.
same_bytes() {
    local old new i

    mapfile -t old < <(disks_of a "$1")
    mapfile -t new < <(disks_of b "$1")
    ((${#old[@]} > 0 && ${#old[@]} == ${#new[@]})) || {
        echo "disks on a: ${old[*]}; on b: ${new[*]}"
        return 1
    }
    for i in "${!old[@]}"; do
        on a qemu-img convert -U -O raw "${old[i]}" "$WORK/old" &&
            on b qemu-img convert -U -O raw "$(backing_of b "${new[i]}")" "$WORK/new" &&
            cmp "$WORK/old" "$WORK/new" || return 1
    done
}
