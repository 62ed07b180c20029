#include "drivers/store/seal.h"

#include <stdio.h>
#include <string.h>

#include "drivers/store/clusters.h"
#include "drivers/store/folder.h"
#include "drivers/store/image.h"

/* --- new files ---------------------------------------------------------------------- */

static bool
check_room(const struct layout *l, struct error **err)
{
    for (size_t i = 0; i < l->n_disks; i++)
        if (l->disks[i].n_layers >= LAYOUT_MAX_LAYERS)
            return error_set(err, ERROR_STORE,
                             "disk '%s' has %zu layers, which is the limit; fewer points "
                             "must be kept, or its layers be folded",
                             l->disks[i].target, l->disks[i].n_layers);
    if (l->n_marks >= MARK_MAX)
        return error_set(err, ERROR_STORE,
                         "there are %zu marks, which is the limit; fewer points must be "
                         "kept",
                         l->n_marks);
    return true;
}

/* A new, empty image with the name of the disk's next layer, on the layer `below`. */
static bool
make_tip(struct replica *r, const struct layout_disk *d, const char *below,
         struct error **err)
{
    char file[LAYOUT_NAME_MAX], path[LAYOUT_PATH_MAX];

    layout_next_file(d, file);
    layout_path(file, path);
    return image_create(r->fd, path, d->capacity_bytes, below, err);
}

/* The newest mark shows all of it: then the next one can show the same layer. If in
   doubt it does not. */
static bool
is_idle(struct replica *r, const struct layout *l, const struct layout_disk *d)
{
    const struct layout_mark *m = mark_before(l, UINT64_MAX);
    const struct layout_view *view = m != NULL ? mark_view(m, d->target) : NULL;
    char path[LAYOUT_PATH_MAX];
    bool empty = false;

    layout_path(d->layers[d->n_layers - 1], path);
    return view != NULL && view->capacity_bytes == d->capacity_bytes &&
           strcmp(view->layer, d->layers[d->n_layers - 2]) == 0 &&
           clusters_none(r->fd, path, &empty, NULL) && empty;
}

static bool
seal_disk(struct replica *r, const struct layout_disk *d, struct error **err)
{
    const char *tip = d->layers[d->n_layers - 1];
    char path[LAYOUT_PATH_MAX];

    layout_path(tip, path);
    return folder_sync(r->fd, path, err) && make_tip(r, d, tip, err);
}

/* Best effort: open() removes what is left as well. */
static void
remove_new_tips(struct replica *r, const struct layout *l)
{
    for (size_t i = 0; i < l->n_disks; i++) {
        char file[LAYOUT_NAME_MAX], path[LAYOUT_PATH_MAX];

        layout_next_file(&l->disks[i], file);
        layout_path(file, path);
        (void)folder_unlink(r->fd, path, NULL);
    }
}

static bool
cut_disk(struct replica *r, int disks, const struct layout_disk *d, struct error **err)
{
    const char *tip = d->layers[d->n_layers - 1];
    bool alone = false, covers = false;
    char path[LAYOUT_PATH_MAX];

    if (!clusters_alone(disks, tip, &alone, err) ||
        (!alone && !clusters_cover(disks, tip, &covers, err)))
        return false;
    if (!covers)
        return true;
    layout_path(tip, path);
    return image_rebase(r->fd, path, NULL, err);
}

/* What is below is hidden already: nobody sees the cut, nor a crash in it. */
bool
seal_cut(struct replica *r, struct error **err)
{
    AUTOPTR(layout) *l = replica_layout(r);
    AUTOFD(disks) = -1;

    if (!replica_flush(r, err) || !folder_open(r->fd, REPLICA_DISKS, &disks, err))
        return false;
    replica_drop_tip(r);
    base_close(&r->base);
    for (size_t i = 0; i < l->n_disks; i++)
        if (!cut_disk(r, disks, &l->disks[i], err))
            return false;
    return true;
}

/*
 * The new files are whole and durable before layout.json names them: a crash
 * leaves either the old tip, or the new one on a layer that nobody writes (I4).
 */
bool
seal_make_tips(struct replica *r, struct seal_tips *ret, struct error **err)
{
    AUTOPTR(layout) *l = replica_layout(r);
    struct seal_tips tips = { .made = { false } };
    bool ok = true;

    if (!check_room(l, err) || !replica_settle(r, err) || !replica_flush(r, err))
        return false;
    replica_drop_tip(r);
    base_close(&r->base);
    for (size_t i = 0; ok && i < l->n_disks; i++) {
        tips.made[i] = !is_idle(r, l, &l->disks[i]);
        ok = !tips.made[i] || seal_disk(r, &l->disks[i], err);
    }
    ok = ok && folder_sync(r->fd, REPLICA_DISKS, err);
    if (ok)
        *ret = tips;
    else
        remove_new_tips(r, l);
    return ok;
}

/* Only the tip's thread adds disks and layers, so the names are those of the files just
   made. */
void
seal_add_tips(const struct seal_tips *tips, struct layout *next)
{
    for (size_t i = 0; i < next->n_disks; i++) {
        char file[LAYOUT_NAME_MAX];

        if (!tips->made[i])
            continue;
        layout_next_file(&next->disks[i], file);
        layout_add_layer(&next->disks[i], file);
    }
}

/* --- seal --------------------------------------------------------------------------- */

static uint64_t
newest_mark(const struct layout *l)
{
    return l->n_marks > 0 ? l->marks[l->n_marks - 1].seq : 0;
}

bool
seal_tip(struct replica *r, struct error **err)
{
    AUTOPTR(layout) *l = replica_layout(r);
    struct seal_tips tips;
    struct layout *next;

    if (l->direct)
        return error_set(
            err, ERROR_INVALID_STATE,
            "the tip holds part of a synchronisation, which is no point yet; "
            "a journal must end it, or reset() throw it away");
    if (newest_mark(l) == l->applied)
        return true;
    if (!seal_make_tips(r, &tips, err))
        return false;
    next = replica_change_begin(r);
    seal_add_tips(&tips, next);
    mark_add(next, next->applied, false);

    /* Past this the new files stay: a failed save may still have become durable. */
    return replica_change_end(r, next, err);
}

bool
seal_for_direct(struct replica *r, struct error **err)
{
    AUTOPTR(layout) *l = replica_layout(r);
    struct layout *next;

    if (l->direct)
        return true;
    if (!seal_tip(r, err) || !replica_settle(r, err))
        return false;
    next = replica_change_begin(r);
    next->direct = true;

    /* Behind a reset, points of before may wait. They must not be written over what
       comes now; their journals lead to them from the mark below. */
    next->applied = MAX(next->applied, journals_newest(&r->journals));
    return replica_change_end(r, next, err);
}

/* --- reset -------------------------------------------------------------------------- */

static bool
replace_tips(struct replica *r, const struct layout *l, struct error **err)
{
    for (size_t i = 0; i < l->n_disks; i++) {
        const struct layout_disk *d = &l->disks[i];

        if (!make_tip(r, d, d->layers[d->n_layers - 2], err))
            return false;
    }
    return folder_sync(r->fd, REPLICA_DISKS, err);
}

/* What is in the tip goes: the replica is again where its newest mark is. */
static void
go_back(struct layout *next)
{
    const struct layout_mark *m =
        next->n_marks > 0 ? &next->marks[next->n_marks - 1] : NULL;

    for (size_t i = 0; i < next->n_disks; i++) {
        struct layout_disk *d = &next->disks[i];
        char file[LAYOUT_NAME_MAX];

        layout_next_file(d, file);
        snprintf(d->layers[d->n_layers - 1], LAYOUT_NAME_MAX, "%s", file);
    }
    next->applying = 0;
    if (m == NULL)
        return;
    next->direct = false;
    next->applied = m->seq;
    next->n_blobs = 0;
    for (size_t i = 0; i < m->n_blobs; i++)
        layout_set_blob(next, &m->blobs[i]);
}

/* Best effort: open() removes what is left as well. */
static void
remove_old(struct replica *r, const struct layout *old)
{
    AUTOPTR(layout) *l = replica_layout(r);

    for (size_t i = 0; i < old->n_disks; i++) {
        const struct layout_disk *d = &old->disks[i];
        char path[LAYOUT_PATH_MAX];

        layout_path(d->layers[d->n_layers - 1], path);
        (void)folder_unlink(r->fd, path, NULL);
    }
    for (size_t i = 0; i < old->n_blobs; i++)
        if (!layout_has_blob_file(l, old->blobs[i].file))
            (void)folder_unlink(r->blobs_fd, old->blobs[i].file, NULL);
}

bool
seal_reset(struct replica *r, struct error **err)
{
    AUTOPTR(layout) *old = replica_layout(r);
    struct layout *next;

    replica_drop_tip(r);
    base_close(&r->base);
    if (!replica_settle(r, err))
        return false;
    if (!replace_tips(r, old, err)) {
        remove_new_tips(r, old);
        return false;
    }
    next = replica_change_begin(r);
    go_back(next);
    if (!replica_change_end(r, next, err))
        return false;
    remove_old(r, old);
    return true;
}
