/* A target of streams over real TLS, for the tests of both its sides. */
#ifndef TESTS_UNIT_STREAM_TARGET_H
#define TESTS_UNIT_STREAM_TARGET_H

#include <stdatomic.h>
#include <sys/resource.h>
#include <time.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/stream.h"
#include "tests/unit/net.h"

#define DISK_BYTES (8u << 20)

/* --- a target that keeps what it is sent ----------------------------------------- */

struct target {
    struct net_identity own;
    struct net_identity source;
    struct net_loop loop;
    struct workers *workers;
    struct stream_listener *listener;
    struct stream_listener_settings settings;
    char address[32];
    bool knows_nobody;
    bool throws_away; /* content is checked and unpacked, not kept */
    bool in_place;    /* content is received where it belongs, if it is plain */
    atomic_int placed;
    uint8_t *disk;
    atomic_int served;
    atomic_int serving;
    atomic_int failed;    /* an enum error_code + 1 */
    _Atomic double cpu_s; /* of the thread that served last */
};

static inline double
thread_cpu_s(void)
{
    struct rusage u;

    getrusage(RUSAGE_THREAD, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static inline bool
apply(struct target *t, const struct wire_frame *f, const void *payload, void *buf,
      struct error **err)
{
    const void *data;

    if (f->type == WIRE_ZERO && f->offset + f->length <= DISK_BYTES)
        memset(t->disk + f->offset, 0, f->length);
    if (f->type != WIRE_DATA)
        return true;
    if (!wire_unpack(f, payload, buf, &data, err))
        return false;
    if (t->in_place && data == t->disk + f->offset)
        t->placed++;
    else if (!t->throws_away && f->offset + f->length <= DISK_BYTES)
        memcpy(t->disk + f->offset, data, f->length);
    return true;
}

static inline void *
place(void *opaque, const struct wire_frame *f)
{
    struct target *t = opaque;

    return f->offset + f->length <= DISK_BYTES ? t->disk + f->offset : NULL;
}

static inline bool
take_cycle(struct target *t, struct stream *s, struct error **err)
{
    AUTOJSON *begin = NULL;
    AUTOJSON *ready = json_object_new_object();
    AUTOJSON *ack = json_object_new_object();
    AUTOFREE(void) *buf = mem_alloc(1, WIRE_MAX_DATA);
    struct wire_frame f = { .type = WIRE_BEGIN };
    const void *payload;

    if (!stream_recv_json(s, WIRE_BEGIN, &begin, err) ||
        !stream_send_json(s, WIRE_READY, ready, err))
        return false;
    while (f.type != WIRE_END)
        if (!stream_recv(s, &f, &payload, err) || !apply(t, &f, payload, buf, err))
            return false;
    return stream_send_json(s, WIRE_ACK, ack, err);
}

static inline bool
serve(struct stream *s, const char *peer_id, void *opaque)
{
    struct target *t = opaque;
    struct error *e = NULL;
    double cpu_s = thread_cpu_s();
    bool ok;

    assert_string_equal(peer_id, "source");
    t->serving++;
    stream_set_place(s, t->in_place ? place : NULL, t);
    ok = take_cycle(t, s, &e);
    t->serving--;
    t->cpu_s = thread_cpu_s() - cpu_s;
    if (ok) {
        t->served++;
        return true;
    }
    t->failed = (int)error_code(e) + 1;
    stream_send_error(s, e);
    error_free(e);
    return false;
}

static inline bool
identify(const SSL *ssl UNUSED, const char *fingerprint, char ret_peer_id[40],
         void *opaque)
{
    struct target *t = opaque;

    if (t->knows_nobody || strcmp(fingerprint, tls_fingerprint(t->source.tls)) != 0)
        return false;
    snprintf(ret_peer_id, 40, "source");
    return true;
}

static inline void
target_listen(struct target *t)
{
    struct error *err = NULL;

    t->settings.base = t->loop.base;
    t->settings.tls = t->own.tls;
    t->settings.workers = t->workers;
    t->settings.address = t->address;
    t->settings.host_id = "target-host";
    t->settings.identify = identify;
    if (t->settings.serve == NULL)
        t->settings.serve = serve;
    t->settings.opaque = t;
    assert_ok(stream_listener_new(&t->settings, &t->listener, &err), err);
    net_loop_start(&t->loop);
}

/* Two workers only, so that it shows when somebody can hold them. */
static inline struct target *
target_prepare(void)
{
    struct target *t = NEW(struct target);

    net_identity_make(&t->own, "target");
    net_identity_make(&t->source, "source");
    t->loop.base = event_base_new();
    t->workers = workers_new(t->loop.base, "serve", 2);
    t->disk = mem_alloc(1, DISK_BYTES);
    t->settings.max_connections = 16;
    t->settings.stall_ms = 5000;
    net_free_address(t->address);
    return t;
}

static inline struct target *
target_new(void)
{
    struct target *t = target_prepare();

    target_listen(t);
    return t;
}

static inline void
target_stop(struct target *t)
{
    net_loop_stop(&t->loop);
    stream_listener_free(t->listener);
    t->listener = NULL;
}

static inline void
target_free(struct target *t)
{
    if (t->listener != NULL)
        target_stop(t);
    workers_free(t->workers);
    net_loop_free(&t->loop);
    net_identity_drop(&t->own);
    net_identity_drop(&t->source);
    free(t->disk);
    free(t);
}

static inline void
wait_until(atomic_int *counter, int at_least)
{
    int64_t until_ms = units_monotonic_ms() + 10000;

    while (*counter < at_least && units_monotonic_ms() < until_ms)
        nanosleep(&(struct timespec){ 0, 2000000 }, NULL);
    assert_in_range(*counter, at_least, 1000000);
}

static inline struct stream_target
towards(struct target *t, struct cancel *cancel)
{
    return (struct stream_target){ .address = t->address,
                                   .fingerprint = tls_fingerprint(t->own.tls),
                                   .host_id = "source-host",
                                   .cancel = cancel,
                                   .stall_ms = 5000 };
}

static inline struct stream *
connect_to(struct target *t)
{
    struct stream_target where = towards(t, NULL);
    struct stream *s = NULL;
    struct error *err = NULL;

    assert_ok(stream_connect(t->source.tls, &where, &s, &err), err);
    return s;
}

static inline void
fill_random(uint8_t *p, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        p[i] = (uint8_t)(seed >> 56);
    }
}

static inline void
begin_cycle(struct stream *s)
{
    AUTOJSON *begin = json_object_new_object();
    AUTOJSON *ready = NULL;
    struct error *err = NULL;

    assert_ok(stream_send_json(s, WIRE_BEGIN, begin, &err), err);
    assert_ok(stream_recv_json(s, WIRE_READY, &ready, &err), err);
}

static inline void
end_cycle(struct stream *s)
{
    AUTOJSON *end = json_object_new_object();
    AUTOJSON *ack = NULL;
    struct error *err = NULL;

    assert_ok(stream_send_json(s, WIRE_END, end, &err), err);
    assert_ok(stream_recv_json(s, WIRE_ACK, &ack, &err), err);
}

static inline void
send_disk(struct stream *s, const uint8_t *disk, size_t piece)
{
    struct error *err = NULL;

    begin_cycle(s);
    for (size_t at = 0; at < DISK_BYTES; at += piece)
        assert_ok(stream_send_data(s, WIRE_DATA, 0, at, disk + at,
                                   MIN(piece, DISK_BYTES - at), &err),
                  err);
    end_cycle(s);
}

#endif
