/*
 * What a replica's folder holds: its disks' layers, its marks, how far it has come.
 *
 * layout.json is the one commit record of a store. It is replaced as a whole,
 * so that all disks change at the same instant; a file that it does not name
 * is what a crash left behind. A struct layout is plain data: one owner may change it,
 * and several may hold it (layout_ref()) once nobody does any more.
 */
#ifndef DRIVERS_STORE_LAYOUT_H
#define DRIVERS_STORE_LAYOUT_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/error.h"
#include "drivers/store.h"

#define LAYOUT_FILE       "layout.json"
#define LAYOUT_VERSION    2
#define LAYOUT_MIN_LAYERS 2 /* of a disk: the tip is on something */
#define LAYOUT_MAX_LAYERS 1000
#define LAYOUT_NAME_MAX   80 /* of a layer's or a blob's file */
#define LAYOUT_PATH_MAX   96
#define LAYOUT_FORMAT_MAX 16

/* The image of somebody else that a disk's first layer stands on. */
struct layout_original {
    char *path; /* absolute; NULL: there is none */
    char format[LAYOUT_FORMAT_MAX];
    uint64_t size_bytes;  /* of its file, or of the device */
    uint64_t fingerprint; /* generation_of_content() */
};

struct layout_disk {
    char target[STORE_TARGET_MAX];
    uint64_t capacity_bytes;
    struct layout_original original; /* layers[0] is always empty if there is one */
    char (*layers)[LAYOUT_NAME_MAX]; /* oldest first, the tip last */
    size_t n_layers;
};

struct layout_blob {
    char name[LAYOUT_NAME_MAX];
    char file[LAYOUT_NAME_MAX]; /* in aux/ */
    uint64_t size_bytes;
    uint64_t hash; /* XXH3-64 */
};

/* What one disk looked like at a mark: the layer that shows it. */
struct layout_view {
    char target[STORE_TARGET_MAX];
    char layer[LAYOUT_NAME_MAX];
    uint64_t capacity_bytes;
};

/* A sealed moment of all disks. */
struct layout_mark {
    uint64_t seq;
    bool base; /* no journal leads to it: behind direct writes, of whole disks or of what
                  differed; clusters_each() knows which layers cover those below */
    struct layout_view *views;
    size_t n_views;
    struct layout_blob *blobs;
    size_t n_blobs;
};

/* A fold that was begun: upper's content is being put into lower. */
struct layout_fold {
    char target[STORE_TARGET_MAX]; /* "": none */
    char lower[LAYOUT_NAME_MAX];
    char upper[LAYOUT_NAME_MAX];
};

struct layout {
    atomic_uint refs; /* besides its first owner */
    struct layout_disk *disks;
    size_t n_disks;
    struct layout_blob *blobs; /* of the newest applied point */
    size_t n_blobs;
    struct layout_mark *marks; /* seq ascending */
    size_t n_marks;
    uint64_t applied;
    uint64_t applying; /* a seq that may be in the tip in part; 0: none */
    bool direct;       /* the tip holds what no journal can rebuild */
    struct layout_fold fold;
};

/* Gives one reference back. */
void layout_free(struct layout *l);
DEFINE_AUTOPTR(layout);
struct layout *layout_ref(struct layout *l);

struct layout *layout_copy(const struct layout *l);

/* Reads and checks layout.json in the folder at; nothing of a damaged one is believed. */
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

/* Copies; d has none yet. */
void layout_set_original(struct layout_disk *d, const struct layout_original *original);

/* Adds the blob, or replaces the one of its name. */
void layout_set_blob(struct layout *l, const struct layout_blob *blob);

/* The file that a disk's next layer gets: "vda.0001.qcow2"; the first: "vda.0000.raw",
   unless it is on an original. */
void layout_next_file(const struct layout_disk *d, char ret[LAYOUT_NAME_MAX]);

/* A sparse file with the disk's bytes, as the first layer is; the others are qcow2. */
bool layout_is_raw(const char *file);

/* Where a layer is, relative to the store's folder. */
void layout_path(const char *file, char ret[LAYOUT_PATH_MAX]);

/* The index of a layer in d; n_layers if it is not there. */
size_t layout_layer_index(const struct layout_disk *d, const char *file);

/* Is it the file of a layer, or a blob of the newest point or of a mark? */
bool layout_has_layer(const struct layout *l, const char *file);
bool layout_has_blob_file(const struct layout *l, const char *file);

/* Names that come from outside and become file names. ERROR_PROTOCOL. */
bool layout_check_disk(const char *target, uint64_t capacity_bytes, struct error **err);
bool layout_check_blob(const char *name, struct error **err);
bool layout_check_original(const char *path, const char *format, struct error **err);

#endif
