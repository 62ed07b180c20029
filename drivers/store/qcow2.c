#include "drivers/store/qcow2.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "common/units.h"
#include "drivers/store/apply.h"
#include "drivers/store/fold.h"
#include "drivers/store/folder.h"
#include "drivers/store/hashes.h"
#include "drivers/store/journal.h"
#include "drivers/store/original.h"
#include "drivers/store/overlay_kept.h"
#include "drivers/store/qsd.h"
#include "drivers/store/replica.h"
#include "drivers/store/retain.h"
#include "drivers/store/scrub.h"
#include "drivers/store/seal.h"
#include "drivers/store/seed.h"

#define LOCK_TIMEOUT_MS 1000
#define HALF_WRITTEN    2 /* of what may be beside a layer */

static const char *const subfolders[] = { REPLICA_DISKS, REPLICA_JOURNAL, REPLICA_BLOBS,
                                          REPLICA_OVERLAYS };

static const char readme[] =
    "This folder is the replica of a virtual machine's disks, kept by virt-dr. Each file "
    "in journal/ is a recovery point. layout.json lists for each disk its layers in "
    "disks/, oldest first, each a qcow2 image on the one before it or on none, and the "
    "image of the VM, if any, that the first one stands on ('original'; never write to "
    "it); 'applied' is the number of the newest point that they contain, and 'marks' are "
    "points at which the "
    "layers were sealed.\n"
    "\n"
    "By hand, without virt-dr: stop virtdrd first, and never write to a layer, nor "
    "start qemu-img commit or rebase on one. Put a new image on the layer that shows the "
    "point (qemu-img create -f qcow2 -F qcow2 -b FOLDER/disks/LAYER NEW) for each disk, "
    "and start the domain of its domain.xml with the new images as its disks.\n"
    "- The newest point: the last layer of each disk, and aux/ as 'blobs' says. Not "
    "while "
    "'applying' is not 0 or 'direct' is true: then take the newest mark.\n"
    "- An older one that is a mark: the layers and blobs that the mark names. Points "
    "between marks need the journals: let virt-dr recover them.\n";

static struct replica *
replica(struct store *s)
{
    return (struct replica *)s;
}

/* --- the lock ----------------------------------------------------------------------- */

/*
 * A helper that was being started when we were killed holds a copy of the lock
 * until it runs: that is over in moments, while another owner stays.
 */
static bool
lock_file(int lock)
{
    int64_t end = units_monotonic_ms() + LOCK_TIMEOUT_MS;
    bool locked;

    while (!(locked = flock(lock, LOCK_EX | LOCK_NB) == 0) && errno == EWOULDBLOCK &&
           units_monotonic_ms() < end) {
        poll(NULL, 0, 10);
        errno = EWOULDBLOCK;
    }
    return locked;
}

static bool
take_lock(int fd, const char *folder, int *ret, struct error **err)
{
    AUTOFD(lock) = openat(fd, REPLICA_LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
                          FOLDER_FILE_MODE);

    if (lock < 0)
        return folder_errno(err, "open '%s/%s'", folder, REPLICA_LOCK);
    if (!lock_file(lock)) {
        if (errno == EWOULDBLOCK)
            return error_set(err, ERROR_EXISTS,
                             "store '%s' is open already, here or in another process",
                             folder);
        return folder_errno(err, "lock '%s'", folder);
    }
    *ret = TAKE_FD(lock);
    return true;
}

/* --- create ------------------------------------------------------------------------- */

static bool
fill(int fd, const struct store_disk *disks, size_t n_disks, struct error **err)
{
    AUTOPTR(layout) *l = NEW(struct layout);

    l->direct = true; /* no journal leads to what a first sync writes */
    for (size_t i = 0; i < N_ELEMENTS(subfolders); i++)
        if (!folder_make(fd, subfolders[i], err))
            return false;
    for (size_t i = 0; i < n_disks; i++) {
        if (!layout_check_disk(disks[i].target, disks[i].capacity_bytes, err))
            return false;
        if (layout_find(l, disks[i].target) != NULL)
            return error_set(err, ERROR_PROTOCOL, "disk '%s' is there twice",
                             disks[i].target);
        if (!replica_add_disk(fd, l, &disks[i], err))
            return false;
    }
    return folder_sync(fd, REPLICA_DISKS, err) &&
           folder_replace(fd, REPLICA_README, readme, sizeof readme - 1, err) &&
           layout_save(l, fd, err);
}

static bool
sync_parent(const char *folder, struct error **err)
{
    AUTOFREE(char) *copy = mem_strdup(folder);

    return folder_sync(AT_FDCWD, dirname(copy), err);
}

static bool
qcow2_create(const char *folder, const struct store_disk *disks, size_t n_disks,
             struct error **err)
{
    AUTOFD(fd) = -1;
    AUTOFD(lock) = -1;

    if (n_disks > WIRE_MAX_DISKS)
        return error_set(err, ERROR_PROTOCOL, "more than %d disks", WIRE_MAX_DISKS);
    if (!folder_make(AT_FDCWD, folder, err) || !folder_open(AT_FDCWD, folder, &fd, err) ||
        !take_lock(fd, folder, &lock, err))
        return false;
    if (faccessat(fd, LAYOUT_FILE, F_OK, 0) == 0)
        return error_set(err, ERROR_EXISTS, "there is a store in '%s' already", folder);
    if (!qsd_end_stale(fd, err) || !fill(fd, disks, n_disks, err) ||
        !sync_parent(folder, err))
        return error_prefix(err, "make store '%s'", folder);
    return true;
}

/* --- open, close -------------------------------------------------------------------- */

static bool
is_layer_name(const char *name)
{
    const char *dot = strrchr(name, '.');

    return dot != NULL && (strcmp(dot, ".qcow2") == 0 || layout_is_raw(name));
}

/* A layer, or its checksums, that no layout names. */
static bool
remove_unknown_layer(int at, const char *name, void *opaque, struct error **err)
{
    static const char *const beside[] = { "", ".sums", ".sums.new" };
    const struct layout *l = opaque;

    for (size_t i = 0; i < N_ELEMENTS(beside); i++) {
        size_t n = strlen(name), end = strlen(beside[i]);
        AUTOFREE(char) *layer = mem_memdup(name, n > end ? n - end : 0);

        /* A file that is half written goes even if its layer is there. */
        if (n > end && strcmp(name + n - end, beside[i]) == 0 && is_layer_name(layer) &&
            (i == HALF_WRITTEN || !layout_has_layer(l, layer)))
            return folder_unlink(at, name, err);
    }
    return true;
}

static bool
remove_unknown_blob(int at, const char *name, void *opaque, struct error **err)
{
    return layout_has_blob_file(opaque, name) || folder_unlink(at, name, err);
}

static bool
check_layers(struct replica *r, struct error **err)
{
    for (size_t i = 0; i < r->layout->n_disks; i++)
        for (size_t j = 0; j < r->layout->disks[i].n_layers; j++) {
            AUTOFREE(char) *path =
                mem_printf(REPLICA_DISKS "/%s", r->layout->disks[i].layers[j]);

            if (faccessat(r->fd, path, R_OK, 0) < 0)
                return folder_errno(err,
                                    "layer '%s' is missing; restore it, or remove "
                                    "the replica and protect the VM anew",
                                    path);
        }
    return true;
}

/* What a crash left; the storage daemon first, since it may hold what is removed. */
static bool
repair(struct replica *r, struct error **err)
{
    return qsd_end_stale(r->fd, err) && folder_unlink(r->fd, QSD_SOCKET, err) &&
           journal_remove_parts(r->journal_fd, err) &&
           journals_load(&r->journals, r->journal_fd, err) &&
           overlay_remove_parts(r->fd, err) && overlay_load_all(r, err) &&
           folder_each(r->fd, REPLICA_DISKS, remove_unknown_layer, r->layout, err) &&
           folder_each(r->fd, REPLICA_BLOBS, remove_unknown_blob, r->layout, err) &&
           folder_unlink(r->fd, LAYOUT_FILE ".new", err);
}

static bool
open_parts(struct replica *r, struct error **err)
{
    return folder_open(AT_FDCWD, r->folder, &r->fd, err) &&
           take_lock(r->fd, r->folder, &r->lock_fd, err) &&
           layout_load(r->fd, &r->layout, err) && check_layers(r, err) &&
           folder_open(r->fd, REPLICA_JOURNAL, &r->journal_fd, err) &&
           folder_open(r->fd, REPLICA_BLOBS, &r->blobs_fd, err) && repair(r, err);
}

static void
qcow2_close(struct store *s)
{
    struct replica *r = replica(s);
    int *fds[] = { &r->blobs_fd, &r->journal_fd, &r->fd, &r->lock_fd };

    replica_drop_tip(r);
    base_close(&r->base);
    for (size_t i = 0; i < N_ELEMENTS(fds); i++)
        if (*fds[i] >= 0)
            close(*fds[i]);
    pthread_cond_destroy(&r->fold_ended);
    pthread_mutex_destroy(&r->mutex);
    pthread_mutex_destroy(&r->change);
    journals_clear(&r->journals);
    footings_clear(&r->footings);
    layout_free(r->layout);
    free(r->folder);
    free(r);
}

static bool
qcow2_open(const char *folder, struct store **ret, struct error **err)
{
    struct replica *r = NEW(struct replica);

    r->head.ops = &store_qcow2_ops;
    r->fd = r->journal_fd = r->blobs_fd = r->lock_fd = -1;
    pthread_mutex_init(&r->mutex, NULL);
    pthread_mutex_init(&r->change, NULL);
    pthread_cond_init(&r->fold_ended, NULL);
    journals_init(&r->journals);
    r->folder = realpath(folder, NULL);
    if (r->folder == NULL)
        folder_errno(err, "open store '%s'", folder);
    if (r->folder == NULL || !open_parts(r, err)) {
        qcow2_close(&r->head);
        return error_prefix(err, "open store '%s'", folder);
    }
    *ret = &r->head;
    return true;
}

/* --- destroy ------------------------------------------------------------------------ */

/* layout.json goes first: what is left after a crash opens no more, and can be
   destroyed again. */
static bool
remove_parts(int fd, struct error **err)
{
    if (!qsd_end_stale(fd, err) || !folder_unlink(fd, LAYOUT_FILE, err))
        return false;
    if (faccessat(fd, REPLICA_OVERLAYS, F_OK, 0) == 0 && !overlay_remove_all(fd, err))
        return false;
    for (size_t i = 0; i < N_ELEMENTS(subfolders); i++)
        if (!folder_remove(fd, subfolders[i], err))
            return false;
    return folder_unlink(fd, LAYOUT_FILE ".new", err) &&
           folder_unlink(fd, REPLICA_README ".new", err) &&
           folder_unlink(fd, REPLICA_README, err) && folder_unlink(fd, QSD_SOCKET, err) &&
           folder_unlink(fd, REPLICA_LOCK, err);
}

static bool
qcow2_destroy(const char *folder, struct error **err)
{
    AUTOFD(fd) = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTOFD(lock) = -1;

    if (fd < 0 && errno == ENOENT)
        return true;
    if (fd < 0)
        return folder_errno(err, "remove store '%s'", folder);
    if (!take_lock(fd, folder, &lock, err) || !remove_parts(fd, err))
        return error_prefix(err, "remove store '%s'", folder);
    if (rmdir(folder) < 0 && errno != ENOTEMPTY && errno != EEXIST)
        return folder_errno(err, "remove folder '%s'", folder);
    return true;
}

/* --- journals ----------------------------------------------------------------------- */

static bool
qcow2_journal_begin(struct store *s, uint64_t seq, struct journal **ret,
                    struct error **err)
{
    struct replica *r = replica(s);

    if (!journal_new(r->journal_fd, seq, ret, err))
        return false;
    journal_tell(*ret, &r->journals);
    return true;
}

static bool
qcow2_journal_list(struct store *s, uint64_t **ret, size_t *ret_n,
                   struct error **err UNUSED)
{
    journals_list(&replica(s)->journals, ret, ret_n);
    return true;
}

static bool
qcow2_journal_drop(struct store *s, uint64_t seq, struct error **err)
{
    struct replica *r = replica(s);

    if (!journal_drop(r->journal_fd, seq, err))
        return false;
    journals_remove(&r->journals, seq);
    return true;
}

/* --- the tip ------------------------------------------------------------------------ */

static bool
qcow2_match(struct store *s, const struct store_disk *disks, size_t n_disks,
            struct error **err)
{
    return replica_match(replica(s), disks, n_disks, err);
}

static bool
qcow2_apply(struct store *s, uint64_t seq, struct cancel *cancel, struct error **err)
{
    return apply_journal(replica(s), seq, cancel, err);
}

static uint64_t
qcow2_applied(struct store *s)
{
    AUTOPTR(layout) *l = replica_layout(replica(s));

    return l->applied;
}

/*
 * Before the first point the tip is empty and nothing depends on the base: what
 * comes goes into it directly, without the storage daemon, which halves the cost.
 */
static bool
goes_into_base(const struct layout *l, const struct layout_disk *d)
{
    return l->applied == 0 && l->applying == 0 && d->n_layers == 2 &&
           layout_is_raw(d->layers[0]);
}

/* The layout that says already that direct writes come; the disk is in it. */
static bool
begin_direct(struct replica *r, const char *target, struct layout **ret_layout,
             const struct layout_disk **ret_disk, struct error **err)
{
    AUTOPTR(layout) *l = replica_layout(r);

    if (layout_find(l, target) == NULL)
        return error_set(err, ERROR_PROTOCOL, "the replica has no disk '%s'", target);
    if (!replica_settle(r, err))
        return false;
    if (!l->direct) {
        if (!apply_unfinished(r, NULL, err) || !seal_for_direct(r, err))
            return false;
        layout_free(TAKE(l));
        l = replica_layout(r);
    }
    *ret_disk = layout_find(l, target);
    *ret_layout = TAKE(l);
    return true;
}

static bool
qcow2_write(struct store *s, const char *target, uint64_t offset, const void *data,
            size_t length, struct error **err)
{
    struct replica *r = replica(s);
    AUTOPTR(layout) *l = NULL;
    const struct layout_disk *d = NULL;

    if (!begin_direct(r, target, &l, &d, err))
        return false;
    if (goes_into_base(l, d))
        return base_write(&r->base, r->fd, d, offset, data, length, err);
    if (!replica_need_tip(r, err))
        return false;
    if (tip_write(r->tip, (size_t)(d - l->disks), offset, data, length, err))
        return true;
    replica_drop_tip(r);
    return false;
}

static void *
qcow2_place(struct store *s, const char *target, uint64_t offset, size_t length)
{
    return base_place(&replica(s)->base, target, offset, length);
}

static bool
qcow2_zero(struct store *s, const char *target, uint64_t offset, uint64_t length,
           struct error **err)
{
    struct replica *r = replica(s);
    AUTOPTR(layout) *l = NULL;
    const struct layout_disk *d = NULL;

    if (!begin_direct(r, target, &l, &d, err))
        return false;
    if (goes_into_base(l, d))
        return base_zero(&r->base, r->fd, d, offset, length, err);
    if (!replica_need_tip(r, err))
        return false;
    if (tip_zero(r->tip, (size_t)(d - l->disks), offset, length, err))
        return true;
    replica_drop_tip(r);
    return false;
}

static bool
qcow2_hashes(struct store *s, const struct store_hashing *what, uint8_t *ret,
             struct error **err)
{
    struct replica *r = replica(s);
    AUTOPTR(layout) *l = NULL;
    const struct layout_disk *d;

    if (!apply_unfinished(r, NULL, err))
        return false;
    l = replica_layout(r);
    d = layout_find(l, what->target);
    if (d == NULL)
        return error_set(err, ERROR_PROTOCOL, "the replica has no disk '%s'",
                         what->target);
    if (!hashes_check(d, what, err))
        return false;
    if (goes_into_base(l, d))
        return hashes_of_base(r, d, what, ret, err);
    return hashes_of_tip(r, l, d, what, ret, err);
}

static bool
qcow2_mark_originals(struct store *s, const struct store_first *first, struct error **err)
{
    return original_mark(replica(s), first, err);
}

static bool
qcow2_accept_originals(struct store *s, struct error **err)
{
    return original_accept(replica(s), err);
}

static bool
qcow2_adopt(struct store *s, const char *target, const struct seed_image *image,
            const struct store_effort *effort, struct error **err)
{
    return seed_adopt(replica(s), target, image, effort, err);
}

static bool
qcow2_flush(struct store *s, struct error **err)
{
    return replica_flush(replica(s), err);
}

static bool
qcow2_seal(struct store *s, struct error **err)
{
    return apply_unfinished(replica(s), NULL, err) && seal_tip(replica(s), err);
}

static bool
qcow2_reset(struct store *s, struct error **err)
{
    return seal_reset(replica(s), err);
}

static bool
qcow2_overlay_create(struct store *s, const struct store_overlay *wanted,
                     char ***ret_paths, size_t *ret_n, struct error **err)
{
    return overlay_create(replica(s), wanted, ret_paths, ret_n, err);
}

static bool
qcow2_blob(struct store *s, const char *name, char **ret_data, size_t *ret_length,
           struct error **err)
{
    return overlay_newest_blob(replica(s), name, ret_data, ret_length, err);
}

static bool
qcow2_overlay_keep(struct store *s, const char *id, const char *as, struct error **err)
{
    return overlay_keep(replica(s), id, as, err);
}

static bool
qcow2_overlay_remove(struct store *s, const char *id, struct error **err)
{
    return overlay_remove(replica(s), id, err);
}

static bool
qcow2_retain(struct store *s, const uint64_t *seqs, size_t n, struct error **err)
{
    return retain_points(replica(s), seqs, n, err);
}

/* --- upkeep ------------------------------------------------------------------------ */

static bool
qcow2_fold(struct store *s, const struct store_effort *effort, bool *ret_folded,
           struct error **err)
{
    return fold_once(replica(s), effort, ret_folded, err);
}

static bool
qcow2_digest(struct store *s, const struct store_effort *effort, struct error **err)
{
    return scrub_digest(replica(s), effort, err);
}

static bool
qcow2_scrub(struct store *s, const struct store_effort *effort, store_damage_fn damaged,
            void *opaque, uint64_t *ret_bytes, struct error **err)
{
    const struct scrub_listener listener = { .damaged = damaged, .opaque = opaque };

    return scrub_run(replica(s), effort, &listener, ret_bytes, err);
}

/* --- looking ------------------------------------------------------------------------ */

static bool
qcow2_disks(struct store *s, struct store_disk **ret, size_t *ret_n,
            struct error **err UNUSED)
{
    AUTOPTR(layout) *l = replica_layout(replica(s));
    struct store_disk *disks = mem_alloc(l->n_disks, sizeof *disks);

    for (size_t i = 0; i < l->n_disks; i++) {
        const struct layout_disk *d = &l->disks[i];

        snprintf(disks[i].target, sizeof disks[i].target, "%s", d->target);
        disks[i].capacity_bytes = d->capacity_bytes;
    }
    *ret = disks;
    *ret_n = l->n_disks;
    return true;
}

static bool
qcow2_marks(struct store *s, uint64_t **ret, size_t *ret_n, struct error **err UNUSED)
{
    AUTOPTR(layout) *l = replica_layout(replica(s));
    uint64_t *seqs = mem_alloc(l->n_marks, sizeof *seqs);

    for (size_t i = 0; i < l->n_marks; i++)
        seqs[i] = l->marks[i].seq;
    *ret = seqs;
    *ret_n = l->n_marks;
    return true;
}

static bool
qcow2_overlay_blob(struct store *s, const char *id, const char *name, char **ret_data,
                   size_t *ret_length, struct error **err)
{
    return overlay_blob(replica(s), id, name, ret_data, ret_length, err);
}

static bool
qcow2_overlays(struct store *s, char ***ret, size_t *ret_n, struct error **err UNUSED)
{
    overlay_list(replica(s), ret, ret_n);
    return true;
}

/* A layer that is being folded away while we look takes nothing. */
static uint64_t
layer_bytes(struct replica *r, const struct layout_disk *d)
{
    uint64_t bytes = 0;
    struct stat st;

    for (size_t i = 0; i < d->n_layers; i++) {
        char path[LAYOUT_PATH_MAX];

        layout_path(d->layers[i], path);
        if (fstatat(r->fd, path, &st, 0) == 0)
            bytes += (uint64_t)st.st_blocks * 512;
    }
    return bytes;
}

static bool
qcow2_status(struct store *s, struct store_status *ret, struct error **err UNUSED)
{
    struct replica *r = replica(s);
    AUTOPTR(layout) *l = replica_layout(r);
    struct journals_sum all = journals_between(&r->journals, 0, UINT64_MAX);
    struct store_status status = { .applied = l->applied,
                                   .n_marks = l->n_marks,
                                   .journal_bytes = all.bytes,
                                   .n_journals = all.n };

    if (l->n_marks > 0)
        status.marked = l->marks[l->n_marks - 1].seq;
    status.unsealed_bytes =
        journals_between(&r->journals, status.marked, l->applied).bytes;
    for (size_t i = 0; i < l->n_disks; i++) {
        status.layer_bytes += layer_bytes(r, &l->disks[i]);
        status.n_layers = MAX(status.n_layers, l->disks[i].n_layers);
    }
    *ret = status;
    return true;
}

static bool
qcow2_original(struct store *s, const char *target, enum store_original_state *ret,
               struct error **err)
{
    AUTOPTR(layout) *l = replica_layout(replica(s));
    const struct layout_disk *d = layout_find(l, target);

    if (d == NULL)
        return error_set(err, ERROR_PROTOCOL, "the replica has no disk '%s'", target);
    return original_look(&d->original, ret, err);
}

int
store_qcow2_pid(struct store *s)
{
    return replica(s)->tip != NULL ? tip_pid(replica(s)->tip) : 0;
}

const struct store_ops store_qcow2_ops = {
    .name = "qcow2",
    .create = qcow2_create,
    .open = qcow2_open,
    .close = qcow2_close,
    .destroy = qcow2_destroy,
    .match = qcow2_match,
    .journal_begin = qcow2_journal_begin,
    .journal_append = journal_append,
    .journal_commit = journal_commit,
    .journal_abort = journal_abort,
    .journal_list = qcow2_journal_list,
    .journal_drop = qcow2_journal_drop,
    .apply = qcow2_apply,
    .applied = qcow2_applied,
    .write = qcow2_write,
    .zero = qcow2_zero,
    .flush = qcow2_flush,
    .place = qcow2_place,
    .hashes = qcow2_hashes,
    .mark_originals = qcow2_mark_originals,
    .accept_originals = qcow2_accept_originals,
    .adopt = qcow2_adopt,
    .seal = qcow2_seal,
    .reset = qcow2_reset,
    .overlay_create = qcow2_overlay_create,
    .overlay_remove = qcow2_overlay_remove,
    .overlay_keep = qcow2_overlay_keep,
    .blob = qcow2_blob,
    .retain = qcow2_retain,
    .fold = qcow2_fold,
    .digest = qcow2_digest,
    .scrub = qcow2_scrub,
    .disks = qcow2_disks,
    .marks = qcow2_marks,
    .overlays = qcow2_overlays,
    .overlay_blob = qcow2_overlay_blob,
    .status = qcow2_status,
    .original = qcow2_original,
    .space = folder_space,
};
