#include "drivers/store/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>

#include "drivers/store/child.h"
#include "drivers/store/folder.h"
#include "drivers/store/layout.h"

#define TIMEOUT_MS 120000
#define OPTIONS    "compat=1.1,lazy_refcounts=off,cluster_size=64k"

static bool
run(int folder, const char *const *argv, struct error **err)
{
    struct child_request request = { .argv = argv, .folder = folder };

    return child_run(&request, TIMEOUT_MS, err);
}

/* What a crash has left of it is of no use: begun anew. */
static bool
create_raw(int folder, const char *path, uint64_t capacity_bytes, struct error **err)
{
    AUTOFD(fd) =
        openat(folder, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, FOLDER_FILE_MODE);

    if (fd < 0 || ftruncate(fd, (off_t)capacity_bytes) < 0 || fsync(fd) < 0)
        return folder_errno(err, "make image '%s'", path);
    return true;
}

bool
image_create(int folder, const char *path, uint64_t capacity_bytes, const char *backing,
             struct error **err)
{
    AUTOFREE(char) *size = mem_printf("%llu", (unsigned long long)capacity_bytes);
    const char *format = backing != NULL && layout_is_raw(backing) ? "raw" : "qcow2";
    const char *const alone[] = { "qemu-img", "create", "-q", "-f", "qcow2", "-o",
                                  OPTIONS,    "--",     path, size, NULL };
    const char *const on_top[] = { "qemu-img", "create", "-q", "-u",    "-f", "qcow2",
                                   "-o",       OPTIONS,  "-b", backing, "-F", format,
                                   "--",       path,     size, NULL };

    if (layout_is_raw(path))
        return create_raw(folder, path, capacity_bytes, err);
    if (!run(folder, backing == NULL ? alone : on_top, err))
        return error_prefix(err, "make image '%s'", path);
    if (fchmodat(folder, path, FOLDER_FILE_MODE, 0) < 0)
        return folder_errno(err, "chmod '%s'", path);
    return folder_sync(folder, path, err);
}

bool
image_grow(int folder, const char *path, uint64_t capacity_bytes, struct error **err)
{
    AUTOFREE(char) *size = mem_printf("%llu", (unsigned long long)capacity_bytes);
    const char *const argv[] = { "qemu-img", "resize", "-q", "-f", "qcow2",
                                 "--",       path,     size, NULL };

    if (!run(folder, argv, err))
        return error_prefix(err, "grow image '%s'", path);
    return folder_sync(folder, path, err);
}
