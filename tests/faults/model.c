#include "tests/faults/model.h"

#include <string.h>
#include <xxhash.h>

#include "common/mem.h"

#define VDA_BYTES       (2u << 20)
#define VDB_BYTES       ((1u << 19) + 512)
#define VDB_GROWN_BYTES (1u << 20)
#define CHUNK           (128u << 10)
#define SECTOR          512u
#define N_WRITES        5 /* of a point, or of a sync that sends differences */

/* splitmix64 (public domain, Vigna): each number from a counter alone. */
static uint64_t
next(uint64_t *seed)
{
    uint64_t z = (*seed += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static void
fill(uint64_t *seed, void *data, size_t n)
{
    uint64_t *words = data;

    for (size_t i = 0; i < n / sizeof *words; i++)
        words[i] = next(seed);
}

void
model_disks(uint64_t seq, struct store_disk ret[MODEL_DISKS])
{
    ret[0] = (struct store_disk){ .target = "vda", .capacity_bytes = VDA_BYTES };
    ret[1] = (struct store_disk){
        .target = "vdb",
        .capacity_bytes = seq % MODEL_HOME >= MODEL_GROWN ? VDB_GROWN_BYTES : VDB_BYTES,
    };
}

bool
model_has_sync(uint64_t seq)
{
    return seq == 1 || seq == MODEL_RESYNC || seq == MODEL_BEFORE + 1;
}

uint64_t
model_original_bytes(size_t disk)
{
    return disk == 0 ? VDA_BYTES : VDB_BYTES - SECTOR;
}

/* All of a disk: every other chunk is data, the others are zeroes. */
static bool
sync_disk(uint64_t seed, size_t disk, uint64_t capacity, model_fn fn, void *opaque,
          struct error **err)
{
    static _Thread_local uint64_t data[CHUNK / sizeof(uint64_t)];

    for (uint64_t at = 0; at < capacity; at += CHUNK) {
        size_t n = MIN(CHUNK, capacity - at);
        bool has_data = next(&seed) % 2 == 0;

        if (has_data)
            fill(&seed, data, n);
        if (!fn(disk, at, has_data ? data : NULL, n, opaque, err))
            return false;
    }
    return true;
}

bool
model_original(size_t disk, model_fn fn, void *opaque, struct error **err)
{
    return sync_disk(MODEL_HOME * 1000 + disk, disk, model_original_bytes(disk), fn,
                     opaque, err);
}

/* Some writes on the disks that point seq finds. */
static bool
write_some(uint64_t seq, uint64_t seed, model_fn fn, void *opaque, struct error **err)
{
    static _Thread_local uint64_t data[CHUNK / sizeof(uint64_t)];
    struct store_disk disks[MODEL_DISKS];

    model_disks(seq, disks);
    for (size_t i = 0; i < N_WRITES; i++) {
        size_t disk = i % MODEL_DISKS;
        uint64_t capacity = disks[disk].capacity_bytes;
        uint64_t offset = next(&seed) % (capacity / SECTOR) * SECTOR;
        size_t length = (size_t)(1 + next(&seed) % (CHUNK / SECTOR)) * SECTOR;
        bool has_data = i != 2;

        length = (size_t)MIN(length, capacity - offset);
        if (has_data)
            fill(&seed, data, length);
        if (!fn(disk, offset, has_data ? data : NULL, length, opaque, err))
            return false;
    }
    return true;
}

bool
model_sync(uint64_t seq, model_fn fn, void *opaque, struct error **err)
{
    struct store_disk disks[MODEL_DISKS];

    if (!model_has_sync(seq))
        return true;
    if (seq > MODEL_HOME)
        return write_some(seq, seq * 1000, fn, opaque, err);
    model_disks(seq - 1, disks);
    for (size_t i = 0; i < MODEL_DISKS; i++)
        if (!sync_disk(seq * 1000 + i, i, disks[i].capacity_bytes, fn, opaque, err))
            return false;
    return true;
}

bool
model_delta(uint64_t seq, model_fn fn, void *opaque, struct error **err)
{
    return seq % MODEL_HOME == MODEL_IDLE || write_some(seq, seq * 7919, fn, opaque, err);
}

/* --- the whole ---------------------------------------------------------------------- */

static bool
store_bytes(size_t disk, uint64_t offset, const void *data, size_t length, void *opaque,
            struct error **err UNUSED)
{
    struct model *m = opaque;

    if (data != NULL)
        memcpy(m->bytes[disk] + offset, data, length);
    else
        memset(m->bytes[disk] + offset, 0, length);
    return true;
}

static void
write_all(struct model *m, uint64_t first, uint64_t last)
{
    for (uint64_t i = first; i <= last; i++) {
        model_sync(i, store_bytes, m, NULL);
        model_delta(i, store_bytes, m, NULL);
    }
}

struct model *
model_new(uint64_t seq)
{
    struct model *m = NEW(struct model);

    /* Large enough for all that comes; what a disk does not have yet stays zero. */
    model_disks(MODEL_GROWN, m->disks);
    for (size_t i = 0; i < MODEL_DISKS; i++)
        m->bytes[i] = mem_alloc(m->disks[i].capacity_bytes, 1);
    if (seq <= MODEL_HOME) {
        write_all(m, 1, seq);
    } else {
        for (size_t i = 0; i < MODEL_DISKS; i++)
            model_original(i, store_bytes, m, NULL);
        write_all(m, MODEL_BEFORE + 1, seq);
    }
    model_disks(seq, m->disks);
    return m;
}

void
model_free(struct model *m)
{
    if (m == NULL)
        return;
    for (size_t i = 0; i < MODEL_DISKS; i++)
        free(m->bytes[i]);
    free(m);
}

uint64_t
model_hash(const struct model *m)
{
    uint64_t hash = 0;

    for (size_t i = 0; i < MODEL_DISKS; i++)
        hash = XXH3_64bits_withSeed(m->bytes[i], m->disks[i].capacity_bytes, hash);
    return hash;
}

bool
model_is(const struct model *m, size_t disk, const uint8_t *bytes, uint64_t n,
         uint64_t *ret_at)
{
    *ret_at = 0;
    if (n != m->disks[disk].capacity_bytes)
        return false;
    if (memcmp(bytes, m->bytes[disk], n) == 0)
        return true;
    while (bytes[*ret_at] == m->bytes[disk][*ret_at])
        *ret_at += 1;
    return false;
}
