/*
 * Replications: what is known of each protected VM, on either side.
 *
 * A replication is one document (kind "replication") and one struct in memory.
 * The struct's fields are read and written under its lock, which is held for short times
 * and for a commit's fsync, never for anything that waits for a guest or a network. Who
 * works on one for long (a cycle, an exchange, a step) claims it first; there is one
 * claim at a time. After every wait, compare the epoch: it may have been failed over.
 *
 * Any thread. Objects are counted: replications_find() gives a reference.
 */
#ifndef DAEMON_REPLICATION_H
#define DAEMON_REPLICATION_H

#include <json-c/json.h>
#include <pthread.h>
#include <stdint.h>

#include "common/cancel.h"
#include "common/error.h"
#include "common/id.h"
#include "common/log.h"
#include "common/wire.h"
#include "daemon/bandwidth.h"
#include "daemon/latency.h"
#include "daemon/replication_types.h"
#include "daemon/retention.h"
#include "daemon/states.h"
#include "drivers/state.h"

#define REPLICATION_MIN_RPO_MS 1000
#define REPLICATION_MAX_RPO_MS (24 * 3600 * 1000)

struct replica; /* the target's store and its workers' state (replica.h) */

struct replication {
    /* Never change after the object was made: */
    char id[ID_TEXT];
    enum replication_side side;
    char vm_uuid[ID_TEXT];
    int64_t created_ms;

    pthread_mutex_t lock;
    pthread_cond_t released;
    unsigned refs; /* atomic */
    bool claimed;
    bool removed;          /* not in the registry any more */
    struct cancel *worker; /* of whoever has claimed it, to stop him; may be NULL */

    /* The other host. A target's changes when the VM was moved: replication_set_peer() */
    char *_Atomic peer_id;

    /* Settings and state, stored: */
    char *vm_name;       /* replication_rename() */
    char **former_names; /* of VM and peer: whoever works may still borrow them */
    size_t n_former_names;
    enum replication_phase phase;
    bool paused;
    uint64_t epoch;
    int64_t rpo_ms;
    char *storage;
    struct json_object *excluded; /* array of disk names */
    struct json_object *disks; /* [{target, capacity, format, path, ...}], see the view */
    struct json_object *capture; /* source: {driver, reason, usedBitmaps}; may be NULL */
    struct replication_point newest;  /* source: acked; target: durable */
    struct replication_point pending; /* source: named to the capture, not yet acked */
    struct json_object *stale;        /* source: names that the capture shall forget */
    struct replication_sync sync;
    struct replication_stats stats;
    char *folder; /* target: of the store; source: the one with its VM's disks */
    struct retention retention;       /* target */
    struct replication_scrub scrub;   /* target */
    struct json_object *seed;         /* target: what it began with (seed.h); or NULL */
    struct replication_resync resync; /* source */
    struct replication_verify verify; /* source */
    bool damaged;                     /* target: the newest disks have to be sent anew */
    struct consistency consistency;   /* source */
    struct bandwidth bandwidth;       /* source */
    struct replication_move move;     /* source */
    struct json_object *prepare;      /* source: for a failover (prepare.h); NULL: none */
    struct json_object *failover;     /* target: what it left to do (failover_after.h) */
    struct json_object *former;       /* sources before this one, [{host, epoch}] */
    struct json_object *fork; /* where the VM here came from (divergence.h), or NULL */
    struct json_object *formerly; /* settings of this host on the other side, or NULL */
    char *home; /* the host that the VM was protected on at first; NULL: the source */
    struct json_object *kept; /* target: points of VMs that were given up (kept.h) */
    int64_t contact_ms;       /* target: when the source was last heard of (wall clock) */

    /* Not stored: */
    bool agreed;         /* source: both sides know that they mean the same point */
    bool comparable;     /* source: the target has content to compare with, as it said */
    uint64_t blobs_hash; /* source: of what the newest point has beside the disks */
    bool warned_of_secrets; /* source: that some cannot be read */
    struct error *error;
    int64_t error_ms;
    int64_t next_try_ms; /* wall clock, 0: none planned */
    unsigned failures_in_row;
    bool source_running;  /* source: as last seen */
    _Atomic bool has_run; /* source: it was seen running since its newest point */
    uint64_t progress_done, progress_total;
    int64_t progress_since_ms; /* monotonic; 0: nothing is being sent */
    struct replica *replica;   /* target */
    bool queued;       /* source: the scheduler has a cycle of it waiting or running */
    bool rpo_violated; /* source: said so already */
    struct latency latency; /* source: what cycles cost the guest */
    bool confirmed;         /* source: the peer has confirmed the epoch in this run */
    bool verifying;         /* source: a task does */
    _Atomic bool lost_job;  /* source: libvirt has, and knows until it is restarted */
    bool seeding;           /* target: a task does */
    bool unsettled; /* source: a capture of ours may be open yet; whoever claimed it */
    _Atomic bool departed; /* source: the VM has left this host, it may run elsewhere */
    int64_t looked_for_ms; /* when other hosts were asked about it; monotonic */
    char move_why[REPLICATION_REASON]; /* source: why the last hand-over failed; "" */
    _Atomic bool comes_home;           /* target: a failback is under way */
    _Atomic bool runs_here;            /* the VM has a process here, as last seen */
    _Atomic bool split_brain;          /* and on the other host, as that has said */
    _Atomic bool autostart_due; /* source: confirmed after a boot, not started yet */
    int64_t tidied_ms;          /* target: when old_folders.h last looked; monotonic */
    char *source_says; /* target: why the source cannot replicate; NULL, "": nothing */
};

struct replications;

bool
replications_load(struct state *state, struct replications **ret, struct error **err);
void replications_free(struct replications *rs);
DEFINE_AUTOPTR(replications);

/* By id, VM name or VM UUID; a reference. ERROR_REPLICATION_NOT_FOUND. */
bool replications_find(struct replications *rs, const char *key, struct replication **ret,
                       struct error **err);

/* A snapshot of all, each a reference; the caller unrefs each and frees *ret. */
size_t replications_all(struct replications *rs, struct replication ***ret);

/* Stores a new one, which the registry then owns. ERROR_EXISTS (same VM protected). */
bool replications_add(struct replications *rs, struct replication *r, struct error **err);

/* Out of the registry and the state. */
bool
replications_remove(struct replications *rs, struct replication *r, struct error **err);

/*
 * `with`, of the same id, takes the place of `old`: one commit, with `also` (or NULL).
 * The old one is removed then, and cannot be claimed or stored any more. Call it claimed.
 */
bool replications_replace(struct replications *rs, struct replication *old,
                          struct replication *with, const struct state_write *also,
                          struct error **err);

struct replication *
replication_new(enum replication_side side, const char *id, const char *vm_uuid,
                const char *vm_name, const char *peer_id);
void replication_ref(struct replication *r);
void replication_unref(struct replication *r);
static inline void
replication_free(struct replication *r)
{
    replication_unref(r);
}
DEFINE_AUTOPTR(replication);

/* Waits until nobody works on it. stop_worker: asks whoever does to stop. */
bool replication_claim(struct replication *r, struct cancel *cancel, bool stop_worker,
                       struct error **err);
/* Waits for the same; whoever comes next may stop `worker`, not the one who waits. */
bool replication_claim_for(struct replication *r, struct cancel *worker,
                           struct cancel *cancel, struct error **err);
/* Stops whoever works on it, and is not to be stopped by whoever comes next. */
bool replication_seize(struct replication *r, struct cancel *cancel, struct error **err);

/* False at once if somebody works on it. */
bool replication_try_claim(struct replication *r, struct cancel *cancel);
void replication_release(struct replication *r);

/* Makes it durable as it is now, together with other writes. Under r->lock. */
bool replication_store(struct replications *rs, struct replication *r,
                       const struct state_write *more, size_t n_more, struct error **err);

/* The error of the last try, or that there is none. Takes e over. */
void replication_set_error(struct replication *r, struct error *e);

/* The name under which what changed since that point is recorded; "" without one. */
const char *replication_record(const struct replication_point *p);

/* Under r->lock. */
void replication_rename(struct replication *r, const char *name);
void replication_set_peer(struct replication *r, const char *peer_id);

/* As it is stored; from another host's only after its members were checked. */
struct json_object *replication_to_doc(const struct replication *r);
bool
replication_from_doc(struct json_object *o, struct replication **ret, struct error **err);

struct log_ctx replication_log(const struct replication *r);

/* ERROR_INVALID_STATE unless `operation` ("pause") is allowed now. Under r->lock. */
bool replication_allows(struct replication *r, const char *operation, struct error **err);

#endif
