/*
 * Scratch images: empty qcow2 files that QEMU fills with what the guest is about
 * to overwrite.
 *
 * Written by store/blank.h, not by a process or a job of QEMU: a cycle makes one for
 * each disk. Not durable, on purpose. The file belongs to whoever owns its folder, so
 * that a QEMU that is not root can open it. Owns nothing; any thread.
 */
#ifndef DRIVERS_CAPTURE_SCRATCH_IMAGE_H
#define DRIVERS_CAPTURE_SCRATCH_IMAGE_H

#include <stdint.h>

#include "common/error.h"
#include "drivers/store/blank.h"

#define SCRATCH_IMAGE_MAX_BYTES BLANK_MAX_BYTES

/* Replaces what is there. ERROR_STORE; ERROR_UNSUPPORTED_DISK above 64 TiB. */
bool scratch_image_create(const char *folder, const char *path, uint64_t capacity_bytes,
                          struct error **err);

#endif
