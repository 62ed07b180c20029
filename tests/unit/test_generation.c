/* When images count as unchanged. */
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "drivers/capture/generation.h"

extern char **environ;

static char folder[] = "/tmp/vdr-generation-XXXXXX";

static void
run(const char *command)
{
    const char *const argv[] = { "sh", "-c", command, NULL };
    pid_t pid;
    int status;

    assert_int_equal(posix_spawnp(&pid, "sh", NULL, NULL, (char *const *)argv, environ),
                     0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static uint64_t
look(const char *first, const char *second)
{
    AUTOFREE(char) *a = mem_printf("%s/%s", folder, first);
    AUTOFREE(char) *b = second != NULL ? mem_printf("%s/%s", folder, second) : NULL;
    const char *const paths[] = { a, b };
    struct error *err = NULL;
    uint64_t g = 0;

    assert_ok(generation_of(paths, b != NULL ? 2 : 1, &g, &err), err);
    assert_int_not_equal(g, 0);
    return g;
}

static void
in_folder(const char *command)
{
    AUTOFREE(char) *line = mem_printf("cd %s && %s", folder, command);

    run(line);
}

static void
reading_changes_nothing(void **state UNUSED)
{
    uint64_t before;

    in_folder("echo one >a && echo two >b");
    before = look("a", "b");
    in_folder("cat a b >/dev/null && sync a");
    assert_int_equal(look("a", "b"), before);
    assert_int_not_equal(look("b", "a"), before);
}

static void
a_write_or_another_file_of_that_name_is_seen(void **state UNUSED)
{
    uint64_t before;

    in_folder("echo one >a");
    before = look("a", NULL);
    in_folder("printf X | dd of=a conv=notrunc status=none");
    assert_int_not_equal(look("a", NULL), before);
    before = look("a", NULL);
    in_folder("cp -p a c && mv c a");
    assert_int_not_equal(look("a", NULL), before);
}

static void
an_image_below_is_seen_too(void **state UNUSED)
{
    uint64_t before;

    in_folder("qemu-img create -q -f qcow2 base 1M && "
              "qemu-img create -q -f qcow2 -b base -F qcow2 top");
    before = look("top", NULL);
    assert_int_equal(look("top", NULL), before);
    in_folder("qemu-io -f qcow2 -c 'write -q 0 4k' base");
    assert_int_not_equal(look("top", NULL), before);
}

static void
a_missing_image_is_an_error(void **state UNUSED)
{
    const char *const paths[] = { "/nonexistent/image" };
    struct error *err = NULL;
    uint64_t g = 7;

    assert_fails(generation_of(paths, 1, &g, &err), err, ERROR_STORE);
    assert_int_equal(g, 7);
}

static int
set_up(void **state UNUSED)
{
    return mkdtemp(folder) == NULL;
}

static int
tear_down(void **state UNUSED)
{
    in_folder("rm -f a b base top");
    return rmdir(folder);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reading_changes_nothing),
        cmocka_unit_test(a_write_or_another_file_of_that_name_is_seen),
        cmocka_unit_test(an_image_below_is_seen_too),
        cmocka_unit_test(a_missing_image_is_an_error),
    };

    return cmocka_run_group_tests_name("generation", tests, set_up, tear_down);
}
