#include "drivers/capture/scratch_image.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "common/units.h"

/*
 * Clusters of 64 KiB (docs/interop/qcow2.txt of QEMU): the header, one of the
 * refcount table, one refcount block, then the L1 table. One block counts 32768
 * clusters, and 64 TiB of disk need an L1 table of 16.
 */
#define CLUSTER_BITS  16
#define CLUSTER       (1u << CLUSTER_BITS)
#define L1_COVERS     ((uint64_t)(CLUSTER / 8) * CLUSTER)
#define TABLE_AT      (1 * CLUSTER)
#define BLOCK_AT      (2 * CLUSTER)
#define L1_AT         (3 * CLUSTER)
#define HEADER_LENGTH 104
#define REFCOUNT_BITS 4 /* 16 bits */

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

/* The first clusters up to the L1 table, which is a hole: nothing is mapped. */
static uint8_t *
make_head(uint64_t capacity, uint64_t l1_clusters)
{
    uint8_t *head = mem_alloc(1, L1_AT);

    memcpy(head, "QFI\xfb", 4);
    put32(head + 4, 3);
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

static bool
give_to_owner(int fd, const char *folder, const char *path, struct error **err)
{
    struct stat s;

    if (stat(folder, &s) < 0)
        return error_errno(err, ERROR_STORE, "look at '%s'", folder);
    if ((s.st_uid != geteuid() || s.st_gid != getegid()) &&
        fchown(fd, s.st_uid, s.st_gid) < 0)
        return error_errno(err, ERROR_STORE, "give '%s' to the owner of its folder",
                           path);
    return true;
}

bool
scratch_image_create(const char *folder, const char *path, uint64_t capacity_bytes,
                     struct error **err)
{
    uint64_t l1_clusters = (l1_entries(capacity_bytes) * 8 + CLUSTER - 1) / CLUSTER;
    AUTOFREE(uint8_t) *head = NULL;
    AUTOFD(fd) = -1;

    if (capacity_bytes > SCRATCH_IMAGE_MAX_BYTES)
        return error_set(err, ERROR_UNSUPPORTED_DISK, "a disk of more than 64 TiB");
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0660);
    if (fd < 0)
        return error_errno(err, ERROR_STORE, "make '%s'", path);
    head = make_head(capacity_bytes, l1_clusters);
    if (pwrite(fd, head, L1_AT, 0) != L1_AT ||
        ftruncate(fd, (off_t)(L1_AT + l1_clusters * CLUSTER)) < 0)
        return error_errno(err, ERROR_STORE, "write '%s'", path);
    return give_to_owner(fd, folder, path, err);
}
