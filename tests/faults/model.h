/*
 * What the disks must hold at each point: the same in each run and in each
 * process, made from the point's number alone.
 *
 * Before point 1 lies a first sync, before point MODEL_RESYNC a resync, which
 * writes all of the disks anew. Point MODEL_GROWN finds a disk larger, point
 * MODEL_IDLE changes nothing.
 *
 * Points from MODEL_HOME on are of a replica that stands on original images. The
 * first of them is what those hold; the next one comes after a sync that writes only
 * what differs. One thread.
 */
#ifndef TESTS_FAULTS_MODEL_H
#define TESTS_FAULTS_MODEL_H

#include <stdbool.h>

#include "common/error.h"
#include "drivers/store_types.h"

#define MODEL_DISKS  2
#define MODEL_RESYNC 8
#define MODEL_GROWN  6
#define MODEL_IDLE   5
#define MODEL_HOME   100 /* behind it */
#define MODEL_BEFORE (MODEL_HOME + 1)

struct model {
    struct store_disk disks[MODEL_DISKS];
    uint8_t *bytes[MODEL_DISKS];
};

/* One write; data NULL: zeroes. */
typedef bool (*model_fn)(size_t disk, uint64_t offset, const void *data, size_t length,
                         void *opaque, struct error **err);

/* The disks as point seq finds them; 0: as the first sync does. */
void model_disks(uint64_t seq, struct store_disk ret[MODEL_DISKS]);

/* What the original image of a disk holds; fn gets all of it, zeroes too. */
bool model_original(size_t disk, model_fn fn, void *opaque, struct error **err);
uint64_t model_original_bytes(size_t disk); /* less than the disk's, for one */

/* The direct writes that come before point seq; none for most. */
bool model_has_sync(uint64_t seq);
bool model_sync(uint64_t seq, model_fn fn, void *opaque, struct error **err);

/* The writes of point seq's journal. */
bool model_delta(uint64_t seq, model_fn fn, void *opaque, struct error **err);

/* The whole content at point seq. */
struct model *model_new(uint64_t seq);
void model_free(struct model *m);
DEFINE_AUTOPTR(model);

uint64_t model_hash(const struct model *m);

/* Are these the disk's bytes? *ret_at is where not. */
bool model_is(const struct model *m, size_t disk, const uint8_t *bytes, uint64_t n,
              uint64_t *ret_at);

#endif
