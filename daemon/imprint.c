#include "daemon/imprint.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/capture/generation.h"

#define IMAGES  "images"
#define CHANGED "changed"

#define FILE_MODE 0600

/* --- what it holds ---------------------------------------------------------------- */

/* Bitmaps are kept by qcow2 images only; others may be slow to look at (a device is
 * flushed for it). */
static bool
keeps_bitmaps(const char *path)
{
    AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    char magic[4];

    return fd >= 0 && pread(fd, magic, sizeof magic, 0) == (ssize_t)sizeof magic &&
           memcmp(magic, "QFI\xfb", sizeof magic) == 0;
}

static void
append(struct imprint *i, const char *target, uint64_t generation)
{
    if (i->n == IMPRINT_MAX_DISKS || strlen(target) >= IMPRINT_TARGET)
        return;
    snprintf(i->disks[i->n].target, IMPRINT_TARGET, "%s", target);
    i->disks[i->n++].generation = generation;
}

void
imprint_add(struct imprint *i, const char *target, const char *path)
{
    uint64_t generation = 0;

    if (keeps_bitmaps(path) && generation_of(&path, 1, &generation, NULL))
        append(i, target, generation);
}

uint64_t
imprint_of(const struct imprint *i, const char *target)
{
    for (size_t k = 0; k < i->n; k++)
        if (strcmp(i->disks[k].target, target) == 0)
            return i->disks[k].generation;
    return 0;
}

/* --- files ------------------------------------------------------------------------- */

static char *
path_of(const char *folder, const char *uuid, const char *kind)
{
    return mem_printf("%s/%s.%s", folder, uuid, kind);
}

static bool
sync_folder(const char *folder, struct error **err)
{
    AUTOFD(fd) = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return (fd >= 0 && fsync(fd) == 0) ||
           error_errno(err, ERROR_STATE, "sync '%s'", folder);
}

static bool
write_lines(const char *path, const struct imprint *i, struct error **err)
{
    AUTOFD(fd) = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, FILE_MODE);

    if (fd < 0)
        return error_errno(err, ERROR_STATE, "write '%s'", path);
    for (size_t k = 0; k < i->n; k++)
        if (dprintf(fd, "%s %" PRIx64 "\n", i->disks[k].target, i->disks[k].generation) <
            0)
            return error_errno(err, ERROR_STATE, "write '%s'", path);
    return fsync(fd) == 0 || error_errno(err, ERROR_STATE, "sync '%s'", path);
}

static bool
put(const char *folder, const char *uuid, const char *kind, const struct imprint *i,
    struct error **err)
{
    AUTOFREE(char) *path = path_of(folder, uuid, kind);
    AUTOFREE(char) *aside = mem_printf("%s/.%s.%s.%d", folder, uuid, kind, (int)getpid());

    if (!write_lines(aside, i, err))
        return false;
    if (rename(aside, path) < 0)
        return error_errno(err, ERROR_STATE, "rename '%s'", aside);
    return sync_folder(folder, err);
}

static bool
get(const char *folder, const char *uuid, const char *kind, struct imprint *ret)
{
    AUTOFREE(char) *path = path_of(folder, uuid, kind);
    FILE *f = fopen(path, "re");
    char target[IMPRINT_TARGET];
    uint64_t generation;

    if (f == NULL)
        return false;
    *ret = (struct imprint){ .n = 0 };
    while (fscanf(f, "%31s %" SCNx64, target, &generation) == 2)
        append(ret, target, generation);
    fclose(f);
    return true;
}

static bool
drop(const char *folder, const char *uuid, const char *kind, struct error **err)
{
    AUTOFREE(char) *path = path_of(folder, uuid, kind);

    if (unlink(path) == 0)
        return sync_folder(folder, err);
    return errno == ENOENT || error_errno(err, ERROR_STATE, "remove '%s'", path);
}

/* --- what happens to it --------------------------------------------------------------
 */

bool
imprint_write(const char *folder, const char *uuid, const struct imprint *i,
              struct error **err)
{
    return put(folder, uuid, IMAGES, i, err);
}

bool
imprint_read(const char *folder, const char *uuid, struct imprint *ret)
{
    return get(folder, uuid, IMAGES, ret);
}

/* One that cannot be looked at any more, or is no image of that kind, counts as changed.
 */
bool
imprint_start(const char *folder, const char *uuid, const struct imprint *now,
              struct error **err)
{
    struct imprint before, changed = { .n = 0 };
    bool any = false;

    if (!imprint_read(folder, uuid, &before))
        return true;
    imprint_changed(folder, uuid, &changed);
    for (size_t k = 0; k < before.n; k++) {
        const char *target = before.disks[k].target;

        if (imprint_of(now, target) == before.disks[k].generation)
            continue;
        any = true;
        if (imprint_of(&changed, target) == 0)
            append(&changed, target, before.disks[k].generation);
    }
    return (!any || put(folder, uuid, CHANGED, &changed, err)) &&
           drop(folder, uuid, IMAGES, err);
}

bool
imprint_changed(const char *folder, const char *uuid, struct imprint *ret)
{
    return get(folder, uuid, CHANGED, ret);
}

bool
imprint_accept(const char *folder, const char *uuid, struct error **err)
{
    return drop(folder, uuid, CHANGED, err);
}

bool
imprint_remove(const char *folder, const char *uuid, struct error **err)
{
    return drop(folder, uuid, IMAGES, err) && drop(folder, uuid, CHANGED, err);
}
