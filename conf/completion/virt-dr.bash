# bash completion for virt-dr; printed by client/print-completion.
# shellcheck shell=bash

_virt_dr_commands="peer-invite peer-join peer-list peer-remove protect export-seed unprotect list info points pin unpin tag untag retention consistency bandwidth sync resync release-bitmaps verify scrub pause resume failover planned-failover failover-policy abandon undo commit reverse failback undo-failback resolve guard export export-list unexport clone test-failover test-list test-report test-cleanup task-list task-info task-wait task-cancel events host-info help version"
_virt_dr_globals=" --connect --cert --key --fingerprint --ca --output --no-progress --quiet --help --version"

_virt_dr_options() {
    case $1 in
    peer-invite) echo " --expires" ;;
    protect) echo " --to --rpo --storage --exclude-disk --seed --consistent-every --bandwidth --window --max-size --rules --wait" ;;
    export-seed) echo " --no-record --wait" ;;
    unprotect) echo " --force --wait" ;;
    points) echo " --limit --plan --window --max-size --rules" ;;
    pin) echo " --tag" ;;
    retention) echo " --window --max-size --rules" ;;
    consistency) echo " --every" ;;
    bandwidth) echo " --limit" ;;
    sync) echo " --wait" ;;
    resync) echo " --wait" ;;
    release-bitmaps) echo " --hold" ;;
    verify) echo " --wait" ;;
    scrub) echo " --wait" ;;
    failover) echo " --force --shutdown --timeout --no-fence --define-only --network --address --auto-commit --auto-undo --point --at --before --interval --consistent --wait" ;;
    planned-failover) echo " --shutdown --timeout --no-reverse --network --address --auto-commit --auto-undo --wait" ;;
    failover-policy) echo " --auto-commit --auto-undo --manual" ;;
    abandon) echo " --force --wait" ;;
    undo) echo " --wait" ;;
    commit) echo " --no-reverse --wait" ;;
    reverse) echo " --to --storage --wait" ;;
    failback) echo " --shutdown --timeout --auto-commit --auto-undo --point --at --before --interval --consistent --wait" ;;
    undo-failback) echo " --wait" ;;
    resolve) echo " --keep --wait" ;;
    guard) echo " --allow --deny --end --reason --for" ;;
    export) echo " --point --at --before --interval --consistent --listen --credentials --name --wait" ;;
    clone) echo " --name --point --at --before --interval --consistent --storage --wait" ;;
    test-failover) echo " --point --at --before --interval --consistent --network --name --memory --keep --clean-up --check --timeout --note --wait" ;;
    test-report) echo " --screenshot" ;;
    test-cleanup) echo " --pass --fail --note --wait" ;;
    task-list) echo " --limit" ;;
    events) echo " --follow" ;;
    esac
}

_virt_dr_kind() {
    case $1,$2 in
    peer-invite,--expires) echo nothing ;;
    protect,--to) echo peers ;;
    protect,--rpo) echo nothing ;;
    protect,--storage) echo nothing ;;
    protect,--exclude-disk) echo nothing ;;
    protect,--seed) echo nothing ;;
    protect,--consistent-every) echo nothing ;;
    protect,--bandwidth) echo nothing ;;
    protect,--window) echo nothing ;;
    protect,--max-size) echo nothing ;;
    protect,--rules) echo nothing ;;
    points,--limit | points,-n) echo nothing ;;
    points,--window) echo nothing ;;
    points,--max-size) echo nothing ;;
    points,--rules) echo nothing ;;
    pin,--tag) echo nothing ;;
    retention,--window) echo nothing ;;
    retention,--max-size) echo nothing ;;
    retention,--rules) echo nothing ;;
    consistency,--every) echo nothing ;;
    bandwidth,--limit) echo nothing ;;
    release-bitmaps,--hold) echo nothing ;;
    failover,--shutdown) echo nothing ;;
    failover,--timeout) echo nothing ;;
    failover,--network) echo nothing ;;
    failover,--address) echo nothing ;;
    failover,--auto-commit) echo nothing ;;
    failover,--auto-undo) echo nothing ;;
    failover,--point) echo nothing ;;
    failover,--at) echo nothing ;;
    failover,--before) echo nothing ;;
    failover,--interval) echo nothing ;;
    planned-failover,--shutdown) echo nothing ;;
    planned-failover,--timeout) echo nothing ;;
    planned-failover,--network) echo nothing ;;
    planned-failover,--address) echo nothing ;;
    planned-failover,--auto-commit) echo nothing ;;
    planned-failover,--auto-undo) echo nothing ;;
    failover-policy,--auto-commit) echo nothing ;;
    failover-policy,--auto-undo) echo nothing ;;
    reverse,--to) echo peers ;;
    reverse,--storage) echo nothing ;;
    failback,--shutdown) echo nothing ;;
    failback,--timeout) echo nothing ;;
    failback,--auto-commit) echo nothing ;;
    failback,--auto-undo) echo nothing ;;
    failback,--point) echo nothing ;;
    failback,--at) echo nothing ;;
    failback,--before) echo nothing ;;
    failback,--interval) echo nothing ;;
    resolve,--keep) echo nothing ;;
    guard,--reason) echo nothing ;;
    guard,--for) echo nothing ;;
    export,--point) echo nothing ;;
    export,--at) echo nothing ;;
    export,--before) echo nothing ;;
    export,--interval) echo nothing ;;
    export,--listen) echo nothing ;;
    export,--credentials) echo files ;;
    export,--name) echo nothing ;;
    clone,--name) echo nothing ;;
    clone,--point) echo nothing ;;
    clone,--at) echo nothing ;;
    clone,--before) echo nothing ;;
    clone,--interval) echo nothing ;;
    clone,--storage) echo nothing ;;
    test-failover,--point) echo nothing ;;
    test-failover,--at) echo nothing ;;
    test-failover,--before) echo nothing ;;
    test-failover,--interval) echo nothing ;;
    test-failover,--network) echo nothing ;;
    test-failover,--name) echo nothing ;;
    test-failover,--memory) echo nothing ;;
    test-failover,--keep) echo nothing ;;
    test-failover,--check) echo nothing ;;
    test-failover,--timeout) echo nothing ;;
    test-failover,--note) echo nothing ;;
    test-report,--screenshot) echo files ;;
    test-cleanup,--note) echo nothing ;;
    task-list,--limit | task-list,-n) echo nothing ;;
    *,--connect | *,-c) echo nothing ;;
    *,--cert) echo files ;;
    *,--key) echo files ;;
    *,--fingerprint) echo nothing ;;
    *,--ca) echo files ;;
    *,--output | *,-o) echo formats ;;
    peer-join,) echo nothing ;;
    peer-remove,) echo peers ;;
    protect,) echo domains ;;
    export-seed,) echo domains ;;
    unprotect,) echo vms ;;
    info,) echo vms ;;
    points,) echo vms ;;
    pin,) echo vms ;;
    unpin,) echo vms ;;
    tag,) echo vms ;;
    untag,) echo vms ;;
    retention,) echo vms ;;
    consistency,) echo vms ;;
    bandwidth,) echo vms ;;
    sync,) echo vms ;;
    resync,) echo vms ;;
    release-bitmaps,) echo vms ;;
    verify,) echo vms ;;
    scrub,) echo vms ;;
    pause,) echo vms ;;
    resume,) echo vms ;;
    failover,) echo vms ;;
    planned-failover,) echo vms ;;
    failover-policy,) echo vms ;;
    abandon,) echo vms ;;
    undo,) echo vms ;;
    commit,) echo vms ;;
    reverse,) echo vms ;;
    failback,) echo vms ;;
    undo-failback,) echo vms ;;
    resolve,) echo vms ;;
    guard,) echo nothing ;;
    export,) echo vms ;;
    export-list,) echo vms ;;
    unexport,) echo nothing ;;
    clone,) echo vms ;;
    test-failover,) echo vms ;;
    test-list,) echo vms ;;
    test-report,) echo vms ;;
    test-cleanup,) echo vms ;;
    task-info,) echo tasks ;;
    task-wait,) echo tasks ;;
    task-cancel,) echo tasks ;;
    help,) echo commands ;;
    esac
}

_virt_dr_values() {
    case $1 in
    formats) echo "table json" ;;
    commands) echo "$_virt_dr_commands" ;;
    peers) virt-dr --quiet peer-list 2>/dev/null ;;
    vms) virt-dr --quiet list 2>/dev/null ;;
    tasks) virt-dr --quiet task-list 2>/dev/null ;;
    domains) virsh --readonly list --all --name 2>/dev/null ;;
    esac
}

_virt_dr_match() {
    local candidate

    set -f
    for candidate in $2; do
        [[ $candidate == "$1"* ]] && printf '%q\n' "$candidate"
    done
}

_virt_dr() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    local command='' kind='' words='' skip='' i IFS=$' \t\n'

    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ -n $skip ]]; then
            skip=
        elif [[ ${COMP_WORDS[i]} == -* ]]; then
            [[ -n $(_virt_dr_kind "$command" "${COMP_WORDS[i]}") ]] && skip=yes
        elif [[ -z $command ]]; then
            command=${COMP_WORDS[i]}
        fi
    done
    if [[ -n $skip ]]; then
        kind=$(_virt_dr_kind "$command" "$before")
    elif [[ $word == -* ]]; then
        words="$(_virt_dr_options "$command")$_virt_dr_globals"
    elif [[ -z $command ]]; then
        kind=commands
    else
        kind=$(_virt_dr_kind "$command" "")
    fi
    if [[ $kind == files ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
    fi
    [[ -n $kind ]] && words=$(_virt_dr_values "$kind")
    mapfile -t COMPREPLY < <(_virt_dr_match "$word" "$words")
}

complete -F _virt_dr virt-dr
