#include "tests/unit/unit.h"

#include <errno.h>

static void
a_prefix_goes_in_front_and_keeps_the_code(void **state UNUSED)
{
    struct error *err = NULL;

    assert_false(error_set(&err, ERROR_STORE, "open '%s'", "x"));
    assert_false(error_prefix(&err, "replication '%s'", "r1"));
    assert_string_equal(error_message(err), "replication 'r1': open 'x'");
    assert_int_equal(error_code(err), ERROR_STORE);
    error_clear(&err);
    assert_null(err);
}

static void
errno_is_told_in_words(void **state UNUSED)
{
    struct error *err = NULL;

    errno = ENOENT;
    assert_false(error_errno(&err, ERROR_STORE, "open 'x'"));
    assert_string_equal(error_message(err), "open 'x': No such file or directory");
    error_clear(&err);
}

static void
setters_take_a_caller_that_ignores(void **state UNUSED)
{
    assert_false(error_set(NULL, ERROR_USAGE, "nobody listens"));
    assert_false(error_prefix(NULL, "nobody"));
}

static void
every_code_has_its_own_name_and_exit_status(void **state UNUSED)
{
    bool seen[256] = { false };

    for (int i = 0; i < ERROR_N_CODES; i++) {
        enum error_code code = (enum error_code)i;
        int exit_status = error_code_exit(code);

        assert_in_range(exit_status, 1, 125);
        assert_false(seen[exit_status]);
        seen[exit_status] = true;
        assert_int_equal(error_code_from_string(error_code_string(code)), code);
        assert_true(strlen(error_code_text(code)) > 10);
    }
    assert_int_equal(error_code_from_string("no such code"), ERROR_INTERNAL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prefix_goes_in_front_and_keeps_the_code),
        cmocka_unit_test(errno_is_told_in_words),
        cmocka_unit_test(setters_take_a_caller_that_ignores),
        cmocka_unit_test(every_code_has_its_own_name_and_exit_status),
    };

    return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
