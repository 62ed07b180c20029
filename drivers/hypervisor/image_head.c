#include "drivers/hypervisor/image_head.h"

#include <endian.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/mem.h"

#define SECTOR 512

/* docs/interop/qcow2.txt of QEMU; all of it is big endian. */
struct qcow2_head {
    char magic[4];
    uint32_t version;
    uint64_t backing_offset;
    uint32_t backing_length;
    uint32_t cluster_bits;
    uint64_t size;
};
_Static_assert(sizeof(struct qcow2_head) == 32, "as it is in the image");

/* QEMU leaves out what is behind the last whole sector. */
static bool
read_qcow2(int fd, struct image_head *ret)
{
    struct qcow2_head head;

    if (pread(fd, &head, sizeof head, 0) != (ssize_t)sizeof head)
        return false;
    *ret = (struct image_head){ 0 };
    if (memcmp(head.magic, "QFI\xfb", sizeof head.magic) != 0)
        return true;
    ret->qcow2_version = be32toh(head.version);
    ret->capacity_bytes = be64toh(head.size) / SECTOR * SECTOR;
    return true;
}

/* QEMU shows a last sector that is not whole. */
static bool
read_raw(int fd, struct image_head *ret)
{
    off_t end = lseek(fd, 0, SEEK_END);

    if (end < 0)
        return false;
    *ret = (struct image_head){
        .capacity_bytes = ((uint64_t)end + SECTOR - 1) / SECTOR * SECTOR,
    };
    return true;
}

bool
image_head_read(const char *path, const char *format, struct image_head *ret)
{
    AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return false;
    if (strcmp(format, "qcow2") == 0)
        return read_qcow2(fd, ret);
    return strcmp(format, "raw") == 0 && read_raw(fd, ret);
}
