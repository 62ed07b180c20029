/*
 * Ends a capture's job before its scratch space runs out.
 *
 * A full scratch file fails the guest's own writes. A thread per open capture
 * looks at what the job uses and at the file system every 100 ms, and aborts the
 * job once more than the limit is used or less than 5 % or 64 MiB is free; also when
 * it is in somebody's way.
 */
#ifndef DRIVERS_CAPTURE_SCRATCH_WATCH_H
#define DRIVERS_CAPTURE_SCRATCH_WATCH_H

#include <stdint.h>

#include "common/error.h"

struct scratch_watch;

/* Is there room to begin with? ERROR_SCRATCH_FULL, ERROR_STORE. */
bool scratch_watch_has_room(const char *folder, struct error **err);

/* The job, as the watching thread sees it. */
struct scratch_watch_job {
    /* False: it cannot be told now. */
    bool (*used)(void *opaque, uint64_t *ret_bytes);
    /* Is it still the caller's own? No other is ever aborted. */
    bool (*is_ours)(void *opaque);
    void (*abort)(void *opaque);
    /* A sentence if the job has to make way for somebody else's, who cannot wait for it;
       NULL: never. */
    char *(*gives_way)(void *opaque);
    void *opaque; /* outlives the watch */
};

struct scratch_watch_settings {
    struct scratch_watch_job job;
    const char *folder; /* copied */
    uint64_t limit_bytes;
};

bool scratch_watch_start(const struct scratch_watch_settings *settings,
                         struct scratch_watch **ret, struct error **err);

/* True if all is well; ERROR_SCRATCH_FULL or ERROR_JOB_BUSY if it had to abort the job.
 */
bool scratch_watch_check(struct scratch_watch *w, struct error **err);

/* Ends the thread; whether it had aborted the job can still be asked. */
void scratch_watch_stop(struct scratch_watch *w);

void scratch_watch_free(struct scratch_watch *w);
DEFINE_AUTOPTR(scratch_watch);

#endif
