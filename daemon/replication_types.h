/* What a replication remembers of its work; plain data, stored in its document. */
#ifndef DAEMON_REPLICATION_TYPES_H
#define DAEMON_REPLICATION_TYPES_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/id.h"
#include "drivers/capture.h"

#define REPLICATION_SAMPLES 512
#define REPLICATION_REASON  240 /* bytes of a sentence that is kept */

/* A point in time of the VM as both sides name it; name "" is none. */
struct replication_point {
    char name[CAPTURE_NAME_MAX + 1];
    uint64_t sequence;
    int64_t time_ms; /* when it was captured */

    /* Source. The point since which is recorded what changed; "": itself. A capture of
       a VM that is off makes no record, so the one before goes on (replication_record).
     */
    char record[CAPTURE_NAME_MAX + 1];
    uint64_t generation; /* of the images if it was off (generation.h); 0: it ran */
};

/* Where a first sync (or a resync) is. Disks in the order of their names. */
struct replication_sync {
    char name[CAPTURE_NAME_MAX + 1]; /* the point that it began with; "" none */
    char target[32];                 /* next disk... */
    uint64_t offset;                 /* ...and byte on it */
    bool complete;
    bool compare;        /* source: only what differs from the replica is sent */
    uint64_t generation; /* as in a point, at the sync's */
    uint64_t done_bytes; /* read from the disks so far: sent, or compared */
    uint64_t total_bytes;
    int64_t started_ms;
};

/* Which points the guest's agent is asked to prepare (consistency.h). */
struct consistency {
    uint32_t every_cycles; /* one of so many; 0: not by count */
    int64_t every_ms;      /* 0: not by time */
    int64_t last_ms;       /* wall clock, of the last one */
    /* Not stored: */
    uint32_t cycles; /* since the last one */
    unsigned failures;
    int64_t next_try_ms; /* wall clock; 0: when it is due */
    char why[256];       /* of the last failure; "" none */
};

struct replication_stats {
    uint64_t cycles, failures;
    uint64_t changed_bytes, wire_bytes;
    uint64_t first_sync_bytes;
    int64_t first_sync_ms;
    int64_t rpo_seen_ms; /* the oldest that the newest point ever was */
    uint64_t last_bytes; /* of the newest point */
    int64_t last_ms;
    uint32_t samples_ms[REPLICATION_SAMPLES]; /* of cycles; not stored */
    uint64_t n_samples;
};

/* The last scrub of a replica; times 0: none. */
struct replication_scrub {
    int64_t started_ms, ended_ms;
    uint64_t checked_bytes;
    uint64_t damages; /* that it found */
};

/* The last resync of a source, without the delta that ended it; times 0: none. */
struct replication_resync {
    int64_t started_ms, ended_ms; /* ended before started: under way, or waiting */
    bool compare;
    bool records; /* of both sides told what differs: nothing was compared */
    bool at_once; /* the operator said so: it waits for no window */
    /* Nothing is captured before (wall clock): the VM is about to be reverted to a
       snapshot, which bitmaps would make fail. 0: no. */
    int64_t held_until_ms;
    uint64_t looked_bytes; /* read from the disks */
    uint64_t sent_bytes;   /* of them, because they differed */
    uint64_t wire_bytes;   /* that it took, both ways */
    char reason[REPLICATION_REASON];
};

/* The last verification by a source; times 0: none. */
struct replication_verify {
    int64_t started_ms, ended_ms;
    bool complete; /* all of the disks were compared */
    uint64_t compared_bytes, different_bytes;
    uint64_t differences; /* places */
};

/* A VM that live migration, or an administrator, took to another host. */
struct replication_move {
    char from[ID_TEXT]; /* the host that offered it to us, until the target has confirmed
                           that we are the source now; "" */
    char to[ID_TEXT];   /* where it was handed over to; "" */
    bool adopt;         /* what is recorded under our points' names came along with it */
};

/* "same", "different", "unfinished": what was not compared counts as neither. */
const char *replication_verify_outcome(const struct replication_verify *verify);

struct json_object *replication_scrub_doc(const struct replication_scrub *scrub);
struct json_object *replication_resync_doc(const struct replication_resync *resync);
struct json_object *replication_verify_doc(const struct replication_verify *verify);
struct json_object *replication_move_doc(const struct replication_move *move);

/* o may be NULL: nothing is changed then. */
void replication_scrub_parse(struct json_object *o, struct replication_scrub *ret);
void replication_resync_parse(struct json_object *o, struct replication_resync *ret);
void replication_verify_parse(struct json_object *o, struct replication_verify *ret);
void replication_move_parse(struct json_object *o, struct replication_move *ret);

#endif
