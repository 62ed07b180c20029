# shellcheck shell=bash
# Runs the tests and counts what they said. Part of quickstart.

# "PASS 12" lines, one for each kind of result, from what the test driver recorded.
count_results() {
    find "$1" -name '*.trs' -exec sed -n 's/^:test-result: \([A-Z]*\).*/\1/p' {} + |
        sort | uniq -c | awk '{ print $2, $1 }'
}

failed_tests() {
    find "$1" -name '*.trs' -exec grep -lE '^:global-test-result: (FAIL|ERROR|XPASS)' {} + || true
}

show_failures() {
    local record

    for record in $(failed_tests "$1"); do
        printf '\n==== %s ====\n' "${record%.trs}.log"
        cat "${record%.trs}.log"
    done
}

# Says the closing line; false if anything failed, or nothing ran at all.
closing_line() {
    local kind n passed=0 failed=0 skipped=0

    while read -r kind n; do
        case $kind in
        PASS | XFAIL) passed=$((passed + n)) ;;
        SKIP) skipped=$n ;;
        *) failed=$((failed + n)) ;;
        esac
    done < <(count_results "$1")
    if [[ ${REQUIRE_REAL:-} == 1 ]]; then
        failed=$((failed + skipped))
    fi
    ((skipped == 0)) || printf '\n%d skipped\n' "$skipped"
    printf '%d passed, %d failed\n' "$passed" "$failed"
    ((failed == 0 && passed > 0))
}

# One more test at a time than there are processors: those with hosts and guests wait for most of their
# time, and each has a lab of its own.
CHECK_JOBS=${CHECK_JOBS:-$(($(nproc) + 1))}

command_check() {
    local folder=$QUICK_TOP/build/check status=0 packages

    (($# == 0)) || bad_usage "check: '$1' is not an option"
    mapfile -t packages < <(all_packages)
    install_packages "${packages[@]}"
    build "$folder" --enable-werror
    step "Built the tests." "$folder/quickstart-build.log" unknown_percent \
        make_in "$folder" check TESTS=
    find "$folder" -name '*.trs' -delete
    export LAB_BUILD=$folder
    make -C "$folder" --no-print-directory -j"$CHECK_JOBS" -k check || status=$?
    show_failures "$folder"
    closing_line "$folder" || exit 1
    ((status == 0)) || fail "make check failed although no test did; see above"
}
