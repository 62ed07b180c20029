/*
 * A replica that begins with the content of an image that is here already.
 *
 * The image is read, never written. A raw one is shared with the base where the file
 * system can do that (reflink), else copied without its zeroes; a qcow2 one is read by
 * qemu-img. As long as that goes on nothing may be written to the replica; the caller
 * sees to it. Works beside everything that only looks. After a crash it is done anew from
 * the beginning.
 */
#ifndef DRIVERS_STORE_SEED_H
#define DRIVERS_STORE_SEED_H

#include "drivers/store/replica.h"
#include "drivers/store/seed_image.h"

/* The op adopt. */
bool seed_adopt(struct replica *r, const char *target, const struct seed_image *image,
                const struct store_effort *effort, struct error **err);

#endif
