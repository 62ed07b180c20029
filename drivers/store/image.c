#include "drivers/store/image.h"

#include <stdint.h>
#include <sys/stat.h>

#include "drivers/store/child.h"
#include "drivers/store/folder.h"

#define TIMEOUT_MS 120000
#define OPTIONS    "compat=1.1,lazy_refcounts=off,cluster_size=64k"

static bool
run(int folder, const char *const *argv, struct error **err)
{
    struct child_request request = { .argv = argv, .folder = folder };

    return child_run(&request, TIMEOUT_MS, err);
}

bool
image_create(int folder, const char *path, uint64_t capacity_bytes, const char *backing,
             struct error **err)
{
    AUTOFREE(char) *size = mem_printf("%llu", (unsigned long long)capacity_bytes);
    const char *const alone[] = { "qemu-img", "create", "-q", "-f", "qcow2", "-o",
                                  OPTIONS,    "--",     path, size, NULL };
    const char *const on_top[] = { "qemu-img", "create", "-q", "-u",    "-f", "qcow2",
                                   "-o",       OPTIONS,  "-b", backing, "-F", "qcow2",
                                   "--",       path,     size, NULL };

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
