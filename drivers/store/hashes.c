#include "drivers/store/hashes.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "common/block_hash.h"
#include "drivers/store/folder.h"

#define READ_BYTES (256u << 10)

/* A range this short is read without asking whether it is zero: that takes as long. */
#define ASK_BYTES (1u << 20)

/* One range, and where its hashes go. */
struct part {
    struct store_range range;
    uint64_t block_bytes;
    uint8_t *ret;
    uint64_t done; /* zeroes: hashed up to here, an offset on the disk */
};

bool
hashes_check(const struct layout_disk *d, const struct store_hashing *what,
             struct error **err)
{
    for (size_t i = 0; i < what->n_ranges; i++) {
        const struct store_range *range = &what->ranges[i];

        if (range->offset > d->capacity_bytes ||
            range->length > d->capacity_bytes - range->offset ||
            range->offset % what->block_bytes != 0)
            return error_set(err, ERROR_PROTOCOL,
                             "%llu bytes at %llu are no blocks of disk '%s'",
                             (unsigned long long)range->length,
                             (unsigned long long)range->offset, d->target);
    }
    return true;
}

static uint8_t *
place_of(const struct part *p, uint64_t offset)
{
    return p->ret + (offset - p->range.offset) / p->block_bytes * BLOCK_HASH_BYTES;
}

/* data begins with a block and ends with one, or with the range. */
static void
hash_data(void *opaque, uint64_t offset, const void *data, size_t length)
{
    const struct part *p = opaque;
    const uint8_t *at = data;

    while (length > 0) {
        size_t n = MIN(length, p->block_bytes);

        block_hash(at, n, place_of(p, offset));
        at += n;
        offset += n;
        length -= n;
    }
}

static void
hash_zeroes(const struct part *p, uint64_t from, uint64_t to)
{
    while (from < to) {
        uint64_t n = MIN(to - from, p->block_bytes);

        block_hash_zero(n, place_of(p, from));
        from += n;
    }
}

static uint64_t
end_of(const struct part *p)
{
    return p->range.offset + p->range.length;
}

/* The whole blocks within [from, to), which the range's end ends too. */
static void
shrink_to_blocks(const struct part *p, uint64_t *from, uint64_t *to)
{
    *from = (*from + p->block_bytes - 1) / p->block_bytes * p->block_bytes;
    if (*to < end_of(p))
        *to = *to / p->block_bytes * p->block_bytes;
}

static struct part *
make_parts(const struct store_hashing *what, uint8_t *ret)
{
    struct part *parts = mem_alloc(what->n_ranges, sizeof *parts);

    for (size_t i = 0; i < what->n_ranges; i++) {
        const struct store_range *range = &what->ranges[i];

        parts[i] = (struct part){ .range = *range,
                                  .block_bytes = what->block_bytes,
                                  .ret = ret,
                                  .done = range->offset };
        ret += block_hash_count(range->length, what->block_bytes) * BLOCK_HASH_BYTES;
    }
    return parts;
}

/* --- the base ----------------------------------------------------------------------- */

/* The file ends where nothing but zeroes was written behind it. */
static bool
read_fully(int fd, uint8_t *buffer, size_t length, uint64_t offset, struct error **err)
{
    while (length > 0) {
        ssize_t n = pread(fd, buffer, length, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return folder_errno(err, "read the base at %llu", (unsigned long long)offset);
        if (n == 0) {
            memset(buffer, 0, length);
            return true;
        }
        buffer += n;
        offset += (uint64_t)n;
        length -= (size_t)n;
    }
    return true;
}

/* Where data may be, from `from` on; the range's end if there is none. */
static uint64_t
next_data(int fd, const struct part *p, uint64_t from)
{
    off_t at = lseek(fd, (off_t)from, SEEK_DATA);

    if (at < 0)
        return errno == ENXIO ? end_of(p) : from; /* it cannot tell: read all */
    return MIN((uint64_t)at / p->block_bytes * p->block_bytes, end_of(p));
}

static bool
hash_file(int fd, const struct part *p, struct error **err)
{
    AUTOFREE(uint8_t) *buffer = mem_alloc(1, READ_BYTES);
    uint64_t at = p->range.offset;

    while (at < end_of(p)) {
        uint64_t data = MAX(next_data(fd, p, at), at);
        size_t n = (size_t)MIN(end_of(p) - data, READ_BYTES);

        hash_zeroes(p, at, data);
        if (n > 0 && !read_fully(fd, buffer, n, data, err))
            return false;
        hash_data((void *)p, data, buffer, n);
        at = data + n;
    }
    return true;
}

bool
hashes_of_base(struct replica *r, const struct layout_disk *d,
               const struct store_hashing *what, uint8_t *ret, struct error **err)
{
    AUTOFREE(struct part) *parts = make_parts(what, ret);
    char path[LAYOUT_PATH_MAX];
    AUTOFD(fd) = -1;

    layout_path(d->layers[0], path);
    fd = openat(r->fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return folder_errno(err, "open '%s'", path);
    if (!base_settle(&r->base, err))
        return false;
    for (size_t i = 0; i < what->n_ranges; i++)
        if (!hash_file(fd, &parts[i], err))
            return error_prefix(err, "disk '%s'", d->target);
    return true;
}

/* --- the tip ------------------------------------------------------------------------ */

/* Between two runs of zeroes is what has to be read. */
struct gaps {
    struct part *part;
    struct store_range *items;
    size_t n;
};

static void
add_gap(struct gaps *g, uint64_t to)
{
    if (to <= g->part->done)
        return;
    g->items = mem_realloc(g->items, g->n + 1, sizeof *g->items);
    g->items[g->n++] = (struct store_range){ g->part->done, to - g->part->done };
    g->part->done = to;
}

static void
on_zero(void *opaque, uint64_t offset, uint64_t length)
{
    struct gaps *g = opaque;
    uint64_t from = offset, to = offset + length;

    shrink_to_blocks(g->part, &from, &to);
    if (from >= to)
        return;
    add_gap(g, from);
    hash_zeroes(g->part, from, to);
    g->part->done = to;
}

/* Asks for all of the range that is not zero; the answers come later. */
static bool
read_range(struct tip *t, size_t disk, struct part *p, const struct tip_reader *reader,
           struct error **err)
{
    struct gaps gaps = { .part = p };
    const struct tip_zeroes zeroes = { on_zero, &gaps };
    bool ok = p->range.length < ASK_BYTES ||
              tip_find_zeroes(t, disk, &zeroes, p->range.offset, p->range.length, err);

    if (ok)
        add_gap(&gaps, end_of(p));
    for (size_t i = 0; ok && i < gaps.n; i++)
        ok = tip_read(t, disk, reader, gaps.items[i].offset, gaps.items[i].length, err);
    free(gaps.items);
    return ok;
}

bool
hashes_of_tip(struct replica *r, size_t disk, const struct store_hashing *what,
              uint8_t *ret, struct error **err)
{
    AUTOFREE(struct part) *parts = make_parts(what, ret);
    AUTOFREE(struct tip_reader) *readers = mem_alloc(what->n_ranges, sizeof *readers);
    bool ok = true;

    for (size_t i = 0; ok && i < what->n_ranges; i++) {
        readers[i] = (struct tip_reader){ hash_data, &parts[i] };
        ok = read_range(r->tip, disk, &parts[i], &readers[i], err);
    }
    ok = ok && tip_settle(r->tip, err);
    if (!ok) /* before what is under way loses the memory that it writes to */
        replica_drop_tip(r);
    return ok;
}
