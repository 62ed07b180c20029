/*
 * Checksums of a layer from any bytes, as they are and with the file's own hash
 * made right: what is taken fits itself, and is the same when it is saved again.
 */
#include <stdbool.h>
#include <string.h>
#include <xxhash.h>

#include "drivers/store/sums.h"
#include "tests/fuzz/file.h"

#define LAYER   "vda.0001.qcow2"
#define FILE_   LAYER SUMS_SUFFIX
#define AT_HASH 40 /* in the file's header of 48 bytes */

#define must(condition)   \
    do {                  \
        if (!(condition)) \
            abort();      \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
use(struct sums *s)
{
    must(s->n == s->size / SUMS_BLOCK_BYTES + (s->size % SUMS_BLOCK_BYTES != 0));
    (void)sums_complete(s);
    sums_forget(s, s->size / 2, SUMS_BLOCK_BYTES);
    sums_forget(s, s->size, UINT32_MAX);
    sums_forget_all(s);
    must(s->n == 0 || !sums_complete(s));
}

static void
take(const uint8_t *data, size_t n)
{
    int at = fuzz_put(FILE_, data, n);
    struct sums *s = NULL, *again = NULL;

    if (sums_load(at, LAYER, &s, NULL) && s != NULL) {
        must(sums_save(at, LAYER, s, NULL) && sums_load(at, LAYER, &again, NULL));
        must(again != NULL && again->n == s->n && sums_equal(s, again));
        use(s);
        sums_free(again);
    }
    sums_free(s);
    fuzz_remove(FILE_);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    AUTOFREE(char) *copy = mem_memdup(data, n);
    uint64_t hash;

    take(data, n);
    if (n < AT_HASH + sizeof hash)
        return 0;
    memset(copy + AT_HASH, 0, sizeof hash);
    hash = XXH3_64bits(copy, n);
    for (size_t i = 0; i < sizeof hash; i++)
        copy[AT_HASH + i] = (char)(hash >> 8 * i);
    take((const uint8_t *)copy, n);
    return 0;
}
