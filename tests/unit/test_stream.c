#include "tests/unit/stream_target.h"

#include <event2/thread.h>
#include <signal.h>

/* --- what works ------------------------------------------------------------------- */

static void
content_of_every_kind_and_size_arrives_unchanged(void **state UNUSED)
{
    static const size_t pieces[] = {
        1 << 20, 256 << 10, 65536, 4096, 12345, 16344, 16385
    };
    struct target *t = target_new();
    AUTOPTR(stream) *s = connect_to(t);
    AUTOFREE(uint8_t) *disk = mem_alloc(1, DISK_BYTES);

    assert_string_equal(stream_peer_fingerprint(s), tls_fingerprint(t->own.tls));
    for (size_t i = 0; i < N_ELEMENTS(pieces); i++) {
        /* One half random, one half text-like. */
        fill_random(disk, DISK_BYTES / 2, i);
        for (size_t j = DISK_BYTES / 2; j < DISK_BYTES; j++)
            disk[j] = (uint8_t)("virt-dr "[j % 8] + (j / 1000) % 3);
        send_disk(s, disk, pieces[i]);
        assert_memory_equal(t->disk, disk, DISK_BYTES);
    }
    wait_until(&t->served, N_ELEMENTS(pieces));
    assert_int_equal(stream_counts(s)->raw_bytes, N_ELEMENTS(pieces) * DISK_BYTES);
    /* The second half went out compressed. */
    assert_in_range(stream_counts(s)->wire_bytes, N_ELEMENTS(pieces) * DISK_BYTES / 2,
                    N_ELEMENTS(pieces) * DISK_BYTES * 6 / 10);
    target_free(t);
}

static void
plain_content_is_received_where_it_belongs(void **state UNUSED)
{
    struct target *t = target_new();
    AUTOPTR(stream) *s = connect_to(t);
    AUTOFREE(uint8_t) *disk = mem_alloc(1, DISK_BYTES);

    t->in_place = true;
    fill_random(disk, DISK_BYTES / 2, 1);
    memset(disk + DISK_BYTES / 2, 'x', DISK_BYTES / 2);
    send_disk(s, disk, 512 << 10);
    assert_memory_equal(t->disk, disk, DISK_BYTES);
    /* Of the rest most is compressed and goes through a buffer. */
    assert_in_range(t->placed, DISK_BYTES / 2 / (512 << 10),
                    DISK_BYTES / (512 << 10) - 1);
    target_free(t);
}

static void
zeros_travel_without_payload(void **state UNUSED)
{
    struct target *t = target_new();
    AUTOPTR(stream) *s = connect_to(t);
    struct error *err = NULL;

    memset(t->disk, 1, DISK_BYTES);
    begin_cycle(s);
    assert_ok(stream_send_zero(s, 0, 4096, DISK_BYTES - 8192, &err), err);
    end_cycle(s);
    assert_int_equal(t->disk[4095], 1);
    assert_int_equal(t->disk[4096], 0);
    assert_int_equal(t->disk[DISK_BYTES - 4097], 0);
    assert_int_equal(t->disk[DISK_BYTES - 4096], 1);
    assert_in_range(stream_counts(s)->wire_bytes, 1, 1000);
    target_free(t);
}

static void *
send_one_disk(void *opaque)
{
    struct target *t = opaque;
    AUTOPTR(stream) *s = connect_to(t);
    AUTOFREE(uint8_t) *disk = mem_alloc(1, DISK_BYTES);

    fill_random(disk, DISK_BYTES, 7);
    for (int i = 0; i < 3; i++)
        send_disk(s, disk, 65536);
    return NULL;
}

static void
two_streams_run_side_by_side(void **state UNUSED)
{
    struct target *t = target_new();
    pthread_t threads[2];

    t->throws_away = true;
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, send_one_disk, t), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    wait_until(&t->served, 6);
    target_free(t);
}

static void
a_restarted_target_takes_a_new_stream_and_the_old_one_says_so(void **state UNUSED)
{
    struct target *t = target_new();
    AUTOPTR(stream) *old = connect_to(t);
    AUTOPTR(stream) *new = NULL;
    AUTOJSON *begin = json_object_new_object();
    AUTOJSON *ready = NULL;
    struct error *err = NULL;

    begin_cycle(old);
    end_cycle(old);
    target_stop(t);
    if (stream_send_json(old, WIRE_BEGIN, begin, &err))
        stream_recv_json(old, WIRE_READY, &ready, &err);
    assert_true(error_is(err, ERROR_CONNECT));
    error_clear(&err);

    target_listen(t);
    new = connect_to(t);
    begin_cycle(new);
    end_cycle(new);
    wait_until(&t->served, 2);
    target_free(t);
}

/* --- waits end --------------------------------------------------------------------- */

struct later {
    struct cancel *cancel;
    int64_t at_ms;
};

static void *
cancel_later(void *opaque)
{
    struct later *l = opaque;

    nanosleep(&(struct timespec){ 0, 100000000 }, NULL);
    l->at_ms = units_monotonic_ms();
    cancel_request(l->cancel);
    return NULL;
}

static void
cancelling_wakes_a_receive_within_300_ms(void **state UNUSED)
{
    struct target *t = target_new();
    struct cancel cancel = { 0 };
    struct later l = { .cancel = &cancel };
    AUTOPTR(stream) *s = connect_to(t);
    AUTOJSON *ready = NULL;
    struct error *err = NULL;
    pthread_t thread;

    stream_set_cancel(s, &cancel);
    assert_int_equal(pthread_create(&thread, NULL, cancel_later, &l), 0);
    assert_fails(stream_recv_json(s, WIRE_READY, &ready, &err), err, ERROR_CANCELLED);
    pthread_join(thread, NULL);
    assert_in_range(units_monotonic_ms() - l.at_ms, 0, 300);
    target_free(t);
}

static void
a_silent_other_side_is_a_timeout(void **state UNUSED)
{
    struct target *t = target_new();
    struct stream_target where = towards(t, NULL);
    AUTOPTR(stream) *s = NULL;
    AUTOJSON *ready = NULL;
    struct error *err = NULL;
    int64_t begin_ms;

    where.stall_ms = 300;
    assert_ok(stream_connect(t->source.tls, &where, &s, &err), err);
    begin_ms = units_monotonic_ms();
    assert_fails(stream_recv_json(s, WIRE_READY, &ready, &err), err, ERROR_TIMEOUT);
    assert_in_range(units_monotonic_ms() - begin_ms, 290, 900);
    target_free(t);
}

static void
a_source_that_stops_half_way_is_a_timeout_on_the_target(void **state UNUSED)
{
    struct target *t = target_prepare();
    AUTOPTR(stream) *s = NULL;

    t->settings.stall_ms = 300;
    target_listen(t);
    s = connect_to(t);
    begin_cycle(s);
    wait_until(&t->failed, 1);
    assert_int_equal(t->failed - 1, ERROR_TIMEOUT);
    target_free(t);
}

static void
freeing_the_listener_stops_what_is_served(void **state UNUSED)
{
    struct target *t = target_new();
    AUTOPTR(stream) *s = connect_to(t);
    int64_t begin_ms;

    begin_cycle(s);
    assert_int_equal(t->serving, 1);
    begin_ms = units_monotonic_ms();
    target_stop(t);
    assert_in_range(units_monotonic_ms() - begin_ms, 0, 600);
    assert_int_equal(t->failed - 1, ERROR_CANCELLED);
    target_free(t);
}

static void
a_source_learns_why_the_target_gave_up(void **state UNUSED)
{
    struct target *t = target_prepare();
    AUTOPTR(stream) *s = NULL;
    AUTOFREE(uint8_t) *disk = mem_alloc(1, DISK_BYTES);
    struct error *err = NULL;
    bool ok = true;

    t->settings.stall_ms = 200;
    target_listen(t);
    s = connect_to(t);
    begin_cycle(s);
    wait_until(&t->failed, 1);
    fill_random(disk, DISK_BYTES, 3);
    for (int i = 0; ok && i < 100; i++)
        for (size_t at = 0; ok && at < DISK_BYTES; at += 1 << 20)
            ok = stream_send_data(s, WIRE_DATA, 0, at, disk + at, 1 << 20, &err);
    assert_false(ok);
    /* In the target's words, not "broken pipe". */
    if (!error_is(err, ERROR_TIMEOUT))
        fail_msg("%s", error_message(err));
    error_clear(&err);
    target_free(t);
}

/* --- strangers ---------------------------------------------------------------------- */

static void
an_unknown_certificate_is_refused_on_both_sides(void **state UNUSED)
{
    struct target *t = target_new();
    struct stream_target where = towards(t, NULL);
    struct stream *s = NULL;
    struct error *err = NULL;

    assert_fails(stream_connect(t->own.tls, &where, &s, &err), err,
                 ERROR_NOT_AUTHENTICATED);
    where.fingerprint = tls_fingerprint(t->source.tls);
    assert_fails(stream_connect(t->source.tls, &where, &s, &err), err,
                 ERROR_NOT_AUTHENTICATED);
    where.fingerprint = NULL;
    where.vouched_name = "target";
    assert_fails(stream_connect(t->source.tls, &where, &s, &err), err,
                 ERROR_NOT_AUTHENTICATED);
    assert_null(s);
    target_free(t);
}

static void
nobody_listening_is_a_connect_error(void **state UNUSED)
{
    struct target *t = target_prepare();
    struct stream_target where = towards(t, NULL);
    struct stream *s = NULL;
    struct error *err = NULL;

    assert_fails(stream_connect(t->source.tls, &where, &s, &err), err, ERROR_CONNECT);
    where.address = "127.0.0.1";
    assert_fails(stream_connect(t->source.tls, &where, &s, &err), err, ERROR_USAGE);
    where.address = "127.0.0.1:99999";
    assert_fails(stream_connect(t->source.tls, &where, &s, &err), err, ERROR_USAGE);
    event_base_loop(t->loop.base, EVLOOP_NONBLOCK);
    target_free(t);
}

/* --- speed, when asked for: STREAM_BENCH=GIB --------------------------------------- */

static void
bench(const char *what, uint8_t *content, size_t n_content, unsigned gib)
{
    struct target *t = target_new();
    AUTOPTR(stream) *s = connect_to(t);
    struct error *err = NULL;
    uint64_t total = (uint64_t)gib << 30;
    const size_t piece = 256 << 10;
    double cpu_s = thread_cpu_s();
    int64_t begin_ms = units_monotonic_ms();
    double took_s;

    t->throws_away = true;
    begin_cycle(s);
    for (uint64_t at = 0; at < total; at += piece)
        assert_ok(
            stream_send_data(s, WIRE_DATA, 0, at, content + at % n_content, piece, &err),
            err);
    end_cycle(s);
    took_s = (double)(units_monotonic_ms() - begin_ms) / 1000;
    cpu_s = thread_cpu_s() - cpu_s;
    wait_until(&t->served, 1);
    printf(
        "# %s: %.2f GB/s; CPU s per GiB: %.3f sending, %.3f receiving; wire/raw %.3f\n",
        what, (double)total / took_s / 1e9, cpu_s / gib, (double)t->cpu_s / gib,
        (double)stream_counts(s)->wire_bytes / (double)total);
    target_free(t);
}

static void
speed_over_loopback(void **state UNUSED)
{
    const char *wanted = getenv("STREAM_BENCH");
    unsigned gib = wanted != NULL ? (unsigned)strtoul(wanted, NULL, 10) : 0;
    size_t n = 64 << 20;
    AUTOFREE(uint8_t) *content = NULL;

    if (gib == 0)
        skip();
    content = mem_alloc(1, n);
    fill_random(content, n, 1);
    bench("random", content, n, gib);
    for (size_t i = 0; i < n; i++)
        content[i] = (uint8_t)(content[i] % 64 < 40 ? 'a' + (i / 7) % 20 : content[i]);
    bench("half compressible", content, n, gib);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(content_of_every_kind_and_size_arrives_unchanged),
        cmocka_unit_test(plain_content_is_received_where_it_belongs),
        cmocka_unit_test(zeros_travel_without_payload),
        cmocka_unit_test(two_streams_run_side_by_side),
        cmocka_unit_test(a_restarted_target_takes_a_new_stream_and_the_old_one_says_so),
        cmocka_unit_test(cancelling_wakes_a_receive_within_300_ms),
        cmocka_unit_test(a_silent_other_side_is_a_timeout),
        cmocka_unit_test(a_source_that_stops_half_way_is_a_timeout_on_the_target),
        cmocka_unit_test(freeing_the_listener_stops_what_is_served),
        cmocka_unit_test(a_source_learns_why_the_target_gave_up),
        cmocka_unit_test(an_unknown_certificate_is_refused_on_both_sides),
        cmocka_unit_test(nobody_listening_is_a_connect_error),
    };
    const struct CMUnitTest speed[] = { cmocka_unit_test(speed_over_loopback) };

    evthread_use_pthreads();
    signal(SIGPIPE, SIG_IGN); /* the clients by hand write to closed sockets */
    if (getenv("STREAM_BENCH") != NULL)
        return cmocka_run_group_tests_name("stream-speed", speed, NULL, NULL);
    return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
