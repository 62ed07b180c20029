/*
 * The hash by which two hosts find out which blocks of a disk differ: XXH3-128 of
 * https://github.com/Cyan4973/xxHash (seed 0) in its canonical form, big endian.
 *
 * It guards against chance, not against malice: both sides are paired hosts. Two
 * different blocks have the same one once in 2^128. Any thread.
 */
#ifndef COMMON_BLOCK_HASH_H
#define COMMON_BLOCK_HASH_H

#include <stddef.h>
#include <stdint.h>

#define BLOCK_HASH_BYTES  16
#define BLOCK_HASH_COARSE (64u << 10) /* blocks that are compared first */
#define BLOCK_HASH_FINE   (4u << 10)  /* within those that differ */

void block_hash(const void *data, size_t n, uint8_t ret[BLOCK_HASH_BYTES]);

/* Of n bytes of zero, at most BLOCK_HASH_COARSE. */
void block_hash_zero(size_t n, uint8_t ret[BLOCK_HASH_BYTES]);

/* Into how many blocks so many bytes are divided; the last may be shorter. */
static inline uint64_t
block_hash_count(uint64_t bytes, uint64_t block_bytes)
{
    return bytes / block_bytes + (bytes % block_bytes != 0);
}

#endif
