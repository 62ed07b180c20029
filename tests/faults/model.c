#include "tests/faults/model.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "common/mem.h"

#define VDA_BYTES       (4u << 20)
#define VDB_BYTES       ((1u << 20) + 512)
#define VDB_GROWN_BYTES (2u << 20)
#define CHUNK           (128u << 10)
#define SECTOR          512u

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
        .capacity_bytes = seq >= MODEL_GROWN ? VDB_GROWN_BYTES : VDB_BYTES,
    };
}

bool
model_has_sync(uint64_t seq)
{
    return seq == 1 || seq == MODEL_RESYNC;
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
model_sync(uint64_t seq, model_fn fn, void *opaque, struct error **err)
{
    struct store_disk disks[MODEL_DISKS];

    if (!model_has_sync(seq))
        return true;
    model_disks(seq - 1, disks);
    for (size_t i = 0; i < MODEL_DISKS; i++)
        if (!sync_disk(seq * 1000 + i, i, disks[i].capacity_bytes, fn, opaque, err))
            return false;
    return true;
}

bool
model_delta(uint64_t seq, model_fn fn, void *opaque, struct error **err)
{
    static _Thread_local uint64_t data[CHUNK / sizeof(uint64_t)];
    uint64_t seed = seq * 7919;
    struct store_disk disks[MODEL_DISKS];

    if (seq == MODEL_IDLE)
        return true;
    model_disks(seq, disks);
    for (size_t i = 0; i < 5; i++) {
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

struct model *
model_new(uint64_t seq)
{
    struct model *m = NEW(struct model);

    /* Large enough for all that comes; what a disk does not have yet stays zero. */
    model_disks(MAX(seq, MODEL_GROWN), m->disks);
    for (size_t i = 0; i < MODEL_DISKS; i++)
        m->bytes[i] = mem_alloc(m->disks[i].capacity_bytes, 1);
    for (uint64_t i = 1; i <= seq; i++) {
        model_sync(i, store_bytes, m, NULL);
        model_delta(i, store_bytes, m, NULL);
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

static uint64_t
first_difference(const uint8_t *a, const uint8_t *b, uint64_t n)
{
    uint64_t i = 0;

    while (i < n && a[i] == b[i])
        i++;
    return i;
}

bool
model_compare(const struct model *m, size_t disk, int fd, uint64_t *ret_at)
{
    uint64_t n = m->disks[disk].capacity_bytes;
    struct stat st;
    bool same;
    void *map;

    *ret_at = 0;
    if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != n)
        return false;
    map = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return false;
    same = memcmp(map, m->bytes[disk], n) == 0;
    if (!same)
        *ret_at = first_difference(map, m->bytes[disk], n);
    munmap(map, n);
    return same;
}
