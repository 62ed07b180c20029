/* Verifying: a replica that is the same, one that is not, and what cannot be told. */
#include "tests/sim/world.h"

#include <event2/thread.h>
#include <fcntl.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle_verify.h"
#include "daemon/replica.h"
#include "drivers/store/layout.h"

#define VDA_BYTES ((1u << 20) + 3 * FAKE_CAPTURE_BLOCK)
#define VDB_BYTES (512u << 10)

static int
setup(void **state)
{
    struct world *w = world_new();

    world_open_target(w);
    world_open_source(w);
    fake_capture_set_disk(w->source.capture, "vda", VDA_BYTES);
    fake_capture_set_disk(w->source.capture, "vdb", VDB_BYTES);
    world_plug(w);
    world_guest_writes(w, 200);
    world_protect(w);
    *state = w;
    return 0;
}

static int
teardown(void **state)
{
    world_free(*state);
    return 0;
}

static void
cycle_succeeds(struct world *w)
{
    struct error *err = NULL;

    assert_ok(world_cycle(w, &err), err);
}

static bool
slice(struct world *w, struct cycle_verify *v, struct error **err)
{
    AUTOPTR(replication) *r = world_replication(&w->source);
    struct cancel cancel = { 0 };
    bool ok;

    v->slice_ms = 60000;
    if (v->slice_bytes == 0)
        v->slice_bytes = 4u << 20;
    assert_true(replication_claim(r, &cancel, false, NULL));
    ok = cycle_verify(&w->source.d, r, &cancel, v, err);
    if (!ok)
        r->agreed = false;
    replication_release(r);
    return ok;
}

static void
slice_succeeds(struct world *w, struct cycle_verify *v)
{
    struct error *err = NULL;

    assert_ok(slice(w, v, &err), err);
}

/* A byte of the replica changes behind everybody's back, in the disk's lowest layer. */
static void
flip(struct world *w, uint64_t offset)
{
    AUTOPTR(replication) *r = world_replication(&w->target);
    AUTOFREE(char) *path = mem_printf("%s/disks/vda.0000.raw", r->folder);
    AUTOFD(fd) = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte = 0;

    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
}

/* --- tests ------------------------------------------------------------------------ */

static void
a_replica_that_is_the_same_is_found_the_same(void **state)
{
    struct world *w = *state;
    struct cycle_verify v = { 0 };

    cycle_succeeds(w);
    world_guest_writes(w, 20);
    slice_succeeds(w, &v);
    assert_true(v.complete);
    assert_int_equal(v.compared_bytes, VDA_BYTES + VDB_BYTES);
    assert_int_equal(v.different_bytes, 0);
}

static void
slices_between_which_the_guest_writes_are_each_of_one_moment(void **state)
{
    struct world *w = *state;
    struct cycle_verify v = { .slice_bytes = 1 };
    unsigned slices = 0;

    cycle_succeeds(w);
    for (; !v.complete; slices++) {
        world_guest_writes(w, 20);
        slice_succeeds(w, &v);
        world_guest_writes(w, 20);
        cycle_succeeds(w); /* cycles go on between them */
    }
    assert_int_equal(slices, 2); /* one window for each disk */
    assert_int_equal(v.compared_bytes, VDA_BYTES + VDB_BYTES);
    assert_int_equal(v.different_bytes, 0);
}

static void
an_idle_vm_can_be_verified(void **state)
{
    struct world *w = *state;
    struct cycle_verify v = { 0 };

    cycle_succeeds(w);
    cycle_succeeds(w); /* a touch */
    slice_succeeds(w, &v);
    assert_true(v.complete);
    assert_int_equal(v.different_bytes, 0);
}

static void
one_bit_that_differs_is_found_and_told_where(void **state)
{
    struct world *w = *state;
    struct cycle_verify v = { 0 };
    static const uint8_t block[FAKE_CAPTURE_BLOCK] = { 1 };

    fake_capture_write(w->source.capture, "vda", 5 * 65536, block, sizeof block);
    cycle_succeeds(w);
    flip(w, 5 * 65536 + 77);
    slice_succeeds(w, &v);
    assert_int_equal(v.n_differences, 1);
    assert_string_equal(v.differences[0].target, "vda");
    assert_int_equal(v.differences[0].offset, 5 * 65536);
    assert_int_equal(v.differences[0].length, 65536);
    assert_int_equal(v.different_bytes, 65536);
}

static void
a_difference_is_put_right_by_a_compare(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = world_replication(&w->source);
    struct cycle_verify before = { 0 }, after = { 0 };
    struct world_model m;

    cycle_succeeds(w);
    flip(w, 100);
    slice_succeeds(w, &before);
    assert_int_equal(before.n_differences, 1);
    pthread_mutex_lock(&r->lock);
    cycle_start_over(&w->source.d, r, "a test says so");
    r->agreed = false;
    pthread_mutex_unlock(&r->lock);
    cycle_succeeds(w);
    assert_true(r->resync.compare);
    assert_int_equal(r->resync.sent_bytes, FAKE_CAPTURE_BLOCK);
    slice_succeeds(w, &after);
    assert_true(after.complete);
    assert_int_equal(after.different_bytes, 0);
    world_model_take(w, &m);
    world_check_tip(w, &m);
    world_model_free(&m);
}

static void
nothing_can_be_verified_before_the_first_point_or_amid_a_resync(void **state)
{
    struct world *w = *state;
    struct cycle_verify v = { 0 };
    struct error *err = NULL;

    assert_fails(slice(w, &v, &err), err, ERROR_INVALID_STATE);
    cycle_succeeds(w);
    fake_capture_lose(w->source.capture);
    world_guest_writes(w, 1);
    assert_fails(slice(w, &v, &err), err, ERROR_CHECKPOINT_LOST);
    assert_fails(slice(w, &v, &err), err, ERROR_INVALID_STATE);
    assert_int_equal(v.compared_bytes, 0);
    cycle_succeeds(w);
    slice_succeeds(w, &v);
    assert_true(v.complete);
}

static void
nothing_is_verified_while_replication_is_paused(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = world_replication(&w->source);
    struct cycle_verify v = { 0 };
    struct error *err = NULL;

    cycle_succeeds(w);
    r->paused = true;
    assert_fails(slice(w, &v, &err), err, ERROR_INVALID_STATE);
    r->paused = false;
    slice_succeeds(w, &v);
    assert_true(v.complete);
}

/* What failed was not compared; nothing is counted twice either. */
static void
a_slice_that_fails_anywhere_can_be_tried_again(void **state)
{
    static const enum fake_capture_call calls[] = { FAKE_CAPTURE_BEGIN, FAKE_CAPTURE_READ,
                                                    FAKE_CAPTURE_CONTENT,
                                                    FAKE_CAPTURE_END };
    struct world *w = *state;
    struct cycle_verify v = { .slice_bytes = 1 };
    struct error *err = NULL;

    cycle_succeeds(w);
    for (size_t i = 0; i < N_ELEMENTS(calls); i++) {
        world_guest_writes(w, 3);
        fake_capture_fail(w->source.capture, calls[i], 1, ERROR_HYPERVISOR);
        assert_fails(slice(w, &v, &err), err, ERROR_HYPERVISOR);
        assert_int_equal(v.compared_bytes, 0);
    }
    world_close_target(w);
    assert_false(slice(w, &v, NULL));
    world_open_target(w);
    assert_int_equal(v.compared_bytes, 0);
    cycle_succeeds(w);
    slice_succeeds(w, &v);
    slice_succeeds(w, &v);
    assert_true(v.complete);
    assert_int_equal(v.compared_bytes, VDA_BYTES + VDB_BYTES);
    assert_int_equal(v.different_bytes, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        TEST(a_replica_that_is_the_same_is_found_the_same),
        TEST(slices_between_which_the_guest_writes_are_each_of_one_moment),
        TEST(an_idle_vm_can_be_verified),
        TEST(one_bit_that_differs_is_found_and_told_where),
        TEST(a_difference_is_put_right_by_a_compare),
        TEST(nothing_can_be_verified_before_the_first_point_or_amid_a_resync),
        TEST(nothing_is_verified_while_replication_is_paused),
        TEST(a_slice_that_fails_anywhere_can_be_tried_again),
    };

    evthread_use_pthreads();
    world_be_child(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
