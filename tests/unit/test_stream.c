#include "tests/unit/net.h"

#include <errno.h>
#include <event2/thread.h>
#include <openssl/err.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <time.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/stream.h"

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
    uint8_t *disk;
    atomic_int served;
    atomic_int serving;
    atomic_int failed;    /* an enum error_code + 1 */
    _Atomic double cpu_s; /* of the thread that served last */
};

static double
thread_cpu_s(void)
{
    struct rusage u;

    getrusage(RUSAGE_THREAD, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static bool
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
    if (!t->throws_away && f->offset + f->length <= DISK_BYTES)
        memcpy(t->disk + f->offset, data, f->length);
    return true;
}

static bool
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

static bool
serve(struct stream *s, const char *peer_id, void *opaque)
{
    struct target *t = opaque;
    struct error *e = NULL;
    double cpu_s = thread_cpu_s();
    bool ok;

    assert_string_equal(peer_id, "source");
    t->serving++;
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

static bool
identify(const SSL *ssl UNUSED, const char *fingerprint, char ret_peer_id[40],
         void *opaque)
{
    struct target *t = opaque;

    if (t->knows_nobody || strcmp(fingerprint, tls_fingerprint(t->source.tls)) != 0)
        return false;
    snprintf(ret_peer_id, 40, "source");
    return true;
}

static void
target_listen(struct target *t)
{
    struct error *err = NULL;

    t->settings.base = t->loop.base;
    t->settings.tls = t->own.tls;
    t->settings.workers = t->workers;
    t->settings.address = t->address;
    t->settings.host_id = "target-host";
    t->settings.identify = identify;
    t->settings.serve = serve;
    t->settings.opaque = t;
    assert_ok(stream_listener_new(&t->settings, &t->listener, &err), err);
    net_loop_start(&t->loop);
}

/* Two workers only, so that it shows when somebody can hold them. */
static struct target *
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

static struct target *
target_new(void)
{
    struct target *t = target_prepare();

    target_listen(t);
    return t;
}

static void
target_stop(struct target *t)
{
    net_loop_stop(&t->loop);
    stream_listener_free(t->listener);
    t->listener = NULL;
}

static void
target_free(struct target *t)
{
    if (t->listener != NULL)
        target_stop(t);
    workers_free(t->workers);
    event_base_free(t->loop.base);
    net_identity_drop(&t->own);
    net_identity_drop(&t->source);
    free(t->disk);
    free(t);
}

static void
wait_until(atomic_int *counter, int at_least)
{
    int64_t until_ms = units_monotonic_ms() + 10000;

    while (*counter < at_least && units_monotonic_ms() < until_ms)
        nanosleep(&(struct timespec){ 0, 2000000 }, NULL);
    assert_in_range(*counter, at_least, 1000000);
}

static struct stream_target
towards(struct target *t, struct cancel *cancel)
{
    return (struct stream_target){ .address = t->address,
                                   .fingerprint = tls_fingerprint(t->own.tls),
                                   .host_id = "source-host",
                                   .cancel = cancel,
                                   .stall_ms = 5000 };
}

static struct stream *
connect_to(struct target *t)
{
    struct stream_target where = towards(t, NULL);
    struct stream *s = NULL;
    struct error *err = NULL;

    assert_ok(stream_connect(t->source.tls, &where, &s, &err), err);
    return s;
}

static void
fill_random(uint8_t *p, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        p[i] = (uint8_t)(seed >> 56);
    }
}

static void
begin_cycle(struct stream *s)
{
    AUTOJSON *begin = json_object_new_object();
    AUTOJSON *ready = NULL;
    struct error *err = NULL;

    assert_ok(stream_send_json(s, WIRE_BEGIN, begin, &err), err);
    assert_ok(stream_recv_json(s, WIRE_READY, &ready, &err), err);
}

static void
end_cycle(struct stream *s)
{
    AUTOJSON *end = json_object_new_object();
    AUTOJSON *ack = NULL;
    struct error *err = NULL;

    assert_ok(stream_send_json(s, WIRE_END, end, &err), err);
    assert_ok(stream_recv_json(s, WIRE_ACK, &ack, &err), err);
}

static void
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

/* A client by hand: whatever it likes, over real TLS. */
struct raw {
    SSL *ssl;
    int fd;
};

static struct raw
raw_shake(struct target *t, SSL_CTX *ctx, const char *alpn)
{
    struct raw r = { SSL_new(ctx), net_connect(t->address) };
    unsigned char list[64] = { (unsigned char)strlen(alpn) };

    memcpy(list + 1, alpn, strlen(alpn));
    assert_true(r.fd >= 0);
    SSL_set_fd(r.ssl, r.fd);
    SSL_set_alpn_protos(r.ssl, list, (unsigned)strlen(alpn) + 1);
    return r;
}

static struct raw
raw_connect(struct target *t)
{
    struct raw r = raw_shake(t, tls_client_context(t->source.tls), WIRE_ALPN);

    SSL_set_mode(r.ssl, SSL_MODE_AUTO_RETRY);
    assert_int_equal(SSL_connect(r.ssl), 1);
    return r;
}

static void
raw_close(struct raw *r)
{
    SSL_free(r->ssl);
    close(r->fd);
    ERR_clear_error();
}

static void
raw_write(struct raw *r, const void *data, size_t n)
{
    size_t done = 0;

    while (n > 0 && SSL_write_ex(r->ssl, data, n, &done) == 1) {
        data = (const uint8_t *)data + done;
        n -= done;
    }
}

static void
raw_send_json(struct raw *r, enum wire_type type, const char *text)
{
    uint32_t n = (uint32_t)strlen(text);
    struct wire_frame f = { .type = type, .length = n, .stored = n };
    uint8_t header[WIRE_HEADER_BYTES];

    wire_encode(&f, text, header);
    raw_write(r, header, sizeof header);
    raw_write(r, text, n);
}

static bool
raw_read(struct raw *r, void *buf, size_t n)
{
    uint8_t *p = buf;
    size_t part = 0;

    for (; n > 0; p += part, n -= part)
        if (SSL_read_ex(r->ssl, p, n, &part) != 1)
            return false;
    return true;
}

/* The next frame's JSON; NULL at the end of the connection. */
static struct json_object *
raw_recv_json(struct raw *r, enum wire_type *ret_type)
{
    uint8_t header[WIRE_HEADER_BYTES];
    struct wire_frame f;
    struct json_object *o = NULL;
    AUTOFREE(char) *text = NULL;
    struct error *err = NULL;

    if (!raw_read(r, header, sizeof header))
        return NULL;
    assert_ok(wire_decode(header, &f, &err), err);
    text = mem_alloc(1, f.stored);
    assert_true(raw_read(r, text, f.stored));
    assert_ok(wire_check(&f, text, &err), err);
    assert_ok(json_parse(text, f.stored, &o, &err), err);
    *ret_type = f.type;
    return o;
}

/* An ERROR frame of this code, and then the end. */
static void
raw_expect_error(struct raw *r, enum error_code wanted)
{
    enum wire_type type = WIRE_N_TYPES;
    AUTOJSON *o = raw_recv_json(r, &type);
    struct error *err = NULL;
    char byte;

    assert_int_equal(type, WIRE_ERROR);
    assert_fails(json_to_error(o, &err), err, wanted);
    assert_false(raw_read(r, &byte, 1));
}

static char *
hello_text(int protocol, int64_t time_ms)
{
    return mem_printf(
        "{\"protocol\":%d,\"host\":\"x\",\"time\":%lld,\"software\":\"test\"}", protocol,
        (long long)time_ms);
}

static struct raw
raw_greeted(struct target *t)
{
    struct raw r = raw_connect(t);
    AUTOFREE(char) *hello = hello_text(WIRE_PROTOCOL_VERSION, units_now_ms());
    enum wire_type type = WIRE_N_TYPES;
    AUTOJSON *theirs = NULL;

    raw_send_json(&r, WIRE_HELLO, hello);
    theirs = raw_recv_json(&r, &type);
    assert_int_equal(type, WIRE_HELLO);
    assert_string_equal(json_string_or(theirs, "host", ""), "target-host");
    return r;
}

static void
another_protocol_version_is_refused_with_both_numbers(void **state UNUSED)
{
    struct target *t = target_new();
    struct raw r = raw_connect(t);
    AUTOFREE(char) *hello = hello_text(77, units_now_ms());
    enum wire_type type = WIRE_N_TYPES;
    AUTOJSON *o = NULL;

    raw_send_json(&r, WIRE_HELLO, hello);
    o = raw_recv_json(&r, &type);
    assert_int_equal(type, WIRE_ERROR);
    assert_string_equal(json_string_or(o, "code", ""), "ProtocolVersionMismatch");
    assert_non_null(strstr(json_string_or(o, "message", ""), "77"));
    assert_non_null(strstr(json_string_or(o, "message", ""), "this one 1"));
    raw_close(&r);
    target_free(t);
}

static void
a_target_refuses_a_clock_that_is_4_s_off(void **state UNUSED)
{
    struct target *t = target_new();

    for (int off_ms = -4000; off_ms <= 4000; off_ms += 8000) {
        struct raw r = raw_connect(t);
        AUTOFREE(char) *hello =
            hello_text(WIRE_PROTOCOL_VERSION, units_now_ms() + off_ms);

        raw_send_json(&r, WIRE_HELLO, hello);
        raw_expect_error(&r, ERROR_CLOCK);
        raw_close(&r);
    }
    target_free(t);
}

/* --- a target by hand, for what the connecting side judges ----------------------------
 */

struct fake {
    struct target *t;
    int listening;
    int protocol;
    int64_t off_ms;
};

static void *
fake_answer(void *opaque)
{
    struct fake *f = opaque;
    struct raw r = { SSL_new(tls_server_context(f->t->own.tls)),
                     accept(f->listening, NULL, NULL) };
    AUTOFREE(char) *hello = NULL;
    AUTOJSON *theirs = NULL;
    enum wire_type type;
    char byte;

    SSL_set_fd(r.ssl, r.fd);
    if (SSL_accept(r.ssl) == 1) {
        theirs = raw_recv_json(&r, &type);
        hello = hello_text(f->protocol, units_now_ms() + f->off_ms);
        raw_send_json(&r, WIRE_HELLO, hello);
        raw_read(&r, &byte, 1); /* until they hang up */
    }
    raw_close(&r);
    return NULL;
}

static void
connect_to_fake(int protocol, int64_t off_ms, enum error_code wanted, const char *word)
{
    struct target *t = target_prepare();
    struct stream_target where = towards(t, NULL);
    struct sockaddr_in in = net_sockaddr(t->address);
    struct fake f = { t, socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), protocol,
                      off_ms };
    struct stream *s = NULL;
    struct error *err = NULL;
    pthread_t thread;

    assert_int_equal(bind(f.listening, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(listen(f.listening, 1), 0);
    assert_int_equal(pthread_create(&thread, NULL, fake_answer, &f), 0);
    assert_false(stream_connect(t->source.tls, &where, &s, &err));
    assert_non_null(strstr(error_message(err), word));
    assert_true(error_is(err, wanted));
    error_clear(&err);
    pthread_join(thread, NULL);
    close(f.listening);
    target_free(t);
}

static void
a_source_refuses_a_clock_that_is_off_and_says_which(void **state UNUSED)
{
    connect_to_fake(WIRE_PROTOCOL_VERSION, 3500, ERROR_CLOCK, "ahead of ours");
    connect_to_fake(WIRE_PROTOCOL_VERSION, -3500, ERROR_CLOCK, "behind ours");
    connect_to_fake(2, 0, ERROR_VERSION, "speaks protocol 2");
}

/* --- bad frames ------------------------------------------------------------------------
 */

enum damage {
    DAMAGE_NONE,
    DAMAGE_PAYLOAD_BIT,
    DAMAGE_HEADER_BIT,
    DAMAGE_SEQUENCE,
    DAMAGE_LENGTH,
    DAMAGE_TYPE,
    DAMAGE_CUT,
    DAMAGE_N,
};

static void
send_damaged(struct raw *r, enum damage damage)
{
    static uint8_t content[8192];
    uint8_t header[WIRE_HEADER_BYTES];
    struct wire_frame f = { .type = WIRE_DATA,
                            .length = sizeof content,
                            .stored = sizeof content,
                            .sequence = damage == DAMAGE_SEQUENCE ? 2 : 1 };

    memset(content, 'x', sizeof content);
    wire_encode(&f, content, header);
    if (damage == DAMAGE_PAYLOAD_BIT)
        content[4000] ^= 4;
    if (damage == DAMAGE_HEADER_BIT)
        header[9] ^= 1; /* the offset: only the hash can tell */
    if (damage == DAMAGE_LENGTH)
        header[18] = header[26] = 0x7f;
    if (damage == DAMAGE_TYPE)
        header[4] = WIRE_HASHES;
    raw_write(r, header, sizeof header);
    raw_write(r, content, damage == DAMAGE_CUT ? 100 : sizeof content);
}

static void
damaged_frames_are_refused_by_what_is_wrong_with_them(void **state UNUSED)
{
    static const enum error_code wanted[DAMAGE_N] = {
        [DAMAGE_PAYLOAD_BIT] = ERROR_CHECKSUM, [DAMAGE_HEADER_BIT] = ERROR_CHECKSUM,
        [DAMAGE_SEQUENCE] = ERROR_PROTOCOL,    [DAMAGE_LENGTH] = ERROR_PROTOCOL,
        [DAMAGE_TYPE] = ERROR_PROTOCOL,        [DAMAGE_CUT] = ERROR_CONNECT,
    };
    struct target *t = target_new();

    for (enum damage d = DAMAGE_PAYLOAD_BIT; d < DAMAGE_N; d++) {
        struct raw r = raw_greeted(t);
        enum wire_type type;

        t->failed = 0;
        raw_send_json(&r, WIRE_BEGIN, "{}");
        json_object_put(raw_recv_json(&r, &type));
        assert_int_equal(type, WIRE_READY);
        send_damaged(&r, d);
        if (d == DAMAGE_CUT)
            shutdown(r.fd, SHUT_WR);
        else
            raw_expect_error(&r, wanted[d]);
        wait_until(&t->failed, 1);
        assert_int_equal(t->failed - 1, wanted[d]);
        raw_close(&r);
    }
    target_free(t);
}

static void
an_undamaged_frame_by_hand_is_taken(void **state UNUSED)
{
    struct target *t = target_new();
    struct raw r = raw_greeted(t);
    enum wire_type type;

    raw_send_json(&r, WIRE_BEGIN, "{}");
    json_object_put(raw_recv_json(&r, &type));
    send_damaged(&r, DAMAGE_NONE);
    /* A number of 0 is the wrong one for END here. */
    raw_send_json(&r, WIRE_END, "{}");
    raw_expect_error(&r, ERROR_PROTOCOL);
    assert_int_equal(t->disk[8191], 'x');
    raw_close(&r);
    target_free(t);
}

/* --- those who do not even get that far ----------------------------------------------
 */

static bool
is_shut_out(struct target *t, SSL_CTX *ctx, const char *alpn)
{
    struct raw r = raw_shake(t, ctx, alpn);
    AUTOFREE(char) *hello = hello_text(WIRE_PROTOCOL_VERSION, units_now_ms());
    char byte;
    bool out = SSL_connect(r.ssl) != 1;

    /* In TLS 1.3 the client is done first: the alert comes with the first read. */
    if (!out) {
        raw_send_json(&r, WIRE_HELLO, hello);
        out = !raw_read(&r, &byte, 1);
    }
    raw_close(&r);
    return out;
}

static void
no_certificate_tls_1_2_and_plain_http_are_shut_out(void **state UNUSED)
{
    struct target *t = target_new();
    SSL_CTX *bare = SSL_CTX_new(TLS_client_method());
    SSL_CTX *old = SSL_CTX_new(TLS_client_method());

    SSL_CTX_use_certificate_file(old, t->source.certificate, SSL_FILETYPE_PEM);
    SSL_CTX_use_PrivateKey_file(old, t->source.key, SSL_FILETYPE_PEM);
    assert_false(is_shut_out(t, old, WIRE_ALPN));
    SSL_CTX_set_max_proto_version(old, TLS1_2_VERSION);
    assert_true(is_shut_out(t, old, WIRE_ALPN));
    assert_true(is_shut_out(t, bare, WIRE_ALPN));
    assert_true(is_shut_out(t, tls_client_context(t->source.tls), "http/1.1"));
    assert_int_equal(t->failed, 0);
    SSL_CTX_free(old);
    SSL_CTX_free(bare);
    target_free(t);
}

static void
silent_strangers_are_closed_and_hold_no_worker(void **state UNUSED)
{
    struct target *t = target_prepare();
    AUTOPTR(stream) *s = NULL;
    int fds[8];
    struct raw known;
    char byte;

    t->settings.greeting_ms = 1500;
    target_listen(t);
    for (size_t i = 0; i < N_ELEMENTS(fds); i++)
        fds[i] = net_connect(t->address);
    known = raw_connect(t);
    raw_write(&known, "half a header", 13); /* a peer may hold one of two workers */
    s = connect_to(t);
    begin_cycle(s);
    end_cycle(s);
    for (size_t i = 0; i < N_ELEMENTS(fds); i++) {
        assert_int_equal(recv(fds[i], &byte, 1, 0), 0);
        close(fds[i]);
    }
    assert_false(raw_read(&known, &byte, 1));
    raw_close(&known);
    target_free(t);
}

static void
connections_above_the_limit_are_closed_at_once(void **state UNUSED)
{
    struct target *t = target_prepare();
    AUTOPTR(stream) *s = NULL;
    char byte;
    int fd;

    t->settings.max_connections = 1;
    target_listen(t);
    s = connect_to(t);
    fd = net_connect(t->address);
    assert_true(recv(fd, &byte, 1, 0) <= 0);
    close(fd);
    begin_cycle(s);
    end_cycle(s);
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
        cmocka_unit_test(another_protocol_version_is_refused_with_both_numbers),
        cmocka_unit_test(a_target_refuses_a_clock_that_is_4_s_off),
        cmocka_unit_test(a_source_refuses_a_clock_that_is_off_and_says_which),
        cmocka_unit_test(damaged_frames_are_refused_by_what_is_wrong_with_them),
        cmocka_unit_test(an_undamaged_frame_by_hand_is_taken),
        cmocka_unit_test(no_certificate_tls_1_2_and_plain_http_are_shut_out),
        cmocka_unit_test(silent_strangers_are_closed_and_hold_no_worker),
        cmocka_unit_test(connections_above_the_limit_are_closed_at_once),
        cmocka_unit_test(speed_over_loopback),
    };

    evthread_use_pthreads();
    signal(SIGPIPE, SIG_IGN); /* the clients by hand write to closed sockets */
    return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
