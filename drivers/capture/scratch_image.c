#include "drivers/capture/scratch_image.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "drivers/store/blank.h"

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
    AUTOFD(fd) = -1;

    if (capacity_bytes > SCRATCH_IMAGE_MAX_BYTES)
        return error_set(err, ERROR_UNSUPPORTED_DISK, "a disk of more than 64 TiB");
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0660);
    if (fd < 0)
        return error_errno(err, ERROR_STORE, "make '%s'", path);
    return blank_write(fd, path, capacity_bytes, NULL, err) &&
           give_to_owner(fd, folder, path, err);
}
