/*
 * What is sent to the peers: the limits on it, and who goes first.
 *
 * All that goes to one peer shares that peer's limit ([peer NAME] bandwidth); each
 * replication has one of its own besides. Work that can wait (first syncs, resyncs) gives
 * way while a cycle goes to the same peer, for all but a sixteenth of the time at most,
 * so that it comes to its end nevertheless, and the peer never hears nothing for long.
 * Any thread; a flow belongs to one at a time.
 */
#ifndef DAEMON_TRAFFIC_H
#define DAEMON_TRAFFIC_H

#include "common/cancel.h"
#include "daemon/bandwidth.h"
#include "daemon/daemon.h"
#include "daemon/replication.h"

struct traffic;
struct traffic_link;

struct traffic *traffic_new(void);

/* When no flow is left. */
void traffic_free(struct traffic *t);

/* One exchange's part; all zero: none. Lives with whoever sends. */
struct traffic_flow {
    struct traffic *traffic;
    struct traffic_link *link;
    struct cancel *cancel;
    bool is_background;
    struct bandwidth peer_limit, own_limit;
    struct bandwidth_bucket own;
    int64_t yield_us;   /* how long it may give way now */
    int64_t resumed_us; /* when it did last */
};

/* The limits are those of now. Without r->lock. */
void traffic_begin(struct daemon *d, struct replication *r, bool is_background,
                   struct cancel *cancel, struct traffic_flow *ret);
void traffic_end(struct traffic_flow *f);

/*
 * A stream_limit_fn; opaque is the flow. Waits until so many bytes may go, and says how
 * long that was. ERROR_CANCELLED, ERROR_TIMEOUT.
 */
bool
traffic_wait(void *opaque, uint64_t bytes, int64_t *ret_waited_us, struct error **err);

/* The limit at this moment. */
struct bandwidth_limit traffic_limit(const struct traffic_flow *f);

/* The peer's limit, as configured; without r->lock. */
void
traffic_peer_limit(struct daemon *d, const struct replication *r, struct bandwidth *ret);

/* Both limits of a replication now; without r->lock. */
struct bandwidth_limit traffic_limit_of(struct daemon *d, struct replication *r);

/*
 * {limit, peerLimit: as they were given, rate, cyclesOnly: what holds now}; null and 0
 * are no limit.
 */
struct json_object *
traffic_json(const struct bandwidth *own, const struct bandwidth *peer);

#endif
