#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "common/mem.h"

static void
new_memory_is_zeroed_and_never_null(void **state UNUSED)
{
    static const char zeros[64];
    AUTOFREE(char) *a = mem_alloc(64, 1);
    AUTOFREE(char) *none = mem_alloc(0, 0);

    assert_memory_equal(a, zeros, 64);
    assert_non_null(none);
}

static void
memory_of_pages_is_zeroed_and_begins_with_one(void **state UNUSED)
{
    static const char zeros[10000];
    AUTOFREE(char) *p = mem_alloc_pages(sizeof zeros);

    assert_memory_equal(p, zeros, sizeof zeros);
    assert_int_equal((uintptr_t)p % 4096, 0);
}

static void
copies_end_with_a_nul(void **state UNUSED)
{
    AUTOFREE(char) *all = mem_memdup("ab\0cd", 5);
    AUTOFREE(char) *none = mem_memdup(NULL, 0);
    AUTOFREE(char) *text = mem_printf("%s-%d", "x", 7);

    assert_memory_equal(all, "ab\0cd", 6);
    assert_string_equal(none, "");
    assert_string_equal(text, "x-7");
    assert_null(mem_strdup(NULL));
}

static void
a_string_is_replaced_also_by_a_part_of_itself(void **state UNUSED)
{
    AUTOFREE(char) *s = mem_strdup("abcdef");

    mem_setstr(&s, s + 3);
    assert_string_equal(s, "def");
    mem_setstr(&s, NULL);
    assert_null(s);
}

static void
the_end_of_a_scope_closes_what_was_not_taken(void **state UNUSED)
{
    int closed, kept;

    {
        AUTOFD(a) = open("/dev/null", O_RDONLY | O_CLOEXEC);
        AUTOFD(b) = open("/dev/null", O_RDONLY | O_CLOEXEC);

        closed = a;
        kept = TAKE_FD(b);
        assert_int_equal(b, -1);
    }
    assert_int_equal(fcntl(closed, F_GETFD), -1);
    assert_int_equal(errno, EBADF);
    assert_true(fcntl(kept, F_GETFD) >= 0);
    close(kept);
}

static void
a_pointer_that_was_taken_is_null(void **state UNUSED)
{
    AUTOFREE(char) *mine = mem_strdup("x");
    AUTOFREE(char) *yours = TAKE(mine);

    assert_null(mine);
    assert_string_equal(yours, "x");
}

/* A sanitizer would end the child as well, but in its own way and with a report. */
static void
memory_that_cannot_be_had_aborts(void **state UNUSED)
{
    int status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

        dup2(null, STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        mem_alloc(SIZE_MAX / 2, 4);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_not_equal(status, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(new_memory_is_zeroed_and_never_null),
        cmocka_unit_test(memory_of_pages_is_zeroed_and_begins_with_one),
        cmocka_unit_test(copies_end_with_a_nul),
        cmocka_unit_test(a_string_is_replaced_also_by_a_part_of_itself),
        cmocka_unit_test(the_end_of_a_scope_closes_what_was_not_taken),
        cmocka_unit_test(a_pointer_that_was_taken_is_null),
        cmocka_unit_test(memory_that_cannot_be_had_aborts),
    };

    return cmocka_run_group_tests_name("mem", tests, NULL, NULL);
}
