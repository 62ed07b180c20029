/*
 * Whole copies of images: what the guest sees of a chain, as one qcow2 file.
 *
 * Made by qemu-img, which skips what is zero or not allocated. It outlives a
 * crash of ours; image_copy_end_stale() ends what works in the folder then.
 * Any thread. Errors: ERROR_STORE, ERROR_NO_SPACE, ERROR_CANCELLED, ERROR_TIMEOUT.
 */
#ifndef DRIVERS_STORE_IMAGE_COPY_H
#define DRIVERS_STORE_IMAGE_COPY_H

#include <stdint.h>

#include "common/cancel.h"
#include "common/error.h"

struct image_copy {
    int folder;       /* where it works */
    const char *from; /* qcow2, absolute; nobody may be writing it */
    const char *to;   /* relative to the folder; replaced */
    struct cancel *cancel;
    void (*progress)(uint64_t done_bytes, void *opaque); /* written so far */
    void *opaque;
};

/* The file is durable on return, its name not yet. *ret_bytes is what it takes. */
bool image_copy(const struct image_copy *copy, uint64_t *ret_bytes, struct error **err);

/* What a copy of it will take. */
bool
image_copy_measure(int folder, const char *from, uint64_t *ret_bytes, struct error **err);

/* Ends copies that an earlier run has begun in that folder. */
bool image_copy_end_stale(int folder, struct error **err);

#endif
