/* What a VM's images were when it ended, and what of them has changed when it starts. */
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemon/imprint.h"

#define UUID "0f8c1a52-6a3e-4c11-9d55-7f0e8b1d2c3a"

static char folder[] = "/tmp/vdr-imprint-XXXXXX";

/* A header is all that is looked at. */
static char *
make_image(const char *name, const char *content)
{
    char *path = mem_printf("%s/%s", folder, name);
    FILE *f = fopen(path, "we");

    assert_non_null(f);
    assert_true(fputs(content, f) >= 0);
    assert_int_equal(fclose(f), 0);
    return path;
}

static struct imprint
look(const char *a, const char *b)
{
    struct imprint i = { .n = 0 };

    imprint_add(&i, "vda", a);
    imprint_add(&i, "vdb", b);
    return i;
}

static void
images_that_are_as_they_were_left_are_not_changed(void **state UNUSED)
{
    AUTOFREE(char) *a = make_image("a", "QFI\xfb one");
    AUTOFREE(char) *b = make_image("b", "QFI\xfb two");
    struct imprint left = look(a, b), now, changed;
    struct error *err = NULL;

    assert_int_equal(left.n, 2);
    assert_ok(imprint_write(folder, UUID, &left, &err), err);
    now = look(a, b);
    assert_ok(imprint_start(folder, UUID, &now, &err), err);
    assert_false(imprint_changed(folder, UUID, &changed));
    assert_false(imprint_read(folder, UUID, &changed));
}

static void
what_was_changed_in_between_is_noted_until_it_is_accepted(void **state UNUSED)
{
    AUTOFREE(char) *a = make_image("a", "QFI\xfb one");
    AUTOFREE(char) *b = make_image("b", "QFI\xfb two");
    AUTOFREE(char) *again = NULL;
    struct imprint left = look(a, b), now, changed;
    struct error *err = NULL;

    assert_ok(imprint_write(folder, UUID, &left, &err), err);
    again = make_image("b", "QFI\xfb three");
    now = look(a, b);
    assert_ok(imprint_start(folder, UUID, &now, &err), err);
    assert_true(imprint_changed(folder, UUID, &changed));
    assert_int_equal(imprint_of(&changed, "vda"), 0);
    assert_int_not_equal(imprint_of(&changed, "vdb"), 0);

    /* The VM ends and starts again, untouched: the note stays. */
    assert_ok(imprint_write(folder, UUID, &now, &err), err);
    assert_ok(imprint_start(folder, UUID, &now, &err), err);
    assert_true(imprint_changed(folder, UUID, &changed));
    assert_int_equal(changed.n, 1);
    assert_ok(imprint_accept(folder, UUID, &err), err);
    assert_false(imprint_changed(folder, UUID, &changed));
    assert_ok(imprint_accept(folder, UUID, &err), err);
}

static void
an_image_that_is_gone_or_of_another_kind_is_changed(void **state UNUSED)
{
    AUTOFREE(char) *a = make_image("a", "QFI\xfb one");
    AUTOFREE(char) *b = make_image("b", "QFI\xfb two");
    AUTOFREE(char) *again = NULL;
    struct imprint left = look(a, b), now, changed;
    struct error *err = NULL;

    assert_ok(imprint_write(folder, UUID, &left, &err), err);
    assert_int_equal(unlink(a), 0);
    again = make_image("b", "raw");
    now = look(a, b);
    assert_int_equal(now.n, 0);
    assert_ok(imprint_start(folder, UUID, &now, &err), err);
    assert_true(imprint_changed(folder, UUID, &changed));
    assert_int_equal(changed.n, 2);
    assert_ok(imprint_remove(folder, UUID, &err), err);
    assert_false(imprint_changed(folder, UUID, &changed));
}

static void
without_an_imprint_nothing_is_said(void **state UNUSED)
{
    AUTOFREE(char) *a = make_image("a", "QFI\xfb one");
    struct imprint now = look(a, a), changed;
    struct error *err = NULL;

    assert_ok(imprint_start(folder, UUID, &now, &err), err);
    assert_false(imprint_changed(folder, UUID, &changed));
    assert_ok(imprint_remove(folder, UUID, &err), err);
}

static int
clear(void **state UNUSED)
{
    static const char *const names[] = { "a", "b", UUID ".images", UUID ".changed" };

    for (size_t i = 0; i < N_ELEMENTS(names); i++) {
        AUTOFREE(char) *path = mem_printf("%s/%s", folder, names[i]);

        unlink(path);
    }
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(images_that_are_as_they_were_left_are_not_changed,
                                  clear),
        cmocka_unit_test_teardown(
            what_was_changed_in_between_is_noted_until_it_is_accepted, clear),
        cmocka_unit_test_teardown(an_image_that_is_gone_or_of_another_kind_is_changed,
                                  clear),
        cmocka_unit_test_teardown(without_an_imprint_nothing_is_said, clear),
    };
    int failed;

    if (mkdtemp(folder) == NULL)
        return EXIT_FAILURE;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(folder);
    return failed;
}
