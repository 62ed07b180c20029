/*
 * Which images lie on each other, by what their headers say: nothing else is read, and
 * QEMU may have them open. Any thread.
 */
#ifndef DRIVERS_STORE_BACKING_H
#define DRIVERS_STORE_BACKING_H

#include <stddef.h>

#include "common/error.h"

#define BACKING_MAX_CHAIN 1024 /* images below one another */

/* The image below a qcow2 image, its path made whole; NULL: none. fd: of the image. The
   caller frees. */
char *backing_of(int fd, const char *path);

/* An image and all below it, the highest first; the caller frees each and *ret. One that
   is described in QEMU's own way ("json:") ends it. ERROR_STORE: one cannot be opened. */
bool backing_chain(const char *path, char ***ret, size_t *ret_n, struct error **err);
void backing_chain_free(char **chain, size_t n);

#endif
