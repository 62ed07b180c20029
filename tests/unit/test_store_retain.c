#include "tests/unit/points_kit.h"

#include <poll.h>
#include <pthread.h>

#include "drivers/store/overlay.h"

static bool
is_in(const uint64_t *seqs, size_t n, uint64_t seq)
{
    for (size_t i = 0; i < n; i++)
        if (seqs[i] == seq)
            return true;
    return false;
}

static void
retain(struct place *p, const uint64_t *seqs, size_t n)
{
    struct error *err = NULL;

    assert_ok(ops->retain(p->s, seqs, n, &err), err);
}

#define retain_only(p, ...)                      \
    retain(p, (const uint64_t[]){ __VA_ARGS__ }, \
           N_ELEMENTS(((uint64_t[]){ __VA_ARGS__ })))

/* --- what stays --------------------------------------------------------------------- */

/* What a point needs, found in the plainest way. */
static uint64_t
mark_of(const uint64_t *marks, size_t n_marks, uint64_t seq)
{
    uint64_t mark = 0;

    for (size_t i = 0; i < n_marks; i++)
        if (marks[i] <= seq)
            mark = marks[i];
    return mark;
}

static bool
is_needed(uint64_t journal, const uint64_t *marks, size_t n_marks, const uint64_t *kept,
          size_t n_kept)
{
    for (size_t i = 0; i < n_kept; i++)
        if (journal > mark_of(marks, n_marks, kept[i]) && journal <= kept[i])
            return true;
    return journal > marks[n_marks - 1];
}

static void
assert_exactly(struct place *p, const uint64_t *marks, size_t n_marks,
               const uint64_t *kept, size_t n_kept, uint64_t newest)
{
    AUTOFREE(uint64_t) *left = NULL;
    AUTOFREE(uint64_t) *journals = NULL;
    struct error *err = NULL;
    size_t n_left = 0, n_journals = 0, expected = 0;

    assert_ok(ops->marks(p->s, &left, &n_left, &err), err);
    for (size_t i = 0; i < n_marks; i++) {
        bool needed = i + 1 == n_marks;

        for (size_t j = 0; j < n_kept; j++)
            needed = needed || mark_of(marks, n_marks, kept[j]) == marks[i];
        assert_int_equal(is_in(left, n_left, marks[i]), needed);
    }
    assert_ok(ops->journal_list(p->s, &journals, &n_journals, &err), err);
    for (uint64_t seq = 1; seq <= newest; seq++) {
        AUTOFREE(char) *file = mem_printf("journal/%012llu", (unsigned long long)seq);
        bool needed = is_needed(seq, marks, n_marks, kept, n_kept);

        assert_int_equal(there(p, file), needed);
        assert_int_equal(is_in(journals, n_journals, seq), needed);
        expected += needed;
    }
    assert_int_equal(count_files(p, "journal"), expected);
}

static void
just_what_the_kept_points_need_stays(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    uint64_t kept[HISTORY_MAX];
    size_t n_kept = 0;

    create_store(p);
    for (uint64_t seq = 1; seq <= 30; seq++) {
        make_point(p, h, seq);
        if (seq <= 27)
            apply(p, seq);
        if (seq % 6 == 0 && seq <= 24)
            seal(p);
        kept[n_kept++] = seq;
    }
    while (n_kept > 0) {
        AUTOFREE(uint64_t) *marks = NULL;
        struct error *err = NULL;
        size_t n_marks = 0, n = 0;

        for (size_t i = 0; i < n_kept; i++)
            if (kit_random(&p->seed) % 3 != 0)
                kept[n++] = kept[i];
        n_kept = n;
        assert_ok(ops->marks(p->s, &marks, &n_marks, &err), err);
        retain(p, kept, n_kept);
        assert_exactly(p, marks, n_marks, kept, n_kept, 30);
        retain(p, kept, n_kept);
        assert_exactly(p, marks, n_marks, kept, n_kept, 30);
        reopen(p);
        for (size_t i = 0; i < n_kept; i++)
            assert_point(p, h, kept[i]);
    }
    assert_point(p, h, 29); /* behind the newest mark nothing goes */
    assert_no_point(p, 20);
    apply(p, 28);
    apply(p, 29);
    apply(p, 30);
    assert_content(p);
}

/* As on a full disk, where what goes is the only way to more room. */
static void
journals_go_also_when_the_layout_cannot_be_written(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    AUTOFREE(char) *aside = mem_printf("%s/layout.json.new", p->folder);
    const uint64_t kept[] = { 7, 9 };
    AUTOPTR(error) *err = NULL;

    create_store(p);
    for (uint64_t seq = 1; seq <= 9; seq++) {
        make_point(p, h, seq);
        apply(p, seq);
        if (seq % 3 == 0)
            seal(p);
    }
    assert_int_equal(mkdir(aside, 0700), 0);
    assert_false(ops->retain(p->s, kept, N_ELEMENTS(kept), &err));
    assert_non_null(err);
    assert_int_equal(count_files(p, "journal"), 1);
    assert_point(p, h, 7);
    assert_point(p, h, 9);
    assert_point(p, h, 3); /* its mark is still there */
    assert_int_equal(rmdir(aside), 0);
    retain_only(p, 7, 9);
    assert_no_point(p, 3);
    reopen(p);
    assert_int_equal(count_files(p, "journal"), 1);
    assert_point(p, h, 7);
    assert_point(p, h, 9);
    assert_content(p);
}

static void
blobs_go_with_the_last_that_names_them(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);

    create_store(p);
    for (uint64_t seq = 1; seq <= 12; seq++) {
        make_point(p, h, seq);
        apply(p, seq);
        if (seq % 3 == 0)
            seal(p);
    }
    assert_int_equal(count_files(p, "aux"), 5); /* of 1, 3, 6, 9 and 12 */
    retain_only(p, 4, 10);
    assert_int_equal(count_files(p, "aux"), 3);
    assert_point(p, h, 4);
    assert_point(p, h, 10);
    assert_blob(p, 12);
    retain(p, NULL, 0);
    assert_int_equal(count_files(p, "aux"), 1);
    assert_point(p, h, 12);
    assert_content(p);
}

static void
what_an_overlay_stands_on_stays(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct error *err = NULL;

    create_store(p);
    for (uint64_t seq = 1; seq <= 9; seq++) {
        make_point(p, h, seq);
        apply(p, seq);
        if (seq % 3 == 0)
            seal(p);
    }
    assert_overlay(p, h, "a", 5);
    retain(p, NULL, 0);
    reopen(p);
    retain(p, NULL, 0);
    assert_overlay(p, h, "a", 5);
    assert_point(p, h, 3);
    assert_no_point(p, 5);
    assert_no_point(p, 2);
    assert_ok(ops->overlay_remove(p->s, "a", &err), err);
    retain(p, NULL, 0);
    assert_no_point(p, 3);
    assert_content(p);
}

/* A resync's first journal must not be left to lead over what no journal holds. */
static void
no_replay_leads_over_a_resync_whose_mark_is_gone(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);

    create_store(p);
    for (uint64_t seq = 1; seq <= 8; seq++) {
        make_point(p, h, seq);
        apply(p, seq);
        if (seq == 3)
            write_all_directly(p); /* 4 is a mark from its first instant */
        if (seq == 6)
            seal(p);
    }
    assert_true(there(p, "journal/000000000004"));
    retain_only(p, 3, 8);
    assert_false(there(p, "journal/000000000004"));
    assert_no_point(p, 4);
    assert_no_point(p, 5);
    assert_point(p, h, 3);
    assert_point(p, h, 8);
}

/* --- beside each other -------------------------------------------------------------- */

#define PINNED(seq) ((seq) % 7 == 0 || (seq) % 10 == 3)

struct keeper {
    struct place *p;
    atomic_bool over;
    int rounds;
};

/* Another part of the points goes each time; the pinned ones stay. */
static void *
keep_some(void *opaque)
{
    struct keeper *k = opaque;
    uint64_t seed = 1234567;

    for (; !k->over; k->rounds++) {
        uint64_t kept[HISTORY_MAX];
        uint64_t newest = ops->applied(k->p->s);
        size_t n = 0;

        for (uint64_t seq = 1; seq < HISTORY_MAX; seq++)
            if (PINNED(seq) || seq + 3 > newest || kit_random(&seed) % 50 != 0)
                kept[n++] = seq;
        if (!ops->retain(k->p->s, kept, n, NULL))
            return k; /* anything but NULL */
        poll(NULL, 0, 1);
    }
    return NULL;
}

static void
retaining_beside_applying_and_recovering_loses_nothing(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct keeper k = { .p = p };
    uint64_t kept[HISTORY_MAX];
    pthread_t thread;
    void *failure = NULL;
    size_t n = 0;

    create_store(p);
    assert_int_equal(pthread_create(&thread, NULL, keep_some, &k), 0);
    for (uint64_t seq = 1; seq <= 50; seq++) {
        make_point(p, h, seq);
        apply(p, seq);
        if (seq % 4 == 0)
            seal(p);
        if (seq % 9 == 0)
            assert_point(p, h, seq / 14 * 7 > 0 ? seq / 14 * 7 : 3);
    }
    k.over = true;
    pthread_join(thread, &failure);
    assert_null(failure);
    print_message("# retained %d times meanwhile\n", k.rounds);
    reopen(p);
    for (uint64_t seq = 1; seq <= 50; seq++)
        if (PINNED(seq)) {
            assert_point(p, h, seq);
            kept[n++] = seq;
        }
    retain(p, kept, n);
    for (size_t i = 0; i < n; i++)
        assert_point(p, h, kept[i]);
    assert_point(p, h, 50);
    assert_content(p);
}

struct looker {
    struct place *p;
    const struct history *h;
    int failed;
};

/* Older points, while the tip's thread works; what they hold is looked at later. */
static void *
recover_some(void *opaque)
{
    struct looker *l = opaque;

    for (uint64_t seq = 2; seq <= 11; seq++) {
        AUTOFREE(char) *id = mem_printf("p%llu", (unsigned long long)seq);

        l->failed += !try_overlay(l->p, id, seq, NULL);
    }
    return NULL;
}

static void
older_points_are_recovered_beside_the_tip(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct looker l = { .p = p, .h = h };
    pthread_t thread;

    create_store(p);
    for (uint64_t seq = 1; seq <= 24; seq++) {
        make_point(p, h, seq);
        if (seq <= 12)
            apply(p, seq);
    }
    assert_int_equal(pthread_create(&thread, NULL, recover_some, &l), 0);
    for (uint64_t seq = 13; seq <= 24; seq++) {
        apply(p, seq);
        if (seq % 3 == 0)
            seal(p);
    }
    pthread_join(thread, NULL);
    assert_int_equal(l.failed, 0);
    for (uint64_t seq = 2; seq <= 11; seq++) {
        AUTOFREE(char) *id = mem_printf("p%llu", (unsigned long long)seq);

        assert_overlay(p, h, id, seq);
    }
    assert_content(p);
}

/* --- a fold in the way -------------------------------------------------------------- */

struct folder {
    struct replica *r;
    struct cancel cancel;
    atomic_bool ended;
};

static void *
fold_until_cancelled(void *opaque)
{
    struct folder *f = opaque;

    while (cancel_check(&f->cancel, NULL))
        poll(NULL, 0, 5);
    f->ended = true;
    overlay_fold_ended(f->r);
    return NULL;
}

static struct layout_fold
fold_of(const struct place *p, size_t lower)
{
    AUTOPTR(layout) *l = load_layout(p);
    struct layout_fold fold = { .target = "vda" };

    snprintf(fold.lower, sizeof fold.lower, "%s", l->disks[0].layers[lower]);
    snprintf(fold.upper, sizeof fold.upper, "%s", l->disks[0].layers[lower + 1]);
    return fold;
}

static void
an_overlay_ends_a_fold_below_it_and_keeps_others_away(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    AUTOPTR(layout) *l = NULL;
    struct folder f = { .ended = false };
    struct layout_fold low, high;
    struct error *err = NULL;
    pthread_t thread;
    size_t index = 0;

    create_store(p);
    for (uint64_t seq = 1; seq <= 5; seq++) { /* layers 0 to 6; mark n shows layer n */
        make_point(p, h, seq);
        apply(p, seq);
        seal(p);
    }
    f.r = (struct replica *)p->s;
    low = fold_of(p, 1);
    high = fold_of(p, 4);
    l = load_layout(p);
    assert_false(overlay_in_use(f.r, &l->disks[0], &index));

    assert_true(overlay_fold_begins(f.r, &high, &f.cancel));
    assert_overlay(p, h, "a", 3); /* below it: both go on */
    assert_true(cancel_check(&f.cancel, NULL));
    assert_true(overlay_in_use(f.r, &l->disks[0], &index));
    assert_int_equal(index, 3);
    overlay_fold_ended(f.r);
    assert_false(overlay_fold_begins(f.r, &low, &f.cancel));
    assert_ok(ops->overlay_remove(p->s, "a", &err), err);

    assert_true(overlay_fold_begins(f.r, &low, &f.cancel));
    assert_int_equal(pthread_create(&thread, NULL, fold_until_cancelled, &f), 0);
    assert_overlay(p, h, "b", 4);
    assert_true(f.ended);
    pthread_join(thread, NULL);
    assert_false(overlay_fold_begins(f.r, &low, &f.cancel));
    assert_false(overlay_fold_begins(f.r, &high, &f.cancel));
}

static void
an_overlay_with_a_damaged_record_is_left_alone(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    AUTOFREE(char) *record = mem_printf("%s/overlay/a/overlay.json", p->folder);
    struct error *err = NULL;
    struct layout_fold fold;
    struct cancel cancel = { 0 };

    create_store(p);
    for (uint64_t seq = 1; seq <= 3; seq++) {
        make_point(p, h, seq);
        apply(p, seq);
        seal(p);
    }
    assert_overlay(p, h, "a", 2);
    assert_int_equal(truncate(record, 10), 0);
    reopen(p);
    assert_true(there(p, "overlay/a/vda.qcow2"));
    fold = fold_of(p, 0);
    assert_false(overlay_fold_begins((struct replica *)p->s, &fold, &cancel));
    assert_fails(try_overlay(p, "a", 2, &err), err, ERROR_STORE);
    assert_ok(ops->overlay_remove(p->s, "a", &err), err);
    assert_overlay(p, h, "a", 2);
}

/* --- many --------------------------------------------------------------------------- */

#define MANY 15000

/* Each second, for days: it must not cost. */
static void
nothing_to_do_costs_next_to_nothing(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    AUTOFREE(uint64_t) *seqs = mem_alloc(MANY, sizeof *seqs);
    int64_t begin, opened_ms, retained_ms;

    create_store(p);
    make_point(p, h, 1);
    apply(p, 1);
    for (uint64_t seq = 1; seq <= MANY; seq++) {
        AUTOFREE(char) *file = mem_printf("journal/%012llu", (unsigned long long)seq);

        touch(p, file);
        seqs[seq - 1] = seq;
    }
    begin = units_monotonic_ms();
    reopen(p);
    opened_ms = units_monotonic_ms() - begin;
    retain(p, seqs, MANY);
    begin = units_monotonic_ms();
    for (int i = 0; i < 100; i++)
        retain(p, seqs, MANY);
    retained_ms = units_monotonic_ms() - begin;
    print_message("# %d journals: open %lld ms, retain %lld us\n", MANY,
                  (long long)opened_ms, (long long)retained_ms * 10);
    assert_true(opened_ms < 5000);
    assert_true(retained_ms < 5000);
    assert_int_equal(count_files(p, "journal"), MANY - 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        with_place(just_what_the_kept_points_need_stays),
        with_place(journals_go_also_when_the_layout_cannot_be_written),
        with_place(blobs_go_with_the_last_that_names_them),
        with_place(what_an_overlay_stands_on_stays),
        with_place(no_replay_leads_over_a_resync_whose_mark_is_gone),
        with_place(retaining_beside_applying_and_recovering_loses_nothing),
        with_place(older_points_are_recovered_beside_the_tip),
        with_place(an_overlay_ends_a_fold_below_it_and_keeps_others_away),
        with_place(an_overlay_with_a_damaged_record_is_left_alone),
        with_place(nothing_to_do_costs_next_to_nothing),
    };

    return cmocka_run_group_tests_name("store/retain", tests, NULL, NULL);
}
