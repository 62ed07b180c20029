/*
 * Damaged files in a store of thirty points: what does not need them is exact,
 * what does is refused or told, never given wrong.
 */
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "drivers/store/child.h"
#include "drivers/store/folder.h"
#include "drivers/store/layout.h"
#include "drivers/store/mark.h"
#include "drivers/store/qcow2.h"
#include "tests/faults/model.h"
#include "tests/faults/verify.h"

/* Marks are at 1 and 8, since direct writes come before them, at 7, 15 and 22. */
#define NEWEST    30
#define SEALED    (1ull << 15 | 1ull << 22)
#define DAMAGED   18 /* a journal between two marks */
#define LAST_BAD  21 /* the last point that needs it */
#define MAX_BYTES (64u << 20)

static const struct store_ops *const ops = &store_qcow2_ops;

struct place {
    char parent[64];
    char *whole; /* a copy of the store as it was made */
    struct record record;
    struct subject s;
};

/* What scrub told. */
struct told {
    size_t n;
    char file[128];
    uint64_t first, last;
    bool tip;
};

/* --- the place ------------------------------------------------------------------------
 */

static void
run_tool(const char *const *argv)
{
    AUTOFD(root) = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct child_request request = { .argv = argv, .folder = root };
    struct error *err = NULL;

    assert_ok(child_run(&request, 60000, &err), err);
}

static void
fill(struct subject *s)
{
    struct error *err = NULL;

    assert_ok(subject_create(s, 0, &err) && subject_open(s, 0, &err), err);
    for (uint64_t seq = 1; seq <= NEWEST; seq++) {
        if (model_has_sync(seq))
            assert_ok(subject_sync(s, seq, &err), err);
        assert_ok(subject_receive(s, seq, &err) && subject_apply(s, seq, &err), err);
        if ((SEALED >> seq & 1) != 0)
            assert_ok(subject_seal(s, seq, &err), err);
    }
    assert_ok(subject_digest(s, 0, &err) && subject_scrub(s, 0, &err), err);
}

static void
close_store(struct place *p)
{
    if (p->s.store != NULL)
        ops->close(TAKE(p->s.store));
}

static void
copy_tree(const char *from, const char *to)
{
    const char *const argv[] = { "cp", "-a", "--", from, to, NULL };
    const char *const clear[] = { "rm", "-rf", "--", to, NULL };

    run_tool(clear);
    run_tool(argv);
}

static int
make_place(void **state)
{
    struct place *p = NEW(struct place);
    AUTOFREE(char) *folder = NULL;
    AUTOFREE(char) *scratch = NULL;
    struct error *err = NULL;

    snprintf(p->parent, sizeof p->parent, "%s/virt-dr-damage-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (mkdtemp(p->parent) == NULL)
        return -1;
    folder = mem_printf("%s/store", p->parent);
    scratch = mem_printf("%s/scratch", p->parent);
    if (mkdir(scratch, 0700) < 0)
        return -1;
    assert_ok(subject_begin(&p->s, folder, scratch, &err), err);
    fill(&p->s);
    close_store(p);
    copy_tree(p->s.folder, (p->whole = mem_printf("%s/whole", p->parent)));
    p->record = p->s.record;
    *state = p;
    return 0;
}

static int
remove_place(void **state)
{
    struct place *p = *state;
    const char *const argv[] = { "rm", "-rf", "--", p->parent, NULL };

    subject_end(&p->s);
    run_tool(argv);
    free(p->whole);
    free(p);
    return 0;
}

/* Each test finds the store as it was made, whatever the one before did. */
static int
make_whole(void **state)
{
    struct place *p = *state;

    close_store(p);
    p->s.record = p->record;
    copy_tree(p->whole, p->s.folder);
    return 0;
}

static void
reopen(struct place *p)
{
    struct error *err = NULL;

    close_store(p);
    assert_ok(subject_open(&p->s, 0, &err), err);
}

/* --- files ----------------------------------------------------------------------------
 */

struct content {
    char *path;
    char *bytes;
    size_t n;
};

static struct content
take_content(struct place *p, const char *file)
{
    struct content c = { .path = mem_printf("%s/%s", p->s.folder, file) };
    struct error *err = NULL;

    assert_ok(folder_read(AT_FDCWD, c.path, MAX_BYTES, &c.bytes, &c.n, &err), err);
    return c;
}

static void
put_bytes(const char *path, const char *bytes, size_t n)
{
    AUTOFD(fd) = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), n);
}

static void
put_back(struct content *c)
{
    put_bytes(c->path, c->bytes, c->n);
    free(c->path);
    free(c->bytes);
}

static void
flip_bit(const struct content *c, size_t at)
{
    AUTOFREE(char) *copy = mem_memdup(c->bytes, c->n);

    copy[at] = (char)(copy[at] ^ 4);
    put_bytes(c->path, copy, c->n);
}

static char *
journal_file(uint64_t seq)
{
    return mem_printf("journal/%012" PRIu64, seq);
}

/* The layer that shows a disk at a mark. */
static char *
layer_file(struct place *p, uint64_t mark, size_t disk)
{
    AUTOPTR(layout) *l = NULL;
    AUTOFD(fd) = open(p->s.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct error *err = NULL;
    const struct layout_mark *m;

    assert_ok(layout_load(fd, &l, &err), err);
    m = mark_find(l, mark);
    assert_non_null(m);
    return mem_printf("disks/%s", mark_view(m, l->disks[disk].target)->layer);
}

/* --- looking --------------------------------------------------------------------------
 */

static void
note(const struct store_damage *damage, void *opaque)
{
    struct told *t = opaque;

    snprintf(t->file, sizeof t->file, "%s", damage->file);
    t->first = damage->first;
    t->last = damage->last;
    t->tip = damage->tip;
    t->n++;
    print_message("# scrub: %s: %s\n", damage->file, damage->text);
    assert_true(damage->text != NULL && damage->text[0] != '\0');
}

static struct told
scrub(struct place *p)
{
    struct store_effort effort = { .rate_bytes_s = 0 };
    struct told told = { .n = 0 };
    struct error *err = NULL;
    uint64_t bytes = 0;

    assert_ok(ops->scrub(p->s.store, &effort, note, &told, &bytes, &err), err);
    assert_true(bytes > 0);
    return told;
}

static void
assert_exact(struct place *p, uint64_t seq)
{
    struct error *err = NULL;

    assert_ok(verify_point(&p->s, seq, &err), err);
}

static void
assert_exact_range(struct place *p, uint64_t first, uint64_t last)
{
    for (uint64_t seq = first; seq <= last; seq++)
        assert_exact(p, seq);
}

static void
assert_refused(struct place *p, uint64_t seq, enum error_code code)
{
    struct error *err = NULL;
    char **ids = NULL;
    size_t n = 0;

    if (verify_point(&p->s, seq, &err))
        fail_msg("point %" PRIu64 " is given", seq);
    if (error_code(err) != code)
        fail_msg("point %" PRIu64 ": wrong code: %s", seq, error_message(err));
    error_clear(&err);

    /* And nothing of it stays. */
    assert_ok(ops->overlays(p->s.store, &ids, &n, &err), err);
    free(ids);
    assert_int_equal(n, 0);
}

/* --- journals -------------------------------------------------------------------------
 */

/* The points that need it are refused and scrub names it; its neighbours are exact. */
static void
assert_journal_is_bad(struct place *p)
{
    AUTOFREE(char) *file = journal_file(DAMAGED);
    struct told told;

    reopen(p);
    assert_refused(p, DAMAGED, ERROR_CHECKSUM);
    assert_refused(p, LAST_BAD, ERROR_CHECKSUM);
    assert_exact(p, DAMAGED - 1);
    assert_exact(p, LAST_BAD + 1);
    told = scrub(p);
    assert_int_equal(told.n, 1);
    assert_string_equal(told.file, file);
    assert_int_equal(told.first, DAMAGED);
    assert_int_equal(told.last, LAST_BAD);
    assert_false(told.tip);
}

static void
a_journal_that_was_cut_off_is_told(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *file = journal_file(DAMAGED);
    struct content c = take_content(p, file);
    const size_t lengths[] = { 0, 20, 40, 41, c.n / 2, c.n - 60, c.n - 1 };

    for (size_t i = 0; i < N_ELEMENTS(lengths); i++) {
        put_bytes(c.path, c.bytes, lengths[i]);
        assert_journal_is_bad(p);
    }
    put_back(&c);
}

static void
a_flipped_bit_in_a_journal_is_told(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *file = journal_file(DAMAGED);
    struct content c = take_content(p, file);
    const size_t places[] = { 0, 4, 5, 6, 10, 20, 24, 28, 33, 60, c.n / 2, c.n - 1 };

    for (size_t i = 0; i < N_ELEMENTS(places); i++) {
        flip_bit(&c, places[i]);
        assert_journal_is_bad(p);
    }
    put_back(&c);
}

static void
a_journal_that_is_another_one_is_told(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *file = journal_file(DAMAGED);
    struct content c = take_content(p, file);
    const uint64_t others[] = { 2, DAMAGED - 1, DAMAGED + 1, NEWEST };

    for (size_t i = 0; i < N_ELEMENTS(others); i++) {
        AUTOFREE(char) *other_file = journal_file(others[i]);
        struct content other = take_content(p, other_file);

        put_bytes(c.path, other.bytes, other.n);
        assert_journal_is_bad(p);
        put_back(&other);
    }
    put_back(&c);
}

static void
what_comes_behind_a_journal_s_end_is_told(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *file = journal_file(DAMAGED);
    struct content c = take_content(p, file);
    AUTOFREE(char) *longer = mem_alloc(c.n + 100, 1);

    memcpy(longer, c.bytes, c.n);
    put_bytes(c.path, longer, c.n + 100);
    assert_journal_is_bad(p);
    put_back(&c);
}

static void
a_journal_that_is_gone_takes_only_its_points_along(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *file = journal_file(DAMAGED);
    struct content c = take_content(p, file);

    unlink(c.path);
    reopen(p);
    for (uint64_t seq = DAMAGED; seq <= LAST_BAD; seq++)
        assert_refused(p, seq, ERROR_POINT_NOT_FOUND);
    assert_exact_range(p, 1, DAMAGED - 1);
    assert_exact_range(p, LAST_BAD + 1, NEWEST);
    put_back(&c);
    reopen(p);
    assert_exact_range(p, DAMAGED, LAST_BAD);
}

/* The mark has all that the journal had. */
static void
a_damaged_journal_of_a_mark_harms_no_point(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *file = journal_file(15);
    struct content c = take_content(p, file);
    struct told told;

    flip_bit(&c, c.n / 2);
    reopen(p);
    assert_exact_range(p, 14, 16);
    told = scrub(p);
    assert_int_equal(told.n, 1);
    assert_string_equal(told.file, file);
    assert_true(told.first > told.last);
    put_back(&c);
}

/* It can be sent once more; until then nothing that is older suffers. */
static void
a_damaged_journal_that_waits_is_not_applied(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *file = journal_file(NEWEST + 1);
    struct error *err = NULL;
    struct content c;

    reopen(p);
    assert_ok(subject_receive(&p->s, NEWEST + 1, &err), err);
    c = take_content(p, file);
    flip_bit(&c, c.n / 2);
    reopen(p);
    assert_fails(subject_apply(&p->s, NEWEST + 1, &err), err, ERROR_CHECKSUM);
    assert_int_equal(ops->applied(p->s.store), NEWEST);
    assert_exact_range(p, NEWEST - 2, NEWEST);
    assert_refused(p, NEWEST + 1, ERROR_CHECKSUM);
    assert_ok(subject_receive(&p->s, NEWEST + 1, &err), err);
    assert_ok(subject_apply(&p->s, NEWEST + 1, &err), err);
    assert_exact_range(p, NEWEST, NEWEST + 1);
    free(c.path);
    free(c.bytes);
}

/* --- layers ---------------------------------------------------------------------------
 */

/* Scrub names the file, and each point that is not exact lies in what it says. */
static void
assert_layer_is_bad(struct place *p, const char *file, uint64_t first, uint64_t last,
                    bool tip)
{
    struct told told;

    reopen(p);
    told = scrub(p);
    assert_int_equal(told.n, 1);
    assert_string_equal(told.file, file);
    assert_int_equal(told.first, first);
    assert_int_equal(told.last, last);
    assert_int_equal(told.tip, tip);
    if (first > 1)
        assert_exact_range(p, first - 1, first - 1);
    if (last < NEWEST)
        assert_exact_range(p, last + 1, last + 1);
}

static void
damage_layer(struct place *p, uint64_t mark, uint64_t last, bool tip)
{
    AUTOFREE(char) *file = layer_file(p, mark, 0);
    struct content c = take_content(p, file);
    const size_t places[] = { 0, 30, c.n / 2, c.n - 1 };

    for (size_t i = 0; i < N_ELEMENTS(places); i++) {
        flip_bit(&c, places[i]);
        assert_layer_is_bad(p, file, mark, last, tip);
    }
    put_bytes(c.path, c.bytes, c.n / 2);
    assert_layer_is_bad(p, file, mark, last, tip);
    put_bytes(c.path, c.bytes, 0);
    assert_layer_is_bad(p, file, mark, last, tip);
    put_back(&c);
}

static void
a_damaged_layer_is_told_with_the_points_above_it(void **state)
{
    damage_layer(*state, 15, UINT64_MAX, true);
}

/* The resync has written all of the disk anew. */
static void
damage_below_a_resync_ends_at_it(void **state)
{
    damage_layer(*state, 1, 7, false);
    damage_layer(*state, 7, 7, false);
}

/* Also a file that is no image any more: what came later does without it. */
static void
below_a_resync_nothing_has_to_open(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *file = layer_file(p, 7, 0);
    struct content c = take_content(p, file);
    struct error *err = NULL;

    put_bytes(c.path, c.bytes, 0);
    reopen(p);
    assert_ok(subject_receive(&p->s, NEWEST + 1, &err), err);
    assert_ok(subject_apply(&p->s, NEWEST + 1, &err), err);
    assert_ok(subject_seal(&p->s, NEWEST + 1, &err), err);
    assert_exact_range(p, 8, NEWEST + 1);

    /* And it goes when nobody wants the points that need it. */
    assert_ok(subject_retain(&p->s, UINT64_MAX << 8, &err), err);
    assert_ok(subject_fold(&p->s, 0, &err), err);
    assert_int_equal(access(c.path, F_OK), -1);
    assert_ok(subject_digest(&p->s, 0, &err) && subject_scrub(&p->s, 0, &err), err);
    assert_exact_range(p, 8, NEWEST + 1);
    free(c.path);
    free(c.bytes);
}

static void
a_layer_that_is_another_one_is_told(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *file = layer_file(p, 15, 0);
    AUTOFREE(char) *other_file = layer_file(p, 22, 0);
    struct content c = take_content(p, file), other = take_content(p, other_file);

    put_bytes(c.path, other.bytes, other.n);
    assert_layer_is_bad(p, file, 15, UINT64_MAX, true);
    put_back(&c);
    put_back(&other);
}

static void
damaged_checksums_make_no_point_a_bad_one(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *layer = layer_file(p, 15, 0);
    AUTOFREE(char) *file = mem_printf("%s.sums", layer);
    struct content c = take_content(p, file);
    const size_t places[] = { 0, 9, 20, 49, c.n - 1 };
    struct error *err = NULL;

    for (size_t i = 0; i < N_ELEMENTS(places); i++) {
        struct told told;

        flip_bit(&c, places[i]);
        reopen(p);
        told = scrub(p);
        assert_int_equal(told.n, 1);
        assert_true(told.first > told.last && !told.tip);
        assert_exact(p, 15);

        /* Made anew, and right. */
        assert_ok(subject_digest(&p->s, 0, &err) && subject_scrub(&p->s, 0, &err), err);
    }
    put_back(&c);
}

/* --- records --------------------------------------------------------------------------
 */

/* What is there, with its size. */
static char *
list_tree(struct place *p)
{
    AUTOFREE(char) *out = mem_printf("%s/tree", p->parent);
    AUTOFREE(char) *command = mem_printf("cd %s && find . -type f ! -name layout.json "
                                         "-printf '%%p %%s\\n' | sort >%s",
                                         p->s.folder, out);
    const char *const argv[] = { "sh", "-c", command, NULL };
    struct error *err = NULL;
    char *text = NULL;
    size_t n = 0;

    run_tool(argv);
    assert_ok(folder_read(AT_FDCWD, out, MAX_BYTES, &text, &n, &err), err);
    return text;
}

static void
assert_does_not_open(struct place *p)
{
    AUTOFREE(char) *before = list_tree(p);
    AUTOFREE(char) *after = NULL;
    struct error *err = NULL;

    assert_fails(subject_open(&p->s, 0, &err), err, ERROR_STORE);
    after = list_tree(p);
    assert_string_equal(before, after);
}

static void
a_damaged_layout_opens_nothing_and_removes_nothing(void **state)
{
    static const char *const texts[] = { "", "{}", "[]", "{\"version\": 2}", "\0\0\0" };
    struct place *p = *state;
    struct content c = take_content(p, "layout.json");

    close_store(p);
    for (size_t i = 0; i < N_ELEMENTS(texts); i++) {
        put_bytes(c.path, texts[i], strlen(texts[i]));
        assert_does_not_open(p);
    }
    for (size_t n = 1; n < c.n - 2; n += c.n / 16) {
        put_bytes(c.path, c.bytes, n);
        assert_does_not_open(p);
    }
    unlink(c.path);
    assert_does_not_open(p);
    put_back(&c);
    reopen(p);
    assert_exact(p, NEWEST);
}

/* Also one that makes of a name another that is there, or of a number another one. */
static void
a_flipped_bit_in_the_layout_is_told(void **state)
{
    struct place *p = *state;
    struct content c = take_content(p, "layout.json");

    close_store(p);
    for (size_t at = 0; at < c.n; at += 3) {
        if (strchr(" \n", c.bytes[at]) != NULL)
            continue;
        flip_bit(&c, at);
        assert_does_not_open(p);
    }
    put_back(&c);
    reopen(p);
    assert_exact_range(p, 1, NEWEST);
}

static void
a_damaged_record_of_an_overlay_harms_nothing_else(void **state)
{
    static const char file[] = "overlay/drill/overlay.json";
    struct place *p = *state;
    struct store_effort effort = { .rate_bytes_s = 0 };
    struct error *err = NULL;
    bool folded = true;
    struct content c;

    reopen(p);
    assert_ok(subject_overlay(&p->s, 17, &err), err);
    c = take_content(p, file);
    for (size_t at = 0; at < c.n; at++) {
        char **ids = NULL;
        size_t n = 0;

        flip_bit(&c, at);
        reopen(p);
        assert_ok(ops->overlays(p->s.store, &ids, &n, &err), err);
        assert_int_equal(n, 1);
        free(ids[0]);
        free(ids);

        /* What it stands on is not known: nothing under it is taken away. */
        assert_fails(subject_overlay(&p->s, 17, &err), err, ERROR_STORE);
    }
    assert_ok(subject_retain(&p->s, 1ull << NEWEST, &err), err);
    assert_ok(ops->fold(p->s.store, &effort, &folded, &err), err);
    assert_false(folded);
    put_back(&c);
    close_store(p);
    assert_ok(verify_store(&p->s, &err), err);
}

static void
a_flipped_bit_in_a_blob_is_told(void **state)
{
    struct place *p = *state;
    struct content c = take_content(p, "aux/000000000015.domain.xml");
    struct told told;

    flip_bit(&c, 2);
    reopen(p);
    assert_refused(p, 15, ERROR_CHECKSUM);
    assert_exact(p, 14);
    assert_exact(p, 16); /* its journal has a blob of its own */
    told = scrub(p);
    assert_int_equal(told.n, 1);
    assert_string_equal(told.file, "aux/000000000015.domain.xml");
    put_back(&c);
}

static void
without_damage_every_point_is_there(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;

    reopen(p);
    assert_exact_range(p, 1, NEWEST);
    assert_ok(subject_scrub(&p->s, 0, &err), err);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(without_damage_every_point_is_there, make_whole),
        cmocka_unit_test_setup(a_journal_that_was_cut_off_is_told, make_whole),
        cmocka_unit_test_setup(a_flipped_bit_in_a_journal_is_told, make_whole),
        cmocka_unit_test_setup(a_journal_that_is_another_one_is_told, make_whole),
        cmocka_unit_test_setup(what_comes_behind_a_journal_s_end_is_told, make_whole),
        cmocka_unit_test_setup(a_journal_that_is_gone_takes_only_its_points_along,
                               make_whole),
        cmocka_unit_test_setup(a_damaged_journal_of_a_mark_harms_no_point, make_whole),
        cmocka_unit_test_setup(a_damaged_layer_is_told_with_the_points_above_it,
                               make_whole),
        cmocka_unit_test_setup(damage_below_a_resync_ends_at_it, make_whole),
        cmocka_unit_test_setup(below_a_resync_nothing_has_to_open, make_whole),
        cmocka_unit_test_setup(a_layer_that_is_another_one_is_told, make_whole),
        cmocka_unit_test_setup(damaged_checksums_make_no_point_a_bad_one, make_whole),
        cmocka_unit_test_setup(a_damaged_layout_opens_nothing_and_removes_nothing,
                               make_whole),
        cmocka_unit_test_setup(a_flipped_bit_in_the_layout_is_told, make_whole),
        cmocka_unit_test_setup(a_flipped_bit_in_a_blob_is_told, make_whole),
        cmocka_unit_test_setup(a_damaged_journal_that_waits_is_not_applied, make_whole),
        cmocka_unit_test_setup(a_damaged_record_of_an_overlay_harms_nothing_else,
                               make_whole),
    };

    return cmocka_run_group_tests(tests, make_place, remove_place);
}
