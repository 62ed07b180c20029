/* The parts of a replication's state that belong together; plain data. */
#ifndef DAEMON_REPLICATION_TYPES_H
#define DAEMON_REPLICATION_TYPES_H

#include <stdbool.h>
#include <stdint.h>

#include "drivers/capture.h"

#define REPLICATION_SAMPLES 512

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
    uint64_t generation; /* as in a point, at the sync's */
    uint64_t done_bytes; /* sent so far, as read from the disks */
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

/* The last scrub of a replica; times 0: none. */
struct replication_scrub {
    int64_t started_ms, ended_ms;
    uint64_t checked_bytes;
    uint64_t damages; /* that it found */
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

#endif
