/* What cycle.c, cycle_blobs.c and cycle_sync.c share: one cycle under way. */
#ifndef DAEMON_CYCLE_PRIVATE_H
#define DAEMON_CYCLE_PRIVATE_H

#include "daemon/cycle.h"
#include "daemon/exchange.h"
#include "daemon/stream.h"

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
    struct capture_disk *disks; /* that are replicated, targets borrowed from domain */
    uint64_t capacities[WIRE_MAX_DISKS];
    size_t n_disks;
    struct stream *stream;
    struct capture *capture;
    int64_t time_ms;                         /* when the point was captured */
    bool consistent;                         /* the guest was frozen then */
    uint32_t n_frames;                       /* sent between BEGIN and END */
    uint64_t data_bytes;                     /* of them, content as read from the disks */
    struct cycle_blob blobs[WIRE_MAX_BLOBS]; /* in the order of BEGIN */
    size_t n_blobs;
    bool has_secrets;    /* the VM needs some... */
    bool takes_secrets;  /* ...and the target wants them */
    uint64_t blobs_hash; /* of what the point has beside the disks */
};

void
cycle_fill_begin(struct cycle *c, enum exchange_kind kind, struct exchange_begin *ret);
bool
cycle_begin_exchange(struct cycle *c, const struct exchange_begin *begin,
                     enum wire_type answer, struct json_object **ret, struct error **err);

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

/* The disks as they are now, for info and for the next cycle. Under r->lock. */
void cycle_remember_disks(struct cycle *c);

/* The next slice of the first sync; *ret_more: it is not complete yet. */
bool cycle_slice(struct cycle *c, bool *ret_more, struct error **err);

#endif
