/* Who may send how much, who goes first, and what cycles cost the guest. */
#include "tests/sim/world.h"

#include <event2/thread.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/latency.h"
#include "daemon/replication_view.h"
#include "daemon/traffic.h"

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define MS  UINT64_C(1000000) /* in ns */

static int
setup(void **state)
{
    struct world *w = world_new();

    world_open_target(w);
    world_open_source(w);
    fake_capture_set_disk(w->source.capture, "vda", 512u << 10);
    world_plug(w);
    world_guest_writes(w, 50);
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
limit_vm(struct world *w, const char *text)
{
    AUTOPTR(replication) *r = world_replication(&w->source);
    struct error *err = NULL;

    pthread_mutex_lock(&r->lock);
    assert_ok(bandwidth_parse(text, &r->bandwidth, &err), err);
    pthread_mutex_unlock(&r->lock);
}

static void
cycle_succeeds(struct world *w)
{
    struct error *err = NULL;

    world_guest_writes(w, 5);
    assert_ok(world_cycle(w, &err), err);
}

/* --- flows ------------------------------------------------------------------------- */

/* Another thread that sends, until it is told to stop or what it has to send is sent. */
struct sender {
    pthread_t thread;
    struct cancel cancel;
    struct traffic_flow flow;
    uint64_t bytes;
    _Atomic uint64_t sent;
    int64_t took_ms;
    struct error *err;
};

static void *
send_all(void *opaque)
{
    struct sender *s = opaque;
    int64_t begun_ms = units_monotonic_ms(), waited_us;

    while (s->sent < s->bytes && traffic_wait(&s->flow, 16 * KIB, &waited_us, &s->err))
        s->sent += 16 * KIB;
    s->took_ms = units_monotonic_ms() - begun_ms;
    return NULL;
}

static void
start_sender(struct sender *s, struct world *w, bool is_background, uint64_t bytes)
{
    AUTOPTR(replication) *r = world_replication(&w->source);

    s->bytes = bytes;
    traffic_begin(&w->source.d, r, is_background, &s->cancel, &s->flow);
    assert_int_equal(pthread_create(&s->thread, NULL, send_all, s), 0);
}

static void
join_sender(struct sender *s)
{
    pthread_join(s->thread, NULL);
    traffic_end(&s->flow);
}

/* --- limits ------------------------------------------------------------------------ */

static void
what_is_sent_keeps_to_the_limit_of_the_vm(void **state)
{
    struct sender s = { 0 };

    limit_vm(*state, "1MiB/s");
    start_sender(&s, *state, false, MIB);
    join_sender(&s);
    assert_null(s.err);
    assert_in_range(s.took_ms, 900, 5000);
}

static void
all_that_goes_to_a_peer_shares_its_limit(void **state)
{
    struct world *w = *state;
    struct config_peer peer = { 0 };
    struct sender both[2] = { 0 };
    struct error *err = NULL;

    peer.name = mem_strdup("beta");
    assert_ok(bandwidth_parse("1MiB/s", &peer.bandwidth, &err), err);
    w->source.config.peers = &peer;
    w->source.config.n_peers = 1;
    for (int i = 0; i < 2; i++)
        start_sender(&both[i], w, i == 1, MIB / 2);
    for (int i = 0; i < 2; i++)
        join_sender(&both[i]);
    assert_in_range(MAX(both[0].took_ms, both[1].took_ms), 900, 5000);
    w->source.config.n_peers = 0;
    free(peer.name);
}

static uint64_t
wire_bytes(struct world *w)
{
    AUTOPTR(replication) *r = world_replication(&w->source);

    return r->stats.wire_bytes;
}

static void
a_cycle_is_sent_as_slowly_as_it_must_be_and_is_exact(void **state)
{
    struct world *w = *state;
    struct world_model model;
    uint64_t wire;
    int64_t took_ms;

    cycle_succeeds(w);
    limit_vm(w, "256KiB/s");
    world_guest_writes(w, 50);
    wire = wire_bytes(w);
    took_ms = -units_monotonic_ms();
    cycle_succeeds(w);
    took_ms += units_monotonic_ms();
    wire = wire_bytes(w) - wire;
    assert_true(wire > 128 * KIB);
    /* The last piece is not waited for, and begin and end are not limited. */
    assert_true((uint64_t)took_ms >= (wire - 96 * KIB) * 1000 / (256 * KIB));
    world_model_take(w, &model);
    world_check_tip(w, &model);
    world_model_free(&model);
}

/* --- who goes first ---------------------------------------------------------------- */

static void
a_sync_gives_way_until_the_cycle_is_sent(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = world_replication(&w->source);
    struct traffic_flow cycle;
    struct sender sync = { 0 };

    traffic_begin(&w->source.d, r, false, NULL, &cycle);
    start_sender(&sync, w, true, MIB);
    usleep(300000);
    assert_int_equal(sync.sent, 0);
    traffic_end(&cycle);
    join_sender(&sync);
    assert_int_equal(sync.sent, MIB);
    assert_true(sync.took_ms < 2900); /* longer it would not have given way */
}

static void
a_sync_does_not_wait_for_ever(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = world_replication(&w->source);
    struct traffic_flow cycle;
    struct sender sync = { 0 };

    traffic_begin(&w->source.d, r, false, NULL, &cycle);
    start_sender(&sync, w, true, 64 * KIB);
    join_sender(&sync);
    traffic_end(&cycle);
    assert_int_equal(sync.sent, 64 * KIB);
    assert_in_range(sync.took_ms, 2000, 10000);
}

static void
who_waits_can_be_stopped(void **state)
{
    struct world *w = *state;
    struct sender s = { 0 };

    limit_vm(w, "256KiB/s");
    start_sender(&s, w, false, 1024 * MIB);
    cancel_request(&s.cancel);
    join_sender(&s);
    assert_int_equal(error_code(s.err), ERROR_CANCELLED);
    error_free(s.err);
    assert_true(s.took_ms < 10000);
}

/* --- what cycles cost -------------------------------------------------------------- */

static struct {
    const struct capture_ops *real;
    struct capture_ops ops;
    struct world *w;
    uint64_t during_ms; /* each write of the guest while a capture is open */
} capture;

static bool
costly_begin(struct capture_driver *driver, const struct capture_request *request,
             struct capture **ret, int64_t *ret_time_ms, struct error **err)
{
    fake_add_writes(capture.w->source.d.hypervisor, WORLD_VM, 20,
                    20 * capture.during_ms * MS);
    return capture.real->begin(driver, request, ret, ret_time_ms, err);
}

static void
measured_cycles(struct world *w, unsigned n, uint64_t during_ms)
{
    capture.during_ms = during_ms;
    for (unsigned i = 0; i < n; i++) {
        fake_add_writes(w->source.d.hypervisor, WORLD_VM, 100, 100 * MS);
        cycle_succeeds(w);
    }
}

static bool
complains(struct world *w)
{
    AUTOPTR(replication) *r = world_replication(&w->source);
    AUTOJSON *view = replication_view(&w->source.d, r);

    return strstr(json_text(view), "cycles cost the guest too much") != NULL;
}

static int64_t
interval(struct world *w)
{
    AUTOPTR(replication) *r = world_replication(&w->source);

    return latency_interval_ms(&r->latency, 1000);
}

static void
costly_cycles_come_less_often_until_they_are_cheap(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    cycle_succeeds(w);
    capture.real = w->source.capture->ops;
    capture.ops = *capture.real;
    capture.ops.begin = costly_begin;
    capture.w = w;
    w->source.capture->ops = &capture.ops;
    measured_cycles(w, 3, 2);
    assert_int_equal(interval(w), 1000);
    assert_false(complains(w));
    measured_cycles(w, LATENCY_COSTLY_CYCLES, 50);
    assert_int_equal(interval(w), 2000);
    assert_true(complains(w));
    measured_cycles(w, 3 * LATENCY_COSTLY_CYCLES, 50);
    assert_int_equal(interval(w), 4000); /* as configured */
    measured_cycles(w, LATENCY_CHEAP_CYCLES, 2);
    assert_int_equal(interval(w), 2000);
    for (int i = 0; i < LATENCY_CHEAP_CYCLES; i++)
        assert_ok(world_cycle(w, &err), err); /* nothing has changed at all */
    assert_int_equal(interval(w), 1000);
    assert_false(complains(w));
    w->source.capture->ops = capture.real;
}

static void
a_hypervisor_that_cannot_tell_costs_no_cycle(void **state)
{
    struct world *w = *state;

    cycle_succeeds(w);
    fake_fail(w->source.d.hypervisor, FAKE_WRITES, 1, ERROR_HYPERVISOR);
    cycle_succeeds(w);
    fake_fail(w->source.d.hypervisor, FAKE_WRITES, 2, ERROR_HYPERVISOR);
    cycle_succeeds(w);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_sent_keeps_to_the_limit_of_the_vm),
        TEST(all_that_goes_to_a_peer_shares_its_limit),
        TEST(a_cycle_is_sent_as_slowly_as_it_must_be_and_is_exact),
        TEST(a_sync_gives_way_until_the_cycle_is_sent),
        TEST(a_sync_does_not_wait_for_ever),
        TEST(who_waits_can_be_stopped),
        TEST(costly_cycles_come_less_often_until_they_are_cheap),
        TEST(a_hypervisor_that_cannot_tell_costs_no_cycle),
    };

    evthread_use_pthreads();
    world_be_child(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
