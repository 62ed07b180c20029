#include "drivers/store/replica.h"

#include <stdio.h>
#include <string.h>

#include "drivers/store/folder.h"
#include "drivers/store/image.h"

#define PATH_SIZE (LAYOUT_NAME_MAX + 16)

static void
layer_path(const char *file, char ret[PATH_SIZE])
{
    snprintf(ret, PATH_SIZE, REPLICA_DISKS "/%s", file);
}

bool
replica_commit(struct replica *r, struct layout *next, struct error **err)
{
    struct layout *old;

    if (!layout_save(next, r->fd, err)) {
        layout_free(next);
        return false;
    }
    pthread_mutex_lock(&r->mutex);
    old = r->layout;
    r->layout = next;
    pthread_mutex_unlock(&r->mutex);
    layout_free(old);
    return true;
}

/* --- the tip ------------------------------------------------------------------------ */

bool
replica_need_tip(struct replica *r, struct error **err)
{
    if (!base_flush(&r->base, err)) /* what it reads through must be there */
        return false;
    base_close(&r->base);
    return r->tip != NULL || tip_open(r->fd, r->layout, &r->tip, err);
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

    /* The base, which a first sync fills, and an empty tip on it. */
    for (unsigned i = 0; i < 2; i++) {
        const char *below = i > 0 ? d->layers[0] : NULL;
        char file[LAYOUT_NAME_MAX], path[PATH_SIZE];

        layout_next_file(d, file);
        layer_path(file, path);
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
    char path[PATH_SIZE];

    if (d == NULL)
        return replica_add_disk(r->fd, next, disk, err);
    if (d->capacity_bytes == disk->capacity_bytes)
        return true;
    layer_path(d->layers[d->n_layers - 1], path);
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

bool
replica_match(struct replica *r, const struct store_disk *disks, size_t n_disks,
              struct error **err)
{
    AUTOPTR(layout) *next = NULL;
    bool differs;

    if (!check_match(r->layout, disks, n_disks, &differs, err))
        return false;
    if (!differs)
        return true;

    /* An image that is grown must not be open, and a new disk needs a new start. */
    if (!replica_flush(r, err))
        return false;
    replica_drop_tip(r);
    next = layout_copy(r->layout);
    for (size_t i = 0; i < n_disks; i++)
        if (!match_disk(r, next, &disks[i], err))
            return false;
    return folder_sync(r->fd, REPLICA_DISKS, err) && replica_commit(r, TAKE(next), err);
}

/* --- seal --------------------------------------------------------------------------- */

static bool
add_layer(struct replica *r, struct layout_disk *d, struct error **err)
{
    char file[LAYOUT_NAME_MAX], path[PATH_SIZE];
    const char *tip = d->layers[d->n_layers - 1];

    if (d->n_layers >= LAYOUT_MAX_LAYERS)
        return error_set(err, ERROR_STORE, "disk '%s' has %zu layers, which is the limit",
                         d->target, d->n_layers);
    layer_path(tip, path);
    if (!folder_sync(r->fd, path, err))
        return false;
    layout_next_file(d, file);
    layer_path(file, path);
    if (!image_create(r->fd, path, d->capacity_bytes, tip, err))
        return false;
    layout_add_layer(d, file);
    return true;
}

/* Best effort: open() removes what is left as well. */
static void
remove_new_layers(struct replica *r, const struct layout *next)
{
    for (size_t i = 0; i < next->n_disks; i++) {
        const struct layout_disk *d = &next->disks[i];
        char path[PATH_SIZE];

        layer_path(d->layers[d->n_layers - 1], path);
        if (!layout_has_layer(r->layout, d->layers[d->n_layers - 1]))
            (void)folder_unlink(r->fd, path, NULL);
    }
}

/*
 * The new files are whole and durable before layout.json names them: a crash
 * leaves either the old tip, or the new one on a layer that nobody writes (I4).
 */
bool
replica_seal(struct replica *r, struct error **err)
{
    AUTOPTR(layout) *next = NULL;
    bool ok = true;

    if (!replica_flush(r, err))
        return false;
    replica_drop_tip(r);
    next = layout_copy(r->layout);
    for (size_t i = 0; ok && i < next->n_disks; i++)
        ok = add_layer(r, &next->disks[i], err);
    ok = ok && folder_sync(r->fd, REPLICA_DISKS, err);
    if (!ok) {
        remove_new_layers(r, next);
        return false;
    }

    /* Past this the new files stay: a failed save may still have become durable. */
    return replica_commit(r, TAKE(next), err);
}

/* --- reset -------------------------------------------------------------------------- */

/* A new, empty tip in the place of the one that is there. */
static bool
replace_tip(struct replica *r, struct layout_disk *d, struct error **err)
{
    const char *below = d->n_layers > 1 ? d->layers[d->n_layers - 2] : NULL;
    char file[LAYOUT_NAME_MAX], path[PATH_SIZE];

    layout_next_file(d, file);
    layer_path(file, path);
    if (!image_create(r->fd, path, d->capacity_bytes, below, err))
        return false;
    snprintf(d->layers[d->n_layers - 1], LAYOUT_NAME_MAX, "%s", file);
    return true;
}

static void
remove_old_tips(struct replica *r, const struct layout *old)
{
    for (size_t i = 0; i < old->n_disks; i++) {
        const struct layout_disk *d = &old->disks[i];
        char path[PATH_SIZE];

        layer_path(d->layers[d->n_layers - 1], path);
        (void)folder_unlink(r->fd, path, NULL);
    }
}

bool
replica_reset(struct replica *r, struct error **err)
{
    AUTOPTR(layout) *old = layout_copy(r->layout);
    AUTOPTR(layout) *next = layout_copy(r->layout);
    bool ok = true;

    replica_drop_tip(r);
    next->applying = 0; /* what was in the tip in part goes with it */
    for (size_t i = 0; ok && i < next->n_disks; i++)
        ok = replace_tip(r, &next->disks[i], err);
    ok = ok && folder_sync(r->fd, REPLICA_DISKS, err);
    if (!ok) {
        remove_new_layers(r, next);
        return false;
    }
    if (!replica_commit(r, TAKE(next), err))
        return false;
    remove_old_tips(r, old);
    return true;
}
