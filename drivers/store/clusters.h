/*
 * What a qcow2 image itself holds, not what shows through it from below.
 *
 * Reads the two levels of tables in the file, which nobody may change
 * meanwhile, but for clusters_look(). Knows only images such as image_create() makes. Any
 * thread. ERROR_CHECKSUM: the tables cannot be right.
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

/* --- one cluster after the other ---------------------------------------------------- */

enum cluster_kind {
    CLUSTER_BELOW, /* what the image below shows */
    CLUSTER_ZERO,
    CLUSTER_DATA,
    CLUSTER_OTHER, /* only QEMU can tell: it is compressed, or ends within the cluster */
};

struct cluster {
    enum cluster_kind kind;
    uint64_t at; /* CLUSTER_DATA: where in the file it begins */
};

/* An image that stays open. Belongs to one thread. */
struct clusters;

bool clusters_open(int at, const char *path, struct clusters **ret, struct error **err);
void clusters_free(struct clusters *c);
DEFINE_AUTOPTR(clusters);

/* To read from; the object's. */
int clusters_fd(const struct clusters *c);
uint64_t clusters_bytes(const struct clusters *c); /* of one cluster */
bool clusters_is_alone(const struct clusters *c);

/*
 * The clusters that [offset, offset + length) lies in; offset is the beginning of one.
 * Beyond its end an image shows zeroes. Somebody may write to the image meanwhile: of a
 * cluster that he does not touch, what is told is right.
 */
bool clusters_look(const struct clusters *c, uint64_t offset, uint64_t length,
                   struct cluster *ret, struct error **err);

#endif
