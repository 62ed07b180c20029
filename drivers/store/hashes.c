#include "drivers/store/hashes.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "common/block_hash.h"
#include "common/log.h"
#include "drivers/store/folder.h"
#include "drivers/store/layer_map.h"

#define READ_BYTES (256u << 10)

/* A range this short is read without asking whether it is zero: that takes as long. */
#define ASK_BYTES (1u << 20)

/* One range, and where its hashes go. */
struct part {
    struct store_range range;
    uint64_t block_bytes;
    uint8_t *ret;
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

static struct part *
make_parts(const struct store_hashing *what, uint8_t *ret)
{
    struct part *parts = mem_alloc(what->n_ranges, sizeof *parts);

    for (size_t i = 0; i < what->n_ranges; i++) {
        const struct store_range *range = &what->ranges[i];

        parts[i] = (struct part){ .range = *range,
                                  .block_bytes = what->block_bytes,
                                  .ret = ret };
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

/* A part of a disk, and where in a file it is. */
struct piece {
    int fd;
    uint64_t offset, length;
    uint64_t at;
};

/* Where in it data may be, from `from` on; its length if there is none. */
static uint64_t
find_data(const struct part *p, const struct piece *piece, uint64_t from)
{
    off_t at = lseek(piece->fd, (off_t)(piece->at + from), SEEK_DATA);
    uint64_t data;

    if (at < 0)
        return errno == ENXIO ? piece->length : from; /* it cannot tell: read all */
    data = ((uint64_t)at - piece->at) / p->block_bytes * p->block_bytes;
    return MIN(MAX(data, from), piece->length);
}

static bool
hash_piece(const struct part *p, const struct piece *piece, uint8_t *buffer,
           struct error **err)
{
    uint64_t done = 0;

    while (done < piece->length) {
        uint64_t data = find_data(p, piece, done);
        size_t n = (size_t)MIN(piece->length - data, READ_BYTES);

        hash_zeroes(p, piece->offset + done, piece->offset + data);
        if (n > 0 && !read_fully(piece->fd, buffer, n, piece->at + data, err))
            return false;
        hash_data((void *)p, piece->offset + data, buffer, n);
        done = data + n;
    }
    return true;
}

bool
hashes_of_base(struct replica *r, const struct layout_disk *d,
               const struct store_hashing *what, uint8_t *ret, struct error **err)
{
    AUTOFREE(struct part) *parts = make_parts(what, ret);
    AUTOFREE(uint8_t) *buffer = mem_alloc_pages(READ_BYTES);
    char path[LAYOUT_PATH_MAX];
    AUTOFD(fd) = -1;

    layout_path(d->layers[0], path);
    fd = openat(r->fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return folder_errno(err, "open '%s'", path);
    if (!base_settle(&r->base, err))
        return false;
    for (size_t i = 0; i < what->n_ranges; i++) {
        const struct store_range *range = &what->ranges[i];
        const struct piece piece = { fd, range->offset, range->length, range->offset };

        if (!hash_piece(&parts[i], &piece, buffer, err))
            return error_prefix(err, "disk '%s'", d->target);
    }
    return true;
}

/* --- through the storage daemon ------------------------------------------------------
 */

/* Between two runs of zeroes is what has to be read. */
struct gaps {
    const struct part *part;
    uint64_t done, end; /* told up to here, and where it ends: offsets on the disk */
    struct store_range *items;
    size_t n;
};

static void
add_gap(struct gaps *g, uint64_t to)
{
    if (to <= g->done)
        return;
    g->items = mem_realloc(g->items, g->n + 1, sizeof *g->items);
    g->items[g->n++] = (struct store_range){ g->done, to - g->done };
    g->done = to;
}

/* The whole blocks within [from, to), which the end ends too. */
static void
shrink_to_blocks(const struct gaps *g, uint64_t *from, uint64_t *to)
{
    uint64_t bytes = g->part->block_bytes;

    *from = (*from + bytes - 1) / bytes * bytes;
    if (*to < g->end)
        *to = *to / bytes * bytes;
}

static void
on_zero(void *opaque, uint64_t offset, uint64_t length)
{
    struct gaps *g = opaque;
    uint64_t from = offset, to = offset + length;

    shrink_to_blocks(g, &from, &to);
    if (from >= to)
        return;
    add_gap(g, from);
    hash_zeroes(g->part, from, to);
    g->done = to;
}

/* Asks for all of [from, to) that is not zero; the answers come later. */
static bool
ask_daemon(struct tip *t, size_t disk, const struct tip_reader *reader, uint64_t from,
           uint64_t to, struct error **err)
{
    struct gaps gaps = { .part = reader->opaque, .done = from, .end = to };
    const struct tip_zeroes zeroes = { on_zero, &gaps };
    bool ok =
        to - from < ASK_BYTES || tip_find_zeroes(t, disk, &zeroes, from, to - from, err);

    if (ok)
        add_gap(&gaps, to);
    for (size_t i = 0; ok && i < gaps.n; i++)
        ok = tip_read(t, disk, reader, gaps.items[i].offset, gaps.items[i].length, err);
    free(gaps.items);
    return ok;
}

/* --- through all layers --------------------------------------------------------------
 */

/* One question about one disk. */
struct look {
    struct replica *replica;
    size_t disk;
    struct layer_map *map; /* NULL: the storage daemon is asked for everything */
    uint8_t *buffer;
    const struct part *part;
    const struct tip_reader *reader; /* to the part */
    bool asked;                      /* the storage daemon, which has to answer yet */
};

static bool
on_run(void *opaque, const struct layer_run *run, struct error **err)
{
    struct look *k = opaque;
    const struct piece piece = { run->fd, run->offset, run->length, run->at };

    switch (run->kind) {
    case LAYER_ZERO:
        hash_zeroes(k->part, run->offset, run->offset + run->length);
        return true;
    case LAYER_FILE:
        return hash_piece(k->part, &piece, k->buffer, err);
    case LAYER_OTHER:
        break;
    }
    k->asked = true;
    return replica_need_tip(k->replica, err) &&
           ask_daemon(k->replica->tip, k->disk, k->reader, run->offset,
                      run->offset + run->length, err);
}

/* What was written since the last flush is not in the files, or not told by them. */
static bool
look_at_part(struct look *k, struct error **err)
{
    uint64_t from = k->part->range.offset, to = from + k->part->range.length;

    while (from < to) {
        struct layer_run run = { LAYER_OTHER, from, to - from, -1, 0 };
        bool written = false;

        if (k->replica->tip != NULL)
            run.length = tip_alike(k->replica->tip, k->disk, from, to - from, &written);
        if (written || k->map == NULL
                ? !on_run(k, &run, err)
                : !layer_map_each(k->map, from, run.length, on_run, k, err))
            return false;
        from += run.length;
    }
    return true;
}

/* Whatever they do not tell, or are not, the storage daemon will say. */
static struct layer_map *
map_layers(const struct replica *r, const struct layout_disk *d)
{
    AUTOFD(disks) = openat(r->fd, REPLICA_DISKS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct layer_map *map = NULL;
    AUTOPTR(error) *why = NULL;

    if (disks >= 0 &&
        !layer_map_open(disks, d, chain_find_bottom(disks, d, d->n_layers - 1), &map,
                        &why))
        log_ignore(NULL, "layers-unreadable", &why);
    return map;
}

bool
hashes_of_tip(struct replica *r, const struct layout *l, const struct layout_disk *d,
              const struct store_hashing *what, uint8_t *ret, struct error **err)
{
    AUTOFREE(struct part) *parts = make_parts(what, ret);
    AUTOFREE(struct tip_reader) *readers = mem_alloc(what->n_ranges, sizeof *readers);
    AUTOFREE(uint8_t) *buffer = mem_alloc_pages(READ_BYTES);
    AUTOPTR(layer_map) *map = map_layers(r, d);
    struct look k = { r, (size_t)(d - l->disks), map, buffer, NULL, NULL, false };
    bool ok = true;

    for (size_t i = 0; ok && i < what->n_ranges; i++) {
        readers[i] = (struct tip_reader){ hash_data, &parts[i] };
        k.part = &parts[i];
        k.reader = &readers[i];
        ok = look_at_part(&k, err);
    }
    ok = ok && (!k.asked || tip_settle(r->tip, err));
    if (!ok) /* before what is under way loses the memory that it writes to */
        replica_drop_tip(r);
    return ok || error_prefix(err, "disk '%s'", d->target);
}
