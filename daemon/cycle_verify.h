/*
 * Verifying: are the replica's disks, at one point in time, the same as the source's?
 *
 * In slices. Each is a cycle whose capture stays open a little longer: a part of the
 * disks is read as it is at that point, changed or not, and hashed. The capture ends,
 * the point becomes durable and is applied at the target, and then the target is asked
 * for the hashes of its own. Nothing that the guest writes meanwhile matters, and the
 * guest's job is never open while the network or the target is waited for.
 */
#ifndef DAEMON_CYCLE_VERIFY_H
#define DAEMON_CYCLE_VERIFY_H

#include "daemon/cycle.h"

#define CYCLE_VERIFY_DIFFERENCES 16 /* that are kept; all are counted */

struct cycle_difference {
    char target[32];
    uint64_t offset, length;
};

/* Zeroed memory is one that has not begun. One thread's. */
struct cycle_verify {
    uint64_t slice_bytes; /* at most so much in one slice */
    int64_t slice_ms;     /* and for so long is the capture open */
    char target[32];      /* where the next slice begins; "": the first disk */
    uint64_t offset;
    bool complete;
    uint64_t compared_bytes;
    uint64_t different_bytes; /* in whole coarse blocks */
    struct cycle_difference differences[CYCLE_VERIFY_DIFFERENCES];
    size_t n_differences;
    struct cycle_verify_window *windows; /* of the slice under way */
    size_t n_windows;
};

/*
 * The next slice, and a point with it; v moves on only if all of it was compared. The
 * caller has claimed the replication. ERROR_INVALID_STATE: there is no point to compare
 * with, or the capture cannot do it.
 */
bool cycle_verify(struct daemon *d, struct replication *r, struct cancel *cancel,
                  struct cycle_verify *v, struct error **err);

#endif
