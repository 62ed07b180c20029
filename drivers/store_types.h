/*
 * What store drivers (store.h) take and give: plain data. Pointers in it are
 * borrowed for the call.
 */
#ifndef DRIVERS_STORE_TYPES_H
#define DRIVERS_STORE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/cancel.h"

#define STORE_TARGET_MAX 32

/*
 * An image, or a block device, of the VM itself that a disk of a replica stands on: the
 * disk shows it, cut or filled with zeroes to the disk's size, wherever nothing else was
 * written. It is read, with the backing files that QEMU finds below it, without QEMU's
 * lock on it, and never written to nor removed. open() does not need it; what reads
 * through it does: ERROR_STORE.
 *
 * If it has changed, all points that show it are void; it is the caller who drops them.
 * accept_originals() takes it as it is now for what the tip stands on, durably: then what
 * the tip shows is to be compared. ERROR_NOT_FOUND: one is gone.
 */
struct store_original {
    const char *path;   /* absolute */
    const char *format; /* as QEMU calls it: "raw", "qcow2" */
};

struct store_disk {
    char target[STORE_TARGET_MAX]; /* "vda" */
    uint64_t capacity_bytes;       /* a multiple of 512 */
    /* For create() only, ERROR_NOT_FOUND if QEMU cannot open it; NULL: it begins empty.
     */
    const struct store_original *stands_on;
};

enum store_original_state {
    STORE_ORIGINAL_NONE,    /* the disk stands on none */
    STORE_ORIGINAL_SAME,    /* as it was when the replica began with it */
    STORE_ORIGINAL_CHANGED, /* or nobody knows: all points that show it are in doubt */
    STORE_ORIGINAL_GONE,    /* or shorter than it was, or QEMU cannot open it */
};

/* A small file of a point, beside its disks. */
struct store_blob {
    const char *name; /* "domain.xml" */
    const void *data;
    size_t length;
};

/* The point that mark_originals() makes: what the originals hold. Disks that stand on
   none are not in it. */
struct store_first {
    uint64_t
        seq; /* not 0; if no direct writes follow, the first journal is the next one */
    const struct store_blob *blobs;
    size_t n_blobs;
};

/*
 * What overlay_create() is to make: images that are each named TARGET.qcow2, and the
 * point's blobs beside them. Journals that no mark holds are replayed into them; for the
 * newest point the tip is sealed. A VM may lock them and what is below. An overlay of
 * that id that exists is returned as it is. Whole or absent. What it stands on is not
 * folded until overlay_remove(). ERROR_CHECKSUM: a journal that is needed is damaged. A
 * point that is not applied yet can be made too, unless direct writes are between.
 *
 * With a seq below applied() it needs nothing of the tip: then it may run beside the
 * tip's functions, and several at once.
 */
struct store_overlay {
    const char *id; /* [a-z0-9-] */
    /* Of another overlay that it is to stand on instead of a point (seq), and which must
       not be removed before it; NULL: none. */
    const char *from;
    uint64_t seq; /* the point; 0: the newest applied */
    /* Each image gets a persistent dirty bitmap of this name (64 KiB), which is empty
       when a VM first opens it: so it records what differs from the point. NULL: none. */
    const char *record;
    struct cancel *cancel;
    /* Bytes of journals replayed so far, of all; NULL: nobody wants to know. */
    void (*progress)(uint64_t done, uint64_t total, void *opaque);
    void *opaque;
};

/* What the files of a store take; a journal counts from its commit to its end. */
struct store_status {
    uint64_t applied;        /* the newest applied seq; 0: none */
    uint64_t marked;         /* seq of the newest mark; 0: none */
    uint64_t unsealed_bytes; /* of the journals applied since it */
    uint64_t journal_bytes;
    uint64_t layer_bytes; /* of the disks' layers, the tips included */
    size_t n_journals;
    size_t n_marks;
    size_t n_layers; /* of the disk that has most */
};

/* How much the upkeep may do; rate 0: no limit. */
struct store_effort {
    uint64_t rate_bytes_s;
    struct cancel *cancel;
    void (*progress)(uint64_t done, uint64_t total, void *opaque); /* or NULL */
    void *opaque;
};

struct store_range {
    uint64_t offset; /* a multiple of the block's size */
    uint64_t length;
};

/*
 * What hashes() is to look at: block_hash() of each block of what the tip shows, direct
 * writes so far included; those of one range behind those of the one before,
 * BLOCK_HASH_BYTES each. The last block of a range may be shorter. What is known to be
 * zero is not read. ERROR_PROTOCOL: a range is not within the disk.
 */
struct store_hashing {
    const char *target;
    const struct store_range *ranges;
    size_t n_ranges;
    uint32_t block_bytes; /* BLOCK_HASH_COARSE or BLOCK_HASH_FINE */
};

/*
 * What adopt() begins a disk with: what the image shows, cut or filled with zeroes to the
 * disk's size; durable. Only before anything was written to it, and nothing may be
 * meanwhile: ERROR_INVALID_STATE. It may run beside all that only looks. Again after a
 * failure, which leaves a part of it. What effort->progress hears is an estimate.
 */
struct seed_image; /* seed_image.h */

/*
 * scrub() reads all journals and sealed layers and compares them with their checksums,
 * and tells what differs. It returns true if all was read, damaged or not; *ret_bytes is
 * how much.
 */

/* Something that its checksum does not fit. Points from first to last need it. */
struct store_damage {
    const char *file; /* relative to the folder */
    uint64_t first, last;
    bool tip;         /* the newest disks need it too: only a resync helps */
    const char *text; /* a sentence: what is wrong where */
};

typedef void (*store_damage_fn)(const struct store_damage *damage, void *opaque);

#endif
