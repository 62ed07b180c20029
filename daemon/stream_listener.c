/*
 * The listening side: handshakes and idle streams are on the loop, serving is
 * on workers.
 *
 * Somebody without a certificate that we know can hold a place among
 * max_connections for greeting_ms, and some CPU time for a handshake, but
 * never a worker.
 */
#include <assert.h>
#include <errno.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "common/json.h"
#include "common/log.h"
#include "common/units.h"
#include "daemon/address.h"
#include "daemon/stream_private.h"

#define ACCEPT_RETRY_S 1

enum phase {
    PHASE_HANDSHAKE,
    PHASE_REFUSED,  /* waits for their HELLO, to answer it with an error */
    PHASE_GREETING, /* waits for their HELLO */
    PHASE_IDLE,     /* waits for the next exchange */
    PHASE_WORKER,   /* a worker has it: greeting or serving */
};

struct connection {
    TAILQ_ENTRY(connection) link;
    struct stream_listener *listener; /* NULL: freed meanwhile */
    struct event *event;
    enum phase phase;
    int64_t greeted_by_ms; /* monotonic */
    int64_t arrived_ms;    /* HELLO, wall clock */
    bool greeted;
    bool good; /* the worker's verdict */
    struct cancel stop;
    char peer_id[40];
    char address[ADDRESS_TEXT_MAX];
    int fd; /* it and ssl are the stream's once there is one */
    SSL *ssl;
    struct stream *stream;
};

struct stream_listener {
    struct stream_listener_settings set;
    char *host_id;
    int fd;
    struct event *event;
    struct event *retry; /* accepting goes on then */
    TAILQ_HEAD(, connection) connections;
    unsigned n_connections;
    atomic_bool stopping;

    pthread_mutex_t lock;
    pthread_cond_t finished;
    unsigned n_jobs; /* handed to workers and not done with run() */
};

static void on_event(evutil_socket_t fd, short what, void *opaque);

/* All but the memory, which a worker's pending report still points to. */
static void
hang_up(struct connection *c)
{
    TAILQ_REMOVE(&c->listener->connections, c, link);
    c->listener->n_connections--;
    c->listener = NULL;
    event_free(c->event);
    if (c->stream != NULL) {
        stream_free(c->stream);
    } else {
        SSL_free(c->ssl);
        close(c->fd);
    }
}

static void
connection_free(struct connection *c)
{
    hang_up(c);
    free(c);
}

static void
refuse(struct connection *c, const char *why)
{
    log_warn(&(struct log_ctx){ .peer = c->peer_id[0] != '\0' ? c->peer_id : NULL },
             "stream-refused", "connection from %s: %s", c->address, why);
    connection_free(c);
}

/* Without a time limit once they have greeted: idle streams stay. */
static void
wait_for(struct connection *c, short events)
{
    int64_t left_ms = MAX(c->greeted_by_ms - units_monotonic_ms(), 0);
    struct timeval limit = { left_ms / 1000, left_ms % 1000 * 1000 };

    event_assign(c->event, c->listener->set.base, c->fd, events, on_event, c);
    event_add(c->event, c->greeted ? NULL : &limit);
}

/* --- on a worker ----------------------------------------------------------------- */

static void
greet(struct connection *c)
{
    struct error *e = NULL;

    c->good = stream_greet(c->stream, c->listener->host_id, c->arrived_ms, &e);
    if (!c->good)
        log_warn(&(struct log_ctx){ .peer = c->peer_id }, "stream-refused",
                 "connection from %s: %s", c->address, error_message(e));
    error_free(e);
}

static void
work(void *opaque)
{
    struct connection *c = opaque;
    struct stream_listener *l = c->listener;

    c->good = false;
    if (!l->stopping) {
        if (c->greeted)
            c->good = l->set.serve(c->stream, c->peer_id, l->set.opaque);
        else
            greet(c);
    }
    stream_set_cancel(c->stream, NULL);

    pthread_mutex_lock(&l->lock);
    l->n_jobs--;
    pthread_cond_signal(&l->finished);
    pthread_mutex_unlock(&l->lock);
}

/* --- on the loop ------------------------------------------------------------------- */

static void wait_for_frame(struct connection *c, enum phase phase);

static void
worked(void *opaque)
{
    struct connection *c = opaque;

    if (c->listener == NULL) {
        free(c);
        return;
    }
    if (!c->good) {
        connection_free(c);
        return;
    }
    c->greeted = true;
    cancel_set_timeout(&c->stop, 0);
    wait_for_frame(c, PHASE_IDLE);
}

static void
hand_to_worker(struct connection *c)
{
    struct stream_listener *l = c->listener;

    if (!c->greeted) {
        c->arrived_ms = units_now_ms();
        cancel_set_timeout(&c->stop, MAX(c->greeted_by_ms - units_monotonic_ms(), 1));
    }
    c->phase = PHASE_WORKER;
    pthread_mutex_lock(&l->lock);
    l->n_jobs++;
    pthread_mutex_unlock(&l->lock);
    workers_submit(l->set.workers, 0, work, worked, c);
}

/* Their HELLO is out of the way, so that our closing does not overtake our answer. */
static void
answer_stranger(struct connection *c)
{
    struct error *e = NULL;

    error_set(&e, ERROR_NOT_AUTHENTICATED,
              "this host is not paired with the one that shows this certificate");
    c->stream = stream_new(c->fd, c->ssl, (char[TLS_FINGERPRINT_TEXT]){ "" }, 1);
    stream_send_error(c->stream, e);
    error_free(e);
    refuse(c, "its certificate is no peer's");
}

/* Goodbyes and TLS's own messages are not for workers: only the first byte of a frame is.
 */
static void
wait_for_frame(struct connection *c, enum phase phase)
{
    char byte[4096];
    size_t n = 0;
    bool stranger = phase == PHASE_REFUSED;
    int rc;

    c->phase = phase;
    ERR_clear_error();
    rc = stranger ? SSL_read_ex(c->ssl, byte, sizeof byte, &n)
                  : SSL_peek_ex(c->ssl, byte, 1, &n);
    if (rc == 1 && stranger) {
        answer_stranger(c);
    } else if (rc == 1) {
        hand_to_worker(c);
    } else if (SSL_get_error(c->ssl, rc) == SSL_ERROR_WANT_READ) {
        wait_for(c, EV_READ);
    } else {
        ERR_clear_error();
        connection_free(c);
    }
}

static void
identify(struct connection *c)
{
    const struct stream_listener_settings *set = &c->listener->set;
    char fingerprint[TLS_FINGERPRINT_TEXT];
    struct error *e = NULL;

    if (!stream_alpn_is_ours(c->ssl)) {
        refuse(c, "it does not ask for " WIRE_ALPN);
        return;
    }
    if (!tls_peer_fingerprint(c->ssl, fingerprint, &e)) {
        refuse(c, error_message(e));
        error_free(e);
        return;
    }
    if (!set->identify(c->ssl, fingerprint, c->peer_id, set->opaque)) {
        wait_for_frame(c, PHASE_REFUSED);
        return;
    }
    c->stream = stream_new(c->fd, c->ssl, fingerprint, set->stall_ms);
    c->stream->stop = &c->stop;
    wait_for_frame(c, PHASE_GREETING);
}

static void
shake_hands(struct connection *c)
{
    int rc, reason;

    ERR_clear_error();
    rc = SSL_accept(c->ssl);
    reason = rc == 1 ? SSL_ERROR_NONE : SSL_get_error(c->ssl, rc);
    if (reason == SSL_ERROR_NONE)
        identify(c);
    else if (reason == SSL_ERROR_WANT_READ)
        wait_for(c, EV_READ);
    else if (reason == SSL_ERROR_WANT_WRITE)
        wait_for(c, EV_WRITE);
    else
        refuse(c, tls_last_error());
}

static void
on_event(evutil_socket_t fd UNUSED, short what, void *opaque)
{
    struct connection *c = opaque;

    if ((what & EV_TIMEOUT) != 0) {
        refuse(c, "it did not greet in time");
        return;
    }
    switch (c->phase) {
    case PHASE_HANDSHAKE:
        shake_hands(c);
        return;
    case PHASE_REFUSED:
    case PHASE_GREETING:
    case PHASE_IDLE:
        wait_for_frame(c, c->phase);
        return;
    case PHASE_WORKER:
        break;
    }
    assert(!"an event while a worker has the stream");
}

/* --- accepting --------------------------------------------------------------------- */

static void
take_in(struct stream_listener *l, int fd, const struct sockaddr *from, socklen_t n_from)
{
    struct connection *c = NEW(struct connection);
    struct error *e = NULL;

    c->listener = l;
    c->fd = fd;
    c->greeted_by_ms = units_monotonic_ms() + l->set.greeting_ms;
    c->ssl = SSL_new(tls_server_context(l->set.tls));
    c->event = event_new(l->set.base, fd, EV_READ, on_event, c);
    if (c->ssl == NULL || c->event == NULL)
        abort();
    address_format(from, n_from, c->address);
    TAILQ_INSERT_TAIL(&l->connections, c, link);
    l->n_connections++;
    SSL_set_accept_state(c->ssl);
    if (!stream_prepare_ssl(c->ssl, fd, &e)) {
        refuse(c, error_message(e));
        error_free(e);
        return;
    }
    wait_for(c, EV_READ);
}

/* Out of descriptors or memory: the connection stays in the queue; ask again later. */
static void
accept_later(struct stream_listener *l)
{
    const struct timeval pause = { ACCEPT_RETRY_S, 0 };

    log_warn(NULL, "stream-accept-failed", "accept: %s; trying again in %d s",
             strerrordesc_np(errno), ACCEPT_RETRY_S);
    event_del(l->event);
    event_add(l->retry, &pause);
}

static void
on_retry(evutil_socket_t fd UNUSED, short what UNUSED, void *opaque)
{
    struct stream_listener *l = opaque;

    event_add(l->event, NULL);
}

static void
on_accept(evutil_socket_t listening, short what UNUSED, void *opaque)
{
    struct stream_listener *l = opaque;

    for (;;) {
        struct sockaddr_storage from;
        socklen_t n = sizeof from;
        int fd = accept4(listening, (struct sockaddr *)&from, &n,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0 && errno != EAGAIN)
            accept_later(l);
        if (fd < 0)
            return;
        if (l->n_connections < l->set.max_connections) {
            take_in(l, fd, (struct sockaddr *)&from, n);
            continue;
        }
        close(fd);
        log_warn(NULL, "stream-refused", "there are %u connections already",
                 l->n_connections);
    }
}

bool
stream_listener_new(const struct stream_listener_settings *settings,
                    struct stream_listener **ret, struct error **err)
{
    struct stream_listener *l;
    int fd;

    if (!address_listen(settings->address, &fd, err))
        return false;
    l = NEW(struct stream_listener);
    l->set = *settings;
    l->set.address = NULL;
    l->host_id = mem_strdup(settings->host_id);
    l->set.host_id = l->host_id;
    if (l->set.greeting_ms <= 0)
        l->set.greeting_ms = STREAM_GREETING_MS;
    l->fd = fd;
    TAILQ_INIT(&l->connections);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->finished, NULL);
    l->event = event_new(settings->base, fd, EV_READ | EV_PERSIST, on_accept, l);
    l->retry = evtimer_new(settings->base, on_retry, l);
    if (l->event == NULL || l->retry == NULL || event_add(l->event, NULL) != 0)
        abort();
    *ret = l;
    return true;
}

static void
stop_workers(struct stream_listener *l)
{
    struct connection *c;

    l->stopping = true;
    TAILQ_FOREACH (c, &l->connections, link)
        cancel_request(&c->stop);
    pthread_mutex_lock(&l->lock);
    while (l->n_jobs > 0)
        pthread_cond_wait(&l->finished, &l->lock);
    pthread_mutex_unlock(&l->lock);
}

void
stream_listener_free(struct stream_listener *l)
{
    struct connection *c, *next;

    if (l == NULL)
        return;
    event_free(l->event);
    event_free(l->retry);
    close(l->fd);
    stop_workers(l);
    for (c = TAILQ_FIRST(&l->connections); c != NULL; c = next) {
        next = TAILQ_NEXT(c, link);
        /* worked() is still to come for these, and frees what is left. */
        if (c->phase == PHASE_WORKER)
            hang_up(c);
        else
            connection_free(c);
    }
    pthread_cond_destroy(&l->finished);
    pthread_mutex_destroy(&l->lock);
    free(l->host_id);
    free(l);
}
