#include "common/block_hash.h"

#include <assert.h>
#include <pthread.h>
#include <string.h>

#include "common/xxh3.h"

static const uint8_t zeroes[BLOCK_HASH_COARSE];
static uint8_t coarse_zero[BLOCK_HASH_BYTES], fine_zero[BLOCK_HASH_BYTES];

void
block_hash(const void *data, size_t n, uint8_t ret[BLOCK_HASH_BYTES])
{
    XXH128_canonical_t canonical;

    XXH128_canonicalFromHash(&canonical, XXH3_128bits(data, n));
    memcpy(ret, canonical.digest, BLOCK_HASH_BYTES);
}

static void
make_zero_hashes(void)
{
    block_hash(zeroes, BLOCK_HASH_COARSE, coarse_zero);
    block_hash(zeroes, BLOCK_HASH_FINE, fine_zero);
}

/* Disks are mostly holes: the two usual ones are known. */
void
block_hash_zero(size_t n, uint8_t ret[BLOCK_HASH_BYTES])
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    assert(n <= BLOCK_HASH_COARSE);
    pthread_once(&once, make_zero_hashes);
    if (n == BLOCK_HASH_COARSE)
        memcpy(ret, coarse_zero, BLOCK_HASH_BYTES);
    else if (n == BLOCK_HASH_FINE)
        memcpy(ret, fine_zero, BLOCK_HASH_BYTES);
    else
        block_hash(zeroes, n, ret);
}
