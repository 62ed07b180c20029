#include "daemon/traffic.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "common/json.h"
#include "daemon/peers.h"

#define US_PER_MS 1000
#define US_PER_S  1000000
#define MOST_YIELD_US \
    (3 * US_PER_S)     /* at a stretch: the peer's patience is ten times that */
#define YIELD_SHARE 15 /* times as long as it worked before, it may give way */
#define NAP_US      (50 * US_PER_MS) /* a request to stop is noticed after so long */

/* To one peer. Links stay until the end: there are as many as peers. */
struct traffic_link {
    struct traffic_link *next;
    char peer_id[ID_TEXT];
    struct bandwidth_bucket bucket;
    unsigned n_cycles; /* under way */
};

struct traffic {
    pthread_mutex_t lock;
    pthread_cond_t calmed; /* the last cycle of a link has ended */
    struct traffic_link *links;
};

static int64_t
now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * US_PER_S + now.tv_nsec / 1000;
}

struct traffic *
traffic_new(void)
{
    struct traffic *t = NEW(struct traffic);
    pthread_condattr_t attr;

    pthread_mutex_init(&t->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&t->calmed, &attr);
    pthread_condattr_destroy(&attr);
    return t;
}

void
traffic_free(struct traffic *t)
{
    if (t == NULL)
        return;
    for (struct traffic_link *l = t->links, *next; l != NULL; l = next) {
        next = l->next;
        free(l);
    }
    pthread_cond_destroy(&t->calmed);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

/* The lock is held. */
static struct traffic_link *
link_to(struct traffic *t, const char *peer_id)
{
    struct traffic_link *l = t->links;

    while (l != NULL && strcmp(l->peer_id, peer_id) != 0)
        l = l->next;
    if (l != NULL)
        return l;
    l = NEW(struct traffic_link);
    snprintf(l->peer_id, sizeof l->peer_id, "%s", peer_id);
    l->next = t->links;
    t->links = l;
    return l;
}

void
traffic_peer_limit(struct daemon *d, const struct replication *r, struct bandwidth *ret)
{
    const struct config_peer *peer = NULL;
    struct peer_name name;

    if (peers_find(d->peers, r->peer_id, &name, NULL))
        peer = config_peer(d->config, name.name);
    *ret = peer != NULL ? peer->bandwidth : (struct bandwidth){ 0 };
}

struct bandwidth_limit
traffic_limit_of(struct daemon *d, struct replication *r)
{
    struct bandwidth peer, own;

    traffic_peer_limit(d, r, &peer);
    pthread_mutex_lock(&r->lock);
    own = r->bandwidth;
    pthread_mutex_unlock(&r->lock);
    return bandwidth_both(bandwidth_now(&peer), bandwidth_now(&own));
}

struct json_object *
traffic_json(const struct bandwidth *own, const struct bandwidth *peer)
{
    struct json_object *o = json_object_new_object();
    struct bandwidth_limit now = bandwidth_both(bandwidth_now(own), bandwidth_now(peer));

    json_set_string(o, "limit", own->text[0] != '\0' ? own->text : NULL);
    json_set_string(o, "peerLimit", peer->text[0] != '\0' ? peer->text : NULL);
    json_set_u64(o, "rate", now.rate);
    json_set_bool(o, "cyclesOnly", now.cycles_only);
    return o;
}

void
traffic_begin(struct daemon *d, struct replication *r, bool is_background,
              struct cancel *cancel, struct traffic_flow *ret)
{
    struct traffic *t = d->traffic;

    *ret = (struct traffic_flow){ .traffic = t,
                                  .cancel = cancel,
                                  .is_background = is_background,
                                  .yield_us = MOST_YIELD_US,
                                  .resumed_us = now_us() };
    traffic_peer_limit(d, r, &ret->peer_limit);
    pthread_mutex_lock(&r->lock);
    ret->own_limit = r->bandwidth;
    pthread_mutex_unlock(&r->lock);
    pthread_mutex_lock(&t->lock);
    ret->link = link_to(t, r->peer_id);
    if (!is_background)
        ret->link->n_cycles++;
    pthread_mutex_unlock(&t->lock);
}

void
traffic_end(struct traffic_flow *f)
{
    if (f->link == NULL)
        return;
    pthread_mutex_lock(&f->traffic->lock);
    if (!f->is_background && --f->link->n_cycles == 0)
        pthread_cond_broadcast(&f->traffic->calmed);
    pthread_mutex_unlock(&f->traffic->lock);
    f->link = NULL;
}

struct bandwidth_limit
traffic_limit(const struct traffic_flow *f)
{
    return bandwidth_both(bandwidth_now(&f->peer_limit), bandwidth_now(&f->own_limit));
}

/* Up to so long, or until no cycle is under way. The lock is held. */
static void
nap(struct traffic_flow *f, int64_t us)
{
    struct timespec until;
    int64_t at_us = now_us() + MIN(us, NAP_US);

    until.tv_sec = at_us / US_PER_S;
    until.tv_nsec = at_us % US_PER_S * 1000;
    pthread_cond_timedwait(&f->traffic->calmed, &f->traffic->lock, &until);
}

/* The lock is held. */
static bool
give_way(struct traffic_flow *f, struct error **err)
{
    int64_t begin_us = now_us();

    if (!f->is_background)
        return true;
    f->yield_us = MIN(f->yield_us + (begin_us - f->resumed_us) * YIELD_SHARE,
                      (int64_t)MOST_YIELD_US);
    while (f->link->n_cycles > 0 && now_us() - begin_us < f->yield_us) {
        if (!cancel_check(f->cancel, err))
            return false;
        nap(f, begin_us + f->yield_us - now_us());
    }
    f->resumed_us = now_us();
    f->yield_us -= f->resumed_us - begin_us;
    return true;
}

/* The lock is held. */
static bool
take(struct traffic_flow *f, uint64_t rate, struct bandwidth_bucket *b, uint64_t bytes,
     struct error **err)
{
    int64_t wait_us;

    while ((wait_us = bandwidth_take(b, rate, now_us(), bytes)) > 0) {
        if (!cancel_check(f->cancel, err))
            return false;
        nap(f, wait_us);
    }
    return true;
}

bool
traffic_wait(void *opaque, uint64_t bytes, int64_t *ret_waited_us, struct error **err)
{
    struct traffic_flow *f = opaque;
    uint64_t peer_rate = bandwidth_now(&f->peer_limit).rate;
    uint64_t own_rate = bandwidth_now(&f->own_limit).rate;
    int64_t begin_us = now_us();
    bool ok;

    pthread_mutex_lock(&f->traffic->lock);
    ok = take(f, own_rate, &f->own, bytes, err) && give_way(f, err) &&
         take(f, peer_rate, &f->link->bucket, bytes, err);
    pthread_mutex_unlock(&f->traffic->lock);
    *ret_waited_us = now_us() - begin_us;
    return ok;
}
