#include "drivers/store/blank.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "common/units.h"
#include "drivers/store/folder.h"

/*
 * The header, one cluster of the refcount table, one refcount block, then the L1 table.
 * One block counts 32768 clusters, and 64 TiB of disk need an L1 table of 16.
 */
#define CLUSTER_BITS   16
#define CLUSTER        (1u << CLUSTER_BITS)
#define L1_COVERS      ((uint64_t)(CLUSTER / 8) * CLUSTER)
#define TABLE_AT       (1 * CLUSTER)
#define BLOCK_AT       (2 * CLUSTER)
#define L1_AT          (3 * CLUSTER)
#define QCOW2_VERSION  3
#define HEADER_LENGTH  104
#define REFCOUNT_BITS  4 /* 16 bits */
#define BELOW_FORMAT   0xe2792acau
#define EXTENSION_HEAD 8
#define BELOW_MAX      1023 /* of a name; the format's is shorter by far */

static void
put32(uint8_t *at, uint32_t v)
{
    v = htobe32(v);
    memcpy(at, &v, sizeof v);
}

static void
put64(uint8_t *at, uint64_t v)
{
    v = htobe64(v);
    memcpy(at, &v, sizeof v);
}

static uint64_t
l1_entries(uint64_t capacity)
{
    return MAX(1, (capacity + L1_COVERS - 1) / L1_COVERS);
}

/* The format's name in an extension, an empty one that ends them, the image's name. */
static void
put_below(uint8_t *head, const struct store_original *below)
{
    size_t n_format = strlen(below->format), n_path = strlen(below->path);
    size_t at = HEADER_LENGTH;

    put32(head + at, BELOW_FORMAT);
    put32(head + at + 4, (uint32_t)n_format);
    memcpy(head + at + EXTENSION_HEAD, below->format, n_format);
    at += EXTENSION_HEAD + (n_format + 7) / 8 * 8 + EXTENSION_HEAD;
    memcpy(head + at, below->path, n_path);
    put64(head + 8, at);
    put32(head + 16, (uint32_t)n_path);
}

/* The first clusters up to the L1 table, which is a hole: nothing is mapped. */
static uint8_t *
make_head(uint64_t capacity, uint64_t l1_clusters)
{
    uint8_t *head = mem_alloc(1, L1_AT);

    memcpy(head, "QFI\xfb", 4);
    put32(head + 4, QCOW2_VERSION);
    put32(head + 20, CLUSTER_BITS);
    put64(head + 24, capacity);
    put32(head + 36, (uint32_t)l1_entries(capacity));
    put64(head + 40, L1_AT);
    put64(head + 48, TABLE_AT);
    put32(head + 56, 1); /* clusters of the refcount table */
    put32(head + 96, REFCOUNT_BITS);
    put32(head + 100, HEADER_LENGTH);
    put64(head + TABLE_AT, BLOCK_AT);
    for (uint64_t i = 0; i < 3 + l1_clusters; i++)
        head[BLOCK_AT + 2 * i + 1] = 1; /* big endian */
    return head;
}

bool
blank_write(int fd, const char *path, uint64_t capacity_bytes,
            const struct store_original *below, struct error **err)
{
    uint64_t l1_clusters = (l1_entries(capacity_bytes) * 8 + CLUSTER - 1) / CLUSTER;
    AUTOFREE(uint8_t) *head = NULL;

    if (capacity_bytes > BLANK_MAX_BYTES)
        return error_set(err, ERROR_UNSUPPORTED_DISK, "a disk of more than 64 TiB");
    if (below != NULL &&
        (strlen(below->path) > BELOW_MAX || strlen(below->format) > BELOW_MAX))
        return error_set(err, ERROR_PROTOCOL,
                         "image '%.80s': its name is too long for an image on it",
                         below->path);
    head = make_head(capacity_bytes, l1_clusters);
    if (below != NULL)
        put_below(head, below);
    return (folder_write_all(fd, path, head, L1_AT, err)) &&
           (ftruncate(fd, (off_t)(L1_AT + l1_clusters * CLUSTER)) == 0 ||
            folder_errno(err, "write '%s'", path));
}
