#include "drivers/store/replica.h"

#include <stdio.h>
#include <string.h>

#include "drivers/store/folder.h"
#include "drivers/store/image.h"
#include "drivers/store/original.h"

/* --- the layout --------------------------------------------------------------------- */

struct layout *
replica_layout(struct replica *r)
{
    struct layout *l;

    pthread_mutex_lock(&r->mutex);
    l = layout_ref(r->layout);
    pthread_mutex_unlock(&r->mutex);
    return l;
}

struct layout *
replica_change_begin(struct replica *r)
{
    pthread_mutex_lock(&r->change);
    return layout_copy(r->layout); /* only replaced under this lock */
}

bool
replica_change_end(struct replica *r, struct layout *next, struct error **err)
{
    struct layout *old = next;
    bool ok = layout_save(next, r->fd, err);

    r->doubtful = !ok;
    if (ok) {
        pthread_mutex_lock(&r->mutex);
        old = r->layout;
        r->layout = next;
        pthread_mutex_unlock(&r->mutex);
    }
    pthread_mutex_unlock(&r->change);
    layout_free(old);
    return ok;
}

void
replica_change_abort(struct replica *r, struct layout *next)
{
    pthread_mutex_unlock(&r->change);
    layout_free(next);
}

bool
replica_settle(struct replica *r, struct error **err)
{
    struct layout *next;

    if (!r->doubtful)
        return true;
    next = replica_change_begin(r);
    if (r->doubtful)
        return replica_change_end(r, next, err);
    replica_change_abort(r, next);
    return true;
}

/* --- the tip ------------------------------------------------------------------------ */

static bool
open_tip(struct replica *r, struct error **err)
{
    AUTOFD(disks) = -1;
    struct chain *chains;
    size_t n;
    bool ok;

    if (!folder_open(r->fd, REPLICA_DISKS, &disks, err))
        return false;

    /* A layer that is folded away goes only when no layout names it any more. */
    pthread_mutex_lock(&r->change);
    chains = chains_of_tips(r->layout, disks);
    n = r->layout->n_disks;
    ok = tip_open(r->fd, QSD_SOCKET, chains, n, &r->tip, err);
    pthread_mutex_unlock(&r->change);
    chains_free(chains, n);
    return ok;
}

bool
replica_need_tip(struct replica *r, struct error **err)
{
    if (!base_flush(&r->base, err)) /* what it reads through must be there */
        return false;
    base_close(&r->base);
    return r->tip != NULL || open_tip(r, err);
}

void
replica_drop_tip(struct replica *r)
{
    tip_close(TAKE(r->tip));
}

bool
replica_flush(struct replica *r, struct error **err)
{
    if (!base_flush(&r->base, err))
        return false;
    if (r->tip == NULL || tip_flush(r->tip, err))
        return true;
    replica_drop_tip(r);
    return false;
}

/* --- match -------------------------------------------------------------------------- */

bool
replica_add_disk(int fd, struct layout *next, const struct store_disk *disk,
                 struct error **err)
{
    struct layout_disk *d = layout_add_disk(next, disk->target, disk->capacity_bytes);

    /* The base, which a first sync fills or an original shows, and an empty tip on it. */
    if (disk->stands_on != NULL && !original_put_below(fd, d, disk->stands_on, err))
        return false;
    for (size_t i = d->n_layers; i < LAYOUT_MIN_LAYERS; i++) {
        const char *below = i > 0 ? d->layers[0] : NULL;
        char file[LAYOUT_NAME_MAX], path[LAYOUT_PATH_MAX];

        layout_next_file(d, file);
        layout_path(file, path);
        if (!image_create(fd, path, d->capacity_bytes, below, err))
            return false;
        layout_add_layer(d, file);
    }
    return true;
}

static bool
match_disk(struct replica *r, struct layout *next, const struct store_disk *disk,
           struct error **err)
{
    struct layout_disk *d = layout_find(next, disk->target);
    struct store_disk added = *disk;
    char path[LAYOUT_PATH_MAX];

    added.stands_on = NULL;
    if (d == NULL)
        return replica_add_disk(r->fd, next, &added, err);
    if (d->capacity_bytes == disk->capacity_bytes)
        return true;
    layout_path(d->layers[d->n_layers - 1], path);
    d->capacity_bytes = disk->capacity_bytes;
    return image_grow(r->fd, path, disk->capacity_bytes, err);
}

/* *ret_differs: there is something to do. Nothing was changed if it fails. */
static bool
check_match(const struct layout *l, const struct store_disk *disks, size_t n_disks,
            bool *ret_differs, struct error **err)
{
    size_t n_new = 0;

    *ret_differs = false;
    for (size_t i = 0; i < n_disks; i++) {
        const struct layout_disk *d = layout_find(l, disks[i].target);
        uint64_t wanted = disks[i].capacity_bytes;

        if (!layout_check_disk(disks[i].target, wanted, err))
            return false;
        if (d != NULL && wanted < d->capacity_bytes)
            return error_set(err, ERROR_PROTOCOL,
                             "disk '%s' has %llu bytes here and cannot shrink to %llu; "
                             "protect the VM anew if it really became smaller",
                             d->target, (unsigned long long)d->capacity_bytes,
                             (unsigned long long)wanted);
        if (d == NULL || wanted != d->capacity_bytes)
            *ret_differs = true;
        n_new += d == NULL;
    }
    if (l->n_disks + n_new > WIRE_MAX_DISKS)
        return error_set(err, ERROR_PROTOCOL, "more than %d disks", WIRE_MAX_DISKS);
    return true;
}

/* New files, and larger ones: harmless until layout.json says so. */
static bool
match_all(struct replica *r, struct layout *next, const struct store_disk *disks,
          size_t n_disks, struct error **err)
{
    for (size_t i = 0; i < n_disks; i++)
        if (!match_disk(r, next, &disks[i], err))
            return false;
    return folder_sync(r->fd, REPLICA_DISKS, err);
}

bool
replica_match(struct replica *r, const struct store_disk *disks, size_t n_disks,
              struct error **err)
{
    AUTOPTR(layout) *l = replica_layout(r);
    struct layout *next;
    bool differs;

    if (!check_match(l, disks, n_disks, &differs, err))
        return false;
    if (!differs)
        return true;

    /* An image that is grown must not be open, and a new disk needs a new start. */
    if (!replica_flush(r, err))
        return false;
    replica_drop_tip(r);
    next = replica_change_begin(r);
    if (match_all(r, next, disks, n_disks, err))
        return replica_change_end(r, next, err);
    replica_change_abort(r, next);
    return false;
}
