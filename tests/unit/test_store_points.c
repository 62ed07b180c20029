#include "tests/unit/points_kit.h"

#include <pthread.h>

/* --- every point ------------------------------------------------------------------ */

static void
every_point_is_there_byte_for_byte(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);

    create_store(p);
    for (uint64_t seq = 1; seq <= 24; seq++) {
        if (seq == 9)
            grow_model(&p->models[1], VDB_BYTES + (1u << 20) + 1024);
        if (seq == 14)
            add_model(p, "sda", (1u << 20) + 512);
        make_point(p, h, seq);
        apply(p, seq);
        if (seq % 5 == 0)
            seal(p);
        if (seq % 4 == 0) /* and applying goes on */
            assert_point(p, h, seq - seq / 2);
    }
    for (uint64_t seq = 1; seq <= 24; seq++)
        assert_point(p, h, seq);
    reopen(p);
    for (uint64_t seq = 24; seq >= 1; seq -= 3)
        assert_point(p, h, seq);
    assert_content(p);
    assert_no_point(p, 25);
}

static void
a_point_that_is_not_applied_yet_is_there_too(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);

    create_store(p);
    make_point(p, h, 1);
    assert_no_point(p, 1); /* behind the first sync: to be applied first */
    apply(p, 1);
    make_point(p, h, 2);
    make_point(p, h, 3);
    assert_point(p, h, 3);
    assert_point(p, h, 2);
    assert_int_equal(ops->applied(p->s), 1);
    apply(p, 2);
    apply(p, 3);
    assert_content(p);
}

static void
overlays_of_several_points_stand_beside_each_other(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    AUTOFREE(char) *image = mem_printf("%s/overlay/a/vda.qcow2", p->folder);
    struct error *err = NULL;
    char **ids = NULL;
    size_t n = 0;

    create_store(p);
    for (uint64_t seq = 1; seq <= 6; seq++) {
        make_point(p, h, seq);
        apply(p, seq);
        if (seq == 3)
            seal(p);
    }
    assert_overlay(p, h, "a", 2);
    assert_overlay(p, h, "b", 3);
    scribble(image);
    assert_overlay(p, h, "c", 5);
    assert_overlay(p, h, "b", 3);
    assert_point(p, h, 2);
    reopen(p);
    assert_ok(ops->overlays(p->s, &ids, &n, &err), err);
    assert_int_equal(n, 3);
    for (size_t i = 0; i < n; i++)
        free(ids[i]);
    free(ids);
    assert_overlay(p, h, "c", 5);
    assert_overlay_blob(p, "a", 2);
    assert_content(p);
}

/* --- seal --------------------------------------------------------------------------- */

static void
assert_marks(struct place *p, const uint64_t *wanted, size_t n_wanted)
{
    AUTOFREE(uint64_t) *seqs = NULL;
    struct error *err = NULL;
    size_t n = 0;

    assert_ok(ops->marks(p->s, &seqs, &n, &err), err);
    assert_int_equal(n, n_wanted);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(seqs[i], wanted[i]);
}

static void
a_seal_with_nothing_new_does_nothing(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct error *err = NULL;
    size_t n;

    create_store(p);
    assert_fails(ops->seal(p->s, &err), err, ERROR_INVALID_STATE);
    assert_fails(try_overlay(p, "a", 0, &err), err, ERROR_POINT_NOT_FOUND);
    assert_int_equal(count_files(p, "overlay"), 0);
    make_point(p, h, 1);
    apply(p, 1);
    assert_marks(p, (uint64_t[]){ 1 }, 1);
    n = count_files(p, "disks");
    seal(p);
    assert_overlay(p, h, "a", 1);
    assert_int_equal(count_files(p, "disks"), n);
    make_point(p, h, 2);
    apply(p, 2);
    seal(p);
    seal(p);
    assert_marks(p, (uint64_t[]){ 1, 2 }, 2);
    assert_int_equal(count_files(p, "disks"), n + 2);
}

static void
the_status_is_what_the_folder_holds(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct store_status st;
    struct error *err = NULL;

    create_store(p);
    for (uint64_t seq = 1; seq <= 5; seq++) {
        make_point(p, h, seq);
        if (seq < 5)
            apply(p, seq);
        if (seq == 2)
            seal(p);
    }
    for (int i = 0; i < 2; i++) {
        assert_ok(ops->status(p->s, &st, &err), err);
        assert_int_equal(st.applied, 4);
        assert_int_equal(st.marked, 2);
        assert_int_equal(st.n_marks, 2);
        assert_int_equal(st.n_journals, 5);
        assert_int_equal(st.n_layers, 4);
        assert_true(st.unsealed_bytes > 0 && st.unsealed_bytes < st.journal_bytes);
        assert_true(st.layer_bytes > 0);
        reopen(p);
    }
    seal(p);
    assert_ok(ops->status(p->s, &st, &err), err);
    assert_int_equal(st.unsealed_bytes, 0);
    assert_ok(ops->journal_drop(p->s, 1, &err), err);
    assert_ok(ops->status(p->s, &st, &err), err);
    assert_int_equal(st.n_journals, 4);
}

static size_t
n_layers(const struct place *p, size_t disk)
{
    AUTOPTR(layout) *l = load_layout(p);

    return l->disks[disk].n_layers;
}

/* One write to one disk, sealed. */
static void
make_small_mark(struct place *p, struct history *h, uint64_t seq, size_t disk)
{
    struct kit_writer w = kit_start(p->s, seq, p->models, p->n);
    uint8_t *bytes = p->models[disk].bytes + seq * 4096;

    kit_fill(&p->seed, bytes, 512);
    kit_data(&w, disk, seq * 4096, bytes, 512);
    kit_finish(&w, seq);
    remember(h, p, seq);
    apply(p, seq);
    seal(p);
}

static void
a_disk_to_which_nothing_came_gets_no_layer(void **state)
{
    static const size_t written[] = { 0, 0, 0, 1, 0, 1 };
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    size_t before[2];

    create_store(p);
    write_all_directly(p);
    make_small_mark(p, h, 1, 1);
    before[0] = n_layers(p, 0);
    before[1] = n_layers(p, 1);
    for (size_t i = 0; i < N_ELEMENTS(written); i++)
        make_small_mark(p, h, 2 + i, written[i]);
    assert_int_equal(n_layers(p, 0), before[0] + 4);
    assert_int_equal(n_layers(p, 1), before[1] + 2);
    assert_content(p);
    reopen(p);
    for (uint64_t seq = 1; seq <= 1 + N_ELEMENTS(written); seq++)
        assert_point(p, h, seq);
}

/* By hand too, the mark's layer shows all of the disk. */
static void
a_disk_that_grew_gets_a_layer_though_nothing_came(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    size_t before;

    create_store(p);
    make_small_mark(p, h, 1, 0);
    before = n_layers(p, 1);
    grow_model(&p->models[1], VDB_BYTES + (1u << 20));
    make_small_mark(p, h, 2, 0);
    assert_int_equal(n_layers(p, 1), before + 1);
    make_small_mark(p, h, 3, 0);
    assert_int_equal(n_layers(p, 1), before + 1);
    for (uint64_t seq = 1; seq <= 3; seq++)
        assert_point(p, h, seq);
}

/* --- resync ------------------------------------------------------------------------- */

static void
points_before_and_after_a_resync_stay_what_they_are(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct error *err = NULL;

    create_store(p);
    write_all_directly(p);
    for (uint64_t seq = 1; seq <= 4; seq++) {
        make_point(p, h, seq);
        apply(p, seq);
    }
    seal(p);
    write_all_directly(p);
    assert_ok(ops->flush(p->s, &err), err);
    assert_fails(ops->seal(p->s, &err), err, ERROR_INVALID_STATE);
    for (uint64_t seq = 1; seq <= 4; seq++)
        assert_point(p, h, seq);
    assert_overlay(p, h, "newest", 4);
    make_point(p, h, 5);
    assert_no_point(p, 5); /* no replay leads there */
    reopen(p);
    make_point(p, h, 6);
    apply(p, 5);
    assert_marks(p, (uint64_t[]){ 1, 4, 5 }, 3);
    apply(p, 6);
    for (uint64_t seq = 1; seq <= 6; seq++)
        assert_point(p, h, seq);
    reopen(p);
    for (uint64_t seq = 1; seq <= 6; seq++)
        assert_point(p, h, seq);
    assert_content(p);
}

/* Whoever writes directly without a seal before it loses no point either. */
static void
direct_writes_seal_what_is_there(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);

    create_store(p);
    for (uint64_t seq = 1; seq <= 3; seq++) {
        make_point(p, h, seq);
        apply(p, seq);
    }
    write_all_directly(p);
    assert_marks(p, (uint64_t[]){ 1, 3 }, 2);
    make_point(p, h, 4);
    apply(p, 4);
    for (uint64_t seq = 1; seq <= 4; seq++)
        assert_point(p, h, seq);
}

/* Of the first disk. */
static void
assert_tip(const struct place *p, const struct kit_model *m)
{
    AUTOFREE(char) *tip = layer_file(p, 0, 0);

    assert_image(p, tip, m);
}

static void
reset_goes_back_to_the_newest_mark(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct error *err = NULL;

    create_store(p);
    for (uint64_t seq = 1; seq <= 3; seq++) {
        make_point(p, h, seq);
        apply(p, seq);
        if (seq == 2)
            seal(p);
    }
    assert_ok(ops->reset(p->s, &err), err);
    assert_int_equal(ops->applied(p->s), 2);
    assert_blob(p, 2);
    apply(p, 3);
    assert_content(p);
    seal(p);
    write_all_directly(p);
    assert_ok(ops->flush(p->s, &err), err);
    reopen(p);
    assert_ok(ops->reset(p->s, &err), err);
    assert_int_equal(ops->applied(p->s), 3);
    assert_tip(p, &h->models[3][0]);
    for (uint64_t seq = 1; seq <= 3; seq++)
        assert_point(p, h, seq);
    seal(p); /* nothing is left of the sync */
}

/*
 * The tip is thrown away because it is damaged, with points behind its newest mark. They
 * stay points, by their journals, and none of them may come into what is sent anew.
 */
static void
points_behind_the_mark_of_a_reset_stay_apart_from_a_resync(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct error *err = NULL;

    create_store(p);
    write_all_directly(p);
    for (uint64_t seq = 1; seq <= 4; seq++) {
        make_point(p, h, seq);
        apply(p, seq);
        if (seq == 2)
            seal(p);
    }
    assert_ok(ops->reset(p->s, &err), err);
    write_all_directly(p);
    assert_ok(ops->flush(p->s, &err), err);
    for (uint64_t seq = 1; seq <= 4; seq++)
        assert_point(p, h, seq);
    reopen(p);
    make_point(p, h, 5);
    for (uint64_t seq = ops->applied(p->s) + 1; seq <= 5; seq++)
        apply(p, seq);
    assert_content(p);
    assert_marks(p, (uint64_t[]){ 1, 2, 5 }, 3);
    for (uint64_t seq = 1; seq <= 5; seq++)
        assert_point(p, h, seq);
}

static void
a_first_sync_may_begin_anew(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct error *err = NULL;

    create_store(p);
    write_all_directly(p);
    assert_ok(ops->reset(p->s, &err), err);
    assert_fails(ops->seal(p->s, &err), err, ERROR_INVALID_STATE);
    write_all_directly(p);
    make_point(p, h, 1);
    apply(p, 1);
    assert_point(p, h, 1);
}

/* --- damage ------------------------------------------------------------------------- */

static void
damage(const struct place *p, uint64_t seq, off_t from_end, uint8_t bits)
{
    AUTOFREE(char) *path =
        mem_printf("%s/journal/%012llu", p->folder, (unsigned long long)seq);
    AUTOFD(fd) = open(path, O_RDWR | O_CLOEXEC);
    off_t at = lseek(fd, -from_end, SEEK_END);
    uint8_t byte;

    assert_true(at > 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= bits;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
}

static void
a_damaged_journal_harms_only_the_points_that_need_it(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct error *err = NULL;

    create_store(p);
    for (uint64_t seq = 1; seq <= 9; seq++) {
        make_point(p, h, seq);
        apply(p, seq);
        if (seq == 6)
            seal(p);
    }
    damage(p, 4, 300, 0x40);
    for (uint64_t seq = 1; seq <= 9; seq++) {
        if (seq != 4 && seq != 5) {
            assert_point(p, h, seq);
            continue;
        }
        assert_false(try_overlay(p, "look", seq, &err));
        assert_int_equal(error_code(err), ERROR_CHECKSUM);
        assert_non_null(strstr(error_message(err), "journal 4"));
        error_clear(&err);
        assert_false(there(p, "overlay/look"));
        assert_false(there(p, "overlay/look.part"));
    }
    assert_ok(ops->journal_drop(p->s, 4, &err), err);
    assert_no_point(p, 4);
    assert_no_point(p, 5);
    assert_point(p, h, 3);
}

/* Whatever bit it is, the code says that it is damage. */
static void
any_damage_is_told_as_such(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    AUTOFREE(char) *path = mem_printf("%s/journal/000000000002", p->folder);
    struct error *err = NULL;
    struct stat st;

    create_store(p);
    make_point(p, h, 1);
    apply(p, 1);
    make_point(p, h, 2);
    assert_int_equal(stat(path, &st), 0);
    for (int i = 0; i < 40; i++) {
        off_t at = 1 + (off_t)(kit_random(&p->seed) % (i < 10 ? 60 : st.st_size));
        uint8_t bits = (uint8_t)(1u << (kit_random(&p->seed) % 8));

        at = at < st.st_size ? at : st.st_size - 1;
        damage(p, 2, at, bits);
        assert_fails(try_overlay(p, "look", 2, &err), err, ERROR_CHECKSUM);
        damage(p, 2, at, bits);
    }
    assert_point(p, h, 2);
    assert_int_equal(truncate(path, st.st_size - 40), 0);
    assert_fails(try_overlay(p, "look", 2, &err), err, ERROR_CHECKSUM);
    assert_fails(ops->apply(p->s, 2, NULL, &err), err, ERROR_CHECKSUM);
}

/* A tip that cannot be finished keeps nobody from the older points. */
static void
half_a_delta_that_cannot_be_finished_harms_no_older_point(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct error *err = NULL;
    pid_t child;

    create_store(p);
    for (uint64_t seq = 1; seq <= 3; seq++) {
        make_point(p, h, seq);
        apply(p, seq);
    }
    long_journal(p, 4);
    ops->close(TAKE(p->s));
    child = apply_in_child(p, 4);
    for (int64_t end = units_monotonic_ms() + 30000; applying(p) != 4;)
        assert_true(units_monotonic_ms() < end);
    assert_true(kill_child_after(child, 0));
    damage(p, 4, 300, 0x01);
    reopen(p);
    assert_fails(try_overlay(p, "look", 0, &err), err, ERROR_CHECKSUM);
    for (uint64_t seq = 1; seq <= 3; seq++)
        assert_point(p, h, seq);
    assert_ok(ops->reset(p->s, &err), err); /* and this is the way out */
    assert_int_equal(ops->applied(p->s), 1);
    apply(p, 2);
    apply(p, 3);
    assert_tip(p, &h->models[3][0]);
}

/* --- ends --------------------------------------------------------------------------- */

struct watcher {
    uint64_t done, total;
    int calls;
    struct cancel *cancel; /* requested in the first call; NULL: not */
};

static void
watch(uint64_t done, uint64_t total, void *opaque)
{
    struct watcher *w = opaque;

    assert_true(done >= w->done && done <= total);
    w->done = done;
    w->total = total;
    w->calls++;
    if (w->cancel != NULL)
        cancel_request(w->cancel);
}

static void
recovering_tells_how_far_it_is_and_can_be_cancelled(void **state)
{
    struct place *p = *state;
    struct cancel cancel = { 0 };
    struct watcher w = { .cancel = &cancel };
    struct store_overlay wanted = {
        .id = "a", .seq = 3, .cancel = &cancel, .progress = watch, .opaque = &w
    };
    AUTOPTR(history) *h = NEW(struct history);
    struct error *err = NULL;
    char **paths = NULL;
    size_t n = 0;

    create_store(p);
    make_point(p, h, 1);
    apply(p, 1);
    long_journal(p, 2);
    make_point(p, h, 3);
    assert_fails(ops->overlay_create(p->s, &wanted, &paths, &n, &err), err,
                 ERROR_CANCELLED);
    assert_int_equal(w.calls, 1);
    assert_int_equal(count_files(p, "overlay"), 0);
    w = (struct watcher){ .done = 0 };
    wanted.cancel = NULL;
    assert_ok(ops->overlay_create(p->s, &wanted, &paths, &n, &err), err);
    assert_true(w.calls > 2);
    assert_int_equal(w.done, w.total);
    for (size_t i = 0; i < n; i++)
        free(paths[i]);
    free(paths);
    assert_overlay(p, h, "a", 3);
}

static pid_t
recover_in_child(struct place *p, uint64_t seq)
{
    pid_t child = fork();

    if (child == 0) {
        bool ok = ops->open(p->folder, &p->s, NULL) && try_overlay(p, "crash", seq, NULL);

        if (ok)
            ops->close(p->s);
        _exit(ok ? 0 : 1);
    }
    assert_true(child > 0);
    return child;
}

static void
a_process_that_dies_while_recovering_leaves_nothing_or_all(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct error *err = NULL;
    int killed = 0, us = 1000;

    create_store(p);
    for (uint64_t seq = 1; seq <= 12; seq++) {
        make_point(p, h, seq);
        apply(p, seq);
    }
    for (int i = 0; i < 20; i++) {
        uint64_t seq = i % 4 == 0 ? 12 : 3 + (uint64_t)i % 9;

        ops->close(TAKE(p->s));
        if (kill_child_after(recover_in_child(p, seq), us)) {
            killed++;
            us += 9000;
        } else {
            us = 5000;
        }
        reopen(p);
        assert_false(there(p, "overlay/crash.part"));
        assert_overlay(p, h, "crash", seq);
        assert_ok(ops->overlay_remove(p->s, "crash", &err), err);
    }
    assert_true(killed >= 6);
    assert_content(p);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        with_place(every_point_is_there_byte_for_byte),
        with_place(a_point_that_is_not_applied_yet_is_there_too),
        with_place(overlays_of_several_points_stand_beside_each_other),
        with_place(a_seal_with_nothing_new_does_nothing),
        with_place(the_status_is_what_the_folder_holds),
        with_place(a_disk_to_which_nothing_came_gets_no_layer),
        with_place(a_disk_that_grew_gets_a_layer_though_nothing_came),
        with_place(points_before_and_after_a_resync_stay_what_they_are),
        with_place(direct_writes_seal_what_is_there),
        with_place(reset_goes_back_to_the_newest_mark),
        with_place(points_behind_the_mark_of_a_reset_stay_apart_from_a_resync),
        with_place(a_first_sync_may_begin_anew),
        with_place(a_damaged_journal_harms_only_the_points_that_need_it),
        with_place(any_damage_is_told_as_such),
        with_place(half_a_delta_that_cannot_be_finished_harms_no_older_point),
        with_place(recovering_tells_how_far_it_is_and_can_be_cancelled),
        with_place(a_process_that_dies_while_recovering_leaves_nothing_or_all),
    };

    return cmocka_run_group_tests_name("store/points", tests, NULL, NULL);
}
