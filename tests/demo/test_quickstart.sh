#!/bin/bash
# The options of quickstart, its list of packages, and how it judges and counts (TAP). Nothing here
# installs, builds or makes a lab.
# shellcheck disable=SC2317 # the functions are called by check

# Make may run it by another shell.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0"

set -uo pipefail
export LC_ALL=C

top=${top_srcdir:-$(dirname "$(readlink -f "$0")")/../..}
quickstart=$top/quickstart
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
number=0
failed=0

# check NAME COMMAND...
check() {
    local name=$1

    shift
    number=$((number + 1))
    if "$@" >"$work/output" 2>&1; then
        echo "ok $number - $name"
    else
        failed=1
        echo "not ok $number - $name"
        sed 's/^/# /' "$work/output"
    fi
}

# refuses WORDS ARGUMENT...: status 2 and the words on stderr, before anything is done.
refuses() {
    local words=$1 status=0

    shift
    "$quickstart" "$@" >"$work/out" 2>"$work/err" || status=$?
    cat "$work/err"
    ((status == 2)) && [[ ! -s $work/out ]] && grep -qF -- "$words" "$work/err"
}

help_names_all() {
    local text word

    text=$("$quickstart" --help) || return 1
    for word in demo check deps --full --json --keep --list LAB_ID REQUIRE_REAL; do
        [[ $text == *"$word"* ]] || return 1
    done
    [[ $("$quickstart") == "$text" ]]
}

# The third and fourth argument of each VDR_PKG in configure.ac.
required_packages() {
    tr '\n' ' ' <"$top/configure.ac" | grep -oE 'VDR_PKG\(\[[A-Z]+\], *(\[[^]]*\],? *)+\)' |
        sed -E 's/^VDR_PKG\(\[[^]]*\], *\[[^]]*\], *\[([^]]*)\], *\[([^]]*)\].*/\1 \2/'
}

debian_list_is_complete() {
    local debian

    [[ $(required_packages | wc -l) -ge 13 ]] || return 1
    while read -r debian _; do
        "$quickstart" deps --list | grep -x "$debian" || return 1
    done < <(required_packages)
}

readme_names_all() {
    local debian fedora

    for debian in $("$quickstart" deps --list); do
        grep -qw -- "$debian" "$top/README.md" || { echo "not in README.md: $debian"; return 1; }
    done
    while read -r _ fedora; do
        grep -qw -- "$fedora" "$top/README.md" || { echo "not in README.md: $fedora"; return 1; }
    done < <(required_packages)
}

# fragment COMMAND...: with the functions of quickstart, in a shell of its own.
fragment() {
    # shellcheck disable=SC2016 # expanded by the inner shell
    bash -c 'set -euo pipefail; top=$1; shift
        for part in ui packages build check demo demo_steps demo_result demo_full; do
            . "$top/tests/demo/$part.sh"
        done
        "$@"' fragment "$top" "$@"
}

counts() {
    mkdir -p "$work/tree/tests"
    printf ':test-result: PASS 1 - a\n:test-result: PASS 2 - b\n' >"$work/tree/a.trs"
    printf '%s\n' "$@" >"$work/tree/tests/b.trs"
    fragment closing_line "$work/tree"
}

counts_passed_and_failed() {
    [[ $(counts ':test-result: FAIL 1 - c' ':test-result: ERROR') == "2 passed, 2 failed" ]] &&
        ! counts ':test-result: FAIL 1 - c' && counts ':test-result: PASS 1 - c'
}

skips_fail_where_all_must_run() {
    REQUIRE_REAL='' counts ':test-result: SKIP 1 - c' && ! REQUIRE_REAL=1 counts ':test-result: SKIP 1 - c'
}

no_results_fail() {
    mkdir -p "$work/empty"
    ! fragment closing_line "$work/empty"
}

# judge CHECK_CHANGES FOUND GUARD: what the demo says of these disks.
judge() {
    mkdir -p "$work/demo"
    echo '{"statistics": {"rpoSeenMax": 4400, "firstSyncBytes": 1048576, "firstSyncMs": 1000, "cycles": 5,
        "cycleMsP50": 300, "cycleMsP99": 500, "changedBytes": 9, "wireBytes": 5}}' >"$work/demo/info.json"
    echo '{"result": {"rtoSeconds": 2.5}}' >"$work/demo/task.json"
    echo '{"consistent": true, "highest": 90, "missing": 0, "torn": 0, "order": 0, "acked": 100,
        "lost_blocks": 10, "lost_seconds": 3.5}' | jq "$1" >"$work/demo/check.json"
    echo 1000 >"$work/demo/failover-begun"
    echo 9000 >"$work/demo/guest-back"
    echo "found run=1 highest=$2 held=$2 missing=0 torn=0" >"$work/demo/found"
    echo true >"$work/demo/guest-runs"
    echo "$3" >"$work/demo/guard-refused"
    # shellcheck disable=SC2016 # expanded by eval
    fragment eval "DEMO_WORK='$work/demo'"'; make_result >"$DEMO_WORK/result.json"; print_result'
}

good_data_passes() {
    judge . 90 true | grep '^Passed' &&
        jq -e '.rto_s == 2.5 and .blocks_lost == 10 and .service_back_s == 8' "$work/demo/result.json"
}

bad_data_fails() {
    ! judge '.torn = 1' 90 true && ! judge '.order = 1 | .missing = 1' 90 true &&
        ! judge '.lost_seconds = 6.1' 90 true && ! judge '.consistent = false' 90 true &&
        ! judge . 89 true
}

a_guard_that_lets_it_start_fails() {
    ! judge . 90 false
}

# judge_full LOST RESULT GUARD: blocks lost in the planned move, the drill's result.
judge_full() {
    mkdir -p "$work/full"
    echo "{\"result\": {\"result\": \"$2\"}}" >"$work/full/drill.json"
    printf '{"move": "%s", "lost": %d, "missing": 0, "torn": 0}\n' failover 40 planned "$1" >"$work/full/moves"
    echo "$3" >"$work/full/guard-refused"
    # shellcheck disable=SC2016 # expanded by eval
    fragment eval "DEMO_WORK='$work/full' DEMO_FULL=yes"'; make_full_result >"$DEMO_WORK/result.json"; print_result'
}

the_whole_story_is_judged() {
    judge_full 0 passed true | grep '^Passed' && ! judge_full 1 passed true && ! judge_full 0 failed true &&
        ! judge_full 0 passed false
}

check "help names all commands and options" help_names_all
check "an unknown command is refused" refuses "'frob' is not a command" frob
check "demo refuses an unknown option" refuses "'--frob' is not an option" demo --frob
check "demo refuses --json without a file" refuses "--json needs a file" demo --json
check "check takes no options" refuses "'--frob' is not an option" check --frob
check "deps refuses an unknown option" refuses "'--frob' is not an option" deps --frob
LAB_ID=100 check "a LAB_ID out of range is refused" refuses "LAB_ID '100'" demo
check "every library that configure wants is in the Debian list" debian_list_is_complete
check "README.md names every package, for Debian and Fedora" readme_names_all
check "passed and failed tests are counted, and a failed one fails" counts_passed_and_failed
check "a skipped test fails only where all must run" skips_fail_where_all_must_run
check "no results at all fail" no_results_fail
check "good data passes" good_data_passes
check "torn, disordered, damaged or too old data fails" bad_data_fails
check "a guard that did not refuse fails" a_guard_that_lets_it_start_fails
check "the whole story passes only if no planned move lost a block" the_whole_story_is_judged
echo "1..$number"
exit "$failed"
