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
#include "drivers/store/folder.h"
#include "drivers/store/journal.h"
#include "drivers/store/overlay.h"
#include "drivers/store/qsd.h"
#include "drivers/store/replica.h"

#define LOCK_TIMEOUT_MS 1000

static const char *const subfolders[] = { REPLICA_DISKS, REPLICA_JOURNAL, REPLICA_BLOBS,
                                          REPLICA_OVERLAYS };

static const char readme[] =
    "This folder is the replica of a virtual machine's disks, kept by virt-dr; "
    "layout.json "
    "lists for each disk its layers in disks/, oldest first, and 'applied' is the "
    "number of the newest file in journal/ that they contain.\n"
    "To boot it by hand without virt-dr, stop virtdrd, put a qcow2 overlay on the last "
    "layer of each disk (qemu-img create -f qcow2 -F qcow2 -b FOLDER/disks/LAYER NEW) "
    "and "
    "start the domain of aux/*.domain.xml with the overlays as its disks: never write to "
    "a "
    "layer itself, and do not use it while 'applying' in layout.json is not 0.\n";

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
    if (!fill(fd, disks, n_disks, err) || !sync_parent(folder, err))
        return error_prefix(err, "make store '%s'", folder);
    return true;
}

/* --- open, close -------------------------------------------------------------------- */

static bool
remove_unknown_layer(int at, const char *name, void *opaque, struct error **err)
{
    const char *dot = strrchr(name, '.');

    if (dot == NULL || (strcmp(dot, ".qcow2") != 0 && !layout_is_raw(name)) ||
        layout_has_layer(opaque, name))
        return true;
    return folder_unlink(at, name, err);
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
           journal_remove_parts(r->journal_fd, err) && overlay_remove_parts(r->fd, err) &&
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
    pthread_mutex_destroy(&r->mutex);
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
    return journal_new(replica(s)->journal_fd, seq, ret, err);
}

static bool
qcow2_journal_list(struct store *s, uint64_t **ret, size_t *ret_n, struct error **err)
{
    return journal_list(replica(s)->journal_fd, ret, ret_n, err);
}

static bool
qcow2_journal_drop(struct store *s, uint64_t seq, struct error **err)
{
    return journal_drop(replica(s)->journal_fd, seq, err);
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
    struct replica *r = replica(s);
    uint64_t applied;

    pthread_mutex_lock(&r->mutex);
    applied = r->layout->applied;
    pthread_mutex_unlock(&r->mutex);
    return applied;
}

/*
 * Before the first point the tip is empty and nothing depends on the base: what
 * comes goes into it directly, without the storage daemon, which halves the cost.
 */
static bool
goes_into_base(const struct replica *r, const struct layout_disk *d)
{
    return r->layout->applied == 0 && r->layout->applying == 0 && d->n_layers == 2 &&
           layout_is_raw(d->layers[0]);
}

static bool
find_disk(struct replica *r, const char *target, struct layout_disk **ret,
          struct error **err)
{
    struct layout_disk *d = layout_find(r->layout, target);

    if (d == NULL)
        return error_set(err, ERROR_PROTOCOL, "the replica has no disk '%s'", target);
    *ret = d;
    return true;
}

static bool
qcow2_write(struct store *s, const char *target, uint64_t offset, const void *data,
            size_t length, struct error **err)
{
    struct replica *r = replica(s);
    struct layout_disk *d = NULL;

    if (!find_disk(r, target, &d, err))
        return false;
    if (goes_into_base(r, d))
        return base_write(&r->base, r->fd, d, offset, data, length, err);
    if (!replica_need_tip(r, err))
        return false;
    if (tip_write(r->tip, (size_t)(d - r->layout->disks), offset, data, length, err))
        return true;
    replica_drop_tip(r);
    return false;
}

static bool
qcow2_zero(struct store *s, const char *target, uint64_t offset, uint64_t length,
           struct error **err)
{
    struct replica *r = replica(s);
    struct layout_disk *d = NULL;

    if (!find_disk(r, target, &d, err))
        return false;
    if (goes_into_base(r, d))
        return base_zero(&r->base, r->fd, d, offset, length, err);
    if (!replica_need_tip(r, err))
        return false;
    if (tip_zero(r->tip, (size_t)(d - r->layout->disks), offset, length, err))
        return true;
    replica_drop_tip(r);
    return false;
}

static bool
qcow2_flush(struct store *s, struct error **err)
{
    return replica_flush(replica(s), err);
}

static bool
qcow2_seal(struct store *s, struct error **err)
{
    return apply_unfinished(replica(s), NULL, err) && replica_seal(replica(s), err);
}

static bool
qcow2_reset(struct store *s, struct error **err)
{
    return replica_reset(replica(s), err);
}

static bool
qcow2_overlay_create(struct store *s, const struct store_overlay *wanted,
                     char ***ret_paths, size_t *ret_n, struct error **err)
{
    return overlay_create(replica(s), wanted->id, ret_paths, ret_n, err);
}

static bool
qcow2_overlay_remove(struct store *s, const char *id, struct error **err)
{
    return overlay_remove(replica(s), id, err);
}

/* --- looking ------------------------------------------------------------------------ */

static bool
qcow2_disks(struct store *s, struct store_disk **ret, size_t *ret_n,
            struct error **err UNUSED)
{
    struct replica *r = replica(s);
    struct store_disk *disks;

    pthread_mutex_lock(&r->mutex);
    disks = mem_alloc(r->layout->n_disks, sizeof *disks);
    for (size_t i = 0; i < r->layout->n_disks; i++) {
        const struct layout_disk *d = &r->layout->disks[i];

        snprintf(disks[i].target, sizeof disks[i].target, "%s", d->target);
        disks[i].capacity_bytes = d->capacity_bytes;
    }
    *ret = disks;
    *ret_n = r->layout->n_disks;
    pthread_mutex_unlock(&r->mutex);
    return true;
}

static bool
qcow2_overlay_blob(struct store *s, const char *id UNUSED, const char *name,
                   char **ret_data, size_t *ret_length, struct error **err)
{
    struct replica *r = replica(s);
    const struct layout_blob *b = layout_find_blob(r->layout, name);

    if (b == NULL)
        return error_set(err, ERROR_POINT_NOT_FOUND, "no point with '%s' was applied yet",
                         name);
    return folder_read(r->blobs_fd, b->file, WIRE_MAX_BLOB_BYTES, ret_data, ret_length,
                       err);
}

static bool
qcow2_status(struct store *s, struct store_status *ret, struct error **err UNUSED)
{
    *ret = (struct store_status){ .applied = qcow2_applied(s) };
    return true;
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
    .seal = qcow2_seal,
    .reset = qcow2_reset,
    .overlay_create = qcow2_overlay_create,
    .overlay_remove = qcow2_overlay_remove,
    .disks = qcow2_disks,
    .overlay_blob = qcow2_overlay_blob,
    .status = qcow2_status,
    .space = folder_space,
};
