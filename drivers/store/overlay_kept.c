#include "drivers/store/overlay_kept.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "drivers/store/clusters.h"
#include "drivers/store/folder.h"
#include "drivers/store/image.h"
#include "drivers/store/overlay.h"

#define IMAGE ".qcow2"

/* --- keep --------------------------------------------------------------------------- */

static void
rename_footing(struct replica *r, const char *id, const char *as)
{
    struct footing *f;

    pthread_mutex_lock(&r->mutex);
    f = footings_find(&r->footings, id);
    if (f != NULL)
        snprintf(f->id, sizeof f->id, "%s", as);
    pthread_mutex_unlock(&r->mutex);
}

/* An earlier try, of which the caller heard nothing, has done it. */
static bool
is_kept(struct replica *r, const char *path)
{
    return faccessat(r->fd, path, F_OK, 0) == 0;
}

bool
overlay_keep(struct replica *r, const char *id, const char *as, struct error **err)
{
    AUTOFREE(char) *from = mem_printf(REPLICA_OVERLAYS "/%s", id);
    AUTOFREE(char) *to = mem_printf(REPLICA_OVERLAYS "/%s", as);

    if (!overlay_check_id(id, err) || !overlay_check_id(as, err))
        return false;
    if (renameat(r->fd, from, r->fd, to) < 0 && !(errno == ENOENT && is_kept(r, to)))
        return folder_errno(err, "keep overlay '%s' as '%s'", id, as);
    rename_footing(r, id, as);
    return folder_sync(r->fd, REPLICA_OVERLAYS, err);
}

/* --- standing on it ------------------------------------------------------------------
 */

bool
overlay_stand_on_kept(struct replica *r, const char *from, struct footing *f,
                      struct error **err)
{
    struct footing entry = { .seq = 0 };
    const struct footing *kept;
    bool found;

    pthread_mutex_lock(&r->mutex);
    kept = footings_find(&r->footings, from);
    found = kept != NULL && kept->ready && !kept->unknown;
    if (found) {
        f->seq = kept->seq;
        f->mark = kept->mark;
        entry = (struct footing){ .seq = kept->seq, .mark = kept->mark };
        snprintf(entry.id, sizeof entry.id, "%s", f->id);
        for (size_t i = 0; i < kept->n_disks; i++) {
            footing_add_disk(f, kept->disks[i].target, kept->disks[i].layer);
            footing_add_disk(&entry, kept->disks[i].target, kept->disks[i].layer);
        }
        footings_remove(&r->footings, f->id);
        footings_add(&r->footings, &entry);
    }
    pthread_mutex_unlock(&r->mutex);
    return found ||
           error_set(err, ERROR_POINT_NOT_FOUND, "there is no overlay '%s'", from);
}

static bool
make_image(struct replica *r, const char *from, const char *part, const char *target,
           struct error **err)
{
    AUTOFREE(char) *below = mem_printf(REPLICA_OVERLAYS "/%s/%s" IMAGE, from, target);
    AUTOFREE(char) *backing = mem_printf("%s/%s", r->folder, below);
    AUTOFREE(char) *path = mem_printf("%s/%s" IMAGE, part, target);
    uint64_t capacity_bytes;

    return clusters_capacity(r->fd, below, &capacity_bytes, err) &&
           image_create(r->fd, path, capacity_bytes, backing, err);
}

struct copy {
    int to;
};

static bool
ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), k = strlen(end);

    return n >= k && strcmp(name + n - k, end) == 0;
}

static bool
copy_blob(int at, const char *name, void *opaque, struct error **err)
{
    const struct copy *c = opaque;
    AUTOFREE(char) *data = NULL;
    AUTOFD(fd) = -1;
    size_t n;

    if (ends_with(name, IMAGE) || strcmp(name, FOOTING_FILE) == 0)
        return true;
    if (!folder_read(at, name, WIRE_MAX_BLOB_BYTES, &data, &n, err))
        return false;
    fd = openat(c->to, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, FOLDER_FILE_MODE);
    if (fd < 0)
        return folder_errno(err, "open blob '%s'", name);
    return folder_write_all(fd, name, data, n, err) && folder_sync(c->to, name, err);
}

bool
overlay_fill_from_kept(struct replica *r, const char *from, const char *part,
                       const struct footing *f, struct error **err)
{
    AUTOFREE(char) *folder = mem_printf(REPLICA_OVERLAYS "/%s", from);
    AUTOFD(fd) = -1;
    struct copy c;

    for (size_t i = 0; i < f->n_disks; i++)
        if (!make_image(r, from, part, f->disks[i].target, err))
            return false;
    if (!folder_open(r->fd, part, &fd, err))
        return false;
    c.to = fd;
    return folder_each(r->fd, folder, copy_blob, &c, err);
}
