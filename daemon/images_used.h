/*
 * Which images are in use: those that a domain or a replica has, and all that these stand
 * on, so that what is beside them can go. Plain lists of paths; any thread.
 */
#ifndef DAEMON_IMAGES_USED_H
#define DAEMON_IMAGES_USED_H

#include "common/mem.h"
#include "drivers/hypervisor.h"

struct images_used {
    char **paths;
    size_t n;
};

/* Its disks and variables. ERROR_STORE: an image cannot be read, so nothing is known. */
bool images_used_by_domain(struct images_used *u, const struct hv_domain *domain,
                           struct error **err);

/* A replica's folder; nobody may use it the while. */
bool
images_used_by_replica(struct images_used *u, const char *folder, struct error **err);

/* Removes what a store has made in that folder, but for them (drivers/store/remains.h).
 */
bool images_used_remove_others(const struct images_used *u, const char *folder,
                               struct error **err);

void images_used_clear(struct images_used *u);

#endif
