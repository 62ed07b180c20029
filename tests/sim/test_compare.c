/* A lost record: what differs is sent, nothing else, and old points stay as they were
 * (I8). */
#include "tests/sim/files.h"
#include "tests/sim/world.h"

#include <event2/thread.h>
#include <signal.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle.h"
#include "daemon/exchange.h"
#include "daemon/peers.h"
#include "daemon/replica.h"
#include "daemon/resync.h"
#include "daemon/stream.h"
#include "drivers/store/qcow2.h"

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

static void
replica_is_exact(struct world *w)
{
    struct world_model m;

    world_model_take(w, &m);
    world_check_tip(w, &m);
    world_model_free(&m);
}

/* QEMU was killed; the cycle that finds out fails, the next ones compare. */
static void
lose(struct world *w)
{
    struct error *err = NULL;

    fake_capture_lose(w->source.capture);
    world_guest_writes(w, 1); /* else nothing asks for the record */
    assert_fails(world_cycle(w, &err), err, ERROR_CHECKPOINT_LOST);
}

static struct replication_resync
last_resync(struct world *w)
{
    AUTOPTR(replication) *r = world_replication(&w->source);

    return r->resync;
}

static bool
one_slice(struct world *w)
{
    AUTOPTR(replication) *r = world_replication(&w->source);
    struct cancel cancel = { 0 };
    struct error *err = NULL;
    bool more = false;

    assert_ok(cycle_run(&w->source.d, r, &cancel, &more, &err), err);
    return more;
}

/* Short slices, and as many of them as there are to be left for later. */
static void
half_a_compare(struct world *w)
{
    w->source.config.slice_bytes = 64 << 10;
    lose(w);
    world_guest_writes(w, 10);
    assert_true(one_slice(w));
    assert_true(one_slice(w));
}

/* --- what travels ----------------------------------------------------------------- */

static void
only_what_differs_travels(void **state)
{
    struct world *w = *state;
    struct replication_resync resync;
    uint8_t block[FAKE_CAPTURE_BLOCK];

    cycle_succeeds(w);
    lose(w);
    memset(block, 0x77, sizeof block);
    for (uint64_t i = 0; i < 5; i++)
        fake_capture_write(w->source.capture, "vda", i * 40 * FAKE_CAPTURE_BLOCK, block,
                           sizeof block);
    cycle_succeeds(w);
    replica_is_exact(w);
    resync = last_resync(w);
    assert_true(resync.compare);
    assert_true(resync.ended_ms >= resync.started_ms && resync.started_ms > 0);
    /* Five, and what lose() has written: a run of up to four blocks on each disk. */
    assert_in_range(resync.sent_bytes, 5 * FAKE_CAPTURE_BLOCK, 13 * FAKE_CAPTURE_BLOCK);
    assert_in_range(resync.looked_bytes, 512 << 10, VDA_BYTES + VDB_BYTES);
    assert_in_range(resync.wire_bytes, 1, resync.sent_bytes + 16384);
}

static void
a_compare_of_equal_disks_sends_no_content(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = world_replication(&w->source);

    cycle_succeeds(w);
    lose(w);
    cycle_succeeds(w); /* what lose() wrote is there now */
    fake_capture_lose(w->source.capture);
    r->agreed = false;
    fake_capture_fail(w->source.capture, FAKE_CAPTURE_CHANGED, 1, ERROR_CHECKPOINT_LOST);
    assert_false(world_cycle(w, NULL));
    cycle_succeeds(w);
    assert_int_equal(last_resync(w).sent_bytes, 0);
    assert_true(last_resync(w).compare);
    replica_is_exact(w);
}

static void
disks_that_changed_everywhere_are_exact(void **state)
{
    struct world *w = *state;

    cycle_succeeds(w);
    lose(w);
    world_guest_writes(w, 400);
    cycle_succeeds(w);
    replica_is_exact(w);
    world_guest_writes(w, 10);
    cycle_succeeds(w);
    replica_is_exact(w);
}

static void
disks_that_were_emptied_become_empty(void **state)
{
    static const uint8_t zeroes[64 << 10];
    struct world *w = *state;

    cycle_succeeds(w);
    lose(w);
    for (uint64_t at = 0; at < VDB_BYTES; at += sizeof zeroes)
        fake_capture_write(w->source.capture, "vdb", at, zeroes, sizeof zeroes);
    cycle_succeeds(w);
    assert_in_range(last_resync(w).sent_bytes, 0, 8 * FAKE_CAPTURE_BLOCK);
    replica_is_exact(w);
}

static void
a_disk_that_grew_and_one_that_came_are_compared_too(void **state)
{
    struct world *w = *state;

    cycle_succeeds(w);
    lose(w);
    fake_capture_set_disk(w->source.capture, "vda", VDA_BYTES + 100 * 4096);
    fake_capture_set_disk(w->source.capture, "vdc", 192u << 10);
    world_plug(w);
    world_guest_writes(w, 20);
    cycle_succeeds(w);
    replica_is_exact(w);
}

static void
a_first_sync_that_lost_its_record_compares_with_what_it_sent(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    assert_true(one_slice(w));
    assert_true(one_slice(w));
    fake_capture_lose(w->source.capture);
    world_guest_writes(w, 2);
    (void)world_cycle(w, NULL); /* its slices come to their end, the delta fails */
    assert_ok(world_recover(w, 3, &err), err);
    assert_true(last_resync(w).compare);
    assert_in_range(last_resync(w).sent_bytes, 0, 16 * FAKE_CAPTURE_BLOCK);
    replica_is_exact(w);
}

/* --- what is in the way ------------------------------------------------------------ */

static void
a_failover_to_an_older_point_works_amid_a_compare(void **state)
{
    struct world *w = *state;
    struct world_model old;
    struct error *err = NULL;

    cycle_succeeds(w);
    world_guest_writes(w, 10);
    cycle_succeeds(w);
    world_model_take(w, &old);
    half_a_compare(w);
    assert_ok(world_failover(w, &err), err);
    world_check_overlay(w, 2, &old);
    world_model_free(&old);
}

static void
a_compare_that_lost_its_record_again_goes_on_with_what_was_sent(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    cycle_succeeds(w);
    half_a_compare(w);
    while (one_slice(w))
        ;
    fake_capture_lose(w->source.capture);
    (void)world_cycle(w, NULL);
    assert_ok(world_recover(w, 3, &err), err);
    assert_in_range(last_resync(w).sent_bytes, 0, 16 * FAKE_CAPTURE_BLOCK);
    replica_is_exact(w);
}

static void
a_target_that_forgot_the_last_slices_is_compared_from_there(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    cycle_succeeds(w);
    half_a_compare(w);
    world_close_target(w);
    world_save_target(w);
    world_open_target(w);
    assert_ok(world_recover(w, 2, &err), err); /* to its end */
    world_close_target(w);
    world_restore_target(w); /* its power was gone */
    world_open_target(w);
    world_guest_writes(w, 5);
    assert_ok(world_recover(w, 6, &err), err);
    replica_is_exact(w);
}

/* The source's capture, which breaks the link before its n-th read. */
static struct {
    struct capture_ops ops;
    const struct capture_ops *real;
    char *address;
    unsigned left;
} breaker;

/* Every connection to the target ends, as if its cable had been pulled. */
static void
break_link(void)
{
    const struct sockaddr_in to = net_sockaddr(breaker.address);

    for (int fd = 3; fd < 256; fd++) {
        struct sockaddr_in peer;
        socklen_t n = sizeof peer;

        if (getpeername(fd, (struct sockaddr *)&peer, &n) == 0 &&
            peer.sin_family == AF_INET && peer.sin_port == to.sin_port)
            shutdown(fd, SHUT_RDWR);
    }
}

static bool
break_and_read(struct capture *c, size_t disk, uint64_t from, uint64_t to,
               const struct capture_sink *sink, struct error **err)
{
    if (breaker.left > 0 && --breaker.left == 0)
        break_link();
    return breaker.real->read(c, disk, from, to, sink, err);
}

static void
a_link_that_breaks_anywhere_costs_the_slice_at_most(void **state)
{
    struct world *w = *state;
    AUTOFREE(char) *path = mem_printf("%s/address", w->target.folder);
    AUTOFREE(char) *address = file_read(path);
    struct error *err = NULL;

    breaker.address = address;
    breaker.real = w->source.capture->ops;
    breaker.ops = *breaker.real;
    breaker.ops.read = break_and_read;
    w->source.capture->ops = &breaker.ops;
    w->source.config.slice_bytes = 64 << 10;
    cycle_succeeds(w);
    for (unsigned n = 1; n <= 9; n++) {
        lose(w);
        world_guest_writes(w, 6);
        breaker.left = n;
        assert_false(world_cycle(w, NULL));
        assert_int_equal(breaker.left, 0);
        assert_ok(world_recover(w, 3, &err), err);
        assert_true(last_resync(w).compare);
        /* 1.5 MiB, and once more what the slice had looked at. */
        assert_in_range(last_resync(w).looked_bytes, 1 << 20, VDA_BYTES + VDB_BYTES);
        replica_is_exact(w);
    }
    w->source.capture->ops = breaker.real;
}

static void
kill_storage_daemon(struct world *w)
{
    AUTOPTR(replication) *r = world_replication(&w->target);
    struct store *store = NULL;
    struct error *err = NULL;

    assert_ok(replica_store(&w->target.d, r, &store, &err), err);
    assert_true(store_qcow2_pid(store) > 0);
    assert_int_equal(kill(store_qcow2_pid(store), SIGKILL), 0);
}

static void
a_storage_daemon_that_dies_amid_a_compare_costs_nothing_but_time(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    cycle_succeeds(w);
    half_a_compare(w);
    kill_storage_daemon(w);
    world_guest_writes(w, 40);
    assert_ok(world_recover(w, 4, &err), err);
    replica_is_exact(w);
}

static void
each_commit_of_a_compare_may_fail_on_either_side(void **state)
{
    struct world *w = *state;
    struct world_host *const hosts[] = { &w->source, &w->target };
    struct error *err = NULL;

    cycle_succeeds(w);
    for (size_t i = 0; i < N_ELEMENTS(hosts); i++)
        for (unsigned n = 1; n <= 4; n++) {
            lose(w);
            hosts[i]->state.fate = FATE_FAIL;
            hosts[i]->state.left = n;
            world_guest_writes(w, 3);
            (void)world_cycle(w, NULL);
            assert_ok(world_recover(w, 4, &err), err);
            hosts[i]->state.left = 0;
            replica_is_exact(w);
        }
}

/* --- the window -------------------------------------------------------------------- */

/* One that begins in two hours, whatever time it is. */
static void
set_window(struct world *w, uint64_t above)
{
    time_t now_s = time(NULL);
    struct tm tm;
    unsigned minute;

    localtime_r(&now_s, &tm);
    minute = (unsigned)(tm.tm_hour * 60 + tm.tm_min);
    w->source.config.resync_window =
        (struct time_window){ (minute + 120) % 1440, (minute + 180) % 1440 };
    w->source.config.resync_window_above_bytes = above;
}

static void
disks_that_are_big_wait_for_the_window(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = world_replication(&w->source);
    AUTOJSON *view = NULL;
    struct cancel cancel = { 0 };
    struct error *err = NULL;
    bool more = true;

    cycle_succeeds(w);
    set_window(w, VDA_BYTES + VDB_BYTES);
    lose(w);
    assert_ok(cycle_run(&w->source.d, r, &cancel, &more, &err), err);
    assert_false(more);
    assert_int_equal(r->phase, PHASE_RESYNCING);
    assert_string_equal(r->sync.name, "");
    view = resync_view(&w->source.config, r);
    assert_string_equal(json_string_or(view, "state", ""), "waiting");
    assert_in_range(json_int_or(view, "waitsUntil", 0) - units_now_ms(), 118 * 60000,
                    120 * 60000);

    w->source.config.resync_window_above_bytes = VDA_BYTES + VDB_BYTES + 1;
    cycle_succeeds(w);
    replica_is_exact(w);
}

/* QEMU would load no snapshot as long as a bitmap is there. */
static void
released_nothing_is_recorded_until_the_vm_was_reverted(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = world_replication(&w->source);
    int64_t until_ms = units_now_ms() + 600000;
    struct cancel cancel = { 0 };
    struct error *err = NULL;
    bool more = true;
    size_t n = 0;

    cycle_succeeds(w);
    assert_ok(cycle_release(&w->source.d, r, until_ms, &n, &err), err);
    assert_int_equal(n, 1);
    assert_int_equal(resync_waits_until_ms(&w->source.config, r, units_now_ms()),
                     until_ms);
    assert_ok(cycle_run(&w->source.d, r, &cancel, &more, &err), err);
    assert_false(more);
    assert_int_equal(fake_capture_points(w->source.capture), 0);

    r->resync.held_until_ms = 0; /* as the event does */
    cycle_succeeds(w);
    assert_true(last_resync(w).compare);
    replica_is_exact(w);
}

static void
a_compare_that_has_begun_does_not_wait(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    cycle_succeeds(w);
    half_a_compare(w);
    set_window(w, 0);
    assert_ok(world_recover(w, 2, &err), err);
    replica_is_exact(w);
}

static void
the_operator_need_not_wait(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = world_replication(&w->source);

    cycle_succeeds(w);
    set_window(w, 0);
    lose(w);
    r->resync.at_once = true;
    cycle_succeeds(w);
    replica_is_exact(w);
}

/* --- when there is nothing to compare with ----------------------------------------- */

static void
a_damaged_replica_is_sent_whole(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = world_replication(&w->target);
    struct error *err = NULL;

    cycle_succeeds(w);
    replica_set_damaged(&w->target.d, r, "a test says so");
    fake_capture_lose(w->source.capture);
    world_guest_writes(w, 1);
    (void)world_cycle(w, NULL);
    assert_ok(world_recover(w, 3, &err), err);
    assert_false(last_resync(w).compare);
    assert_int_equal(last_resync(w).sent_bytes, last_resync(w).looked_bytes);
    replica_is_exact(w);
}

static void
a_replica_that_is_found_damaged_amid_a_compare_is_sent_whole(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = world_replication(&w->target);
    struct error *err = NULL;

    cycle_succeeds(w);
    half_a_compare(w);
    replica_set_damaged(&w->target.d, r, "a test says so");
    assert_ok(world_recover(w, 4, &err), err);
    assert_false(last_resync(w).compare);
    assert_int_equal(last_resync(w).sent_bytes, last_resync(w).looked_bytes);
    replica_is_exact(w);
}

/* --- questions that make no sense --------------------------------------------------- */

static struct stream *
begin_by_hand(struct world *w, bool compare)
{
    AUTOPTR(replication) *r = world_replication(&w->target);
    struct exchange_begin begin = { .kind = EXCHANGE_SLICE,
                                    .epoch = 1,
                                    .point = "virt-dr-by-hand",
                                    .compare = compare,
                                    .disks = { { "vda", VDA_BYTES } },
                                    .n_disks = 1 };
    struct stream *s = NULL;
    struct error *err = NULL;
    AUTOJSON *body = NULL;
    AUTOJSON *ready = NULL;

    snprintf(begin.replication, sizeof begin.replication, "%s", r->id);
    body = exchange_begin_json(&begin);
    assert_ok(peers_stream_take(w->source.d.peers, WORLD_TARGET, NULL, true, &s, &err),
              err);
    assert_ok(stream_send_json(s, WIRE_BEGIN, body, &err), err);
    assert_ok(stream_recv_json(s, WIRE_READY, &ready, &err), err);
    return s;
}

static void
assert_refused(struct world *w, bool compare, const struct wire_frame *f,
               const uint64_t *list)
{
    AUTOPTR(stream) *s = begin_by_hand(w, compare);
    uint8_t payload[WIRE_MAX_FINE * sizeof(uint64_t)];
    struct wire_frame answer;
    const void *got;
    struct error *err = NULL;

    for (size_t i = 0; list != NULL && i < f->length / sizeof(uint64_t); i++)
        wire_put_offset(payload, i, list[i]);
    assert_ok(stream_send_frame(s, f, list != NULL ? payload : NULL, &err), err);
    assert_ok(stream_flush(s, &err), err);
    assert_fails(stream_recv(s, &answer, &got, &err), err, ERROR_PROTOCOL);
}

static void
questions_about_what_is_not_there_are_refused(void **state)
{
    struct world *w = *state;
    const struct wire_frame beyond = { .type = WIRE_WANT,
                                       .offset = 32 << 16,
                                       .length = 65536 };
    const struct wire_frame no_disk = { .type = WIRE_WANT, .disk = 1, .length = 65536 };
    const struct wire_frame fine = { .type = WIRE_WANT,
                                     .flags = WIRE_FINE,
                                     .length = 2 * sizeof(uint64_t) };
    const struct wire_frame good = { .type = WIRE_WANT, .length = 65536 };

    cycle_succeeds(w);
    assert_refused(w, true, &beyond, NULL);
    assert_refused(w, true, &no_disk, NULL);
    assert_refused(w, true, &fine, (const uint64_t[]){ 0, 4096 });
    assert_refused(w, true, &fine, (const uint64_t[]){ 65536, 32 << 16 });
    assert_refused(w, true, &fine, (const uint64_t[]){ UINT64_MAX / 65536 * 65536, 0 });
    assert_refused(w, false, &good, NULL); /* this slice does not compare */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        TEST(only_what_differs_travels),
        TEST(a_compare_of_equal_disks_sends_no_content),
        TEST(disks_that_changed_everywhere_are_exact),
        TEST(disks_that_were_emptied_become_empty),
        TEST(a_disk_that_grew_and_one_that_came_are_compared_too),
        TEST(a_first_sync_that_lost_its_record_compares_with_what_it_sent),
        TEST(a_failover_to_an_older_point_works_amid_a_compare),
        TEST(a_compare_that_lost_its_record_again_goes_on_with_what_was_sent),
        TEST(a_target_that_forgot_the_last_slices_is_compared_from_there),
        TEST(a_link_that_breaks_anywhere_costs_the_slice_at_most),
        TEST(a_storage_daemon_that_dies_amid_a_compare_costs_nothing_but_time),
        TEST(each_commit_of_a_compare_may_fail_on_either_side),
        TEST(disks_that_are_big_wait_for_the_window),
        TEST(a_compare_that_has_begun_does_not_wait),
        TEST(the_operator_need_not_wait),
        TEST(released_nothing_is_recorded_until_the_vm_was_reverted),
        TEST(a_damaged_replica_is_sent_whole),
        TEST(a_replica_that_is_found_damaged_amid_a_compare_is_sent_whole),
        TEST(questions_about_what_is_not_there_are_refused),
    };

    evthread_use_pthreads();
    world_be_child(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
