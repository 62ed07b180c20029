/* What cycle.c, cycle_blobs.c and cycle_sync.c share: one cycle under way. */
#ifndef DAEMON_CYCLE_PRIVATE_H
#define DAEMON_CYCLE_PRIVATE_H

#include "daemon/cycle.h"
#include "daemon/cycle_verify.h"
#include "daemon/exchange.h"
#include "daemon/latency.h"
#include "daemon/stream.h"
#include "daemon/traffic.h"

/* A small file that belongs to the point. */
struct cycle_blob {
    const char *name;
    char *data;
    size_t length;
};

struct cycle {
    struct daemon *daemon;
    struct replication *r;
    struct cancel *cancel;
    struct log_ctx log;
    struct hv_domain *domain;
    enum capture_kind kind;
    struct capture_driver *driver; /* of this cycle */
    uint64_t generation;           /* of the images of a VM that is off; 0: unknown */
    /* The same of each of `disks`. */
    uint64_t generations[WIRE_MAX_DISKS];
    bool moved; /* a disk has another image than the newest point: a snapshot, say */
    const char *replaced; /* a disk whose image is not what the VM left; NULL: none */
    int64_t looked_ms;    /* when it was looked at, wall clock */
    struct capture_disk *disks; /* that are replicated, targets borrowed from domain */
    uint64_t capacities[WIRE_MAX_DISKS];
    size_t n_disks;
    struct stream *stream;
    struct traffic_flow flow; /* what it may send, and when */
    struct capture *capture;
    int64_t time_ms;              /* when the point was captured */
    bool consistent;              /* the guest was frozen then */
    bool is_measured;             /* what it costs the guest */
    struct latency_sample writes; /* of the guest before the capture */
    uint32_t n_frames;            /* sent between BEGIN and END */
    uint64_t data_bytes;          /* of them, content as read from the disks */
    bool comparing;               /* this slice: looked_bytes is what has been done */
    uint64_t looked_bytes;        /* content that was read and compared */
    struct cycle_blob blobs[WIRE_MAX_BLOBS]; /* in the order of BEGIN */
    size_t n_blobs;
    bool has_secrets;            /* the VM needs some... */
    bool takes_secrets;          /* ...and the target wants them */
    uint64_t blobs_hash;         /* of what the point has beside the disks */
    struct cycle_verify *verify; /* NULL: only a cycle */
};

void
cycle_fill_begin(struct cycle *c, enum exchange_kind kind, struct exchange_begin *ret);
bool
cycle_begin_exchange(struct cycle *c, const struct exchange_begin *begin,
                     enum wire_type answer, struct json_object **ret, struct error **err);

/* Drops a named point, whichever driver made it. */
bool cycle_forget(struct daemon *d, struct replication *r, const char *name,
                  struct error **err);

/* In cycle_disks.c. The domain, its disks, the driver for them. */
bool cycle_look_at_domain(struct cycle *c, struct error **err);

/* Had the newest point this disk already? A disk that came since has no record. */
bool cycle_had_disk(struct replication *r, const char *target);

/* Are they those of the newest point? A disk that came, went or grew is a change. */
bool cycle_has_same_disks(struct cycle *c);

/* A VM that is off: its images are what they were at the newest point. */
bool cycle_is_unchanged(const struct cycle *c);

/*
 * The disk whose image changed while the VM was off, and not by it, so that its record
 * may not be of it; NULL: none. Once a sync that does not trust records is stored,
 * accept.
 */
const char *cycle_replaced(const struct cycle *c);
void cycle_accept_replaced(const struct cycle *c);

/* base, name: "" is none. */
void cycle_fill_request(struct cycle *c, const char *base, const char *name,
                        struct capture_request *ret);

/* Has each disk at the captured point the size that BEGIN has told? */
bool cycle_check_sizes(struct cycle *c, struct error **err);

/*
 * The small files that belong to a point: announced in BEGIN; read once the disks are
 * captured, so that a disk never speaks of what the TPM does not know; sent behind the
 * disks.
 */
void cycle_name_blobs(struct cycle *c, struct exchange_begin *begin);
bool cycle_read_blobs(struct cycle *c, struct error **err);
bool cycle_send_blobs(struct cycle *c, struct error **err);
void cycle_drop_blobs(struct cycle *c);
uint64_t cycle_hash_blobs(struct cycle *c);

/* Content that is captured goes into frames of c->stream. */
void cycle_fill_sink(struct cycle *c, struct capture_sink *ret);

/* In cycle_records.c; the first three under r->lock. */
/* The capture shall forget this name; "": none. */
void cycle_add_stale(struct replication *r, const char *name);
/* A point that another one follows: its record goes, unless that one stands on it. */
void cycle_retire(struct replication *r, const struct replication_point *p,
                  const struct replication_point *next);
/* A point that came to nothing; without a record of its own nothing is left of it. */
void cycle_drop(struct replication *r, struct replication_point *p);
/* Forgets what is stale; what cannot be forgotten now stays on the list. */
void cycle_forget_stale(struct cycle *c);
/* Each is a bitmap in the VM's images, which must not fill them up cycle by cycle. */
bool cycle_check_stale(struct cycle *c, struct error **err);

/* A VM that came from another host: the target takes from us, and what was recorded under
   our points' names is made known to libvirt here. */
bool cycle_take_over(struct cycle *c, struct error **err);

/* The resync that is due must not begin yet. */
bool cycle_waits(struct cycle *c);

/* The part of a slice that compares: [from, to) of a disk, what differs goes to the sink.
 */
bool cycle_compare(struct cycle *c, size_t disk, uint64_t from, uint64_t to,
                   const struct capture_sink *sink, struct error **err);

/* While the capture is open; once its point is durable. */
bool cycle_verify_read(struct cycle *c, struct error **err);
bool cycle_verify_ask(struct cycle *c, struct error **err);

/* The disks as they are now, for info and for the next cycle. Under r->lock. */
void cycle_remember_disks(struct cycle *c);

/* The next slice of the first sync; *ret_more: it is not complete yet. */
bool cycle_slice(struct cycle *c, bool *ret_more, struct error **err);

/* What the capture costs the guest: called before it begins, and when it has ended. */
void cycle_latency_begin(struct cycle *c);
void cycle_latency_end(struct cycle *c);
/* Nothing was captured: that costs nothing. */
void cycle_latency_idle(struct cycle *c);

#endif
