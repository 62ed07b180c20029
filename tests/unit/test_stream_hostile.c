/* What others send who do not play by the rules, over real TLS. */
#include "tests/unit/stream_target.h"

#include <event2/thread.h>
#include <openssl/err.h>
#include <signal.h>

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
check_damaged_frames(bool in_place)
{
    static const enum error_code wanted[DAMAGE_N] = {
        [DAMAGE_PAYLOAD_BIT] = ERROR_CHECKSUM, [DAMAGE_HEADER_BIT] = ERROR_CHECKSUM,
        [DAMAGE_SEQUENCE] = ERROR_PROTOCOL,    [DAMAGE_LENGTH] = ERROR_PROTOCOL,
        [DAMAGE_TYPE] = ERROR_PROTOCOL,        [DAMAGE_CUT] = ERROR_CONNECT,
    };
    struct target *t = target_new();

    t->in_place = in_place;
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
damaged_frames_are_refused_by_what_is_wrong_with_them(void **state UNUSED)
{
    check_damaged_frames(false);
    check_damaged_frames(true);
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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_protocol_version_is_refused_with_both_numbers),
        cmocka_unit_test(a_target_refuses_a_clock_that_is_4_s_off),
        cmocka_unit_test(a_source_refuses_a_clock_that_is_off_and_says_which),
        cmocka_unit_test(damaged_frames_are_refused_by_what_is_wrong_with_them),
        cmocka_unit_test(an_undamaged_frame_by_hand_is_taken),
        cmocka_unit_test(no_certificate_tls_1_2_and_plain_http_are_shut_out),
        cmocka_unit_test(silent_strangers_are_closed_and_hold_no_worker),
        cmocka_unit_test(connections_above_the_limit_are_closed_at_once),
    };

    evthread_use_pthreads();
    signal(SIGPIPE, SIG_IGN); /* the clients by hand write to closed sockets */
    return cmocka_run_group_tests_name("stream_hostile", tests, NULL, NULL);
}
