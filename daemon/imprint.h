/*
 * What the images of a VM were when nobody had them open: their generations, beside its
 * guard record. libvirt's hook writes an imprint when the VM has ended and compares when
 * it starts, so that an image which was put back or changed in between is known, whether
 * virtdrd ran or not; virtdrd writes one of a VM that is off and has none.
 *
 * Only of images that keep bitmaps: of others nothing is recorded that could be wrong.
 * Files UUID.images and UUID.changed, lines "TARGET GENERATION". Owns nothing; any
 * thread, and the hook. What is written is durable.
 */
#ifndef DAEMON_IMPRINT_H
#define DAEMON_IMPRINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define IMPRINT_MAX_DISKS 64
#define IMPRINT_TARGET    32

struct imprint {
    struct {
        char target[IMPRINT_TARGET];
        uint64_t generation;
    } disks[IMPRINT_MAX_DISKS];
    size_t n;
};

/* Adds a disk as its image is now, unless that keeps no bitmaps or cannot be read. */
void imprint_add(struct imprint *i, const char *target, const char *path);

/* 0: the disk is not in it. */
uint64_t imprint_of(const struct imprint *i, const char *target);

/* folder: of the guard's records. ERROR_STATE. */
bool imprint_write(const char *folder, const char *uuid, const struct imprint *i,
                   struct error **err);

/* False: there is none (or none that makes sense). */
bool imprint_read(const char *folder, const char *uuid, struct imprint *ret);

/*
 * The VM starts with its images as in `now`: what differs from the imprint is noted as
 * changed, and the imprint ends, as the VM will write to them.
 */
bool imprint_start(const char *folder, const char *uuid, const struct imprint *now,
                   struct error **err);

/* The disks that starts have found changed; false: none. */
bool imprint_changed(const char *folder, const char *uuid, struct imprint *ret);

/* Somebody has drawn the consequences of that. */
bool imprint_accept(const char *folder, const char *uuid, struct error **err);

bool imprint_remove(const char *folder, const char *uuid, struct error **err);

#endif
