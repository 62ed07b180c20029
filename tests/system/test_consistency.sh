#!/bin/bash
# Application-consistent points with agents in real guests (TAP): the file system needs no replay of
# its journal, and whatever the agent does, no guest stays frozen for longer than it may (I7).

export LAB_ID=${LAB_ID:-48}
export LAB_CONF_EXTRA
LAB_CONF_EXTRA=$(mktemp /var/tmp/virt-dr-consistency.XXXXXX)
. "$top_srcdir/tests/system/lib.sh" || exit 1

# As configured below; the time that the agent that dies is away; and a second for the guest's clock.
LONGEST_S=$((4 + 3 + 1))
# An agent that freezes at once and answers after 12 s hears of nothing before. It is asked to thaw for 5 s
# at a time, with 1 s between.
LATE_S=$((12 + 5 + 1 + 1))

cat >"$LAB_CONF_EXTRA" <<END
[consistency]
freeze_max = 4s
END

console() {
    lab console a "$1" | tr -d '\r'
}

longest_freeze() {
    { echo 0; console "$1" | sed -n 's/^thawed \([0-9]*\)$/\1/p'; } | sort -n | tail -n 1
}

times_frozen() {
    console "$1" | grep -c '^frozen$'
}

times_thawed() {
    console "$1" | grep -c '^thawed [0-9]*$'
}

was_frozen() {
    (($(times_frozen "$1") >= $2))
}

is_thawed() {
    (($(times_frozen "$1") == $(times_thawed "$1")))
}

points_of_kind() {
    js b points "$1" | jq "[.items[] | select(.consistency == \"$2\")] | length"
}

has_points() {
    (($(points_of_kind "$1" "$2") >= $3))
}

# journal_state VM POINT...: "clean" or "needs-recovery", as the file system on vdc says.
journal_state() {
    local vm=$1 uri
    shift

    js b export "$vm" "$@" --name journal --wait >"$WORK/task" || return 1
    uri=$(jq -r '.result.disks[] | select(.target == "vdc") | .uri' "$WORK/task")
    on b qemu-img convert -f raw -O raw "$uri" "$WORK/fs.raw" && dr b unexport journal >/dev/null || return 1
    if dumpe2fs -h "$WORK/fs.raw" 2>/dev/null | grep '^Filesystem features:' | grep -q needs_recovery; then
        echo needs-recovery
    else
        echo clean
    fi
}

newest_of_kind() {
    js b points "$1" | jq -r "[.items[] | select(.consistency == \"$2\")][0].id"
}

agent_is_there() {
    on a virsh dumpxml "$1" | grep -q "org.qemu.guest_agent.0' state='connected'"
}

frozen_guest() {
    guest a "$1" --agent --rate 50 "${@:2}" && wait_for 30 agent_is_there "$1"
}

good_agent() {
    frozen_guest good --filesystem || bail_out "no guest with a file system"
    check "a VM is protected with one of two points consistent" \
        protect good --rpo 2s --consistent-every 2
    comes_true "points of both kinds arrive" 60 has_points good application 2
    comes_true "and crash-consistent ones between them" 60 has_points good crash 2
    is "the journal of a consistent point is empty" \
        "$(journal_state good --consistent)" clean
    check "its file system is whole without a repair" e2fsck -fn "$WORK/fs.raw"
    is "the journal of another point is not" \
        "$(journal_state good --point "$(newest_of_kind good crash)")" needs-recovery
    comes_true "the guest is not frozen" 10 is_thawed good
    check "it was never frozen for long ($(longest_freeze good) s)" test "$(longest_freeze good)" -le 2
}

settings() {
    check "another rule is set" dr a consistency good --every 10m
    is "it is shown" "$(js a consistency good | jq .everyTime)" 600000
    fails_with AGENT "a VM without a channel is refused" a consistency plain --every 5
    message_has "org.qemu.guest_agent.0"
    fails_with USAGE "so is nonsense" a consistency good --every often
    fails_with INVALID_STATE "the target is the wrong place" b consistency good --every 5
    check "and none at all" dr a consistency good --every never
}

killed_while_frozen() {
    local before

    check "all points are to be consistent" dr a consistency good --every 1
    before=$(times_frozen good)
    comes_true "the guest is frozen" 30 was_frozen good $((before + 1))
    lab kill a virtdrd
    lab start a virtdrd || bail_out "virtdrd does not come up again"
    comes_true "a guest that was frozen when virtdrd was killed is thawed" 30 is_thawed good
    advances "replication goes on" good 60
}

# faulty_agent FAULT: points go on, the guest is thawed in its time, and `list` says what is wrong.
faulty_agent() {
    local fault=$1

    frozen_guest "$fault" --agent-fault "$fault" || bail_out "no guest '$fault'"
    check "$fault: the VM is protected" protect "$fault" --rpo 2s --consistent-every 1
    advances "$fault: its points go on" "$fault" 60
    comes_true "$fault: it is not left frozen" 40 is_thawed "$fault"
    check "$fault: it was not frozen for longer than it may be ($(longest_freeze "$fault") s)" \
        test "$(longest_freeze "$fault")" -le "$LONGEST_S"
}

# frozen_and_thawed FAULT LONGEST_S: its freeze failed, and yet the guest was frozen, as it knows itself.
frozen_and_thawed() {
    comes_true "$1: it is frozen" 60 was_frozen "$1" 1
    comes_true "$1: and thawed" 40 is_thawed "$1"
    check "$1: not frozen for longer than it may be ($(longest_freeze "$1") s)" \
        test "$(longest_freeze "$1")" -le "$2"
    advances "$1: its points go on" "$1" 60
}

time_of() {
    info b "$1" .latestInstance.timestamp
}

time_moves() {
    (($(time_of "$1") > $2))
}

# Nobody but whoever resets the guest can thaw it: that is said, and nothing else is held up.
agent_that_hangs() {
    local mark

    mark=$(log_mark a)
    comes_true "freeze-hangs: it is frozen" 60 was_frozen freeze-hangs 1
    logs "freeze-hangs: which is a critical event" a guest-frozen
    comes_true "freeze-hangs: its points stay young" 30 time_moves freeze-hangs "$(time_of freeze-hangs)"
    virsh_on a reset freeze-hangs
    check "freeze-hangs: the guest comes back" lab wait-guest a freeze-hangs --timeout "$((PATIENCE * 3))"
    logs "freeze-hangs: and is known to be thawed" a guest-thawed "$mark"
    advances "freeze-hangs: its points go on" freeze-hangs 60
}

# Side by side, as they take their time.
slow_agents() {
    local fault

    for fault in freeze-late freeze-slow freeze-hangs; do
        frozen_guest "$fault" --agent-fault "$fault" || bail_out "no guest '$fault'"
        check "$fault: the VM is protected" protect "$fault" --rpo 2s --consistent-every 1
    done
    frozen_and_thawed freeze-slow "$LONGEST_S"
    frozen_and_thawed freeze-late "$LATE_S"
    agent_that_hangs
}

complains() {
    js a info "$1" | jq -e '.healthReasons[] | select(startswith("no application-consistent points"))' >/dev/null
}

all_complain() {
    local fault

    for fault in "$@"; do
        comes_true "$fault: what is wrong is said" 10 complains "$fault"
    done
}

# The others need the processors: an emulated guest among many takes minutes to boot.
let_go() {
    local vm

    for vm in "$@"; do
        check "the guest '$vm' goes" dr a unprotect "$vm" --wait
        virsh_on a destroy "$vm"
    done
}

need dumpe2fs e2fsck jq
system_up
guest a plain --rate 10 || bail_out "no guest without an agent"
protect plain --rpo 5s || bail_out "the guest without an agent is not protected"
good_agent
settings
killed_while_frozen
let_go good plain
for fault in freeze-fails silent dies thaw-fails; do
    faulty_agent "$fault"
done
all_complain freeze-fails silent dies
# Three guests more, which take their time.
if [[ -n ${LONG:-} ]]; then
    let_go freeze-fails silent dies thaw-fails
    slow_agents
    all_complain freeze-slow freeze-late
fi
rm -f "$LAB_CONF_EXTRA"
tests_done
