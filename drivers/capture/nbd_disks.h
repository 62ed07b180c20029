/*
 * The disks of one capture, each an export of one NBD server on a unix socket
 * that is called as the disk's target. Belongs to the capture's thread.
 */
#ifndef DRIVERS_CAPTURE_NBD_DISKS_H
#define DRIVERS_CAPTURE_NBD_DISKS_H

#include "drivers/capture/nbd_reader.h"

struct nbd_disks;

/* bitmap: how the bitmap of a disk's export is called; the caller frees the name. */
struct nbd_disks *nbd_disks_new(const struct capture_request *request, const char *socket,
                                char *(*bitmap)(const char *target));
void nbd_disks_set_keeper(struct nbd_disks *d, struct nbd_keeper keeper);
void nbd_disks_free(struct nbd_disks *d);
DEFINE_AUTOPTR(nbd_disks);

/* Stay the object's. What changed, or all of it if the request says so... */
struct nbd_reader *nbd_disks_at(struct nbd_disks *d, size_t disk);

/* ...and all that the disk holds. */
struct nbd_reader *nbd_disks_whole(struct nbd_disks *d, size_t disk);

#endif
