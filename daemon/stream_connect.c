/* The connecting side of a stream, up to and including the greeting. */
#include <errno.h>
#include <openssl/err.h>
#include <poll.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "common/units.h"
#include "daemon/address.h"
#include "daemon/stream_private.h"

#define ALPN_LIST "\x10" WIRE_ALPN

static void
ssl_freep(SSL **p)
{
    SSL_free(*p);
}

#define AUTOSSL CLEANUP(ssl_freep) SSL

static int
left_of(int64_t until_ms)
{
    int64_t left_ms = until_ms - units_monotonic_ms();

    return (int)MAX(left_ms, 0);
}

static bool
connect_one(const struct addrinfo *a, struct cancel *cancel, int64_t until_ms,
            int *ret_fd, struct error **err)
{
    AUTOFD(fd) = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    socklen_t n = sizeof(int);
    int number = 0;

    if (fd < 0)
        return error_errno(err, ERROR_CONNECT, "socket");
    if (connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
        if (errno != EINPROGRESS)
            return error_errno(err, ERROR_CONNECT, "connect");
        if (!stream_wait(fd, POLLOUT, cancel, left_of(until_ms), err))
            return false;
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &n);
        errno = number;
        if (number != 0)
            return error_errno(err, ERROR_CONNECT, "connect");
    }
    *ret_fd = fd;
    fd = -1;
    return true;
}

/* The first of the host's addresses that takes us. */
static bool
connect_any(const struct stream_target *t, int64_t until_ms, int *ret_fd,
            struct error **err)
{
    struct addrinfo *all = NULL;
    struct error *e = NULL;
    bool ok = false;

    if (!address_resolve(t->address, &all, err))
        return false;
    for (const struct addrinfo *a = all; a != NULL && !ok; a = a->ai_next) {
        error_clear(&e);
        ok = connect_one(a, t->cancel, until_ms, ret_fd, &e);
    }
    freeaddrinfo(all);
    return ok ? true : error_propagate(err, e);
}

static bool
shake_hands(SSL *ssl, int fd, struct cancel *cancel, int64_t until_ms, struct error **err)
{
    for (;;) {
        int rc, reason;

        ERR_clear_error();
        rc = SSL_connect(ssl);
        if (rc == 1)
            return true;
        reason = SSL_get_error(ssl, rc);
        if (reason == SSL_ERROR_SYSCALL || reason == SSL_ERROR_ZERO_RETURN)
            return error_set(err, ERROR_CONNECT,
                             "the other side closed the connection in the handshake");
        if (reason != SSL_ERROR_WANT_READ && reason != SSL_ERROR_WANT_WRITE)
            return error_set(err, ERROR_TLS, "handshake: %s", tls_last_error());
        if (!stream_wait(fd, reason == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, cancel,
                         left_of(until_ms), err))
            return error_prefix(err, "handshake");
    }
}

static bool
judge_peer(struct tls *tls, SSL *ssl, const struct stream_target *t,
           char ret[TLS_FINGERPRINT_TEXT], struct error **err)
{
    char name[TLS_NAME_MAX];

    if (!stream_alpn_is_ours(ssl))
        return error_set(err, ERROR_TLS, "the other side does not speak %s", WIRE_ALPN);
    if (!tls_peer_fingerprint(ssl, ret, err))
        return false;
    if (t->fingerprint != NULL) {
        if (strcasecmp(ret, t->fingerprint) == 0)
            return true;
        return error_set(
            err, ERROR_NOT_AUTHENTICATED,
            "the other side shows the certificate %s instead of %s; if it was "
            "renewed, pair the hosts again",
            ret, t->fingerprint);
    }
    if (t->vouched_name == NULL || !tls_peer_vouched(tls, ssl, name))
        return error_set(err, ERROR_NOT_AUTHENTICATED,
                         "no configured CA vouches for the other side's certificate");
    if (strcasecmp(name, t->vouched_name) != 0)
        return error_set(err, ERROR_NOT_AUTHENTICATED,
                         "the other side's certificate is for '%s' instead of '%s'", name,
                         t->vouched_name);
    return true;
}

static bool
connect_tls(struct tls *tls, const struct stream_target *t, struct stream **ret,
            struct error **err)
{
    int64_t until_ms = units_monotonic_ms() + STREAM_GREETING_MS;
    AUTOSSL *ssl = SSL_new(tls_client_context(tls));
    char fingerprint[TLS_FINGERPRINT_TEXT];
    AUTOFD(fd) = -1;

    _Static_assert(sizeof WIRE_ALPN - 1 == 0x10, "the length in ALPN_LIST");
    if (ssl == NULL || SSL_set_alpn_protos(ssl, (const unsigned char *)ALPN_LIST,
                                           sizeof ALPN_LIST - 1) != 0)
        return error_set(err, ERROR_TLS, "set up a connection: %s", tls_last_error());
    if (!connect_any(t, until_ms, &fd, err) || !stream_prepare_ssl(ssl, fd, err) ||
        !shake_hands(ssl, fd, t->cancel, until_ms, err) ||
        !judge_peer(tls, ssl, t, fingerprint, err))
        return false;
    *ret = stream_new(fd, TAKE(ssl), fingerprint, t->stall_ms);
    fd = -1;
    return true;
}

bool
stream_connect(struct tls *tls, const struct stream_target *target, struct stream **ret,
               struct error **err)
{
    AUTOPTR(stream) *s = NULL;

    if (!connect_tls(tls, target, &s, err))
        return error_prefix(err, "connect to '%s'", target->address);
    stream_set_cancel(s, target->cancel);
    if (!stream_say_hello(s, target->host_id, err))
        return error_prefix(err, "greet '%s'", target->address);
    *ret = TAKE(s);
    return true;
}
