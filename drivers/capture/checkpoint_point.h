/*
 * One libvirt checkpoint: is it there, what changed since, drop it.
 *
 * Owns nothing. May block; any thread. Errors as in drivers/capture.h.
 */
#ifndef DRIVERS_CAPTURE_CHECKPOINT_POINT_H
#define DRIVERS_CAPTURE_CHECKPOINT_POINT_H

#include <libvirt/libvirt.h>

#include "drivers/capture.h"

/* ERROR_INVALID_STATE if the domain has no process. */
bool checkpoint_point_check_active(virDomainPtr domain, struct error **err);

/*
 * Does libvirt know it, and if not, is its bitmap there on all disks that have a record?
 * Then libvirt is told of it anew: it forgets checkpoints with a definition that is
 * removed. ERROR_CHECKPOINT_LOST if there is none of that name.
 */
bool checkpoint_point_exists(virDomainPtr domain, const char *name,
                             const struct capture_disk *disks, size_t n_disks,
                             struct error **err);

bool checkpoint_point_changed(virDomainPtr domain, const char *name,
                              const struct capture_disk *disks, size_t n_disks,
                              uint64_t *ret_bytes, struct error **err);

bool checkpoint_point_forget(virDomainPtr domain, const char *name, struct error **err);

/*
 * As sweep() of the driver. Of a domain that is off only what libvirt knows of them goes:
 * their bitmaps stay in the images.
 */
bool checkpoint_point_sweep(virDomainPtr domain, const struct capture_sweep *sweep,
                            size_t *ret_n, struct error **err);

/* Makes libvirt know a checkpoint whose bitmaps came with the domain. */
bool checkpoint_point_adopt(virDomainPtr domain, const char *name,
                            const struct capture_disk *disks, size_t n_disks,
                            struct error **err);

/* Makes it forget one without touching bitmaps; the domain may be off. */
bool checkpoint_point_disown(virDomainPtr domain, const char *name, struct error **err);

#endif
