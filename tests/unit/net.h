/* What the tests of network parts share: an identity, a free port, a loop on its own
 * thread. */
#ifndef TESTS_UNIT_NET_H
#define TESTS_UNIT_NET_H

#include <arpa/inet.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>

#include "daemon/tls.h"
#include "tests/unit/unit.h"

struct net_identity {
    char folder[64];
    char certificate[128];
    char key[128];
    struct tls *tls;
};

static inline void
net_identity_make(struct net_identity *id, const char *name)
{
    struct error *err = NULL;

    snprintf(id->folder, sizeof id->folder, "/tmp/virt-dr-net-XXXXXX");
    assert_non_null(mkdtemp(id->folder));
    snprintf(id->certificate, sizeof id->certificate, "%s/own.crt", id->folder);
    snprintf(id->key, sizeof id->key, "%s/own.key", id->folder);
    assert_ok(tls_ensure_own(id->certificate, id->key, name, &err), err);
    assert_ok(
        tls_new(&(struct tls_settings){ id->certificate, id->key, NULL }, &id->tls, &err),
        err);
}

static inline void
net_identity_drop(struct net_identity *id)
{
    tls_free(id->tls);
    unlink(id->certificate);
    unlink(id->key);
    rmdir(id->folder);
}

/* "127.0.0.1:PORT" that nobody uses now. */
static inline void
net_free_address(char address[32])
{
    struct sockaddr_in in = { .sin_family = AF_INET,
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof in;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &n), 0);
    snprintf(address, 32, "127.0.0.1:%u", ntohs(in.sin_port));
    close(fd);
}

static inline struct sockaddr_in
net_sockaddr(const char *address)
{
    struct sockaddr_in in = { .sin_family = AF_INET,
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

    in.sin_port = htons((uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10));
    return in;
}

/* A blocking connection to it; -1 if it is refused. */
static inline int
net_connect(const char *address)
{
    struct sockaddr_in in = net_sockaddr(address);
    struct timeval limit = { 20, 0 };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, (struct sockaddr *)&in, sizeof in) == 0)
        return fd;
    close(fd);
    return -1;
}

struct net_loop {
    struct event_base *base;
    pthread_t thread;
    pthread_barrier_t runs;
};

static inline void
net_loop_runs(evutil_socket_t fd UNUSED, short what UNUSED, void *opaque)
{
    pthread_barrier_wait(&((struct net_loop *)opaque)->runs);
}

static inline void *
net_loop_main(void *opaque)
{
    struct net_loop *l = opaque;

    event_base_loop(l->base, EVLOOP_NO_EXIT_ON_EMPTY);
    return NULL;
}

/* Returns once the loop turns: a break that comes before is forgotten by libevent. */
static inline void
net_loop_start(struct net_loop *l)
{
    const struct timeval now = { 0, 0 };

    assert_int_equal(pthread_barrier_init(&l->runs, NULL, 2), 0);
    assert_int_equal(event_base_once(l->base, -1, EV_TIMEOUT, net_loop_runs, l, &now), 0);
    assert_int_equal(pthread_create(&l->thread, NULL, net_loop_main, l), 0);
    pthread_barrier_wait(&l->runs);
}

/* From then on the caller's thread is the loop thread. */
static inline void
net_loop_stop(struct net_loop *l)
{
    event_base_loopbreak(l->base);
    pthread_join(l->thread, NULL);
    pthread_barrier_destroy(&l->runs);
}

/* A TLS connection that was written to is held by a callback which libevent has deferred
   and drops, with what it holds, when the base goes. */
static inline void
net_loop_free(struct net_loop *l)
{
    event_base_loop(l->base, EVLOOP_NONBLOCK);
    event_base_free(l->base);
}

#endif
