#include "tests/unit/points_kit.h"

#include <pthread.h>
#include <sys/prctl.h>

#include "drivers/store/mark.h"
#include "tests/unit/hashes_kit.h"

#define N_POINTS    24
#define LARGE_BYTES (32u << 20)

static const struct store_effort full_speed = { .rate_bytes_s = 0 };

static size_t
fold_all(struct place *p)
{
    struct error *err = NULL;
    bool folded = true;
    size_t n = 0;

    while (folded) {
        assert_ok(ops->fold(p->s, &full_speed, &folded, &err), err);
        n += folded;
    }
    return n;
}

static size_t
n_layers(const struct place *p, size_t disk)
{
    AUTOPTR(layout) *l = load_layout(p);

    return l->disks[disk].n_layers;
}

static void
retain(struct place *p, const uint64_t *seqs, size_t n)
{
    struct error *err = NULL;

    assert_ok(ops->retain(p->s, seqs, n, &err), err);
}

static void
digest(struct place *p)
{
    struct error *err = NULL;

    assert_ok(ops->digest(p->s, &full_speed, &err), err);
}

/* A whole first sync, then sealed points, each a mark; the disks grow on the way. */
static void
fill(struct place *p, struct history *h, uint64_t last)
{
    create_store(p);
    write_all_directly(p);
    for (uint64_t seq = 1; seq <= last; seq++) {
        if (seq == 5)
            grow_model(&p->models[0], VDA_BYTES + (1u << 20));
        if (seq == 9)
            grow_model(&p->models[1], VDB_BYTES + 65536 * 3);
        make_point(p, h, seq);
        apply(p, seq);
        seal(p);
    }
}

static void
assert_points(struct place *p, const struct history *h, const uint64_t *seqs, size_t n)
{
    for (size_t i = 0; i < n; i++)
        assert_point(p, h, seqs[i]);
}

/* --- what is there after folds ------------------------------------------------------ */

static void
folds_change_no_point_and_leave_the_layers_of_the_marks(void **state)
{
    static const uint64_t kept[] = { 3, 7, 8, 15, N_POINTS };
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);

    fill(p, h, N_POINTS);
    assert_int_equal(fold_all(p), 2); /* the bases; all others are marks' */
    retain(p, kept, N_ELEMENTS(kept));
    assert_true(fold_all(p) > 2 * 14);
    assert_points(p, h, kept, N_ELEMENTS(kept));
    assert_content(p);

    /* Each kept mark's layer, the one below the newest's, and the tip. */
    for (size_t i = 0; i < 2; i++)
        assert_in_range(n_layers(p, i), N_ELEMENTS(kept) + 1, N_ELEMENTS(kept) + 2);
    assert_int_equal(count_files(p, "disks"), n_layers(p, 0) + n_layers(p, 1));
    reopen(p);
    assert_int_equal(fold_all(p), 0);
    assert_points(p, h, kept, N_ELEMENTS(kept));
    make_point(p, h, N_POINTS + 1);
    apply(p, N_POINTS + 1);
    seal(p);
    retain(p, &kept[3], 1);
    fold_all(p);
    assert_point(p, h, kept[3]);
    assert_point(p, h, N_POINTS + 1);
    assert_content(p);
}

static void
folds_go_on_while_the_tip_is_open(void **state)
{
    static const uint64_t none[] = { N_POINTS };
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);

    fill(p, h, N_POINTS);
    make_point(p, h, N_POINTS + 1);
    apply(p, N_POINTS + 1);
    assert_true(store_qcow2_pid(p->s) > 0);
    retain(p, none, 1);
    for (uint64_t seq = N_POINTS + 2; seq < N_POINTS + 12; seq++) {
        bool folded;
        struct error *err = NULL;

        assert_ok(ops->fold(p->s, &full_speed, &folded, &err), err);
        assert_true(folded);
        assert_content(p);
        make_point(p, h, seq);
        apply(p, seq);
    }
    fold_all(p);
    assert_point(p, h, N_POINTS);
    for (uint64_t seq = N_POINTS + 1; seq < N_POINTS + 12; seq++)
        assert_point(p, h, seq);
    assert_content(p);
}

/* What the storage daemon of the tip says the disk holds. */
static void
assert_served(const struct place *p, const struct kit_model *m)
{
    AUTOFREE(char) *uri =
        mem_printf("nbd+unix:///%s?socket=%s/nbd.sock", m->disk.target, p->folder);
    AUTOFREE(char) *raw = mem_printf("%s/served.raw", p->parent);
    AUTOFREE(uint8_t) *found = mem_alloc(m->disk.capacity_bytes, 1);
    const char *const argv[] = { "qemu-img", "convert", "-f", "raw", "-O",
                                 "raw",      uri,       raw,  NULL };
    AUTOFD(fd) = -1;

    run(argv);
    fd = open(raw, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, found, m->disk.capacity_bytes), m->disk.capacity_bytes);
    assert_memory_equal(found, m->bytes, m->disk.capacity_bytes);
    unlink(raw);
}

struct folder_thread {
    struct store *s;
    struct store_effort effort;
    struct cancel cancel;
    pthread_t thread;
    size_t n_folded, n_failed;
    enum error_code code;
    _Atomic bool ended;
};

/* Until there is nothing to fold, or it fails otherwise than killed helpers make it. */
static void *
fold_thread(void *opaque)
{
    struct folder_thread *t = opaque;
    bool folded = true;

    while (folded) {
        struct error *err = NULL;

        if (!ops->fold(t->s, &t->effort, &folded, &err)) {
            t->code = error_code(err);
            t->n_failed++;
            error_free(err);
            if (t->code != ERROR_STORE)
                break;
            continue;
        }
        t->n_folded += folded;
    }
    t->ended = true;
    return NULL;
}

static void
start_folds(struct folder_thread *t, struct place *p, uint64_t rate)
{
    *t = (struct folder_thread){ .s = p->s };
    t->effort = (struct store_effort){ .rate_bytes_s = rate, .cancel = &t->cancel };
    assert_int_equal(pthread_create(&t->thread, NULL, fold_thread, t), 0);
}

static void
what_the_tip_shows_does_not_change_during_folds(void **state)
{
    static const uint64_t none[] = { N_POINTS };
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct folder_thread t;
    unsigned looks = 0;

    fill(p, h, N_POINTS);
    make_point(p, h, N_POINTS + 1);
    apply(p, N_POINTS + 1);
    retain(p, none, 1);
    start_folds(&t, p, 2u << 20);
    while (!t.ended) {
        for (size_t i = 0; i < p->n; i++)
            assert_served(p, &p->models[i]);
        assert_all_hashes(p); /* which are read from the layers' files */
        looks++;
    }
    pthread_join(t.thread, NULL);
    assert_int_equal(t.n_failed, 0);
    assert_true(t.n_folded > 30 && looks > 5);
    for (size_t i = 0; i < p->n; i++)
        assert_served(p, &p->models[i]);
    assert_content(p);
}

static void
the_tip_is_written_and_sealed_during_folds(void **state)
{
    static const uint64_t none[] = { 10 };
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct folder_thread t;
    uint64_t seq = 12;

    fill(p, h, 12);
    retain(p, none, 1);
    start_folds(&t, p, 1u << 20);
    while (!t.ended && seq < HISTORY_MAX - 1) {
        make_point(p, h, ++seq);
        apply(p, seq);
        if (seq % 3 == 0)
            seal(p);
    }
    pthread_join(t.thread, NULL);
    assert_int_equal(t.n_failed, 0);
    assert_true(t.n_folded > 10 && seq > 14);
    assert_point(p, h, 10);
    for (uint64_t i = 12; i <= seq; i++)
        assert_point(p, h, i);
    assert_content(p);
}

/* --- zeroes ------------------------------------------------------------------------- */

static uint64_t
disk_bytes(const struct place *p, const char *layer)
{
    AUTOFREE(char) *path = mem_printf("%s/disks/%s", p->folder, layer);
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static void
make_zero_point(struct place *p, uint64_t seq)
{
    struct kit_writer w = kit_start(p->s, seq, p->models, p->n);

    memset(p->models[0].bytes, 0, 1u << 20);
    kit_zero(&w, 0, 0, 1u << 20);
    kit_finish(&w, seq);
    apply(p, seq);
    seal(p);
}

static void
zeroes_become_holes_below(void **state)
{
    static const uint64_t kept[] = { 4 };
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    uint64_t before;

    fill(p, h, 1);
    before = disk_bytes(p, "vda.0000.raw");
    make_zero_point(p, 2);
    make_point(p, h, 3);
    apply(p, 3);
    seal(p);
    make_point(p, h, 4);
    apply(p, 4);
    seal(p);
    retain(p, kept, 1);
    assert_true(fold_all(p) >= 4);
    assert_true(disk_bytes(p, "vda.0000.raw") + (512u << 10) < before + (600u << 10));
    assert_point(p, h, 4);
}

/* Points that write all of one larger disk, so that a fold takes a while; only the last
   is kept. */
static void
fill_whole_disk(struct place *p, struct history *h, uint64_t last)
{
    struct error *err = NULL;
    bool folded = false;

    free(p->models[--p->n].bytes);
    grow_model(&p->models[0], LARGE_BYTES);
    fill(p, h, 1);
    for (uint64_t seq = 2; seq <= last; seq++) {
        struct kit_writer w = kit_start(p->s, seq, p->models, p->n);

        for (size_t i = 0; i < p->n; i++) {
            struct kit_model *m = &p->models[i];

            kit_fill(&p->seed, m->bytes, m->disk.capacity_bytes);
            for (uint64_t at = 0; at < m->disk.capacity_bytes; at += 65536)
                kit_data(&w, i, at, m->bytes + at,
                         MIN(65536, m->disk.capacity_bytes - at));
        }
        kit_finish(&w, seq);
        remember(h, p, seq);
        apply(p, seq);
        seal(p);
    }
    retain(p, &last, 1);
    assert_ok(ops->fold(p->s, &full_speed, &folded, &err), err); /* that of the first */
    assert_true(folded);
}

/* --- stopped, killed ---------------------------------------------------------------- */

static bool
fold_is_recorded(const struct place *p)
{
    AUTOPTR(layout) *l = load_layout(p);

    return l->fold.target[0] != '\0';
}

static void
a_fold_that_is_cancelled_is_finished_first_by_the_next(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct cancel cancel = { .requested = false };
    struct store_effort slow = { .rate_bytes_s = 2u << 20, .cancel = &cancel };
    AUTOPTR(layout) *l = NULL;
    struct error *err = NULL;
    bool folded = false;

    fill_whole_disk(p, h, 5);
    cancel_set_timeout(&cancel, 300);
    assert_fails(ops->fold(p->s, &slow, &folded, &err), err, ERROR_TIMEOUT);
    assert_true(fold_is_recorded(p));
    l = load_layout(p);
    assert_content(p);
    assert_point(p, h, 5);
    reopen(p);
    assert_true(fold_is_recorded(p));
    assert_ok(ops->fold(p->s, &full_speed, &folded, &err), err);
    assert_true(folded);
    assert_false(fold_is_recorded(p));
    assert_int_equal(n_layers(p, (size_t)(layout_find(l, l->fold.target) - l->disks)),
                     layout_find(l, l->fold.target)->n_layers - 1);
    fold_all(p);
    assert_point(p, h, 5);
    assert_content(p);
}

/* To each qemu-img that is our own child; 0 only counts them. */
static size_t
signal_helpers(int signal)
{
    DIR *dir = opendir("/proc");
    struct dirent *entry;
    size_t n = 0;

    while ((entry = readdir(dir)) != NULL) {
        AUTOFREE(char) *path = mem_printf("/proc/%s/stat", entry->d_name);
        char text[256] = "";
        AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC);
        int pid = 0, parent = 0;

        if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
            continue;
        if (sscanf(text, "%d (qemu-img) %*c %d", &pid, &parent) == 2 &&
            parent == (int)getpid())
            n += kill(pid, signal) == 0;
    }
    closedir(dir);
    return n;
}

static void
wait_us(uint64_t us)
{
    struct timespec wait = { .tv_nsec = (long)us * 1000 };

    nanosleep(&wait, NULL);
}

/* A resize opens the tip in a way of its own: not with what is being folded. */
static void
a_disk_grows_during_a_fold(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct folder_thread t;

    fill_whole_disk(p, h, 5);
    start_folds(&t, p, 2u << 20);
    while (signal_helpers(0) == 0)
        wait_us(20000);
    grow_model(&p->models[0], LARGE_BYTES + (1u << 20));
    make_point(p, h, 6);
    apply(p, 6);
    assert_false(t.ended);
    cancel_request(&t.cancel);
    pthread_join(t.thread, NULL);
    assert_int_equal(t.n_failed, 1);
    assert_int_equal(t.code, ERROR_CANCELLED);
    assert_point(p, h, 6);
    fold_all(p);
    assert_point(p, h, 5);
    assert_point(p, h, 6);
    assert_content(p);
}

static void
a_helper_that_is_killed_at_any_moment_harms_no_point(void **state)
{
    static const uint64_t kept[] = { 6, 14, N_POINTS };
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct folder_thread t;

    fill(p, h, N_POINTS);
    make_point(p, h, N_POINTS + 1);
    apply(p, N_POINTS + 1);
    digest(p);
    retain(p, kept, N_ELEMENTS(kept));
    start_folds(&t, p, 8u << 20);
    for (unsigned i = 0; i < 200 && !t.ended; i++) {
        wait_us(kit_random(&p->seed) % 60000);
        signal_helpers(SIGKILL);
        if (i % 20 == 0)
            for (size_t disk = 0; disk < p->n; disk++)
                assert_served(p, &p->models[disk]);
    }
    pthread_join(t.thread, NULL);
    assert_true(t.n_failed > 5);
    fold_all(p);
    assert_points(p, h, kept, N_ELEMENTS(kept));
    assert_point(p, h, N_POINTS + 1);
    assert_content(p);
}

static void
a_process_that_dies_in_a_fold_harms_no_point(void **state)
{
    static const uint64_t kept[] = { 6, 14, N_POINTS };
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    unsigned killed = 0;

    fill(p, h, N_POINTS);
    digest(p);
    retain(p, kept, N_ELEMENTS(kept));
    for (unsigned round = 0; round < 40; round++) {
        pid_t child;

        ops->close(TAKE(p->s));
        child = fork();
        if (child == 0) {
            struct store_effort effort = { .rate_bytes_s = 16u << 20 };
            struct store *s = NULL;
            bool folded = ops->open(p->folder, &s, NULL);

            while (folded && ops->fold(s, &effort, &folded, NULL))
                ;
            _exit(0);
        }
        assert_true(child > 0);
        killed += kill_child_after(child, (int)(kit_random(&p->seed) % 250000));
        reopen(p);
        assert_point(p, h, kept[round % N_ELEMENTS(kept)]);
    }
    assert_true(killed > 20);
    fold_all(p);
    assert_points(p, h, kept, N_ELEMENTS(kept));
    assert_content(p);
}

/* --- overlays ----------------------------------------------------------------------- */

static void
await_record(const struct place *p)
{
    int64_t end = units_monotonic_ms() + 60000;

    while (!fold_is_recorded(p)) {
        assert_true(units_monotonic_ms() < end);
        wait_us(2000);
    }
}

static void
an_overlay_stops_a_fold_that_it_stands_on(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct folder_thread t;
    struct error *err = NULL;
    int64_t begin;
    bool folded;

    fill_whole_disk(p, h, 5);
    start_folds(&t, p, 2u << 20);
    await_record(p);
    begin = units_monotonic_ms();
    assert_overlay(p, h, "vm", 5);
    assert_true(units_monotonic_ms() - begin < 10000); /* the fold takes 16 s */
    pthread_join(t.thread, NULL);
    assert_int_equal(t.code, ERROR_CANCELLED);
    assert_true(fold_is_recorded(p));
    assert_ok(ops->fold(p->s, &full_speed, &folded, &err), err);
    assert_false(folded);
    reopen(p);
    assert_ok(ops->fold(p->s, &full_speed, &folded, &err), err);
    assert_false(folded);
    assert_overlay(p, h, "vm", 5);
    assert_ok(ops->overlay_remove(p->s, "vm", &err), err);
    assert_int_equal(fold_all(p), 3);
    assert_point(p, h, 5);
    assert_content(p);
}

static void
folds_above_an_overlay_go_on(void **state)
{
    static const uint64_t kept[] = { 4, N_POINTS };
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct error *err = NULL;
    size_t folded;

    fill(p, h, N_POINTS);
    assert_overlay(p, h, "old", 4);
    retain(p, &kept[1], 1);
    folded = fold_all(p);
    assert_in_range(folded, 2 * (N_POINTS - 4 - 3), 2 * (N_POINTS - 4));
    assert_overlay(p, h, "old", 4);
    assert_point(p, h, N_POINTS);
    assert_ok(ops->overlay_remove(p->s, "old", &err), err);
    retain(p, &kept[1], 1);
    assert_true(fold_all(p) >= 2 * 3);
    assert_point(p, h, N_POINTS);
    assert_content(p);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        with_place(folds_change_no_point_and_leave_the_layers_of_the_marks),
        with_place(folds_go_on_while_the_tip_is_open),
        with_place(what_the_tip_shows_does_not_change_during_folds),
        with_place(the_tip_is_written_and_sealed_during_folds),
        with_place(zeroes_become_holes_below),
        with_place(a_fold_that_is_cancelled_is_finished_first_by_the_next),
        with_place(a_disk_grows_during_a_fold),
        with_place(a_helper_that_is_killed_at_any_moment_harms_no_point),
        with_place(a_process_that_dies_in_a_fold_harms_no_point),
        with_place(an_overlay_stops_a_fold_that_it_stands_on),
        with_place(folds_above_an_overlay_go_on),
    };

    return cmocka_run_group_tests_name("store: folds", tests, NULL, NULL);
}
