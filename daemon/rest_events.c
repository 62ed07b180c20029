/* Server-sent events: a ring of the newest, and followers that read along. */
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <pthread.h>
#include <string.h>
#include <sys/queue.h>

#include "common/json.h"
#include "common/log.h"
#include "daemon/rest_private.h"

#define KEPT             1000
#define PING_S           15
#define MAX_QUEUED_BYTES (1u << 20) /* for one follower, outside the ring */

struct entry {
    uint64_t id;
    char *text;
};

struct follower {
    TAILQ_ENTRY(follower) link;
    struct rest_events *events;
    struct evhttp_request *req;
    uint64_t next; /* number of the entry that it gets next */
};

struct rest_events {
    struct event *wake;
    struct event *ping;
    struct timeval timeout;
    TAILQ_HEAD(, follower) followers;

    pthread_mutex_t lock;    /* of what follows */
    struct entry ring[KEPT]; /* entry n is at n % KEPT */
    uint64_t end;            /* number of the next entry */
};

static uint64_t
oldest(const struct rest_events *e)
{
    return e->end > KEPT ? e->end - KEPT : 0;
}

static struct bufferevent *
output_of(const struct follower *f)
{
    return evhttp_connection_get_bufferevent(evhttp_request_get_connection(f->req));
}

static size_t
queued_bytes(const struct follower *f)
{
    return evbuffer_get_length(bufferevent_get_output(output_of(f)));
}

/* The connection ends, whoever ended it. */
static void
on_close(struct evhttp_connection *connection UNUSED, void *opaque)
{
    struct follower *f = opaque;

    TAILQ_REMOVE(&f->events->followers, f, link);
    /* evhttp lets go of a request that we still write to when its connection breaks. */
    if (evhttp_request_get_connection(f->req) == NULL)
        evhttp_request_free(f->req);
    free(f);
}

static void
cut_off(struct follower *f)
{
    log_info(NULL, "follower-dropped", "a follower of the events is too slow");
    evhttp_connection_free(evhttp_request_get_connection(f->req));
}

/* Moves what fits from the ring into buf; false: it has missed some. */
static bool
collect(struct follower *f, struct evbuffer *buf)
{
    struct rest_events *e = f->events;
    size_t queued = queued_bytes(f);
    bool complete;

    pthread_mutex_lock(&e->lock);
    complete = f->next >= oldest(e);
    while (complete && f->next < e->end &&
           queued + evbuffer_get_length(buf) < MAX_QUEUED_BYTES) {
        const char *text = e->ring[f->next++ % KEPT].text;

        evbuffer_add(buf, text, strlen(text));
    }
    pthread_mutex_unlock(&e->lock);
    return complete;
}

static void on_written(struct evhttp_connection *connection, void *opaque);

static void
pump(struct follower *f)
{
    struct evbuffer *buf = evbuffer_new();
    bool complete = collect(f, buf);

    if (evbuffer_get_length(buf) > 0)
        evhttp_send_reply_chunk_with_cb(f->req, buf, on_written, f);
    evbuffer_free(buf);
    if (!complete)
        cut_off(f);
}

static void
on_written(struct evhttp_connection *connection UNUSED, void *opaque)
{
    pump(opaque);
}

static void
on_wake(evutil_socket_t fd UNUSED, short what UNUSED, void *opaque)
{
    struct rest_events *e = opaque;
    struct follower *f, *next;

    for (f = TAILQ_FIRST(&e->followers); f != NULL; f = next) {
        next = TAILQ_NEXT(f, link);
        pump(f);
    }
}

static void
say(struct follower *f, const char *text)
{
    struct evbuffer *buf = evbuffer_new();

    evbuffer_add(buf, text, strlen(text));
    evhttp_send_reply_chunk_with_cb(f->req, buf, on_written, f);
    evbuffer_free(buf);
}

static void
on_ping(evutil_socket_t fd UNUSED, short what UNUSED, void *opaque)
{
    struct rest_events *e = opaque;
    struct follower *f;

    TAILQ_FOREACH (f, &e->followers, link)
        if (queued_bytes(f) == 0)
            say(f, ": ping\n\n");
}

struct rest_events *
rest_events_new(struct event_base *base, int timeout_s)
{
    const struct timeval interval = { PING_S, 0 };
    struct rest_events *e = NEW(struct rest_events);

    pthread_mutex_init(&e->lock, NULL);
    TAILQ_INIT(&e->followers);
    e->timeout = (struct timeval){ timeout_s, 0 };
    e->wake = event_new(base, -1, EV_PERSIST, on_wake, e);
    e->ping = event_new(base, -1, EV_PERSIST, on_ping, e);
    if (e->wake == NULL || e->ping == NULL || event_add(e->ping, &interval) != 0)
        abort();
    return e;
}

void
rest_events_free(struct rest_events *e)
{
    if (e == NULL)
        return;
    event_free(e->wake);
    event_free(e->ping);
    for (unsigned i = 0; i < KEPT; i++)
        free(e->ring[i].text);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

void
rest_events_publish(struct rest_events *e, uint64_t id, const char *type,
                    struct json_object *body)
{
    char *text = mem_printf("id: %llu\nevent: %s\ndata: %s\n\n", (unsigned long long)id,
                            type, json_text(body));
    struct entry *place;

    pthread_mutex_lock(&e->lock);
    place = &e->ring[e->end % KEPT];
    free(place->text);
    *place = (struct entry){ id, text };
    e->end++;
    pthread_mutex_unlock(&e->lock);
    event_active(e->wake, 0, 0);
}

static uint64_t
number_after(struct rest_events *e, const uint64_t *since)
{
    uint64_t n;

    pthread_mutex_lock(&e->lock);
    n = since != NULL ? oldest(e) : e->end;
    while (n < e->end && e->ring[n % KEPT].id <= *since)
        n++;
    pthread_mutex_unlock(&e->lock);
    return n;
}

void
rest_events_follow(struct rest_events *e, struct evhttp_request *req,
                   const uint64_t *since)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(req);
    struct follower *f = NEW(struct follower);

    f->events = e;
    f->req = req;
    f->next = number_after(e, since);
    TAILQ_INSERT_TAIL(&e->followers, f, link);
    evhttp_add_header(headers, "Content-Type", "text/event-stream");
    evhttp_add_header(headers, "Cache-Control", "no-store");
    evhttp_connection_set_closecb(evhttp_request_get_connection(req), on_close, f);
    evhttp_send_reply_start(req, HTTP_OK, NULL);
    /* It has nothing to say any more, but has to take what it gets. */
    bufferevent_set_timeouts(output_of(f), NULL, &e->timeout);
    say(f, ": following\n\n");
    pump(f);
}
