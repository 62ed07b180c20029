#include "drivers/store/clusters.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "drivers/store/folder.h"

/* The header, as docs/interop/qcow2.txt of QEMU has it; big endian. */
#define HEADER_BYTES     104
#define AT_MAGIC         0
#define AT_VERSION       4
#define AT_BACKING       8
#define AT_CLUSTER_BITS  20
#define AT_SIZE          24
#define AT_L1_ENTRIES    36
#define AT_L1            40
#define AT_INCOMPATIBLE  72
#define MAGIC            0x514649fbu
#define QCOW2_VERSION    3
#define KNOWN_FEATURES   3u /* dirty, corrupt: the tables look the same */
#define MIN_CLUSTER_BITS 9
#define MAX_CLUSTER_BITS 21
#define MAX_L1_ENTRIES   (4u << 20) /* QEMU's own limit */
#define OFFSET_MASK      0x00fffffffffffe00ull

/* Of an entry of the second level. */
#define ENTRY_ZERO       1ull
#define ENTRY_COMPRESSED (1ull << 62)

struct image {
    const char *path;
    int fd;
    uint64_t size;
    bool alone;
    unsigned cluster_bits;
    uint32_t n_l1;
    uint64_t l1_offset;
};

static bool
damaged(const char *path, struct error **err)
{
    return error_set(err, ERROR_CHECKSUM, "image '%s' has tables that cannot be right",
                     path);
}

static bool
read_at(const struct image *i, uint64_t offset, void *data, size_t n, struct error **err)
{
    ssize_t done = pread(i->fd, data, n, (off_t)offset);

    if (done < 0)
        return folder_errno(err, "read image '%s'", i->path);
    return (size_t)done == n || damaged(i->path, err);
}

static uint32_t
get32(const uint8_t *p)
{
    uint32_t n;

    memcpy(&n, p, sizeof n);
    return be32toh(n);
}

static uint64_t
get64(const uint8_t *p)
{
    uint64_t n;

    memcpy(&n, p, sizeof n);
    return be64toh(n);
}

static void
close_image(struct image *i)
{
    if (i->fd >= 0)
        close(i->fd);
}

static bool
open_image(int at, const char *path, struct image *ret, struct error **err)
{
    uint8_t h[HEADER_BYTES];

    *ret = (struct image){ .path = path };
    ret->fd = openat(at, path, O_RDONLY | O_CLOEXEC);
    if (ret->fd < 0)
        return folder_errno(err, "open image '%s'", path);
    if (!read_at(ret, 0, h, sizeof h, err))
        return false;
    ret->alone = get64(h + AT_BACKING) == 0;
    ret->cluster_bits = get32(h + AT_CLUSTER_BITS);
    ret->size = get64(h + AT_SIZE);
    ret->n_l1 = get32(h + AT_L1_ENTRIES);
    ret->l1_offset = get64(h + AT_L1);
    if (get32(h + AT_MAGIC) != MAGIC || get32(h + AT_VERSION) != QCOW2_VERSION ||
        (get64(h + AT_INCOMPATIBLE) & ~(uint64_t)KNOWN_FEATURES) != 0 ||
        ret->cluster_bits < MIN_CLUSTER_BITS || ret->cluster_bits > MAX_CLUSTER_BITS ||
        ret->n_l1 > MAX_L1_ENTRIES || ret->size > INT64_MAX ||
        ret->l1_offset > OFFSET_MASK)
        return damaged(path, err);
    return true;
}

/* The caller frees *ret. */
static bool
read_l1(const struct image *i, uint8_t **ret, struct error **err)
{
    AUTOFREE(uint8_t) *l1 = mem_alloc((size_t)i->n_l1 + 1, sizeof(uint64_t));

    if (!read_at(i, i->l1_offset, l1, i->n_l1 * sizeof(uint64_t), err))
        return false;
    *ret = TAKE(l1);
    return true;
}

/* Where the walk over an image is. */
struct walk {
    const struct image *image;
    uint8_t *table; /* of the second level: one cluster */
    clusters_fn fn;
    void *opaque;
};

static void
tell(const struct walk *w, uint64_t offset, uint64_t length)
{
    uint64_t size = w->image->size;

    if (offset < size)
        w->fn(offset, MIN(length, size - offset), w->opaque);
}

/* The part of the disk from `start` that one table of the second level is for. */
static bool
walk_table(const struct walk *w, uint64_t table_offset, uint64_t start,
           struct error **err)
{
    size_t cluster = (size_t)1 << w->image->cluster_bits;
    size_t n = cluster / sizeof(uint64_t);

    if (!read_at(w->image, table_offset, w->table, cluster, err))
        return false;
    for (size_t i = 0; i < n; i++) {
        size_t first = i;

        while (i < n && get64(w->table + i * sizeof(uint64_t)) != 0)
            i++;
        if (i > first)
            tell(w, start + first * cluster, (i - first) * cluster);
    }
    return true;
}

static bool
walk_image(const struct walk *w, struct error **err)
{
    const struct image *image = w->image;
    uint64_t covered = (1ull << image->cluster_bits) << (image->cluster_bits - 3);
    AUTOFREE(uint8_t) *l1 = NULL;

    if (!read_l1(image, &l1, err))
        return false;
    for (uint32_t i = 0; i < image->n_l1 && i * covered < image->size; i++) {
        uint64_t table = get64(l1 + i * sizeof(uint64_t)) & OFFSET_MASK;

        if (table != 0 && !walk_table(w, table, i * covered, err))
            return false;
    }
    return true;
}

bool
clusters_each(int at, const char *path, clusters_fn fn, void *opaque, struct error **err)
{
    struct image image;
    struct walk w = { .image = &image, .fn = fn, .opaque = opaque };
    bool ok = open_image(at, path, &image, err);

    if (ok) {
        w.table = mem_alloc((size_t)1 << image.cluster_bits, 1);
        ok = walk_image(&w, err);
        free(w.table);
    }
    close_image(&image);
    return ok;
}

bool
clusters_capacity(int at, const char *path, uint64_t *ret, struct error **err)
{
    struct image image;
    bool ok = open_image(at, path, &image, err);

    if (ok)
        *ret = image.size;
    close_image(&image);
    return ok;
}

bool
clusters_none(int at, const char *path, bool *ret, struct error **err)
{
    AUTOFREE(uint8_t) *l1 = NULL;
    struct image image;
    bool ok = open_image(at, path, &image, err) && read_l1(&image, &l1, err);

    if (ok) {
        *ret = true;
        for (uint32_t i = 0; i < image.n_l1; i++)
            if (get64(l1 + i * sizeof(uint64_t)) != 0)
                *ret = false;
    }
    close_image(&image);
    return ok;
}

bool
clusters_alone(int at, const char *path, bool *ret, struct error **err)
{
    struct image image;
    bool ok = open_image(at, path, &image, err);

    if (ok)
        *ret = image.alone;
    close_image(&image);
    return ok;
}

static void
add_length(uint64_t offset UNUSED, uint64_t length, void *opaque)
{
    *(uint64_t *)opaque += length;
}

bool
clusters_cover(int at, const char *path, bool *ret, struct error **err)
{
    uint64_t covered = 0, capacity = 0;

    if (!clusters_capacity(at, path, &capacity, err) ||
        !clusters_each(at, path, add_length, &covered, err))
        return false;
    *ret = covered >= capacity;
    return true;
}

/* --- one cluster after the other ---------------------------------------------------- */

struct clusters {
    struct image image;
    char path[]; /* the image's */
};

bool
clusters_open(int at, const char *path, struct clusters **ret, struct error **err)
{
    size_t n = strlen(path) + 1;
    struct clusters *c = mem_alloc(1, sizeof *c + n);

    memcpy(c->path, path, n);
    if (!open_image(at, c->path, &c->image, err)) {
        clusters_free(c);
        return false;
    }
    *ret = c;
    return true;
}

void
clusters_free(struct clusters *c)
{
    if (c == NULL)
        return;
    close_image(&c->image);
    free(c);
}

int
clusters_fd(const struct clusters *c)
{
    return c->image.fd;
}

uint64_t
clusters_bytes(const struct clusters *c)
{
    return 1ull << c->image.cluster_bits;
}

bool
clusters_is_alone(const struct clusters *c)
{
    return c->image.alone;
}

static struct cluster
read_entry(uint64_t entry)
{
    if ((entry & ENTRY_COMPRESSED) != 0)
        return (struct cluster){ .kind = CLUSTER_OTHER };
    if ((entry & ENTRY_ZERO) != 0)
        return (struct cluster){ .kind = CLUSTER_ZERO };
    if ((entry & OFFSET_MASK) == 0)
        return (struct cluster){ .kind = CLUSTER_BELOW };
    return (struct cluster){ .kind = CLUSTER_DATA, .at = entry & OFFSET_MASK };
}

/* So many clusters from `first` on, within one table of the second level. */
static bool
look_at_table(const struct image *image, uint64_t first, size_t n, struct cluster *ret,
              struct error **err)
{
    uint64_t in_table = (1ull << image->cluster_bits) / sizeof(uint64_t);
    AUTOFREE(uint8_t) *entries = mem_alloc(n, sizeof(uint64_t));
    uint64_t l1 = first / in_table;
    uint8_t table[sizeof(uint64_t)] = { 0 };

    if (l1 < image->n_l1 &&
        !read_at(image, image->l1_offset + l1 * sizeof table, table, sizeof table, err))
        return false;
    if ((get64(table) & OFFSET_MASK) != 0 &&
        !read_at(image,
                 (get64(table) & OFFSET_MASK) + first % in_table * sizeof(uint64_t),
                 entries, n * sizeof(uint64_t), err))
        return false;
    for (size_t i = 0; i < n; i++)
        ret[i] = read_entry(get64(entries + i * sizeof(uint64_t)));
    return true;
}

static bool
look_at_tables(const struct image *image, uint64_t first, uint64_t n, struct cluster *ret,
               struct error **err)
{
    uint64_t in_table = (1ull << image->cluster_bits) / sizeof(uint64_t);

    while (n > 0) {
        size_t part = (size_t)MIN(n, in_table - first % in_table);

        if (!look_at_table(image, first, part, ret, err))
            return false;
        ret += part;
        first += part;
        n -= part;
    }
    return true;
}

/* Where the first table is, which moves when the image grows. */
static bool
find_l1(struct image *i, bool *ret_moved, struct error **err)
{
    uint8_t h[AT_L1 + sizeof(uint64_t)];
    uint64_t before = i->l1_offset;

    if (!read_at(i, 0, h, sizeof h, err))
        return false;
    i->n_l1 = get32(h + AT_L1_ENTRIES);
    i->l1_offset = get64(h + AT_L1);
    *ret_moved = i->l1_offset != before;
    return i->l1_offset <= OFFSET_MASK || damaged(i->path, err);
}

/* What of it lies beyond the image's end. */
static void
cut_off(const struct image *image, uint64_t first, uint64_t end, struct cluster *ret)
{
    uint64_t bytes = 1ull << image->cluster_bits;

    for (uint64_t at = first * bytes; at < end; at += bytes, ret++)
        if (at >= image->size)
            *ret = (struct cluster){ .kind = CLUSTER_ZERO };
        else if (MIN(at + bytes, end) > image->size)
            *ret = (struct cluster){ .kind = CLUSTER_OTHER };
}

bool
clusters_look(const struct clusters *c, uint64_t offset, uint64_t length,
              struct cluster *ret, struct error **err)
{
    struct image image = c->image;
    uint64_t bytes = clusters_bytes(c);
    uint64_t first = offset / bytes, end = offset + length;
    bool moved = true;

    if (!find_l1(&image, &moved, err))
        return false;

    /* The old place is used for something else once the header names the new one. */
    do {
        if (!look_at_tables(&image, first, (length + bytes - 1) / bytes, ret, err) ||
            !find_l1(&image, &moved, err))
            return false;
    } while (moved);
    cut_off(&image, first, end, ret);
    return true;
}
