/* The numbered block; see block.h. */

#include "block.h"

#include <string.h>

#define BLOCK_MAGIC 0x314b4c4252445456ULL /* "VTDRBLK1" */
#define SUPER_MAGIC 0x3150555352445456ULL /* "VTDRSUP1" */
#define WORDS       (BLOCK_BYTES / 8)
#define SLOTS_MAX   (1ULL << 40)

/* Word positions in a block. The checksum comes last, so a torn write cannot leave it
 * right. */
enum {
    W_MAGIC,
    W_RUN,
    W_NUMBER,
    W_TIME,
    W_DISK,
    W_DISKS,
    W_SLOTS,
    W_PAYLOAD,
    W_SUM = WORDS - 1
};

static uint64_t
mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

/* FNV-1a over 64 bit words. Each step is a bijection, so a change in one word always
 * shows. */
static uint64_t
checksum(const uint64_t *words)
{
    uint64_t h = 0xcbf29ce484222325ULL;

    for (int i = 0; i < W_SUM; i++) {
        h = (h ^ words[i]) * 0x100000001b3ULL;
        h ^= h >> 29;
    }
    return mix(h);
}

static uint64_t
gcd(uint64_t a, uint64_t b)
{
    while (b != 0) {
        uint64_t rest = a % b;

        a = b;
        b = rest;
    }
    return a;
}

struct block_order
block_order(const struct block_run *run)
{
    struct block_order order = {
        .stride = mix(run->id ^ 1) % run->slots,
        .offset = mix(run->id ^ 2) % run->slots,
    };

    while (order.stride == 0 || gcd(order.stride, run->slots) != 1)
        order.stride = (order.stride + 1) % run->slots;
    return order;
}

uint32_t
block_disk(const struct block_run *run, uint64_t number)
{
    return (uint32_t)(number % run->disks);
}

uint64_t
block_slot(const struct block_run *run, struct block_order order, uint64_t number)
{
    uint64_t turn = number / run->disks % run->slots;
    unsigned __int128 place = (unsigned __int128)turn * order.stride + order.offset;

    return 1 + (uint64_t)(place % run->slots);
}

bool
block_is_zero(const unsigned char *block)
{
    uint64_t words[8], any = 0;

    for (size_t at = 0; at < BLOCK_BYTES && any == 0; at += sizeof(words)) {
        memcpy(words, block + at, sizeof(words));
        for (int i = 0; i < 8; i++)
            any |= words[i];
    }
    return any == 0;
}

void
block_make(const struct block_run *run, uint64_t number, uint64_t time_ns, bool half,
           unsigned char *block)
{
    uint64_t words[WORDS] = { 0 };
    int payload_end = half ? WORDS / 2 : W_SUM;

    words[W_MAGIC] = BLOCK_MAGIC;
    words[W_RUN] = run->id;
    words[W_NUMBER] = number;
    words[W_TIME] = time_ns;
    words[W_DISK] = block_disk(run, number);
    words[W_DISKS] = run->disks;
    words[W_SLOTS] = run->slots;
    for (int i = W_PAYLOAD; i < payload_end; i++)
        words[i] = mix(run->id + number * WORDS + (uint64_t)i);
    words[W_SUM] = checksum(words);
    memcpy(block, words, BLOCK_BYTES);
}

enum block_kind
block_look(const struct block_run *run, const unsigned char *block,
           struct block_info *ret_info)
{
    uint64_t words[WORDS];

    if (block_is_zero(block))
        return BLOCK_EMPTY;
    memcpy(words, block, BLOCK_BYTES);
    if (words[W_MAGIC] != BLOCK_MAGIC || words[W_SUM] != checksum(words))
        return BLOCK_TORN;
    if (words[W_RUN] != run->id)
        return BLOCK_FOREIGN;
    ret_info->number = words[W_NUMBER];
    ret_info->time_ns = words[W_TIME];
    ret_info->disk = (uint32_t)words[W_DISK];
    return BLOCK_VALID;
}

void
block_make_super(const struct block_run *run, uint32_t disk, unsigned char *block)
{
    uint64_t words[WORDS] = { 0 };

    words[W_MAGIC] = SUPER_MAGIC;
    words[W_RUN] = run->id;
    words[W_TIME] = run->started;
    words[W_DISK] = disk;
    words[W_DISKS] = run->disks;
    words[W_SLOTS] = run->slots;
    words[W_SUM] = checksum(words);
    memcpy(block, words, BLOCK_BYTES);
}

bool
block_look_super(const unsigned char *block, struct block_run *ret_run,
                 uint32_t *ret_disk)
{
    uint64_t words[WORDS];

    memcpy(words, block, BLOCK_BYTES);
    if (words[W_MAGIC] != SUPER_MAGIC || words[W_SUM] != checksum(words))
        return false;
    if (words[W_DISKS] == 0 || words[W_DISKS] > BLOCK_DISKS_MAX)
        return false;
    if (words[W_DISK] >= words[W_DISKS] || words[W_SLOTS] < 2 ||
        words[W_SLOTS] > SLOTS_MAX)
        return false;
    ret_run->id = words[W_RUN];
    ret_run->started = words[W_TIME];
    ret_run->disks = (uint32_t)words[W_DISKS];
    ret_run->slots = words[W_SLOTS];
    *ret_disk = (uint32_t)words[W_DISK];
    return true;
}
