/*
 * Image files: sparse raw ones, and qcow2 ones that are changed with qemu-img. No process
 * may have them open.
 *
 * Paths are relative to the store's folder. Files are durable on return, their
 * names not yet: fsync the folder that holds them. Any thread.
 */
#ifndef DRIVERS_STORE_IMAGE_H
#define DRIVERS_STORE_IMAGE_H

#include <stdint.h>

#include "common/error.h"
#include "drivers/store/pace.h"
#include "drivers/store_types.h"

/*
 * An empty image. backing (NULL: none) goes into the header as it is: absolute,
 * or relative to the image's own folder; it is not opened. The names tell the
 * formats (layout_is_raw()).
 */
bool image_create(int folder, const char *path, uint64_t capacity_bytes,
                  const char *backing, struct error **err);

/* An empty qcow2 image on an image of that format, which is not opened. */
bool image_create_on(int folder, const char *path, uint64_t capacity_bytes,
                     const struct store_original *original, struct error **err);

/* A persistent dirty bitmap in a qcow2 image that records from when a VM opens it, in
   units of 64 KiB as libvirt's checkpoints do. What is below is not opened. */
bool image_record(int folder, const char *path, const char *bitmap, struct error **err);

/* Larger, never smaller. What is below is not opened, and must be no longer than it. */
bool
image_grow(int folder, const char *path, uint64_t capacity_bytes, struct error **err);

/* Are a qcow2 image's tables sound? ERROR_CHECKSUM: no. What is only wasted is not
   looked at. It may be open for reading elsewhere. */
bool image_check(int folder, const char *path, struct pace *pace, struct error **err);

/* As image_check(), and gives back what only takes space: what was left by a process
   that was killed while it wrote. */
bool image_reclaim(int folder, const char *path, struct pace *pace, struct error **err);

/* Names another image in the header as the one below (NULL: none); neither is read. */
bool image_rebase(int folder, const char *path, const char *backing, struct error **err);

/*
 * Writes what an image itself holds into the one below it, grown if it is
 * smaller; zeroes become holes there. `image` is QEMU's description of both
 * ("json:{...}"). The one above stays as it is, also when this is stopped.
 */
bool image_commit(int folder, const char *image, struct pace *pace, struct error **err);

#endif
