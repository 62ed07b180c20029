#include "tests/unit/store_kit.h"

#include <pthread.h>

#include "drivers/store/writer.h"

/* --- deltas ------------------------------------------------------------------------- */

static void
deltas_land_byte_for_byte(void **state)
{
    struct place *p = *state;

    create_store(p);
    assert_int_equal(ops->applied(p->s), 0);
    assert_content(p);
    for (uint64_t seq = 1; seq <= 12; seq++) {
        random_journal(p, seq, 30);
        apply(p, seq);
        assert_blob(p, seq);
        if (seq % 3 == 0) {
            struct error *err = NULL;

            assert_content(p);
            assert_ok(ops->seal(p->s, &err), err);
        }
    }
    reopen(p);
    assert_int_equal(ops->applied(p->s), 12);
    assert_blob(p, 12);
    assert_content(p);
}

static void
an_older_journal_is_not_applied_again(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;

    create_store(p);
    random_journal(p, 1, 20);
    random_journal(p, 2, 20);
    apply(p, 1);
    apply(p, 2);
    assert_ok(ops->apply(p->s, 1, NULL, &err), err);
    assert_ok(ops->apply(p->s, 2, NULL, &err), err);
    assert_int_equal(ops->applied(p->s), 2);
    assert_content(p);
    assert_fails(ops->apply(p->s, 3, NULL, &err), err, ERROR_POINT_NOT_FOUND);
}

static void
an_idle_cycle_starts_no_storage_daemon(void **state)
{
    struct place *p = *state;

    create_store(p);
    random_journal(p, 1, 0);
    apply(p, 1);
    assert_blob(p, 1);
    assert_int_equal(store_qcow2_pid(p->s), 0);
}

static void
direct_writes_land_in_the_order_in_which_they_were_made(void **state)
{
    struct place *p = *state;
    struct kit_model *m = &p->models[0];
    AUTOFREE(uint8_t) *buffer = mem_alloc(400000, 1);
    struct error *err = NULL;

    create_store(p);
    for (int i = 0; i < 300; i++) {
        uint64_t offset, length;

        choose_range(p, m->disk.capacity_bytes, 400000, &offset, &length);
        if (i % 5 == 0) {
            memset(m->bytes + offset, 0, length);
            assert_ok(ops->zero(p->s, "vda", offset, length, &err), err);
            continue;
        }
        kit_fill(&p->seed, buffer, length);
        memcpy(m->bytes + offset, buffer, length);
        assert_ok(ops->write(p->s, "vda", offset, buffer, length, &err), err);
        memset(buffer, 0xee, length); /* it was copied */
    }
    assert_ok(ops->flush(p->s, &err), err);
    assert_content(p);
    assert_fails(ops->write(p->s, "vdz", 0, buffer, 512, &err), err, ERROR_PROTOCOL);
    assert_fails(ops->write(p->s, "vda", VDA_BYTES - 511, buffer, 512, &err), err,
                 ERROR_PROTOCOL);
}

/* A place is an offer: what was put there is written only by a write() of it. */
static void
direct_writes_may_be_made_in_the_memory_of_the_store(void **state)
{
    const size_t length = 256 << 10;
    struct place *p = *state;
    struct kit_model *m = &p->models[0];
    AUTOFREE(uint8_t) *buffer = mem_alloc(length, 1);
    struct error *err = NULL;
    size_t placed = 0;

    create_store(p);
    kit_fill(&p->seed, m->bytes, m->disk.capacity_bytes);
    assert_null(ops->place(p->s, "vdz", 0, length));
    for (uint64_t at = 0; at + length <= m->disk.capacity_bytes; at += length) {
        uint8_t *own = ops->place(p->s, "vda", at, length);

        memcpy(buffer, m->bytes + at, length);
        if (own != NULL && at / length % 3 == 0)
            memset(own, 0xee, length);
        else if (own != NULL) {
            memcpy(own, buffer, length);
            placed++;
        }
        assert_ok(ops->write(p->s, "vda", at,
                             own != NULL && at / length % 3 != 0 ? own : buffer, length,
                             &err),
                  err);
    }
    memset(m->bytes + m->disk.capacity_bytes / length * length, 0,
           m->disk.capacity_bytes % length);
    assert_in_range(placed, 2, m->disk.capacity_bytes / length);
    assert_ok(ops->flush(p->s, &err), err);
    /* Pieces do not reach over a border of them. */
    assert_null(ops->place(p->s, "vda", WRITER_PIECE_BYTES - 4096, 8192));
    assert_non_null(ops->place(p->s, "vda", 0, length));
    assert_content(p);
}

static void
zeroes_hide_what_is_below_and_give_space_back_at_the_bottom(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *base = NULL;
    struct error *err = NULL;
    struct stat full, empty;

    create_store(p);
    base = layer_file(p, 0, 1);
    kit_fill(&p->seed, p->models[0].bytes, 3u << 20);
    assert_ok(ops->write(p->s, "vda", 0, p->models[0].bytes, 3u << 20, &err), err);
    assert_ok(ops->flush(p->s, &err), err);
    assert_int_equal(stat(base, &full), 0);

    memset(p->models[0].bytes, 0, 2u << 20);
    assert_ok(ops->zero(p->s, "vda", 0, 2u << 20, &err), err);
    assert_ok(ops->flush(p->s, &err), err);
    assert_int_equal(stat(base, &empty), 0);
    assert_true(empty.st_blocks < full.st_blocks - (1 << 20) / 512);
    assert_content(p);

    random_journal(p, 1, 10);
    apply(p, 1); /* seals as well */
    memset(p->models[0].bytes, 0, VDA_BYTES);
    assert_ok(ops->zero(p->s, "vda", 0, VDA_BYTES, &err), err);
    assert_ok(ops->flush(p->s, &err), err);
    assert_content(p);
}

/* --- disks that change -------------------------------------------------------------- */

static void
a_disk_that_grew_and_one_that_is_new_are_followed(void **state)
{
    struct place *p = *state;
    AUTOFREE(struct store_disk) *disks = NULL;
    struct error *err = NULL;
    size_t n = 0;

    create_store(p);
    random_journal(p, 1, 20);
    apply(p, 1);
    assert_ok(ops->seal(p->s, &err), err);
    grow_model(&p->models[1], VDB_BYTES + (2u << 20) + 1024);
    add_model(p, "sda", 1u << 20);
    random_journal(p, 2, 60);
    apply(p, 2);
    assert_content(p);
    reopen(p);
    assert_ok(ops->disks(p->s, &disks, &n, &err), err);
    assert_int_equal(n, 3);
    assert_string_equal(disks[2].target, "sda");
    assert_int_equal(disks[1].capacity_bytes, p->models[1].disk.capacity_bytes);
    random_journal(p, 3, 60);
    apply(p, 3);
    assert_content(p);
}

static void
a_disk_that_shrank_is_refused_and_nothing_changes(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    struct store_disk disks[] = { { "sdz", 1 << 20, NULL },
                                  { "vda", VDA_BYTES - 512, NULL } };
    size_t n = 0;
    AUTOFREE(struct store_disk) *found = NULL;

    create_store(p);
    assert_fails(ops->match(p->s, disks, 2, &err), err, ERROR_PROTOCOL);
    assert_ok(ops->disks(p->s, &found, &n, &err), err);
    assert_int_equal(n, 2);
    assert_content(p);
}

/* --- damage ------------------------------------------------------------------------- */

static void
a_damaged_journal_writes_nothing(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *journal = mem_printf("%s/journal/000000000002", p->folder);
    AUTOFREE(char) *tip = NULL;
    AUTOFD(fd) = -1;
    struct error *err = NULL;
    uint8_t byte;
    uint64_t before;
    struct kit_model saved = p->models[0];

    create_store(p);
    random_journal(p, 1, 20);
    apply(p, 1);
    saved.bytes = (uint8_t *)mem_memdup(p->models[0].bytes, VDA_BYTES);
    random_journal(p, 2, 20);
    ops->close(TAKE(p->s));
    tip = layer_file(p, 0, 0);
    before = file_sum(tip);

    fd = open(journal, O_RDWR | O_CLOEXEC);
    assert_int_equal(lseek(fd, -200, SEEK_END) > 0, 1);
    assert_int_equal(read(fd, &byte, 1), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, lseek(fd, 0, SEEK_CUR) - 1), 1);
    reopen(p);
    assert_fails(ops->apply(p->s, 2, NULL, &err), err, ERROR_CHECKSUM);
    assert_int_equal(ops->applied(p->s), 1);
    assert_blob(p, 1);
    assert_int_equal(file_sum(tip), before);
    assert_image(p, tip, &saved);
    free(saved.bytes);
}

/* --- crashes ------------------------------------------------------------------------ */

struct killer {
    struct place *p;
    int pid;
};

/* Waits until the storage daemon is there and has something to write, then kills it. */
static void *
kill_storage_daemon(void *opaque)
{
    struct killer *k = opaque;
    AUTOFREE(char) *tip = mem_printf("%s/disks/vda.0002.qcow2", k->p->folder);
    int64_t end = units_monotonic_ms() + 30000;
    struct stat st;

    while (units_monotonic_ms() < end && stat(tip, &st) == 0)
        if (st.st_size > (2 << 20)) {
            kill(k->pid, SIGKILL);
            break;
        }
    return NULL;
}

static void
a_storage_daemon_that_dies_is_replaced_and_the_delta_is_whole(void **state)
{
    struct place *p = *state;
    struct killer k = { .p = p };
    struct error *err = NULL;
    pthread_t thread;
    bool ok;

    create_store(p);
    random_journal(p, 1, 2);
    apply(p, 1);
    random_journal(p, 2, 2);
    apply(p, 2); /* starts it */
    k.pid = store_qcow2_pid(p->s);
    assert_true(k.pid > 0);
    long_journal(p, 3);
    assert_int_equal(pthread_create(&thread, NULL, kill_storage_daemon, &k), 0);
    ok = ops->apply(p->s, 3, NULL, &err);
    pthread_join(thread, NULL);
    assert_false(ok);
    assert_int_equal(error_code(err), ERROR_STORE);
    error_clear(&err);
    assert_int_equal(ops->applied(p->s), 2);
    apply(p, 3);
    assert_content(p);
}

/* Wherever in open, apply and seal it dies, opening and applying makes it whole. */
static void
a_process_that_dies_anywhere_leaves_nothing_wrong(void **state)
{
    struct place *p = *state;
    int killed = 0, us = 1000;

    create_store(p);
    for (uint64_t seq = 1; seq <= 24; seq++) {
        random_journal(p, seq, 40);
        ops->close(TAKE(p->s));
        if (kill_child_after(apply_in_child(p, seq), us)) {
            killed++;
            us += 6000;
        } else {
            us = 3000;
        }
        reopen(p);
        apply(p, seq);
        assert_content(p);
        assert_blob(p, seq);
    }
    assert_true(killed >= 8);
}

static void
nothing_is_built_on_half_a_delta(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    char **paths = NULL;
    size_t n = 0;
    pid_t child;

    create_store(p);
    long_journal(p, 1);
    ops->close(TAKE(p->s));
    child = apply_in_child(p, 1);
    for (int64_t end = units_monotonic_ms() + 30000; applying(p) != 1;)
        assert_true(units_monotonic_ms() < end);
    assert_true(kill_child_after(child, 0));
    assert_int_equal(applying(p), 1);

    reopen(p);
    assert_int_equal(ops->applied(p->s), 0);
    assert_ok(ops->overlay_create(p->s, &(struct store_overlay){ .id = "failover" },
                                  &paths, &n, &err),
              err);
    assert_int_equal(ops->applied(p->s), 1);
    assert_int_equal(n, 2);
    for (size_t i = 0; i < n; i++) {
        assert_image(p, paths[i], &p->models[i]);
        free(paths[i]);
    }
    free(paths);
}

static void
opening_removes_what_a_crash_left_and_nothing_else(void **state)
{
    static const char *const left[] = { "journal/000000000009.part",
                                        "disks/vda.0009.qcow2",
                                        "disks/vda.0009.qcow2.sums",
                                        "disks/vda.0001.qcow2.sums.new",
                                        "aux/000000000009.nvram",
                                        "layout.json.new",
                                        "nbd.sock" };
    static const char *const kept[] = {
        "journal/000000000001", "disks/vda.0000.raw", "disks/vda.0001.qcow2.sums",
        "disks/notes",          "README.txt",         "notes"
    };
    struct place *p = *state;

    create_store(p);
    random_journal(p, 1, 5);
    apply(p, 1);
    ops->close(TAKE(p->s));
    for (size_t i = 0; i < N_ELEMENTS(left); i++)
        touch(p, left[i]);
    touch(p, "notes");
    touch(p, "disks/notes");
    touch(p, "disks/vda.0001.qcow2.sums");
    reopen(p);
    for (size_t i = 0; i < N_ELEMENTS(left); i++)
        assert_false(there(p, left[i]));
    for (size_t i = 0; i < N_ELEMENTS(kept); i++)
        assert_true(there(p, kept[i]));
    assert_blob(p, 1);
    assert_content(p);
}

static void
a_missing_layer_and_a_damaged_layout_are_told(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *base = NULL;
    AUTOFREE(char) *layout = mem_printf("%s/layout.json", p->folder);
    struct error *err = NULL;
    struct store *s = NULL;

    create_store(p);
    base = layer_file(p, 0, 0);
    ops->close(TAKE(p->s));
    assert_int_equal(unlink(base), 0);
    assert_fails(ops->open(p->folder, &s, &err), err, ERROR_STORE);
    assert_int_equal(truncate(layout, 100), 0);
    assert_fails(ops->open(p->folder, &s, &err), err, ERROR_STORE);
    assert_true(there(p, "disks/vdb.0000.raw"));
}

/* --- overlays ----------------------------------------------------------------------- */

static void
overlays_and_the_replica_go_their_own_ways(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    char **paths = NULL, **again = NULL;
    size_t n = 0, n_again = 0;
    AUTOFREE(char) *sealed = NULL;
    struct kit_model point = p->models[0];
    uint64_t sum;
    int64_t begin;

    create_store(p);
    random_journal(p, 1, 30);
    apply(p, 1);
    begin = units_monotonic_ms();
    assert_ok(ops->overlay_create(p->s, &(struct store_overlay){ .id = "drill-1" },
                                  &paths, &n, &err),
              err);
    print_message("# overlays of 2 disks in %lld ms\n",
                  (long long)(units_monotonic_ms() - begin));
    assert_int_equal(n, 2);
    sealed = layer_file(p, 0, 1);
    sum = file_sum(sealed);
    point.bytes = (uint8_t *)mem_memdup(p->models[0].bytes, VDA_BYTES);
    assert_image(p, paths[0], &point);

    /* The VM writes to the overlay while the next delta is applied. */
    scribble(paths[0]);
    memset(point.bytes + 4096, 0xaa, 600000);
    random_journal(p, 2, 30);
    apply(p, 2);
    scribble(paths[1]);
    assert_content(p);
    assert_image(p, paths[0], &point);
    assert_int_equal(file_sum(sealed), sum);

    reopen(p);
    assert_ok(ops->overlay_create(p->s, &(struct store_overlay){ .id = "drill-1" },
                                  &again, &n_again, &err),
              err);
    assert_int_equal(n_again, 2);
    assert_string_equal(again[0], paths[0]);
    assert_image(p, paths[0], &point);
    assert_ok(ops->overlay_remove(p->s, "drill-1", &err), err);
    assert_ok(ops->overlay_remove(p->s, "drill-1", &err), err);
    assert_false(there(p, "overlay/drill-1"));
    assert_content(p);
    assert_fails(ops->overlay_create(p->s, &(struct store_overlay){ .id = "../x" },
                                     &again, &n_again, &err),
                 err, ERROR_PROTOCOL);
    for (size_t i = 0; i < 2; i++) {
        free(paths[i]);
        free(again[i]);
    }
    free(paths);
    free(again);
    free(point.bytes);
}

static void
sealing_is_quick_and_makes_a_layer_that_stays(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;

    create_store(p);
    for (uint64_t seq = 1; seq <= 4; seq++) {
        AUTOFREE(char) *sealed = NULL;
        int64_t begin, sealed_ms, applied_ms;
        uint64_t sum;

        random_journal(p, seq, 20);
        begin = units_monotonic_ms();
        apply(p, seq);
        applied_ms = units_monotonic_ms() - begin;
        begin = units_monotonic_ms();
        assert_ok(ops->seal(p->s, &err), err);
        sealed_ms = units_monotonic_ms() - begin;
        print_message("# apply with a fresh storage daemon %lld ms, seal %lld ms\n",
                      (long long)applied_ms, (long long)sealed_ms);
        assert_true(sealed_ms < 5000);
        sealed = layer_file(p, 0, 1);
        sum = file_sum(sealed);
        random_journal(p, seq + 100, 20);
        ops->journal_drop(p->s, seq + 100, NULL);
        assert_int_equal(file_sum(sealed), sum);
        assert_true(there(p, "disks/vda.0001.qcow2"));
        /* The model holds the dropped delta too: bring the replica there. */
        for (size_t i = 0; i < p->n; i++)
            assert_ok(ops->write(p->s, p->models[i].disk.target, 0, p->models[i].bytes,
                                 p->models[i].disk.capacity_bytes, &err),
                      err);
        assert_ok(ops->flush(p->s, &err), err);
        assert_content(p);
    }
}

/* --- no space ----------------------------------------------------------------------- */

static void
mount_small(struct place *p)
{
    if (geteuid() != 0 ||
        mount("tmpfs", p->parent, "tmpfs", 0, "size=12m,mode=700") < 0) {
        print_message("# skip: mounting a small file system needs root\n");
        skip();
    }
}

static void
a_full_disk_is_told_and_overcome(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *ballast = mem_printf("%s/ballast", p->parent);
    AUTOFD(fd) = -1;
    struct error *err = NULL;
    uint64_t used, free_bytes;

    mount_small(p);
    create_store(p);
    random_journal(p, 1, 10);
    apply(p, 1);
    random_journal(p, 2, 60);
    assert_ok(ops->space(p->folder, &used, &free_bytes, &err), err);
    fd = open(ballast, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(posix_fallocate(fd, 0, (off_t)(free_bytes - 300000)), 0);

    assert_fails(ops->apply(p->s, 2, NULL, &err), err, ERROR_NO_SPACE);
    assert_int_equal(ops->applied(p->s), 1);
    assert_blob(p, 1);
    assert_int_equal(unlink(ballast), 0);
    assert_int_equal(ftruncate(fd, 0), 0);
    apply(p, 2);
    assert_int_equal(mount("tmpfs", p->parent, "tmpfs", MS_REMOUNT, "size=64m"), 0);
    assert_content(p);
    assert_blob(p, 2);
}

/* Written behind our back: told by the flush at the latest, and done again after it. */
static void
a_disk_that_fills_up_under_direct_writes_is_told_and_overcome(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *ballast = mem_printf("%s/ballast", p->parent);
    struct kit_model *m = &p->models[0];
    AUTOFD(fd) = -1;
    struct error *err = NULL;
    uint64_t used, free_bytes;

    mount_small(p);
    create_store(p);
    kit_fill(&p->seed, m->bytes, m->disk.capacity_bytes);
    assert_ok(ops->space(p->folder, &used, &free_bytes, &err), err);
    fd = open(ballast, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(posix_fallocate(fd, 0, (off_t)(free_bytes - (1 << 20))), 0);

    assert_false(ops->write(p->s, "vda", 0, m->bytes, m->disk.capacity_bytes, &err) &&
                 ops->flush(p->s, &err));
    assert_int_equal(error_code(err), ERROR_NO_SPACE);
    error_clear(&err);

    assert_int_equal(ftruncate(fd, 0), 0);
    assert_ok(ops->write(p->s, "vda", 0, m->bytes, m->disk.capacity_bytes, &err), err);
    assert_ok(ops->flush(p->s, &err), err);
    assert_content(p);
}

static void
a_journal_that_finds_no_space_is_told_and_forgotten(void **state)
{
    struct place *p = *state;
    AUTOFREE(uint8_t) *data = mem_alloc(1 << 20, 1);
    struct error *err = NULL;
    struct kit_writer w;
    bool ok = true;
    uint64_t before, after, free_bytes;

    mount_small(p);
    create_store(p);
    assert_ok(ops->space(p->folder, &before, &free_bytes, &err), err);
    w = kit_start(p->s, 1, p->models, p->n);
    for (int i = 0; ok && i < 20; i++) {
        struct wire_frame frame = { .type = WIRE_DATA,
                                    .length = 1 << 20,
                                    .stored = 1 << 20,
                                    .sequence = w.frame.sequence++ };
        uint8_t header[WIRE_HEADER_BYTES];

        wire_encode(&frame, data, header);
        ok = ops->journal_append(w.journal, &frame, data, &err);
    }
    assert_false(ok);
    assert_int_equal(error_code(err), ERROR_NO_SPACE);
    error_clear(&err);
    ops->journal_abort(w.journal);
    assert_ok(ops->space(p->folder, &after, &free_bytes, &err), err);
    assert_int_equal(before, after);
}

/* --- the folder --------------------------------------------------------------------- */

static void
only_one_may_have_it_open(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    struct store *other = NULL;

    create_store(p);
    assert_fails(ops->open(p->folder, &other, &err), err, ERROR_EXISTS);
    assert_fails(ops->destroy(p->folder, &err), err, ERROR_EXISTS);
    assert_fails(ops->create(p->folder, NULL, 0, &err), err, ERROR_EXISTS);
    ops->close(TAKE(p->s));
    assert_fails(ops->create(p->folder, NULL, 0, &err), err, ERROR_EXISTS);
}

static void
destroying_takes_all_that_is_ours(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    char **paths = NULL;
    size_t n = 0;

    create_store(p);
    random_journal(p, 1, 10);
    apply(p, 1);
    assert_ok(
        ops->overlay_create(p->s, &(struct store_overlay){ .id = "d" }, &paths, &n, &err),
        err);
    for (size_t i = 0; i < n; i++)
        free(paths[i]);
    free(paths);
    ops->close(TAKE(p->s));
    touch(p, "notes");
    assert_ok(ops->destroy(p->folder, &err), err);
    assert_true(there(p, "notes"));
    assert_false(there(p, "disks"));
    kit_remove_tree(p->folder);
    assert_ok(ops->destroy(p->folder, &err), err);

    create_store(p);
    ops->close(TAKE(p->s));
    assert_ok(ops->destroy(p->folder, &err), err);
    assert_int_equal(access(p->folder, F_OK), -1);
}

struct receiver {
    struct place *p;
    struct kit_writer writer;
};

static void *
receive(void *opaque)
{
    struct receiver *r = opaque;
    AUTOFREE(uint8_t) *data = mem_alloc(65536, 1);

    for (int i = 0; i < 300; i++)
        kit_data(&r->writer, 0, 0, data, 65536);
    kit_finish(&r->writer, 2);
    return NULL;
}

static void
a_cycle_comes_in_while_another_is_applied(void **state)
{
    struct place *p = *state;
    struct receiver r = { .p = p };
    pthread_t thread;

    create_store(p);
    long_journal(p, 1);
    r.writer = kit_start(p->s, 2, p->models, p->n);
    assert_int_equal(pthread_create(&thread, NULL, receive, &r), 0);
    apply(p, 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_content(p);
    apply(p, 2);
    memset(p->models[0].bytes, 0, 65536);
    assert_content(p);
}

static void
a_cancelled_apply_stops_and_can_be_done_again(void **state)
{
    struct place *p = *state;
    struct cancel cancel = { 0 };
    struct error *err = NULL;

    create_store(p);
    random_journal(p, 1, 20);
    cancel_request(&cancel);
    assert_fails(ops->apply(p->s, 1, &cancel, &err), err, ERROR_CANCELLED);
    apply(p, 1);
    assert_content(p);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        with_place(deltas_land_byte_for_byte),
        with_place(an_older_journal_is_not_applied_again),
        with_place(an_idle_cycle_starts_no_storage_daemon),
        with_place(direct_writes_land_in_the_order_in_which_they_were_made),
        with_place(direct_writes_may_be_made_in_the_memory_of_the_store),
        with_place(zeroes_hide_what_is_below_and_give_space_back_at_the_bottom),
        with_place(a_disk_that_grew_and_one_that_is_new_are_followed),
        with_place(a_disk_that_shrank_is_refused_and_nothing_changes),
        with_place(a_damaged_journal_writes_nothing),
        with_place(a_storage_daemon_that_dies_is_replaced_and_the_delta_is_whole),
        with_place(a_process_that_dies_anywhere_leaves_nothing_wrong),
        with_place(nothing_is_built_on_half_a_delta),
        with_place(opening_removes_what_a_crash_left_and_nothing_else),
        with_place(a_missing_layer_and_a_damaged_layout_are_told),
        with_place(overlays_and_the_replica_go_their_own_ways),
        with_place(sealing_is_quick_and_makes_a_layer_that_stays),
        with_place(a_full_disk_is_told_and_overcome),
        with_place(a_disk_that_fills_up_under_direct_writes_is_told_and_overcome),
        with_place(a_journal_that_finds_no_space_is_told_and_forgotten),
        with_place(only_one_may_have_it_open),
        with_place(destroying_takes_all_that_is_ours),
        with_place(a_cycle_comes_in_while_another_is_applied),
        with_place(a_cancelled_apply_stops_and_can_be_done_again),
    };

    return cmocka_run_group_tests_name("store/qcow2", tests, NULL, NULL);
}
