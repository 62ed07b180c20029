/*
 * What a disk's image tells of itself. Nobody is asked: neither libvirt, nor the QEMU
 * that may be writing to it. Any thread.
 */
#ifndef DRIVERS_HYPERVISOR_IMAGE_HEAD_H
#define DRIVERS_HYPERVISOR_IMAGE_HEAD_H

#include <stdbool.h>
#include <stdint.h>

struct image_head {
    uint32_t qcow2_version;  /* 0: it is no qcow2 image */
    uint64_t capacity_bytes; /* that a guest sees of all of it */
};

/* False if it cannot be read, or is neither "qcow2" nor "raw". */
bool image_head_read(const char *path, const char *format, struct image_head *ret);

#endif
