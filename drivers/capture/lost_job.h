/*
 * What is left in QEMU of a backup that libvirt has begun and then lost.
 *
 * libvirtd, killed while it begins a backup, remembers afterwards that the domain has
 * one, but not which: it cannot be ended, nor another be begun, until the domain is
 * shut down and libvirtd restarted. QEMU may have its jobs all the same, which go on
 * filling scratch images. Owns nothing. May block; any thread, one at a time for a
 * domain.
 */
#ifndef DRIVERS_CAPTURE_LOST_JOB_H
#define DRIVERS_CAPTURE_LOST_JOB_H

#include <libvirt/libvirt.h>

#include "common/error.h"

/*
 * Ends the jobs, exports and nodes whose scratch images are called `stem` in `folder`,
 * and then the server at `socket`. True if there are none. Files stay.
 */
bool lost_job_end(virDomainPtr domain, const char *folder, const char *stem,
                  const char *socket, struct error **err);

#endif
