/* Bytes of a stream: TLS records to and from a socket that never blocks us for long. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "common/units.h"
#include "daemon/stream_private.h"

/* A request to stop is noticed after so long at the latest. */
#define SLICE_MS 200

/* One AES-GCM key is good for 2^24.5 full records (RFC 8446, 5.5): change it well before.
 */
#define KEY_BYTES (64ull << 30)

bool
stream_wait(int fd, short events, struct cancel *cancel, int limit_ms, struct error **err)
{
    int64_t until_ms = units_monotonic_ms() + limit_ms;

    for (;;) {
        struct pollfd p = { .fd = fd, .events = events };
        int64_t left_ms = until_ms - units_monotonic_ms();
        int rc;

        if (!cancel_check(cancel, err))
            return false;
        if (left_ms <= 0)
            return error_set(err, ERROR_TIMEOUT, "no byte moved for %d ms", limit_ms);
        rc = poll(&p, 1, cancel_remaining_ms(cancel, (int)MIN(left_ms, SLICE_MS)));
        if (rc > 0)
            return true;
        if (rc < 0 && errno != EINTR)
            return error_errno(err, ERROR_CONNECT, "poll");
    }
}

/* Asked before there is anything to wait for: what has been done is never called stopped.
 */
static bool
is_wanted(struct stream *s, struct error **err)
{
    return cancel_check(s->stop, err) && cancel_check(s->cancel, err);
}

/* As stream_wait(), for both who may stop this stream. */
static bool
wait_stream(struct stream *s, short events, struct error **err)
{
    int64_t until_ms = units_monotonic_ms() + s->stall_ms;

    for (;;) {
        int64_t left_ms = until_ms - units_monotonic_ms();
        struct error *e = NULL;

        if (!cancel_check(s->stop, err))
            return false;
        if (left_ms <= 0)
            return error_set(err, ERROR_TIMEOUT, "no byte moved for %d ms", s->stall_ms);
        if (stream_wait(s->fd, events, s->cancel, (int)MIN(left_ms, SLICE_MS), &e))
            return true;
        if (!error_is(e, ERROR_TIMEOUT) || !cancel_check(s->cancel, NULL))
            return error_propagate(err, e);
        error_free(e);
    }
}

/* --- setting up --------------------------------------------------------------- */

static int
bio_write(BIO *b, const char *data, int n)
{
    struct stream *s = BIO_get_data(b);
    size_t room = STREAM_OUT_BYTES + STREAM_OUT_SPARE - s->out_used;

    if (n < 0 || (size_t)n > room)
        return -1;
    if (s->out == NULL)
        s->out = mem_alloc(1, STREAM_OUT_BYTES + STREAM_OUT_SPARE);
    memcpy(s->out + s->out_used, data, (size_t)n);
    s->out_used += (size_t)n;
    return n;
}

/* TLS reads ahead, into the buffer that it decrypts in. */
static int
bio_read(BIO *b, char *buf, int n)
{
    struct stream *s = BIO_get_data(b);
    ssize_t got = recv(s->fd, buf, (size_t)n, 0);

    BIO_clear_retry_flags(b);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_retry_read(b);
    return (int)got;
}

static long
bio_ctrl(BIO *b UNUSED, int command, long number UNUSED, void *pointer UNUSED)
{
    return command == BIO_CTRL_FLUSH;
}

static void
attach_bio(struct stream *s)
{
    BIO *b = NULL;

    s->bio_method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "stream");
    if (s->bio_method != NULL && BIO_meth_set_write(s->bio_method, bio_write) == 1 &&
        BIO_meth_set_read(s->bio_method, bio_read) == 1 &&
        BIO_meth_set_ctrl(s->bio_method, bio_ctrl) == 1)
        b = BIO_new(s->bio_method);
    if (b == NULL)
        abort();
    BIO_set_data(b, s);
    BIO_set_init(b, 1);
    SSL_set_bio(s->ssl, b, b);
    /* The handshake's buffers are smaller; if they are not empty they stay. */
    SSL_set_read_ahead(s->ssl, 1);
    SSL_set_default_read_buffer_len(s->ssl, STREAM_IN_BYTES);
    (void)SSL_free_buffers(s->ssl);
}

/* A peer that is gone without a word is noticed while idle, too. */
static bool
set_socket_options(int fd)
{
    const int on = 1, idle_s = 30, interval_s = 10, probes = 3;
    const unsigned user_timeout_ms = STREAM_STALL_MS;

    return setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0 &&
           setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) == 0 &&
           setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s) == 0 &&
           setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s) ==
               0 &&
           setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes) == 0 &&
           setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms,
                      sizeof user_timeout_ms) == 0;
}

bool
stream_prepare_ssl(SSL *ssl, int fd, struct error **err)
{
    if (!set_socket_options(fd))
        return error_errno(err, ERROR_CONNECT, "set socket options");
    if (SSL_set_fd(ssl, fd) != 1)
        return error_set(err, ERROR_TLS, "set up a connection: %s", tls_last_error());
    return true;
}

bool
stream_alpn_is_ours(const SSL *ssl)
{
    const unsigned char *name = NULL;
    unsigned n = 0;

    SSL_get0_alpn_selected(ssl, &name, &n);
    return n == strlen(WIRE_ALPN) && memcmp(name, WIRE_ALPN, n) == 0;
}

struct stream *
stream_new(int fd, SSL *ssl, const char *fingerprint, int stall_ms)
{
    struct stream *s = NEW(struct stream);

    s->fd = fd;
    s->ssl = ssl;
    s->stall_ms = stall_ms > 0 ? stall_ms : STREAM_STALL_MS;
    memcpy(s->fingerprint, fingerprint, sizeof s->fingerprint);
    s->record = mem_alloc(1, STREAM_RECORD_BYTES);
    stream_pace_begin(&s->pace);
    attach_bio(s);
    return s;
}

void
stream_free(struct stream *s)
{
    if (s == NULL)
        return;
    /* A goodbye, if it can be said at once; nobody depends on it. */
    if (!s->broken_out && SSL_shutdown(s->ssl) >= 0 && s->out_used > 0)
        (void)!send(s->fd, s->out, s->out_used, MSG_NOSIGNAL | MSG_DONTWAIT);
    ERR_clear_error();
    SSL_free(s->ssl);
    BIO_meth_free(s->bio_method);
    close(s->fd);
    ZSTD_freeCCtx(s->zstd);
    free(s->packed);
    free(s->record);
    free(s->out);
    free(s->in);
    free(s);
}

/* --- sending ------------------------------------------------------------------- */

/*
 * The other side says why it gives up and then closes, so our send fails while
 * its ERROR frame is waiting to be read.
 */
static bool
send_failed(struct stream *s, int number, struct error **err)
{
    struct error *e = NULL;
    struct wire_frame frame;
    const void *payload;

    if (!s->broken_out) {
        s->broken_out = true;
        s->stall_ms = MIN(s->stall_ms, 1000);
        s->record_used = s->out_used = 0;
        if (!stream_recv(s, &frame, &payload, &e) && !s->broken_in)
            return error_propagate(err, e);
        error_free(e);
    }
    errno = number;
    return error_errno(err, ERROR_CONNECT, "send");
}

static bool
send_out(struct stream *s, struct error **err)
{
    size_t sent = 0;

    if (!is_wanted(s, err))
        return false;
    while (sent < s->out_used) {
        ssize_t n = send(s->fd, s->out + sent, s->out_used - sent, MSG_NOSIGNAL);
        int64_t begin_us;

        if (n > 0) {
            sent += (size_t)n;
            continue;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN)
            return send_failed(s, errno, err);
        begin_us = stream_pace_now_us();
        if (!wait_stream(s, POLLOUT, err))
            return false;
        stream_pace_waited(&s->pace, stream_pace_now_us() - begin_us);
    }
    s->out_used = 0;
    return true;
}

/* Encrypts n bytes, at most one record. */
static bool
write_record(struct stream *s, const void *data, size_t n, struct error **err)
{
    size_t done = 0;

    if (s->keyed_bytes >= KEY_BYTES &&
        SSL_key_update(s->ssl, SSL_KEY_UPDATE_NOT_REQUESTED))
        s->keyed_bytes = 0;
    if (SSL_write_ex(s->ssl, data, n, &done) != 1 || done != n)
        return error_set(err, ERROR_TLS, "encrypt: %s", tls_last_error());
    s->keyed_bytes += n;
    return s->out_used < STREAM_OUT_BYTES || send_out(s, err);
}

static bool
write_waiting_record(struct stream *s, struct error **err)
{
    size_t n = s->record_used;

    s->record_used = 0;
    return n == 0 || write_record(s, s->record, n, err);
}

/* Whole records are encrypted from where they are; only the ends are copied. */
bool
stream_io_write(struct stream *s, const void *data, size_t n, struct error **err)
{
    const uint8_t *p = data;

    while (n > 0) {
        size_t part = MIN(n, STREAM_RECORD_BYTES - s->record_used);

        if (part == STREAM_RECORD_BYTES) {
            if (!write_record(s, p, part, err))
                return false;
        } else {
            memcpy(s->record + s->record_used, p, part);
            s->record_used += part;
            if (s->record_used == STREAM_RECORD_BYTES && !write_waiting_record(s, err))
                return false;
        }
        p += part;
        n -= part;
    }
    return true;
}

bool
stream_io_flush(struct stream *s, struct error **err)
{
    return write_waiting_record(s, err) && send_out(s, err);
}

/* --- receiving ----------------------------------------------------------------- */

static bool
read_failed(struct stream *s, int reason, int number, struct error **err)
{
    if (reason == SSL_ERROR_ZERO_RETURN || (reason == SSL_ERROR_SYSCALL && number == 0))
        return error_set(err, ERROR_CONNECT, "the other side closed the connection");
    if (reason == SSL_ERROR_SYSCALL) {
        errno = number;
        ERR_clear_error();
        return error_errno(err, ERROR_CONNECT, "receive");
    }
    /* Our last words are an alert that says what was wrong. */
    if (s->out_used > 0)
        (void)!send(s->fd, s->out, s->out_used, MSG_NOSIGNAL | MSG_DONTWAIT);
    s->out_used = 0;
    return error_set(err, ERROR_TLS, "receive: %s", tls_last_error());
}

bool
stream_io_read(struct stream *s, void *buf, size_t n, struct error **err)
{
    uint8_t *p = buf;

    if (!is_wanted(s, err))
        return false;
    while (n > 0) {
        size_t part = 0;
        int reason, number;

        ERR_clear_error();
        errno = 0;
        if (SSL_read_ex(s->ssl, p, n, &part) == 1) {
            p += part;
            n -= part;
            continue;
        }
        number = errno;
        reason = SSL_get_error(s->ssl, 0);
        if (reason != SSL_ERROR_WANT_READ)
            return read_failed(s, reason, number, err);
        /* An answer of TLS itself (a change of keys) may be due. */
        if ((s->out_used > 0 && !send_out(s, err)) || !wait_stream(s, POLLIN, err))
            return false;
    }
    return true;
}
