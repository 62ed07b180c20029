/*
 * Where in the files of its layers the content of a disk lies.
 *
 * Reads the tables of the layers from their files, the highest first. A fold may run
 * meanwhile: it writes only what the layer above hides. The tip's tables are in its file
 * as of its last flush: of what was written since then the caller asks the storage
 * daemon. Belongs to one thread, and is good for the layout that it was made of.
 */
#ifndef DRIVERS_STORE_LAYER_MAP_H
#define DRIVERS_STORE_LAYER_MAP_H

#include "drivers/store/layout.h"

struct layer_map;

/* Opens the layers of d from `bottom` on, which stands alone or on the original. disks:
 * their folder. */
bool layer_map_open(int disks, const struct layout_disk *d, size_t bottom,
                    struct layer_map **ret, struct error **err);
void layer_map_free(struct layer_map *m);
DEFINE_AUTOPTR(layer_map);

enum layer_run_kind {
    LAYER_ZERO,
    LAYER_FILE,  /* at `at` of a file, which may end before: with zeroes then */
    LAYER_OTHER, /* only the storage daemon can read it */
};

struct layer_run {
    enum layer_run_kind kind;
    uint64_t offset, length; /* on the disk */
    int fd;                  /* the map's */
    uint64_t at;
};

/*
 * Tells where [offset, offset + length) is, in the disk's order and in runs as long as
 * they can be. offset is a multiple of LAYER_GRAIN, and so is where each run begins.
 */
#define LAYER_GRAIN (64u << 10)
typedef bool (*layer_run_fn)(void *opaque, const struct layer_run *run,
                             struct error **err);
bool layer_map_each(const struct layer_map *m, uint64_t offset, uint64_t length,
                    layer_run_fn fn, void *opaque, struct error **err);

#endif
