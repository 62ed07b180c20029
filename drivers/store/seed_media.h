/*
 * A folder that carries a VM's disks to another host: what manifest.json in it says.
 *
 * Each disk is one qcow2 image, TARGET.qcow2, that stands alone. The manifest is written
 * last: a folder without one is not whole. It has a hash of itself and one of each
 * image's file. It comes from outside; each member is checked. Plain data with one owner.
 * Any thread.
 */
#ifndef DRIVERS_STORE_SEED_MEDIA_H
#define DRIVERS_STORE_SEED_MEDIA_H

#include <stdint.h>

#include "common/block_hash.h"
#include "common/error.h"
#include "common/id.h"
#include "common/wire.h"
#include "drivers/capture.h"
#include "drivers/store/pace.h"

#define SEED_MEDIA_MANIFEST "manifest.json"
#define SEED_MEDIA_NAME_MAX 256 /* of a VM or a host */
#define SEED_MEDIA_FILE_MAX (STORE_TARGET_MAX + sizeof ".qcow2")

struct seed_media_disk {
    char target[STORE_TARGET_MAX];
    uint64_t capacity_bytes;
    uint64_t file_bytes;
    uint8_t hash[BLOCK_HASH_BYTES]; /* XXH3-128 of the file */
};

struct seed_media {
    char vm_uuid[ID_TEXT];
    char vm_name[SEED_MEDIA_NAME_MAX];
    char host[SEED_MEDIA_NAME_MAX]; /* that wrote it */
    int64_t time_ms;                /* the one moment of all disks */
    /* The name under which that host records what changed since then; "": it does not. */
    char record[CAPTURE_NAME_MAX + 1];
    struct seed_media_disk disks[WIRE_MAX_DISKS];
    size_t n_disks;
};

/* at is the folder. Durable when it returns true. */
bool seed_media_save(const struct seed_media *m, int at, struct error **err);

/* ERROR_NOT_FOUND: there is no manifest; ERROR_STORE, ERROR_PROTOCOL: it is damaged. */
bool seed_media_load(int at, struct seed_media *ret, struct error **err);

/* "vda.qcow2" */
void seed_media_file(const char *target, char ret[SEED_MEDIA_FILE_MAX]);

/* The hash and size of a whole file, read from its disk and not from memory. */
bool seed_media_hash(int fd, struct pace *pace, uint64_t *ret_bytes,
                     uint8_t ret[BLOCK_HASH_BYTES], struct error **err);

/* Is the file what was written? ERROR_CHECKSUM: no. */
bool seed_media_check(int fd, const struct seed_media_disk *disk, struct pace *pace,
                      struct error **err);

#endif
