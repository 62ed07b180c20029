/*
 * What a replica's folder holds: its disks' layers and how far it has come.
 *
 * layout.json is the one commit record of a store. It is replaced as a whole,
 * so that all disks change at the same instant; a file that it does not name
 * is what a crash left behind. A struct layout is plain data with one owner.
 */
#ifndef DRIVERS_STORE_LAYOUT_H
#define DRIVERS_STORE_LAYOUT_H

#include <stdint.h>

#include "common/error.h"
#include "drivers/store.h"

#define LAYOUT_FILE       "layout.json"
#define LAYOUT_VERSION    1
#define LAYOUT_MAX_LAYERS 1000
#define LAYOUT_NAME_MAX   80 /* of a layer's or a blob's file */

struct layout_disk {
    char target[STORE_TARGET_MAX];
    uint64_t capacity_bytes;
    char (*layers)[LAYOUT_NAME_MAX]; /* oldest first, the tip last */
    size_t n_layers;
};

struct layout_blob {
    char name[LAYOUT_NAME_MAX];
    char file[LAYOUT_NAME_MAX]; /* in aux/ */
};

struct layout {
    struct layout_disk *disks;
    size_t n_disks;
    struct layout_blob *blobs;
    size_t n_blobs;
    uint64_t applied;
    uint64_t applying; /* a seq that may be in the tip in part; 0: none */
};

void layout_free(struct layout *l);
DEFINE_AUTOPTR(layout);

struct layout *layout_copy(const struct layout *l);

/* Reads and checks layout.json in the folder at. */
bool layout_load(int at, struct layout **ret, struct error **err);

/* Durable when it returns true. */
bool layout_save(const struct layout *l, int at, struct error **err);

/* NULL if there is none. */
struct layout_disk *layout_find(const struct layout *l, const char *target);
struct layout_blob *layout_find_blob(const struct layout *l, const char *name);

/* Appends; the target or name must be valid and new. */
struct layout_disk *
layout_add_disk(struct layout *l, const char *target, uint64_t capacity_bytes);
void layout_add_layer(struct layout_disk *d, const char *file);

/* Adds the blob or replaces its file. */
void layout_set_blob(struct layout *l, const char *name, const char *file);

/* The file that the next layer of a disk gets: "vda.0001.qcow2"; the first:
 * "vda.0000.raw". */
void layout_next_file(const struct layout_disk *d, char ret[LAYOUT_NAME_MAX]);

/* The first layer of a disk is a sparse file with the disk's bytes, the others are qcow2.
 */
bool layout_is_raw(const char *file);

/* Is it the file of a layer or a blob? */
bool layout_has_layer(const struct layout *l, const char *file);
bool layout_has_blob_file(const struct layout *l, const char *file);

/* Names that come from outside and become file names. ERROR_PROTOCOL. */
bool layout_check_disk(const char *target, uint64_t capacity_bytes, struct error **err);
bool layout_check_blob(const char *name, struct error **err);

#endif
