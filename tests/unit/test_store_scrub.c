#include "tests/unit/points_kit.h"

#include "drivers/store/mark.h"
#include "drivers/store/sums.h"

#define MAX_FOUND 8

static const struct store_effort full_speed = { .rate_bytes_s = 0 };

struct found {
    struct store_damage items[MAX_FOUND];
    char *files[MAX_FOUND];
    size_t n;
    uint64_t bytes;
};

static void
found_clear(struct found *f)
{
    for (size_t i = 0; i < f->n; i++)
        free(f->files[i]);
    f->n = 0;
}

static void
note(const struct store_damage *damage, void *opaque)
{
    struct found *f = opaque;

    assert_true(f->n < MAX_FOUND);
    assert_non_null(damage->text);
    f->items[f->n] = *damage;
    f->files[f->n++] = mem_strdup(damage->file);
}

static void
scrub(struct place *p, struct found *f)
{
    struct error *err = NULL;

    found_clear(f);
    assert_ok(ops->scrub(p->s, &full_speed, note, f, &f->bytes, &err), err);
}

static void
assert_sound(struct place *p)
{
    struct found f = { .n = 0 };

    scrub(p, &f);
    if (f.n > 0)
        fail_msg("%s: %s", f.files[0], "was told to be damaged");
    assert_true(f.bytes > 0);
}

/* One thing is told, with these points. */
static void
assert_found(struct place *p, const char *file, uint64_t first, uint64_t last, bool tip)
{
    struct found f = { .n = 0 };

    scrub(p, &f);
    assert_int_equal(f.n, 1);
    assert_string_equal(f.files[0], file);
    assert_int_equal(f.items[0].first, first);
    assert_int_equal(f.items[0].last, last);
    assert_int_equal(f.items[0].tip, tip);
    found_clear(&f);
}

static void
flip(const struct place *p, const char *file, off_t offset)
{
    AUTOFREE(char) *path = mem_printf("%s/%s", p->folder, file);
    AUTOFD(fd) = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte = 0;

    assert_int_equal(pread(fd, &byte, 1, offset), 1);
    byte ^= 16;
    assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
}

static off_t
size_of(const struct place *p, const char *file)
{
    AUTOFREE(char) *path = mem_printf("%s/%s", p->folder, file);
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

static void
digest(struct place *p)
{
    struct error *err = NULL;

    assert_ok(ops->digest(p->s, &full_speed, &err), err);
}

static void
fold_all(struct place *p)
{
    struct error *err = NULL;
    bool folded = true;

    while (folded)
        assert_ok(ops->fold(p->s, &full_speed, &folded, &err), err);
}

/*
 * Marks at 1 (base), 3, 6, then a resync whose first point is 8, and 10; 11 and
 * 12 are applied and not sealed, 13 waits. Layers: 0 and 1 for mark 1, 2: 3, 3:
 * 6, 4: 7, 5: 8, 6: 10, and the tip.
 */
static void
fill(struct place *p, struct history *h)
{
    struct error *err = NULL;

    create_store(p);
    write_all_directly(p);
    for (uint64_t seq = 1; seq <= 13; seq++) {
        if (seq == 8) {
            write_all_directly(p);
            assert_ok(ops->flush(p->s, &err), err);
        }
        make_point(p, h, seq);
        if (seq == 13)
            break;
        apply(p, seq);
        if (seq == 3 || seq == 6 || seq == 10)
            seal(p);
    }
}

/* The layer that shows a disk at a mark. */
static char *
layer_of(const struct place *p, uint64_t mark, const char *target)
{
    AUTOPTR(layout) *l = load_layout(p);

    return mem_printf("disks/%s", mark_view(mark_find(l, mark), target)->layer);
}

/* --- tests -------------------------------------------------------------------------- */

static void
nothing_is_found_in_a_healthy_store(void **state)
{
    static const uint64_t kept[] = { 2, 7, 9, 11 };
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct error *err = NULL;

    fill(p, h);
    assert_sound(p); /* makes the sums */
    assert_sound(p);
    assert_ok(ops->retain(p->s, kept, N_ELEMENTS(kept), &err), err);
    assert_sound(p);
    fold_all(p);
    assert_sound(p);
    digest(p);
    reopen(p);
    assert_sound(p);
    for (size_t i = 0; i < N_ELEMENTS(kept); i++)
        assert_point(p, h, kept[i]);
}

static void
a_bit_in_the_base_reaches_all_points_before_the_resync(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);

    fill(p, h);
    digest(p);
    flip(p, "disks/vda.0000.raw", 1000);
    assert_found(p, "disks/vda.0000.raw", 1, 7, false);
    flip(p, "disks/vda.0000.raw", 1000);
    assert_sound(p);
    flip(p, "disks/vda.0000.raw", VDA_BYTES - 1); /* in its hole */
    assert_found(p, "disks/vda.0000.raw", 1, 7, false);
}

static void
a_bit_in_a_layer_reaches_the_points_from_its_mark_on(void **state)
{
    static const struct {
        uint64_t mark, first, last;
        bool tip;
    } cases[] = {
        { 1, 1, 7, false }, { 3, 3, 7, false },         { 6, 6, 7, false },
        { 7, 7, 7, false }, { 8, 8, UINT64_MAX, true }, { 10, 10, UINT64_MAX, true },
    };
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);

    fill(p, h);
    digest(p);
    for (size_t i = 0; i < N_ELEMENTS(cases); i++)
        for (size_t disk = 0; disk < 2; disk++) {
            AUTOFREE(char) *file =
                layer_of(p, cases[i].mark, p->models[disk].disk.target);
            off_t last = size_of(p, file) - 1;

            flip(p, file, last); /* data */
            assert_found(p, file, cases[i].first, cases[i].last, cases[i].tip);
            flip(p, file, last);
            flip(p, file, 65536 * 3 + 7); /* the first table */
            assert_found(p, file, cases[i].first, cases[i].last, cases[i].tip);
            flip(p, file, 65536 * 3 + 7);
        }
    assert_sound(p);
}

static void
a_bit_in_a_journal_reaches_the_points_up_to_the_next_mark(void **state)
{
    static const struct {
        uint64_t seq, first, last;
        bool tip;
    } cases[] = {
        { 2, 2, 2, false },           { 4, 4, 5, false },    { 5, 5, 5, false },
        { 9, 9, 9, false },           { 11, 11, 12, false }, { 12, 12, 12, false },
        { 3, 3, 2, false }, /* the mark has all of it: no point needs it */
        { 13, 13, UINT64_MAX, true },
    };
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);

    fill(p, h);
    for (size_t i = 0; i < N_ELEMENTS(cases); i++) {
        AUTOFREE(char) *file =
            mem_printf("journal/%012llu", (unsigned long long)cases[i].seq);
        AUTOFREE(char) *path = mem_printf("%s/%s", p->folder, file);
        AUTOFREE(char) *copy = mem_printf("%s/copy", p->parent);
        const char *const keep[] = { "cp", path, copy, NULL };
        const char *const back[] = { "cp", copy, path, NULL };
        off_t size = size_of(p, file);

        flip(p, file, size / 2);
        assert_found(p, file, cases[i].first, cases[i].last, cases[i].tip);
        flip(p, file, size / 2);
        run(keep);
        assert_int_equal(truncate(path, size - 1), 0);
        assert_found(p, file, cases[i].first, cases[i].last, cases[i].tip);
        run(back);
    }
    assert_sound(p);
}

static void
a_layer_that_is_cut_off_replaced_or_gone_is_found(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    AUTOFREE(char) *file = NULL;
    AUTOFREE(char) *path = NULL;
    AUTOFREE(char) *copy = NULL;
    AUTOFREE(char) *raw = mem_printf("%s/disks/vdb.0000.raw", p->folder);

    fill(p, h);
    digest(p);
    file = layer_of(p, 6, "vda");
    path = mem_printf("%s/%s", p->folder, file);
    copy = mem_printf("%s/copy", p->parent);
    {
        AUTOFREE(char) *other = layer_of(p, 3, "vda");
        AUTOFREE(char) *other_path = mem_printf("%s/%s", p->folder, other);
        const char *const keep[] = { "cp", path, copy, NULL };
        const char *const back[] = { "cp", copy, path, NULL };
        const char *const replace[] = { "cp", other_path, path, NULL };

        run(keep);
        run(replace);
        assert_found(p, file, 6, 7, false);
        run(back);
        assert_int_equal(truncate(path, size_of(p, file) - 1), 0);
        assert_found(p, file, 6, 7, false);
        run(back);
        assert_sound(p);
        assert_int_equal(unlink(path), 0);
        assert_found(p, file, 6, 7, false);
        run(back);
        assert_sound(p);
    }
    assert_int_equal(truncate(raw, VDB_BYTES - 512), 0);
    assert_found(p, "disks/vdb.0000.raw", 1, 7, false);
    assert_int_equal(truncate(raw, VDB_BYTES), 0);
    assert_sound(p);
}

static void
damage_is_not_folded_as_long_as_a_point_needs_it(void **state)
{
    static const uint64_t before[] = { 7, 12 }, after[] = { 12 };
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct error *err = NULL;
    bool folded = true;

    fill(p, h);
    digest(p);
    assert_ok(ops->retain(p->s, before, 2, &err), err);
    flip(p, "disks/vda.0000.raw", 1000);
    while (ops->fold(p->s, &full_speed, &folded, &err))
        assert_true(folded); /* the other disk's go on */
    assert_int_equal(error_code(err), ERROR_CHECKSUM);
    error_clear(&err);
    fold_all(p);
    assert_found(p, "disks/vda.0000.raw", 7, 9, false);
    reopen(p);
    fold_all(p);
    assert_found(p, "disks/vda.0000.raw", 7, 9, false);
    assert_point(p, h, 12);

    /* Behind the resync nobody does, and it is folded away. */
    assert_ok(ops->retain(p->s, after, 1, &err), err);
    fold_all(p);
    digest(p);
    assert_sound(p);
    assert_point(p, h, 12);
}

static void
a_damaged_upper_layer_is_not_folded(void **state)
{
    static const uint64_t kept[] = { 7, 12 };
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct error *err = NULL;
    AUTOFREE(char) *file = NULL;
    bool folded = true;

    fill(p, h);
    digest(p);
    file = layer_of(p, 3, "vdb");
    assert_ok(ops->retain(p->s, kept, 2, &err), err);
    flip(p, file, size_of(p, file) - 1);
    while (ops->fold(p->s, &full_speed, &folded, &err))
        assert_true(folded);
    assert_int_equal(error_code(err), ERROR_CHECKSUM);
    error_clear(&err);
    fold_all(p);
    assert_found(p, file, 7, 9, false);
    flip(p, file, size_of(p, file) - 1); /* restored from somewhere */
    assert_sound(p);
    assert_ok(ops->fold(p->s, &full_speed, &folded, &err), err);
    assert_true(folded);
    fold_all(p);
    assert_point(p, h, 7);
}

static void
sums_that_are_damaged_are_told_once_and_harm_no_point(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);

    fill(p, h);
    digest(p);
    flip(p, "disks/vda.0000.raw" SUMS_SUFFIX, 60);
    assert_found(p, "disks/vda.0000.raw" SUMS_SUFFIX, UINT64_MAX, 0, false);
    assert_sound(p);
    flip(p, "disks/vda.0000.raw", 5);
    assert_found(p, "disks/vda.0000.raw", 1, 7, false);
}

static void
a_digest_or_a_scrub_that_is_stopped_goes_on_later(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct cancel cancel = { .requested = false };
    struct store_effort slow = { .rate_bytes_s = 2u << 20, .cancel = &cancel };
    struct found f = { .n = 0 };
    struct error *err = NULL;

    fill(p, h);
    cancel_set_timeout(&cancel, 700);
    assert_fails(ops->digest(p->s, &slow, &err), err, ERROR_TIMEOUT);
    assert_true(there(p, "disks/vda.0000.raw" SUMS_SUFFIX));
    cancel_set_timeout(&cancel, 100);
    assert_fails(ops->scrub(p->s, &slow, note, &f, &f.bytes, &err), err, ERROR_TIMEOUT);
    assert_int_equal(f.n, 0);
    digest(p);
    assert_sound(p);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        with_place(nothing_is_found_in_a_healthy_store),
        with_place(a_bit_in_the_base_reaches_all_points_before_the_resync),
        with_place(a_bit_in_a_layer_reaches_the_points_from_its_mark_on),
        with_place(a_bit_in_a_journal_reaches_the_points_up_to_the_next_mark),
        with_place(a_layer_that_is_cut_off_replaced_or_gone_is_found),
        with_place(damage_is_not_folded_as_long_as_a_point_needs_it),
        with_place(a_damaged_upper_layer_is_not_folded),
        with_place(sums_that_are_damaged_are_told_once_and_harm_no_point),
        with_place(a_digest_or_a_scrub_that_is_stopped_goes_on_later),
    };

    return cmocka_run_group_tests_name("store: scrub", tests, NULL, NULL);
}
