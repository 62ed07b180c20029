/*
 * The state of a VM's images while nobody has them open, as one number: two that
 * are equal mean that nothing was written in between.
 *
 * Of files: which file, its size and the times of its last changes, and the same
 * of the images below it. Of block devices: which device, and how much has been
 * written to it since this boot. Reads a few bytes of each image. Any thread.
 */
#ifndef DRIVERS_CAPTURE_GENERATION_H
#define DRIVERS_CAPTURE_GENERATION_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/* Never 0. ERROR_STORE: an image cannot be looked at. */
bool generation_of(const char *const *paths, size_t n, uint64_t *ret, struct error **err);

/* The same of one image, and only of what it holds: it stays what it is when the owner or
   the rights of a file change, as libvirt does for each VM that has it below its disk. */
bool generation_of_content(const char *path, uint64_t *ret, struct error **err);

#endif
