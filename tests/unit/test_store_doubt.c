/* A change that failed when it may have become durable all the same. */
#include "tests/unit/points_kit.h"

#include <errno.h>
#include <sys/syscall.h>

/* The inode of a folder, and which fsync of it from now on fails; 0: none. */
static struct {
    ino_t folder;
    int fails_at;
} trouble;

/* In place of the C library's. */
int
fsync(int fd)
{
    struct stat st;

    if (trouble.fails_at > 0 && fstat(fd, &st) == 0 && st.st_ino == trouble.folder &&
        --trouble.fails_at == 0) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

static void
fail_at(const struct place *p, int count)
{
    struct stat st;

    assert_int_equal(stat(p->folder, &st), 0);
    trouble.folder = st.st_ino;
    trouble.fails_at = count;
}

/* I4: on disk the mark may be there; whoever writes on must not write into it. */
static void
direct_writes_behind_a_mark_that_may_be_there_do_not_touch_it(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct error *err = NULL;

    create_store(p);
    write_all_directly(p);
    assert_ok(ops->flush(p->s, &err), err);
    make_point(p, h, 1);
    fail_at(p, 2); /* behind `applying` */
    assert_fails(ops->apply(p->s, 1, NULL, &err), err, ERROR_STORE);
    assert_int_equal(trouble.fails_at, 0);
    assert_int_equal(ops->applied(p->s), 0);
    write_all_directly(p);
    assert_ok(ops->flush(p->s, &err), err);
    reopen(p);
    if (ops->applied(p->s) == 1) /* as it was on disk when we died */
        assert_point(p, h, 1);
    else
        assert_content(p);
}

/* The same in a seal: its new tips are on disk, and so is the layout that names them. */
static void
a_seal_that_may_have_succeeded_is_made_again(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct error *err = NULL;

    create_store(p);
    for (uint64_t seq = 1; seq <= 2; seq++) {
        make_point(p, h, seq);
        apply(p, seq);
    }
    fail_at(p, 1);
    assert_fails(ops->seal(p->s, &err), err, ERROR_STORE);
    make_point(p, h, 3);
    apply(p, 3);
    reopen(p);
    for (uint64_t seq = 1; seq <= 3; seq++)
        assert_point(p, h, seq);
    assert_content(p);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        with_place(direct_writes_behind_a_mark_that_may_be_there_do_not_touch_it),
        with_place(a_seal_that_may_have_succeeded_is_made_again),
    };

    return cmocka_run_group_tests_name("store/doubt", tests, NULL, NULL);
}
