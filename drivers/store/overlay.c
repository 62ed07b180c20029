#include "drivers/store/overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "drivers/store/apply.h"
#include "drivers/store/blob.h"
#include "drivers/store/folder.h"
#include "drivers/store/overlay_kept.h"
#include "drivers/store/recover.h"
#include "drivers/store/seal.h"

#define PART    ".part" /* no id has a dot */
#define WAIT_NS 100000000L

static bool
is_id(const char *id)
{
    size_t n = strlen(id);

    return n > 0 && n <= FOOTING_ID_MAX &&
           strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

bool
overlay_check_id(const char *id, struct error **err)
{
    return is_id(id) || error_set(err, ERROR_PROTOCOL,
                                  "overlay '%.70s': an id is 1 to %d of a-z, 0-9 and '-'",
                                  id, FOOTING_ID_MAX);
}

/* --- the fold's side ---------------------------------------------------------------- */

bool
overlay_in_use(struct replica *r, const struct layout_disk *d, size_t *ret_index)
{
    bool found;

    pthread_mutex_lock(&r->mutex);
    found = footings_highest(&r->footings, d, ret_index);
    pthread_mutex_unlock(&r->mutex);
    return found;
}

/* Under r->mutex: does an overlay stand on the lower layer of this fold, or above? */
static bool
collides(struct replica *r, const struct layout_fold *what)
{
    const struct layout_disk *d = layout_find(r->layout, what->target);
    size_t highest;

    return d != NULL && footings_highest(&r->footings, d, &highest) &&
           highest >= layout_layer_index(d, what->lower);
}

bool
overlay_fold_begins(struct replica *r, const struct layout_fold *what,
                    struct cancel *cancel)
{
    bool free_to;

    pthread_mutex_lock(&r->mutex);
    free_to = !collides(r, what);
    if (free_to)
        r->fold = (struct replica_fold){ .what = *what, .cancel = cancel };
    pthread_mutex_unlock(&r->mutex);
    return free_to;
}

void
overlay_fold_ended(struct replica *r)
{
    pthread_mutex_lock(&r->mutex);
    r->fold.cancel = NULL;
    pthread_cond_broadcast(&r->fold_ended);
    pthread_mutex_unlock(&r->mutex);
}

/* Ends a fold of what our footing stands on. *ret_waited: there was one. */
static bool
await_fold(struct replica *r, struct cancel *cancel, bool *ret_waited, struct error **err)
{
    bool ok = true;

    *ret_waited = false;
    pthread_mutex_lock(&r->mutex);
    while (ok && r->fold.cancel != NULL && collides(r, &r->fold.what)) {
        struct timespec end;

        *ret_waited = true;
        cancel_request(r->fold.cancel);
        clock_gettime(CLOCK_MONOTONIC, &end);
        end.tv_nsec += WAIT_NS;
        end.tv_sec += end.tv_nsec / 1000000000L;
        end.tv_nsec %= 1000000000L;
        pthread_cond_clockwait(&r->fold_ended, &r->mutex, CLOCK_MONOTONIC, &end);
        ok = cancel_check(cancel, err);
    }
    pthread_mutex_unlock(&r->mutex);
    return ok;
}

/* --- which point -------------------------------------------------------------------- */

/* The newest point is sealed: then it is a mark, and nothing has to be replayed. */
static bool
seal_newest(struct replica *r, struct cancel *cancel, uint64_t *ret, struct error **err)
{
    AUTOPTR(layout) *l = NULL;

    if (!apply_unfinished(r, cancel, err))
        return false;
    l = replica_layout(r);
    if (l->applied == 0)
        return error_set(err, ERROR_POINT_NOT_FOUND, "no point was applied yet");

    /* Direct writes begin behind a seal only. */
    if (!l->direct && !seal_tip(r, err))
        return false;
    *ret = l->applied;
    return true;
}

/* A point that is not the newest, or a tip that is at none, is left as it is. */
static bool
choose_point(struct replica *r, const struct store_overlay *wanted, uint64_t *ret,
             struct error **err)
{
    AUTOPTR(layout) *l = replica_layout(r);

    if (wanted->seq == 0 || (wanted->seq == l->applied && l->applying == 0 && !l->direct))
        return seal_newest(r, wanted->cancel, ret, err);
    *ret = wanted->seq;
    return true;
}

static bool
find_mark(struct replica *r, const struct layout *l, uint64_t seq,
          const struct layout_mark **ret, struct error **err)
{
    const struct layout_mark *m = mark_before(l, seq);
    unsigned long long p = seq;

    if (m == NULL && l->n_marks == 0)
        return error_set(err, ERROR_POINT_NOT_FOUND,
                         "there is no point %llu: none was applied yet", p);
    if (m == NULL)
        return error_set(err, ERROR_POINT_NOT_FOUND,
                         "there is no point %llu: the oldest mark is %llu", p,
                         (unsigned long long)l->marks[0].seq);
    if (l->direct && seq > l->applied)
        return error_set(err, ERROR_POINT_NOT_FOUND,
                         "point %llu comes after a synchronisation, and was not applied "
                         "yet; the newest point is %llu",
                         p, (unsigned long long)l->applied);
    if (journals_between(&r->journals, m->seq, seq).n != seq - m->seq)
        return error_set(err, ERROR_POINT_NOT_FOUND,
                         "there is no point %llu: between mark %llu and it journals are "
                         "missing",
                         p, (unsigned long long)m->seq);
    *ret = m;
    return true;
}

/* --- the footing -------------------------------------------------------------------- */

/*
 * Chooses the mark and writes down that we need it, in one: what retain drops
 * meanwhile is either gone before, or stays. A footing of ours that is there is renewed.
 */
static bool
stand(struct replica *r, struct footing *f, struct layout **ret, struct error **err)
{
    struct layout *l = replica_change_begin(r);
    const struct layout_mark *m = NULL;
    struct footing entry;

    if (!find_mark(r, l, f->seq, &m, err)) {
        replica_change_abort(r, l);
        return false;
    }
    f->mark = m->seq;
    entry = (struct footing){ .seq = f->seq, .mark = m->seq };
    snprintf(entry.id, sizeof entry.id, "%s", f->id);
    for (size_t i = 0; i < m->n_views; i++)
        footing_add_disk(&entry, m->views[i].target, m->views[i].layer);
    pthread_mutex_lock(&r->mutex);
    footings_remove(&r->footings, f->id);
    footings_add(&r->footings, &entry);
    pthread_mutex_unlock(&r->mutex);
    *ret = layout_ref(l);
    replica_change_abort(r, l);
    return true;
}

static void
step_off(struct replica *r, const char *id)
{
    pthread_mutex_lock(&r->mutex);
    footings_remove(&r->footings, id);
    pthread_mutex_unlock(&r->mutex);
}

/* A fold that we waited for may have renamed the mark's layers. */
static bool
stand_firmly(struct replica *r, struct footing *f, struct cancel *cancel,
             struct layout **ret, struct error **err)
{
    bool waited = true;

    while (waited) {
        AUTOPTR(layout) *l = NULL;

        if (!stand(r, f, &l, err) || !await_fold(r, cancel, &waited, err))
            return false;
        if (!waited)
            *ret = TAKE(l);
    }
    return true;
}

/* --- create ------------------------------------------------------------------------- */

static bool
publish(struct replica *r, struct footing *f, const char *part, const char *whole,
        struct error **err)
{
    AUTOFD(fd) = -1;

    if (!folder_open(r->fd, part, &fd, err) || !footing_save(f, fd, err))
        return false;
    if (renameat(r->fd, part, r->fd, whole) < 0)
        return folder_errno(err, "rename '%s'", part);
    if (!folder_sync(r->fd, REPLICA_OVERLAYS, err)) {
        (void)folder_remove(r->fd, whole, NULL); /* it has no footing */
        return false;
    }
    f->ready = true;
    pthread_mutex_lock(&r->mutex);
    footings_remove(&r->footings, f->id);
    footings_add(&r->footings, f);
    pthread_mutex_unlock(&r->mutex);
    return true;
}

static bool
begin_part(struct replica *r, const char *part, struct error **err)
{
    return folder_remove(r->fd, part, err) && folder_make(r->fd, part, err);
}

static bool
build(struct replica *r, const struct store_overlay *wanted, struct footing *f,
      struct error **err)
{
    AUTOFREE(char) *whole = mem_printf(REPLICA_OVERLAYS "/%s", f->id);
    AUTOFREE(char) *part = mem_printf("%s" PART, whole);
    AUTOPTR(layout) *l = NULL;

    if (wanted->from != NULL
            ? overlay_stand_on_kept(r, wanted->from, f, err) &&
                  begin_part(r, part, err) &&
                  overlay_fill_from_kept(r, wanted->from, part, f, err) &&
                  publish(r, f, part, whole, err)
            : stand_firmly(r, f, wanted->cancel, &l, err) && begin_part(r, part, err) &&
                  recover_point(r, l, part, wanted, f, err) &&
                  publish(r, f, part, whole, err))
        return true;

    /* What is half built would only take space. */
    (void)folder_remove(r->fd, part, NULL);
    step_off(r, f->id);
    return false;
}

/* Takes the id, so that nobody else makes an overlay of it meanwhile. */
static bool
claim(struct replica *r, const char *id, bool *ret_ready, struct error **err)
{
    struct footing entry = { .seq = 0 };
    const struct footing *f;
    bool ready = false, busy = false, unknown = false;

    snprintf(entry.id, sizeof entry.id, "%s", id);
    pthread_mutex_lock(&r->mutex);
    f = footings_find(&r->footings, id);
    if (f != NULL) {
        ready = f->ready;
        unknown = f->unknown;
        busy = !ready;
    } else {
        footings_add(&r->footings, &entry);
    }
    pthread_mutex_unlock(&r->mutex);
    if (busy)
        return error_set(err, ERROR_IN_PROGRESS, "it is being made already");
    if (unknown)
        return error_set(err, ERROR_STORE, "its '%s' is damaged", FOOTING_FILE);
    *ret_ready = ready;
    return true;
}

static bool
make(struct replica *r, const struct store_overlay *wanted, struct error **err)
{
    struct footing f = { .seq = 0 };
    bool ready = false, ok;

    if (!claim(r, wanted->id, &ready, err))
        return false;
    if (ready)
        return true;
    snprintf(f.id, sizeof f.id, "%s", wanted->id);
    ok = wanted->from != NULL || choose_point(r, wanted, &f.seq, err);
    if (!ok)
        step_off(r, wanted->id);
    ok = ok && build(r, wanted, &f, err);
    footing_clear(&f);
    return ok;
}

static void
list_paths(struct replica *r, const char *id, char ***ret_paths, size_t *ret_n)
{
    const struct footing *f;
    char **paths;

    pthread_mutex_lock(&r->mutex);
    f = footings_find(&r->footings, id);
    paths = mem_alloc(f->n_disks, sizeof *paths);
    for (size_t i = 0; i < f->n_disks; i++)
        paths[i] = mem_printf("%s/" REPLICA_OVERLAYS "/%s/%s.qcow2", r->folder, id,
                              f->disks[i].target);
    *ret_paths = paths;
    *ret_n = f->n_disks;
    pthread_mutex_unlock(&r->mutex);
}

bool
overlay_create(struct replica *r, const struct store_overlay *wanted, char ***ret_paths,
               size_t *ret_n, struct error **err)
{
    if (!overlay_check_id(wanted->id, err))
        return false;
    if (!make(r, wanted, err))
        return error_prefix(err, "make overlay '%s'", wanted->id);
    list_paths(r, wanted->id, ret_paths, ret_n);
    return true;
}

/* --- remove ------------------------------------------------------------------------- */

static bool
is_being_made(struct replica *r, const char *id)
{
    const struct footing *f;
    bool busy;

    pthread_mutex_lock(&r->mutex);
    f = footings_find(&r->footings, id);
    busy = f != NULL && !f->ready;
    pthread_mutex_unlock(&r->mutex);
    return busy;
}

bool
overlay_remove(struct replica *r, const char *id, struct error **err)
{
    AUTOFREE(char) *whole = mem_printf(REPLICA_OVERLAYS "/%s", id);
    AUTOFREE(char) *part = mem_printf("%s" PART, whole);

    if (!overlay_check_id(id, err))
        return false;
    if (is_being_made(r, id))
        return error_set(err, ERROR_IN_PROGRESS, "overlay '%s' is being made", id);
    if (!folder_remove(r->fd, part, err))
        return false;

    /* Renamed first, and for good: neither may half an overlay be taken for a whole one,
       nor a whole one come back when what it stands on was folded. */
    if (renameat(r->fd, whole, r->fd, part) < 0 && errno != ENOENT)
        return folder_errno(err, "remove overlay '%s'", id);
    if (!folder_sync(r->fd, REPLICA_OVERLAYS, err))
        return false;
    step_off(r, id);
    return folder_remove(r->fd, part, err);
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

/* --- look --------------------------------------------------------------------------- */

/* A disk may be a VM's by now: nothing of it is removed, whatever its record says. */
static bool
load(int at, const char *name, void *opaque, struct error **err UNUSED)
{
    struct replica *r = opaque;
    struct footing f = { .ready = true };
    AUTOFD(fd) = -1;

    if (!is_id(name))
        return true;
    snprintf(f.id, sizeof f.id, "%s", name);
    f.unknown = !folder_open(at, name, &fd, NULL) || !footing_load(&f, fd, NULL);
    footings_add(&r->footings, &f);
    return true;
}

bool
overlay_load_all(struct replica *r, struct error **err)
{
    return folder_each(r->fd, REPLICA_OVERLAYS, load, r, err);
}

void
overlay_list(struct replica *r, char ***ret, size_t *ret_n)
{
    char **ids;
    size_t n = 0;

    pthread_mutex_lock(&r->mutex);
    ids = mem_alloc(r->footings.n, sizeof *ids);
    for (size_t i = 0; i < r->footings.n; i++)
        if (r->footings.items[i].ready)
            ids[n++] = mem_strdup(r->footings.items[i].id);
    *ret = ids;
    *ret_n = n;
    pthread_mutex_unlock(&r->mutex);
}

bool
overlay_blob(struct replica *r, const char *id, const char *name, char **ret_data,
             size_t *ret_length, struct error **err)
{
    AUTOFREE(char) *path = mem_printf(REPLICA_OVERLAYS "/%s/%s", id, name);

    if (!overlay_check_id(id, err) || !layout_check_blob(name, err))
        return false;
    if (faccessat(r->fd, path, F_OK, 0) < 0 && errno == ENOENT)
        return error_set(err, ERROR_POINT_NOT_FOUND, "overlay '%s' has no '%s'", id,
                         name);
    return folder_read(r->fd, path, WIRE_MAX_BLOB_BYTES, ret_data, ret_length, err);
}

bool
overlay_newest_blob(struct replica *r, const char *name, char **ret_data,
                    size_t *ret_length, struct error **err)
{
    AUTOPTR(layout) *l = replica_layout(r);

    for (size_t i = 0; i < l->n_blobs; i++) {
        if (strcmp(l->blobs[i].name, name) != 0)
            continue;
        *ret_length = l->blobs[i].size_bytes;
        return blob_read(r->blobs_fd, &l->blobs[i], ret_data, err);
    }
    return error_set(err, ERROR_POINT_NOT_FOUND, "no point has '%s' yet", name);
}
