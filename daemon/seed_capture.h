/*
 * The disks of a VM that is not replicated, at one moment, into the images of an export.
 *
 * As a first sync: in slices, each a short capture, so that the scratch space stays
 * bounded however slow the medium is; then what has changed since the first one began,
 * which makes them one moment. A VM that is off is read in one piece. At [upkeep] rate.
 * Both names have been stored by the caller (I6). Blocks; one thread.
 */
#ifndef DAEMON_SEED_CAPTURE_H
#define DAEMON_SEED_CAPTURE_H

#include "daemon/daemon.h"
#include "daemon/op.h"

struct seed_capture {
    struct op *op;
    const char *vm_uuid;
    const char *folder; /* absolute */
    const char *first;  /* the name of the first slice's point; is forgotten at the end */
    const char *record; /* of the point that the images show */
    bool keeps_record;  /* what changes from then on goes on being recorded */
};

/* *ret: {time, recorded, capture, disks[{target, capacity, excluded}]}, the caller's. */
bool seed_capture_run(const struct seed_capture *s, struct json_object **ret,
                      struct error **err);

/* After a failure or a crash: nothing of it is left on the VM, nor runs. */
bool seed_capture_clean(const struct seed_capture *s, struct error **err);

#endif
