#include "drivers/store/overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "drivers/store/apply.h"
#include "drivers/store/folder.h"
#include "drivers/store/image.h"

#define ID_MAX 64
#define PART   ".part" /* no id has a dot */

static bool
check_id(const char *id, struct error **err)
{
    size_t n = strlen(id);

    if (n == 0 || n > ID_MAX || strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789-") != n)
        return error_set(err, ERROR_PROTOCOL,
                         "overlay '%.70s': an id is 1 to %d of a-z, 0-9 and '-'", id,
                         ID_MAX);
    return true;
}

static bool
exists(struct replica *r, const char *path)
{
    return faccessat(r->fd, path, F_OK, 0) == 0;
}

static void
list_paths(struct replica *r, const char *id, char ***ret_paths, size_t *ret_n)
{
    char **paths = mem_alloc(r->layout->n_disks, sizeof *paths);
    size_t n = 0;

    for (size_t i = 0; i < r->layout->n_disks; i++) {
        AUTOFREE(char) *path =
            mem_printf(REPLICA_OVERLAYS "/%s/%s.qcow2", id, r->layout->disks[i].target);

        /* A disk that was added since this overlay was made is not in it. */
        if (exists(r, path))
            paths[n++] = mem_printf("%s/%s", r->folder, path);
    }
    *ret_paths = paths;
    *ret_n = n;
}

/* On the layer below the tip: seal() has just put it there. */
static bool
build_disk(struct replica *r, const char *folder, const struct layout_disk *d,
           struct error **err)
{
    AUTOFREE(char) *path = mem_printf("%s/%s.qcow2", folder, d->target);
    AUTOFREE(char) *backing =
        mem_printf("%s/" REPLICA_DISKS "/%s", r->folder, d->layers[d->n_layers - 2]);

    return image_create(r->fd, path, d->capacity_bytes, backing, err);
}

static bool
build(struct replica *r, const char *id, struct error **err)
{
    AUTOFREE(char) *whole = mem_printf(REPLICA_OVERLAYS "/%s", id);
    AUTOFREE(char) *part = mem_printf("%s" PART, whole);

    if (!folder_remove(r->fd, part, err) || !folder_make(r->fd, part, err))
        return false;
    for (size_t i = 0; i < r->layout->n_disks; i++)
        if (!build_disk(r, part, &r->layout->disks[i], err))
            return false;
    if (!folder_sync(r->fd, part, err))
        return false;
    if (renameat(r->fd, part, r->fd, whole) < 0)
        return folder_errno(err, "rename '%s'", part);
    return folder_sync(r->fd, REPLICA_OVERLAYS, err);
}

static bool
make(struct replica *r, const char *id, struct error **err)
{
    AUTOFREE(char) *part = NULL;

    if (!apply_unfinished(r, NULL, err) || !replica_seal(r, err))
        return false;
    if (build(r, id, err))
        return true;

    /* What is half built would only take space. */
    part = mem_printf(REPLICA_OVERLAYS "/%s" PART, id);
    (void)folder_remove(r->fd, part, NULL);
    return false;
}

bool
overlay_create(struct replica *r, const char *id, char ***ret_paths, size_t *ret_n,
               struct error **err)
{
    AUTOFREE(char) *whole = mem_printf(REPLICA_OVERLAYS "/%s", id);

    if (!check_id(id, err))
        return false;
    if (!exists(r, whole) && !make(r, id, err))
        return error_prefix(err, "make overlay '%s'", id);
    list_paths(r, id, ret_paths, ret_n);
    return true;
}

bool
overlay_remove(struct replica *r, const char *id, struct error **err)
{
    AUTOFREE(char) *whole = mem_printf(REPLICA_OVERLAYS "/%s", id);
    AUTOFREE(char) *part = mem_printf("%s" PART, whole);

    if (!check_id(id, err) || !folder_remove(r->fd, part, err))
        return false;

    /* Renamed first: half an overlay must not be taken for a whole one. */
    if (renameat(r->fd, whole, r->fd, part) < 0 && errno != ENOENT)
        return folder_errno(err, "remove overlay '%s'", id);
    return folder_remove(r->fd, part, err) && folder_sync(r->fd, REPLICA_OVERLAYS, err);
}

static bool
remove_part(int at, const char *name, void *opaque UNUSED, struct error **err)
{
    const char *dot = strchr(name, '.');

    return dot == NULL || strcmp(dot, PART) != 0 || folder_remove(at, name, err);
}

bool
overlay_remove_parts(int fd, struct error **err)
{
    return folder_each(fd, REPLICA_OVERLAYS, remove_part, NULL, err);
}

static bool
remove_any(int at, const char *name, void *opaque UNUSED, struct error **err)
{
    return folder_remove(at, name, err);
}

bool
overlay_remove_all(int fd, struct error **err)
{
    return folder_each(fd, REPLICA_OVERLAYS, remove_any, NULL, err);
}
