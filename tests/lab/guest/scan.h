/* Reads the disks of a run and says which of its blocks they hold.
 *
 * Used by the guest at its start and by the checker on the host, so both mean the same by
 * "torn" and "order". Owns a table of one number per slot while it runs; never writes to
 * a disk. */

#ifndef LAB_SCAN_H
#define LAB_SCAN_H

#include "block.h"

struct scan_disk {
    int fd;           /* open for reading, O_DIRECT or not */
    const char *name; /* for messages */
};

struct scan_result {
    struct block_run run;
    uint64_t highest;        /* 0: the run has no block yet */
    uint64_t newest_time_ns; /* guest's real time in block `highest` */
    uint64_t held;           /* slots that hold what they should */
    uint64_t missing;        /* numbers that their slot should hold, and does not */
    uint64_t order; /* of these: not torn, so a later block is there without this one */
    uint64_t first_missing; /* lowest of them, 0 if none */
    uint64_t torn;          /* blocks and superblocks that are neither whole nor empty */
    uint64_t misplaced;     /* whole blocks of this run in a place that is not theirs */
    uint64_t foreign;       /* whole blocks of another run */
    uint64_t disk_highest[BLOCK_DISKS_MAX];
};

enum scan_status {
    SCAN_OK,     /* a run was found; look at the counters */
    SCAN_NO_RUN, /* no superblock on any disk */
    SCAN_FAILED, /* could not be told; `message` says why */
};

/* `message` has room for `message_size` bytes and is written on SCAN_FAILED. */
enum scan_status
scan_disks(const struct scan_disk *disks, uint32_t n_disks, struct scan_result *ret,
           char *message, unsigned message_size);

/* No torn block, none misplaced, and every block before the highest is there. */
bool scan_is_consistent(const struct scan_result *result);

#endif
