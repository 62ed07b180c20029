/*
 * The disks of one capture, each an export of one NBD server on a unix socket
 * that is called as the disk's target; and what is the same in all captures that
 * are read in this way. Belongs to the capture's thread.
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

/* It is known that nothing changed on this disk: measure and read leave it out. */
void nbd_disks_skip(struct nbd_disks *d, size_t disk);

/* The head of a driver's struct capture. */
struct nbd_capture {
    struct capture head;
    struct nbd_disks *disks;
    /* Is it still what it was at begin()? Asked after a failure: why is it not? */
    bool (*check)(struct nbd_capture *c, struct error **err);
};

/* As capture_ops has them, of a struct nbd_capture. */
bool nbd_capture_capacity(struct capture *c, size_t disk, uint64_t *ret_bytes,
                          struct error **err);
bool nbd_capture_measure(struct capture *c, size_t disk, uint64_t from, uint64_t to,
                         uint64_t *ret_bytes, struct error **err);
bool nbd_capture_read(struct capture *c, size_t disk, uint64_t from, uint64_t to,
                      const struct capture_sink *sink, struct error **err);
bool nbd_capture_content(struct capture *c, size_t disk, uint64_t from, uint64_t to,
                         const struct capture_sink *sink, struct error **err);

#endif
