#include "drivers/store/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "drivers/store/folder.h"

static bool
open_file(struct base *b, int folder, const struct layout_disk *d, int *ret,
          struct error **err)
{
    AUTOFREE(char) *path = mem_printf("disks/%s", d->layers[0]);
    struct base_file *f;
    int fd;

    for (size_t i = 0; i < b->n_files; i++)
        if (strcmp(b->files[i].target, d->target) == 0) {
            *ret = b->files[i].fd;
            return true;
        }
    fd = openat(folder, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return folder_errno(err, "open '%s'", path);
    b->files = mem_realloc(b->files, b->n_files + 1, sizeof *b->files);
    f = &b->files[b->n_files++];
    snprintf(f->target, sizeof f->target, "%s", d->target);
    f->fd = fd;
    *ret = fd;
    return true;
}

static bool
check_range(const struct layout_disk *d, uint64_t offset, uint64_t length,
            struct error **err)
{
    if (offset <= d->capacity_bytes && length <= d->capacity_bytes - offset)
        return true;
    return error_set(err, ERROR_PROTOCOL,
                     "disk '%s': %llu bytes at %llu are beyond its end", d->target,
                     (unsigned long long)length, (unsigned long long)offset);
}

static bool
write_all(int fd, const struct layout_disk *d, uint64_t offset, const void *data,
          size_t length, struct error **err)
{
    const char *p = data;

    while (length > 0) {
        ssize_t n = pwrite(fd, p, length, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return folder_errno(err, "write disk '%s'", d->target);
        p += n;
        offset += (uint64_t)n;
        length -= (size_t)n;
    }
    return true;
}

bool
base_write(struct base *b, int folder, const struct layout_disk *d, uint64_t offset,
           const void *data, size_t length, struct error **err)
{
    int fd;

    return check_range(d, offset, length, err) && open_file(b, folder, d, &fd, err) &&
           write_all(fd, d, offset, data, length, err);
}

/* For file systems that cannot punch holes. */
static bool
write_zeros(int fd, const struct layout_disk *d, uint64_t offset, uint64_t length,
            struct error **err)
{
    static const char zeros[64 << 10];

    while (length > 0) {
        size_t n = MIN(length, sizeof zeros);

        if (!write_all(fd, d, offset, zeros, n, err))
            return false;
        offset += n;
        length -= n;
    }
    return true;
}

bool
base_zero(struct base *b, int folder, const struct layout_disk *d, uint64_t offset,
          uint64_t length, struct error **err)
{
    int fd;

    if (!check_range(d, offset, length, err) || !open_file(b, folder, d, &fd, err))
        return false;
    if (length == 0 || fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                 (off_t)offset, (off_t)length) == 0)
        return true;
    if (errno != EOPNOTSUPP && errno != ENOSYS)
        return folder_errno(err, "punch a hole into disk '%s'", d->target);
    return write_zeros(fd, d, offset, length, err);
}

bool
base_flush(struct base *b, struct error **err)
{
    for (size_t i = 0; i < b->n_files; i++)
        if (fsync(b->files[i].fd) < 0)
            return folder_errno(err, "flush disk '%s'", b->files[i].target);
    return true;
}

void
base_close(struct base *b)
{
    for (size_t i = 0; i < b->n_files; i++)
        close(b->files[i].fd);
    free(b->files);
    *b = (struct base){ 0 };
}
