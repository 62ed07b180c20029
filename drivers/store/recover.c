#include "drivers/store/recover.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "drivers/store/blob.h"
#include "drivers/store/folder.h"
#include "drivers/store/image.h"
#include "drivers/store/journal.h"
#include "drivers/store/replay.h"

#define PROGRESS_BYTES (8u << 20) /* told so often */

/* One disk of the point. */
struct part_disk {
    char target[STORE_TARGET_MAX];
    char layer[LAYOUT_NAME_MAX]; /* "": a journal adds the disk */
    uint64_t capacity_bytes;
};

struct recovery {
    struct replica *r;
    const struct layout_mark *mark;
    uint64_t seq;
    const char *part;
    int fd; /* of part */
    const struct store_overlay *wanted;
    struct part_disk disks[WIRE_MAX_DISKS];
    size_t n_disks;
    bool *replaced;             /* of the mark's blobs: a journal brings another one */
    uint64_t done, told, total; /* bytes of journals */
};

/* --- which disks -------------------------------------------------------------------- */

static struct part_disk *
find_disk(struct recovery *v, const char *target)
{
    for (size_t i = 0; i < v->n_disks; i++)
        if (strcmp(v->disks[i].target, target) == 0)
            return &v->disks[i];
    return NULL;
}

static bool
take_disk(struct recovery *v, const char *target, const char *layer,
          uint64_t capacity_bytes, struct error **err)
{
    struct part_disk *d = find_disk(v, target);

    if (d == NULL) {
        if (v->n_disks == WIRE_MAX_DISKS)
            return error_set(err, ERROR_PROTOCOL, "more than %d disks", WIRE_MAX_DISKS);
        d = &v->disks[v->n_disks++];
        *d = (struct part_disk){ .capacity_bytes = 0 };
        snprintf(d->target, sizeof d->target, "%s", target);
        snprintf(d->layer, sizeof d->layer, "%s", layer);
    }

    /* As in the tip: a disk that grows has its new size from here on, and none shrinks.
     */
    d->capacity_bytes = MAX(d->capacity_bytes, capacity_bytes);
    return true;
}

static bool
take_manifest(struct recovery *v, uint64_t seq, struct error **err)
{
    struct journal_manifest *m = NEW(struct journal_manifest);
    bool ok = journal_peek(v->r->journal_fd, seq, m, err);

    for (size_t i = 0; ok && i < m->n_disks; i++)
        ok = take_disk(v, m->disks[i].target, "", m->disks[i].capacity_bytes, err);
    for (size_t i = 0; ok && i < m->n_blobs; i++)
        for (size_t j = 0; j < v->mark->n_blobs; j++)
            if (strcmp(m->blobs[i], v->mark->blobs[j].name) == 0)
                v->replaced[j] = true;
    free(m);
    return ok;
}

/* The mark's, and what the journals make of them. */
static bool
collect_disks(struct recovery *v, struct error **err)
{
    for (size_t i = 0; i < v->mark->n_views; i++) {
        const struct layout_view *view = &v->mark->views[i];

        if (!take_disk(v, view->target, view->layer, view->capacity_bytes, err))
            return false;
    }
    for (uint64_t seq = v->mark->seq + 1; seq <= v->seq; seq++)
        if (!cancel_check(v->wanted->cancel, err) || !take_manifest(v, seq, err))
            return false;
    return true;
}

/* --- files -------------------------------------------------------------------------- */

static char *
image_path(const struct recovery *v, const struct part_disk *d)
{
    return mem_printf("%s/%s.qcow2", v->part, d->target);
}

static bool
make_images(struct recovery *v, struct error **err)
{
    for (size_t i = 0; i < v->n_disks; i++) {
        const struct part_disk *d = &v->disks[i];
        AUTOFREE(char) *path = image_path(v, d);
        AUTOFREE(char) *backing = NULL;

        /* A VM opens it from elsewhere. */
        if (d->layer[0] != '\0')
            backing = mem_printf("%s/" REPLICA_DISKS "/%s", v->r->folder, d->layer);
        if (!cancel_check(v->wanted->cancel, err) ||
            !image_create(v->r->fd, path, d->capacity_bytes, backing, err))
            return false;
    }
    return true;
}

static bool
write_blob(struct recovery *v, const char *name, const char *data, size_t n,
           struct error **err)
{
    AUTOFD(fd) =
        openat(v->fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, FOLDER_FILE_MODE);

    if (fd < 0)
        return folder_errno(err, "open blob '%s'", name);
    return folder_write_all(fd, name, data, n, err);
}

/* Those of the mark that no journal replaces. */
static bool
copy_blobs(struct recovery *v, struct error **err)
{
    for (size_t i = 0; i < v->mark->n_blobs; i++) {
        const struct layout_blob *b = &v->mark->blobs[i];
        AUTOFREE(char) *data = NULL;

        if (!v->replaced[i] && (!blob_read(v->r->blobs_fd, b, &data, err) ||
                                !write_blob(v, b->name, data, b->size_bytes, err)))
            return false;
    }
    return true;
}

static bool
sync_file(int at, const char *name, void *opaque UNUSED, struct error **err)
{
    return folder_sync(at, name, err);
}

/* --- replay ------------------------------------------------------------------------- */

static void
tell(struct recovery *v)
{
    if (v->wanted->progress != NULL)
        v->wanted->progress(v->done, v->total, v->wanted->opaque);
    v->told = v->done;
}

static void
frame_read(size_t bytes, void *opaque)
{
    struct recovery *v = opaque;

    v->done += bytes;
    if (v->done - v->told >= PROGRESS_BYTES)
        tell(v);
}

static struct chain *
make_chains(struct recovery *v)
{
    struct chain *chains = mem_alloc(v->n_disks, sizeof *chains);

    for (size_t i = 0; i < v->n_disks; i++) {
        const struct part_disk *from = &v->disks[i];
        AUTOFREE(char) *path = image_path(v, from);

        snprintf(chains[i].target, sizeof chains[i].target, "%s", from->target);
        chains[i].capacity_bytes = from->capacity_bytes;
        chain_add(&chains[i], path);
    }
    return chains;
}

static bool
replay_all(struct recovery *v, struct tip *tip, struct error **err)
{
    const struct replay replay = { .journals = v->r->journal_fd,
                                   .tip = tip,
                                   .blobs = v->fd,
                                   .prefix = "",
                                   .cancel = v->wanted->cancel,
                                   .read = frame_read,
                                   .opaque = v };

    tip_set_cancel(tip, v->wanted->cancel);
    for (uint64_t seq = v->mark->seq + 1; seq <= v->seq; seq++)
        if (!replay_journal(&replay, seq, err))
            return false;
    return tip_flush(tip, err);
}

static bool
replay_into_images(struct recovery *v, struct error **err)
{
    AUTOFREE(char) *socket_name = mem_printf("%s/" QSD_SOCKET, v->part);
    struct chain *chains;
    struct tip *tip = NULL;
    bool ok;

    if (v->mark->seq == v->seq)
        return true;
    v->total = journals_between(&v->r->journals, v->mark->seq, v->seq).bytes;
    chains = make_chains(v);
    ok = tip_open(v->r->fd, socket_name, chains, v->n_disks, &tip, err);
    chains_free(chains, v->n_disks);
    ok = ok && replay_all(v, tip, err);
    tip_close(tip);
    if (ok)
        tell(v);
    return ok;
}

/* Last: what was replayed belongs to the point. */
static bool
make_records(struct recovery *v, struct error **err)
{
    for (size_t i = 0; v->wanted->record != NULL && i < v->n_disks; i++) {
        AUTOFREE(char) *path = image_path(v, &v->disks[i]);

        if (!image_record(v->r->fd, path, v->wanted->record, err))
            return false;
    }
    return true;
}

/* --- all of it ---------------------------------------------------------------------- */

static void
take_footing(const struct recovery *v, struct footing *f)
{
    footing_clear(f);
    for (size_t i = 0; i < v->n_disks; i++)
        footing_add_disk(f, v->disks[i].target, v->disks[i].layer);
}

static bool
fill(struct recovery *v, struct error **err)
{
    return collect_disks(v, err) && make_images(v, err) && copy_blobs(v, err) &&
           replay_into_images(v, err) && make_records(v, err) &&
           folder_each(v->fd, ".", sync_file, NULL, err);
}

bool
recover_point(struct replica *r, const struct layout *l, const char *part,
              const struct store_overlay *wanted, struct footing *f, struct error **err)
{
    struct recovery *v = NEW(struct recovery);
    AUTOFD(fd) = -1;
    bool ok = folder_open(r->fd, part, &fd, err);

    *v = (struct recovery){ .r = r,
                            .mark = mark_find(l, f->mark),
                            .seq = f->seq,
                            .part = part,
                            .fd = fd,
                            .wanted = wanted };
    v->replaced = mem_alloc(v->mark->n_blobs, sizeof *v->replaced);
    ok = ok && fill(v, err);
    if (ok)
        take_footing(v, f);
    free(v->replaced);
    free(v);
    return ok;
}
