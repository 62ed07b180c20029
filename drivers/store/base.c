#include "drivers/store/base.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "drivers/store/folder.h"

static bool
open_file(struct base *b, int folder, const struct layout_disk *d,
          const struct writer_file **ret, struct error **err)
{
    AUTOFREE(char) *path = mem_printf("disks/%s", d->layers[0]);
    struct writer_file *f;
    int fd;

    for (size_t i = 0; i < b->n_files; i++)
        if (strcmp(b->files[i].target, d->target) == 0) {
            *ret = &b->files[i];
            return true;
        }
    fd = openat(folder, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return folder_errno(err, "open '%s'", path);
    b->files = mem_realloc(b->files, b->n_files + 1, sizeof *b->files);
    f = &b->files[b->n_files++];
    snprintf(f->target, sizeof f->target, "%s", d->target);
    f->fd = fd;
    f->direct_fd = openat(folder, path, O_WRONLY | O_DIRECT | O_CLOEXEC);
    *ret = f;
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

static struct writer *
need_writer(struct base *b)
{
    if (b->writer == NULL)
        b->writer = writer_new();
    return b->writer;
}

bool
base_write(struct base *b, int folder, const struct layout_disk *d, uint64_t offset,
           const void *data, size_t length, struct error **err)
{
    const struct writer_file *f;

    return check_range(d, offset, length, err) && open_file(b, folder, d, &f, err) &&
           writer_data(need_writer(b), f, offset, data, length, err);
}

void *
base_place(struct base *b, const char *target, uint64_t offset, size_t length)
{
    for (size_t i = 0; i < b->n_files; i++)
        if (strcmp(b->files[i].target, target) == 0)
            return writer_place(need_writer(b), &b->files[i], offset, length);
    return NULL;
}

bool
base_zero(struct base *b, int folder, const struct layout_disk *d, uint64_t offset,
          uint64_t length, struct error **err)
{
    const struct writer_file *f;

    return check_range(d, offset, length, err) && open_file(b, folder, d, &f, err) &&
           (length == 0 || writer_zero(need_writer(b), f, offset, length, err));
}

bool
base_settle(struct base *b, struct error **err)
{
    return b->writer == NULL || writer_drain(b->writer, err);
}

bool
base_flush(struct base *b, struct error **err)
{
    if (!base_settle(b, err))
        return false;
    for (size_t i = 0; i < b->n_files; i++)
        if (fsync(b->files[i].fd) < 0)
            return folder_errno(err, "flush disk '%s'", b->files[i].target);
    return true;
}

void
base_close(struct base *b)
{
    writer_free(b->writer);
    for (size_t i = 0; i < b->n_files; i++) {
        close(b->files[i].fd);
        mem_closep(&b->files[i].direct_fd);
    }
    free(b->files);
    *b = (struct base){ 0 };
}
