/* The numbered block: what the guest writes and the checker looks for.
 *
 * A run is one endless sequence of blocks 1, 2, 3, ... written strictly one after the
 * other, each durable before the next is begun. Block n goes to disk n mod D; the place
 * on that disk is a fixed pseudo-random permutation, so places are used again when the
 * numbers wrap. From the highest number that is found, it follows which number every
 * other place must hold.
 *
 * Slot 0 of each disk holds a superblock that says what run this is. Slots 1 .. slots
 * hold blocks. This file owns the format only: no input, no output, no allocation. Any
 * thread may call it. */

#ifndef LAB_BLOCK_H
#define LAB_BLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define BLOCK_BYTES     4096
#define BLOCK_DISKS_MAX 16

struct block_run {
    uint64_t id;      /* random, names the run */
    uint64_t slots;   /* places for blocks on each disk, the superblock not counted */
    uint64_t started; /* guest's real time, ns */
    uint32_t disks;
};

enum block_kind {
    BLOCK_EMPTY,   /* all zero */
    BLOCK_VALID,   /* a whole block of this run */
    BLOCK_FOREIGN, /* a whole block of another run */
    BLOCK_TORN,    /* anything else: written in part, or damaged */
};

struct block_info {
    uint64_t number;
    uint64_t time_ns;
    uint32_t disk;
};

/* Fills `block` (BLOCK_BYTES bytes). `half` leaves half of the payload compressible. */
void block_make(const struct block_run *run, uint64_t number, uint64_t time_ns, bool half,
                unsigned char *block);

/* Says what `block` is; `ret_info` is set for BLOCK_VALID. */
enum block_kind block_look(const struct block_run *run, const unsigned char *block,
                           struct block_info *ret_info);

void block_make_super(const struct block_run *run, uint32_t disk, unsigned char *block);

/* False if this is not a whole superblock with values that make sense. */
bool block_look_super(const unsigned char *block, struct block_run *ret_run,
                      uint32_t *ret_disk);

bool block_is_zero(const unsigned char *block);

/* Where block `number` lives: its disk, and below its slot there. */
uint32_t block_disk(const struct block_run *run, uint64_t number);

/* The permutation on each disk is `offset + turn * stride`; turn is number / disks,
 * modulo slots. */
struct block_order {
    uint64_t stride;
    uint64_t offset;
};

struct block_order block_order(const struct block_run *run);
uint64_t
block_slot(const struct block_run *run, struct block_order order, uint64_t number);

#endif
