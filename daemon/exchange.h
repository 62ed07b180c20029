/*
 * The JSON of BEGIN, READY, END and ACK: one exchange on a stream.
 *
 *   source                                            target
 *   BEGIN {replication, epoch, kind, sequence, point, parent, disks, blobs}
 *                          READY {epoch, phase, newest{...}, sync{...}, compare}
 *   DATA, ZERO, BLOB, WANT ...
 *                                             HASHES, one for each WANT
 *   END {timestamp, frames[, target, offset, complete, consistent]}
 *                                             ACK {sequence, point}
 *
 * "verify" has only WANT and HASHES between READY and END, about the parent. "query"
 * ends with READY; "touch" has no data and no READY: its BEGIN carries
 * the timestamp and is answered with ACK. An ERROR frame ends any exchange.
 * Plain data; any thread.
 */
#ifndef DAEMON_EXCHANGE_H
#define DAEMON_EXCHANGE_H

#include <json-c/json.h>
#include <stdint.h>

#include "common/error.h"
#include "daemon/replication.h"

enum exchange_kind {
    EXCHANGE_QUERY,  /* what do you have? */
    EXCHANGE_SLICE,  /* a part of a first sync, straight into the tip */
    EXCHANGE_DELTA,  /* a recovery point, into the journal */
    EXCHANGE_TOUCH,  /* nothing changed: the newest point's time moves on */
    EXCHANGE_VERIFY, /* what are the hashes of the newest point's disks? */
};

struct exchange_disk {
    char target[32];
    uint64_t capacity_bytes;
};

struct exchange_begin {
    char replication[ID_TEXT];
    uint64_t epoch;
    enum exchange_kind kind;
    uint64_t sequence;                 /* delta: of the new point */
    char point[CAPTURE_NAME_MAX + 1];  /* delta: its name; slice: the sync's */
    char parent[CAPTURE_NAME_MAX + 1]; /* delta, touch: the point it builds on */
    int64_t time_ms;                   /* touch */
    bool compare;                      /* slice: hashes are asked for, differences come */
    struct exchange_disk disks[WIRE_MAX_DISKS];
    size_t n_disks;
    char blobs[WIRE_MAX_BLOBS][33];
    size_t n_blobs;
};

/* What the target has. */
struct exchange_ready {
    uint64_t epoch;
    struct replication_point newest;
    struct replication_sync sync;
    bool compare; /* it has content that the disks can be compared with */
    bool secrets; /* it takes the keys that the VM needs */
};

struct exchange_end {
    int64_t time_ms; /* when the point was captured */
    uint32_t frames; /* from BEGIN to END, both counted */
    char target[32]; /* slice: where the next one begins... */
    uint64_t offset;
    bool complete;   /* ...or that there is none */
    bool consistent; /* delta: the guest was frozen when it was captured */
};

/* A disk's name becomes part of file names at the target. */
bool exchange_target_is_valid(const char *target);

struct json_object *exchange_begin_json(const struct exchange_begin *b);
struct json_object *exchange_ready_json(const struct exchange_ready *r);
struct json_object *exchange_end_json(const struct exchange_end *e);

/* Every member is checked; ERROR_PROTOCOL names the one that is wrong. */
bool exchange_begin_parse(struct json_object *o, struct exchange_begin *ret,
                          struct error **err);
bool exchange_ready_parse(struct json_object *o, struct exchange_ready *ret,
                          struct error **err);
bool
exchange_end_parse(struct json_object *o, struct exchange_end *ret, struct error **err);

#endif
