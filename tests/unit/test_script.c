/* Programs of the operator: what is run, for how long, and what is kept of it. */
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cancel.h"
#include "common/units.h"
#include "drivers/script/script.h"

static char folder[64], path[128];

static int
set_up(void **state UNUSED)
{
    snprintf(folder, sizeof folder, "/var/tmp/virt-dr-script-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/check", folder);
    return 0;
}

static int
tear_down(void **state UNUSED)
{
    unlink(path);
    rmdir(folder);
    return 0;
}

static void
write_script(const char *body)
{
    AUTOFREE(char) *text = mem_printf("#!/bin/sh\n%s\n", body);
    AUTOFD(fd) = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static const char *const environment[] = { "VIRT_DR_VM=web 01", NULL };

static void
status_and_output_come_back(void **state UNUSED)
{
    struct script script = { .path = path, .environment = environment };
    AUTOFREE(char) *output = NULL;
    struct error *err = NULL;
    int status = -1;

    write_script("echo \"vm is $VIRT_DR_VM\"; echo second >&2; exit 3");
    assert_ok(script_run(&script, &status, &output, &err), err);
    assert_int_equal(status, 3);
    assert_string_equal(output, "vm is web 01 second");
}

static void
our_own_environment_is_not_its(void **state UNUSED)
{
    struct script script = { .path = path, .environment = environment };
    AUTOFREE(char) *output = NULL;
    struct error *err = NULL;
    int status = -1;

    setenv("VIRT_DR_SECRET", "hush", 1);
    write_script("echo \"<$VIRT_DR_SECRET>\"");
    assert_ok(script_run(&script, &status, &output, &err), err);
    assert_string_equal(output, "<>");
}

static void
one_that_was_killed_says_so(void **state UNUSED)
{
    struct script script = { .path = path, .environment = environment };
    AUTOFREE(char) *output = NULL;
    struct error *err = NULL;
    int status = -1;

    write_script("kill -9 $$");
    assert_ok(script_run(&script, &status, &output, &err), err);
    assert_int_equal(status, 128 + 9);
}

/* It ignores the asking, and so does what it started. */
static void
one_that_hangs_is_ended_in_its_time(void **state UNUSED)
{
    struct cancel cancel = { 0 };
    struct script script = { .path = path,
                             .environment = environment,
                             .cancel = &cancel };
    AUTOFREE(char) *output = NULL;
    struct error *err = NULL;
    int status = -1;
    int64_t began_ms = units_monotonic_ms();

    write_script("trap '' TERM; while :; do sleep 1; done");
    cancel_set_timeout(&cancel, 200);
    assert_fails(script_run(&script, &status, &output, &err), err, ERROR_TIMEOUT);
    assert_true(units_monotonic_ms() - began_ms < 10000);
}

static void
what_it_leaves_in_the_background_does_not_hold_us_up(void **state UNUSED)
{
    struct script script = { .path = path, .environment = environment };
    AUTOFREE(char) *output = NULL;
    struct error *err = NULL;
    int status = -1;
    int64_t began_ms = units_monotonic_ms();

    write_script("sleep 100 & echo done");
    assert_ok(script_run(&script, &status, &output, &err), err);
    assert_int_equal(status, 0);
    assert_true(units_monotonic_ms() - began_ms < 10000);
}

static void
what_others_may_write_is_refused(void **state UNUSED)
{
    struct error *err = NULL;

    write_script("exit 0");
    assert_ok(script_check(path, &err), err);
    chmod(path, 0722);
    assert_fails(script_check(path, &err), err, ERROR_PERMISSION);
    chmod(path, 0600);
    assert_fails(script_check(path, &err), err, ERROR_PERMISSION);
    chmod(path, 0700);
    chmod(folder, 0777);
    assert_fails(script_check(path, &err), err, ERROR_PERMISSION);
    chmod(folder, 0700);
    assert_fails(script_check(folder, &err), err, ERROR_PERMISSION);
    assert_fails(script_check("/nonexistent/x", &err), err, ERROR_PERMISSION);
    assert_fails(script_check("check", &err), err, ERROR_USAGE);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_and_output_come_back),
        cmocka_unit_test(our_own_environment_is_not_its),
        cmocka_unit_test(one_that_was_killed_says_so),
        cmocka_unit_test(one_that_hangs_is_ended_in_its_time),
        cmocka_unit_test(what_it_leaves_in_the_background_does_not_hold_us_up),
        cmocka_unit_test(what_others_may_write_is_refused),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
