/* Hashes of the tip, against those of the models. */
#ifndef TESTS_UNIT_HASHES_KIT_H
#define TESTS_UNIT_HASHES_KIT_H

#include "common/block_hash.h"
#include "tests/unit/store_kit.h"

static void
assert_hashes(struct place *p, const struct kit_model *m,
              const struct store_hashing *what)
{
    AUTOFREE(uint8_t) *found = NULL;
    struct error *err = NULL;
    size_t n = 0, at = 0;

    for (size_t i = 0; i < what->n_ranges; i++)
        n += block_hash_count(what->ranges[i].length, what->block_bytes);
    found = mem_alloc(n + 1, BLOCK_HASH_BYTES);
    memset(found, 0x5a, (n + 1) * BLOCK_HASH_BYTES);
    assert_ok(ops->hashes(p->s, what, found, &err), err);
    for (size_t i = 0; i < what->n_ranges; i++) {
        uint64_t end = what->ranges[i].offset + what->ranges[i].length;

        for (uint64_t o = what->ranges[i].offset; o < end; o += what->block_bytes, at++) {
            uint8_t wanted[BLOCK_HASH_BYTES];

            block_hash(m->bytes + o, MIN(what->block_bytes, end - o), wanted);
            if (memcmp(wanted, found + at * BLOCK_HASH_BYTES, sizeof wanted) != 0)
                fail_msg("disk %s: another hash at %llu", m->disk.target,
                         (unsigned long long)o);
        }
    }
    for (size_t i = 0; i < BLOCK_HASH_BYTES; i++) /* and nothing behind the last */
        assert_int_equal(found[n * BLOCK_HASH_BYTES + i], 0x5a);
}

/* All of each disk, in windows and as a list of blocks in any order. */
static void
assert_all_hashes(struct place *p)
{
    for (size_t i = 0; i < p->n; i++) {
        const struct kit_model *m = &p->models[i];
        const struct store_range all = { 0, m->disk.capacity_bytes };
        const uint64_t last = (m->disk.capacity_bytes - 1) / 65536 * 65536;
        const struct store_range some[] = { { 65536, 65536 },
                                            { last, m->disk.capacity_bytes - last },
                                            { 0, 65536 } };
        struct store_hashing what = { m->disk.target, &all, 1, BLOCK_HASH_COARSE };

        assert_hashes(p, m, &what);
        what.block_bytes = BLOCK_HASH_FINE;
        assert_hashes(p, m, &what);
        what.ranges = some;
        what.n_ranges = N_ELEMENTS(some);
        assert_hashes(p, m, &what);
    }
}

#endif
