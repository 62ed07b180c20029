/*
 * Image files: sparse raw ones, and qcow2 ones that are made and grown with
 * qemu-img. No process may have them open.
 *
 * Paths are relative to the store's folder. Files are durable on return, their
 * names not yet: fsync the folder that holds them. Any thread.
 */
#ifndef DRIVERS_STORE_IMAGE_H
#define DRIVERS_STORE_IMAGE_H

#include <stdint.h>

#include "common/error.h"

/*
 * An empty image. backing (NULL: none) goes into the header as it is: absolute,
 * or relative to the image's own folder; it is not opened. The names tell the
 * formats (layout_is_raw()).
 */
bool image_create(int folder, const char *path, uint64_t capacity_bytes,
                  const char *backing, struct error **err);

bool
image_grow(int folder, const char *path, uint64_t capacity_bytes, struct error **err);

#endif
