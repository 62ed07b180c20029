/*
 * Checksums of a layer's file: XXH3-64 of each MiB of it, in disks/LAYER.sums.
 *
 * A layer that is sealed changes no more, but for folds: the blocks that a fold
 * may write are made unknown, durably, before it begins. A block that is not
 * known is neither right nor wrong. Holes are not read. `disks` is the open
 * folder of the layers. One thread at a time for each layer.
 *
 * Errors: ERROR_STORE, ERROR_NO_SPACE, ERROR_CANCELLED, ERROR_TIMEOUT, and
 * ERROR_CHECKSUM: the file with the sums itself is damaged.
 */
#ifndef DRIVERS_STORE_SUMS_H
#define DRIVERS_STORE_SUMS_H

#include "common/error.h"
#include "drivers/store/pace.h"

#define SUMS_BLOCK_BYTES (1u << 20)
#define SUMS_SUFFIX      ".sums"

struct sums {
    uint64_t size; /* of the layer's file, in bytes */
    uint64_t n;    /* its blocks; the last may be shorter */
    bool changing; /* a fold was begun: the file may have another size by now */
    bool damaged;  /* a check has found it so, and no fold has written all of it since */
    uint64_t *hashes;
    uint8_t *known; /* a bit for each block */
};

void sums_free(struct sums *s);
DEFINE_AUTOPTR(sums);

struct sums *sums_copy(const struct sums *s);
bool sums_equal(const struct sums *a, const struct sums *b);

/* *ret is NULL if there are none. */
bool sums_load(int disks, const char *layer, struct sums **ret, struct error **err);

/* Damaged ones are none. */
bool
sums_load_or_none(int disks, const char *layer, struct sums **ret, struct error **err);

/* Durable when it returns true. */
bool sums_save(int disks, const char *layer, const struct sums *s, struct error **err);
bool sums_remove(int disks, const char *layer, struct error **err);

/* All blocks known, and no fold under way? */
bool sums_complete(const struct sums *s);
bool sums_know_nothing(const struct sums *s);
void sums_forget(struct sums *s, uint64_t offset, uint64_t length);
void sums_forget_all(struct sums *s);

/* One layer to be read. */
struct sums_job {
    int disks;
    const char *layer;
    struct pace *pace;
};

/*
 * Makes what is not known of a layer, which nobody writes. Damaged sums are made anew;
 * blocks that cannot be read stay unknown. What is done is kept when it is stopped.
 */
bool sums_digest(const struct sums_job *job, struct error **err);

/* What a check found. Blocks that are not known are only counted. */
struct sums_verdict {
    bool missing; /* the layer's file */
    bool resized;
    uint64_t n_damaged;
    uint64_t first_damaged; /* the offset of the first damaged block */
    uint64_t n_unknown;
};

bool sums_found_damage(const struct sums_verdict *v);

/* Keeps in mind that the layer is damaged, whatever its sums say. */
bool sums_blame(const struct sums_job *job, struct error **err);

/* Checks the blocks that are known in s and not in `but` (NULL: all that s knows). */
bool sums_check(const struct sums_job *job, const struct sums *s, const struct sums *but,
                struct sums_verdict *ret, struct error **err);

#endif
