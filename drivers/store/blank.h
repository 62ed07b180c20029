/*
 * Empty qcow2 images, written here: a process of qemu-img for each would be most of what
 * a seal or an overlay costs. Version 3, clusters of 64 KiB, 16 bits of references, as
 * docs/interop/qcow2.txt of QEMU has it. Any thread.
 */
#ifndef DRIVERS_STORE_BLANK_H
#define DRIVERS_STORE_BLANK_H

#include <stdint.h>

#include "common/error.h"
#include "drivers/store_types.h"

#define BLANK_MAX_BYTES (64ull << 40)

/*
 * Makes the empty file fd such an image; path is for messages. `below` (NULL: nothing)
 * goes into the header as it is, and is not opened. Not durable yet.
 * ERROR_UNSUPPORTED_DISK: above BLANK_MAX_BYTES. ERROR_PROTOCOL: a name too long.
 */
bool blank_write(int fd, const char *path, uint64_t capacity_bytes,
                 const struct store_original *below, struct error **err);

#endif
