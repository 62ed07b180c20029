/* Hashes of the replica's tip, against those of the models. */
#include "tests/unit/hashes_kit.h"

#include "drivers/store/mark.h"

static const struct store_effort full_speed = { .rate_bytes_s = 0 };

static void
write_some(struct place *p, int n)
{
    AUTOFREE(uint8_t) *buffer = mem_alloc(200000, 1);

    for (int i = 0; i < n; i++) {
        struct kit_model *m = &p->models[kit_random(&p->seed) % p->n];
        struct error *err = NULL;
        uint64_t offset, length;

        choose_range(p, m->disk.capacity_bytes, 200000, &offset, &length);
        if (i % 4 == 0) {
            memset(m->bytes + offset, 0, length);
            assert_ok(ops->zero(p->s, m->disk.target, offset, length, &err), err);
            continue;
        }
        kit_fill(&p->seed, buffer, length);
        memcpy(m->bytes + offset, buffer, length);
        assert_ok(ops->write(p->s, m->disk.target, offset, buffer, length, &err), err);
    }
}

static void
write_all(struct place *p)
{
    for (size_t i = 0; i < p->n; i++) {
        struct kit_model *m = &p->models[i];
        struct error *err = NULL;

        kit_fill(&p->seed, m->bytes, m->disk.capacity_bytes);
        assert_ok(
            ops->write(p->s, m->disk.target, 0, m->bytes, m->disk.capacity_bytes, &err),
            err);
    }
}

static void
point(struct place *p, uint64_t seq)
{
    random_journal(p, seq, 8);
    apply(p, seq);
}

static void
digest(struct place *p)
{
    struct error *err = NULL;

    assert_ok(ops->digest(p->s, &full_speed, &err), err);
}

/* --- tests -------------------------------------------------------------------------- */

static void
an_empty_replica_has_the_hashes_of_zeroes(void **state)
{
    struct place *p = *state;

    create_store(p);
    assert_all_hashes(p);
    assert_int_equal(store_qcow2_pid(p->s), 0); /* the base alone was read */
}

static void
a_base_that_is_being_written_has_the_hashes_of_what_was_written(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;

    create_store(p);
    for (int round = 0; round < 5; round++) {
        write_some(p, 6);
        assert_all_hashes(p); /* not flushed */
    }
    assert_int_equal(store_qcow2_pid(p->s), 0);
    assert_ok(ops->flush(p->s, &err), err);
    reopen(p);
    assert_all_hashes(p);
}

static void
several_layers_have_the_hashes_of_what_shows_through_them(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;

    create_store(p);
    write_some(p, 10);
    for (uint64_t seq = 1; seq <= 8; seq++) {
        point(p, seq);
        assert_all_hashes(p);
        if (seq % 2 == 0)
            assert_ok(ops->seal(p->s, &err), err);
        assert_all_hashes(p);
    }
    reopen(p);
    assert_all_hashes(p);
    assert_content(p); /* looking has changed nothing */
}

static void
direct_writes_that_are_under_way_are_in_the_hashes(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;

    create_store(p);
    write_some(p, 10);
    point(p, 1);
    for (int round = 0; round < 10; round++) {
        write_some(p, 5);
        assert_all_hashes(p);
    }
    assert_ok(ops->flush(p->s, &err), err);
    assert_content(p);
}

static void
a_disk_that_grew_has_the_hashes_of_its_new_end_too(void **state)
{
    struct place *p = *state;
    struct store_disk disk;
    struct error *err = NULL;

    create_store(p);
    grow_model(&p->models[1], VDB_BYTES + 100 * 512); /* in the base's time */
    disk = p->models[1].disk;
    assert_ok(ops->match(p->s, &disk, 1, &err), err);
    assert_all_hashes(p);
    write_some(p, 10);
    point(p, 1);
    grow_model(&p->models[1], VDB_BYTES + (2u << 20) + 1024);
    disk = p->models[1].disk;
    assert_ok(ops->match(p->s, &disk, 1, &err), err);
    assert_all_hashes(p);
    write_some(p, 10);
    assert_all_hashes(p);
}

static void
a_journal_that_was_half_applied_is_in_the_hashes_as_a_whole(void **state)
{
    struct place *p = *state;
    bool half = false;

    create_store(p);
    write_some(p, 5);
    point(p, 1);
    for (uint64_t seq = 2; seq < 20 && !half; seq++) {
        pid_t child;

        long_journal(p, seq);
        ops->close(TAKE(p->s));
        child = apply_in_child(p, seq);
        kill_child_after(child, 20000 + (int)(kit_random(&p->seed) % 60000));
        reopen(p);
        half = applying(p) != 0;
        if (!half)
            apply(p, seq);
    }
    assert_true(half);
    assert_all_hashes(p);
}

static void
ranges_that_are_not_on_the_disk_are_refused(void **state)
{
    struct place *p = *state;
    const struct store_range bad[] = {
        { 0, VDA_BYTES + 1 },
        { 65536 * 100ull, 65536 },
        { UINT64_MAX / 65536 * 65536, 131072 },
        { 512, 65536 },
    };
    AUTOFREE(uint8_t) *found = mem_alloc(VDA_BYTES / 4096 + 100, BLOCK_HASH_BYTES);
    struct error *err = NULL;

    create_store(p);
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < N_ELEMENTS(bad); i++) {
            struct store_hashing what = { "vda", &bad[i], 1, BLOCK_HASH_COARSE };

            assert_fails(ops->hashes(p->s, &what, found, &err), err, ERROR_PROTOCOL);
            what.target = "vdz";
            assert_fails(ops->hashes(p->s, &what, found, &err), err, ERROR_PROTOCOL);
        }
        point(p, (uint64_t)round + 1);
    }
}

/* One block of the first disk. */
static void
write_block(struct place *p, uint64_t offset)
{
    struct kit_model *m = &p->models[0];
    struct error *err = NULL;

    kit_fill(&p->seed, m->bytes + offset, 4096);
    assert_ok(ops->write(p->s, m->disk.target, offset, m->bytes + offset, 4096, &err),
              err);
}

static void
a_storage_daemon_that_dies_fails_one_call_and_is_started_anew(void **state)
{
    struct place *p = *state;
    const struct store_range all = { 0, VDA_BYTES };
    const struct store_hashing what = { "vda", &all, 1, BLOCK_HASH_COARSE };
    AUTOFREE(uint8_t) *found = mem_alloc(VDA_BYTES / 65536 + 1, BLOCK_HASH_BYTES);
    struct kit_model *m = &p->models[0];
    struct error *err = NULL;

    create_store(p);
    point(p, 1);
    write_block(p, 1u << 20);
    assert_true(store_qcow2_pid(p->s) > 0);
    assert_int_equal(kill(store_qcow2_pid(p->s), SIGKILL), 0);
    assert_fails(ops->hashes(p->s, &what, found, &err), err, ERROR_STORE);
    assert_ok(ops->write(p->s, "vda", 1u << 20, m->bytes + (1u << 20), 4096, &err), err);
    assert_all_hashes(p);
}

/* Only what was written since the last flush has to be asked for. */
static void
what_is_in_the_files_is_read_without_the_storage_daemon(void **state)
{
    struct place *p = *state;
    const struct store_range before = { 0, 1u << 20 };
    const struct store_range behind = { 2u << 20, VDA_BYTES - (2u << 20) };
    struct store_hashing what = { "vda", &before, 1, BLOCK_HASH_COARSE };
    struct error *err = NULL;
    pid_t pid;

    create_store(p);
    write_some(p, 10);
    point(p, 1);
    write_some(p, 5);
    assert_ok(ops->flush(p->s, &err), err);
    write_block(p, 1u << 20);
    pid = store_qcow2_pid(p->s);
    assert_true(pid > 0);
    assert_int_equal(kill(pid, SIGSTOP), 0);
    assert_hashes(p, &p->models[0], &what);
    what.ranges = &behind;
    assert_hashes(p, &p->models[0], &what);
    assert_int_equal(kill(pid, SIGCONT), 0);
    assert_all_hashes(p);
    reopen(p);
    assert_all_hashes(p);
    assert_int_equal(store_qcow2_pid(p->s), 0);
}

/* What a flush made of them is in the file, what came behind it is not. */
static void
flushes_between_writes_change_no_hash(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;

    create_store(p);
    write_some(p, 10);
    for (uint64_t seq = 1; seq <= 3; seq++) {
        point(p, seq);
        for (int round = 0; round < 8; round++) {
            write_some(p, 1);
            if (kit_random(&p->seed) % 2 == 0)
                assert_ok(ops->flush(p->s, &err), err);
            assert_all_hashes(p);
        }
    }
    assert_ok(ops->flush(p->s, &err), err);
    assert_content(p);
}

/* What scrub tells of a damaged base. */
static void
note(const struct store_damage *damage, void *opaque)
{
    *(struct store_damage *)opaque = *damage;
}

static void
flip(const struct place *p, const char *file)
{
    AUTOFREE(char) *path = mem_printf("%s/%s", p->folder, file);
    AUTOFD(fd) = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte = 0;

    assert_int_equal(pread(fd, &byte, 1, 70000), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, 70000), 1);
}

/* Direct writes of whole disks hide what is below them, those of differences do not. */
static void
the_point_behind_a_compare_needs_what_is_below_it(void **state)
{
    struct place *p = *state;
    struct store_damage found = { .last = 0 };
    struct error *err = NULL;
    uint64_t bytes;

    create_store(p);
    write_all(p);
    point(p, 1);
    write_some(p, 5); /* what differed */
    point(p, 2);
    digest(p);
    flip(p, "disks/vda.0000.raw");
    assert_ok(ops->scrub(p->s, &full_speed, note, &found, &bytes, &err), err);
    assert_true(found.tip);
    flip(p, "disks/vda.0000.raw");
    write_all(p); /* a whole copy */
    point(p, 3);
    digest(p);
    flip(p, "disks/vda.0000.raw");
    assert_ok(ops->scrub(p->s, &full_speed, note, &found, &bytes, &err), err);
    assert_false(found.tip);
    assert_int_equal(found.last, 2);
}

/* No replay may cross direct writes, few as they may be. */
static void
the_first_point_behind_a_compare_is_a_mark(void **state)
{
    struct place *p = *state;
    AUTOPTR(layout) *l = NULL;

    create_store(p);
    write_all(p);
    point(p, 1);
    point(p, 2);
    write_some(p, 1);
    point(p, 3);
    l = load_layout(p);
    assert_non_null(mark_find(l, 2));
    assert_non_null(mark_find(l, 3));
    assert_true(mark_find(l, 3)->base);
    assert_content(p);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        with_place(an_empty_replica_has_the_hashes_of_zeroes),
        with_place(a_base_that_is_being_written_has_the_hashes_of_what_was_written),
        with_place(several_layers_have_the_hashes_of_what_shows_through_them),
        with_place(direct_writes_that_are_under_way_are_in_the_hashes),
        with_place(a_disk_that_grew_has_the_hashes_of_its_new_end_too),
        with_place(a_journal_that_was_half_applied_is_in_the_hashes_as_a_whole),
        with_place(ranges_that_are_not_on_the_disk_are_refused),
        with_place(a_storage_daemon_that_dies_fails_one_call_and_is_started_anew),
        with_place(what_is_in_the_files_is_read_without_the_storage_daemon),
        with_place(flushes_between_writes_change_no_hash),
        with_place(the_point_behind_a_compare_needs_what_is_below_it),
        with_place(the_first_point_behind_a_compare_is_a_mark),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
