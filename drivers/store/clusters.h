/*
 * What a qcow2 image itself holds, not what shows through it from below.
 *
 * Reads the two levels of tables in the file, which nobody may change
 * meanwhile. Knows only images such as image_create() makes. Any thread.
 * ERROR_CHECKSUM: the tables cannot be right.
 */
#ifndef DRIVERS_STORE_CLUSTERS_H
#define DRIVERS_STORE_CLUSTERS_H

#include <stdint.h>

#include "common/error.h"

/* The size of the disk that it shows. */
bool clusters_capacity(int at, const char *path, uint64_t *ret, struct error **err);

/* Has it no table at all, so that all is what is below? Looks at the first level only. */
bool clusters_none(int at, const char *path, bool *ret, struct error **err);

/* Is it on no other image, as its header says? */
bool clusters_alone(int at, const char *path, bool *ret, struct error **err);

/* Does nothing show through it from below? */
bool clusters_cover(int at, const char *path, bool *ret, struct error **err);

/* Calls fn for each range of the disk that the image itself covers, zeroes too, in
   ascending order. */
typedef void (*clusters_fn)(uint64_t offset, uint64_t length, void *opaque);
bool
clusters_each(int at, const char *path, clusters_fn fn, void *opaque, struct error **err);

#endif
