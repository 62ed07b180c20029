#include "daemon/originals.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle_private.h"
#include "daemon/events.h"
#include "daemon/points.h"
#include "drivers/hypervisor.h"
#include "drivers/store/qcow2.h"

/* The images of this host for the disks of a replica. */
struct ground {
    struct store_disk disks[WIRE_MAX_DISKS];
    struct store_original images[WIRE_MAX_DISKS];
    size_t n;
    size_t n_standing;
    struct hv_domain *domain; /* NULL: the VM is not defined here */
};

static bool
look_up(struct daemon *d, const char *uuid, struct hv_domain **ret, struct error **err)
{
    struct error *e = NULL;

    *ret = NULL;
    if (d->hypervisor->ops->lookup(d->hypervisor, uuid, ret, &e))
        return true;
    if (!error_is(e, ERROR_DOMAIN_NOT_FOUND))
        return error_propagate(err, e);
    error_free(e);
    return true;
}

/* --- which images ------------------------------------------------------------------ */

static const struct hv_disk *
find_disk(const struct hv_domain *domain, const char *target)
{
    for (size_t i = 0; domain != NULL && i < domain->n_disks; i++)
        if (strcmp(domain->disks[i].target, target) == 0 && !domain->disks[i].removable)
            return &domain->disks[i];
    return NULL;
}

static bool
find_ground(struct daemon *d, const struct replication *r, const struct store_disk *disks,
            size_t n, struct ground *ret, struct error **err)
{
    *ret = (struct ground){ .n = n };
    if (!look_up(d, r->vm_uuid, &ret->domain, err))
        return false;
    for (size_t i = 0; i < n; i++) {
        const struct hv_disk *disk = find_disk(ret->domain, disks[i].target);

        ret->disks[i] = disks[i];
        ret->disks[i].stands_on = NULL;
        if (disk == NULL || disk->path == NULL || disk->format == NULL)
            continue;
        ret->images[i] = (struct store_original){ disk->path, disk->format };
        ret->disks[i].stands_on = &ret->images[i];
        ret->n_standing++;
    }
    return true;
}

bool
originals_cover(struct daemon *d, const char *vm_uuid,
                const struct replica_request *request)
{
    AUTOPTR(hv_domain) *domain = NULL;

    if (!look_up(d, vm_uuid, &domain, NULL))
        return false;
    for (size_t i = 0; i < request->n_disks; i++) {
        const struct hv_disk *disk = find_disk(domain, request->disks[i].target);

        if (disk == NULL || disk->path == NULL || access(disk->path, R_OK) < 0)
            return false;
    }
    return true;
}

static void
leave_out(struct daemon *d, struct replication *r, struct ground *g, size_t i,
          const struct error *why)
{
    struct log_ctx log = replication_log(r);

    events_emit(d, EVENT_WARNING, &log, "seed-missing",
                "disk '%s' of VM '%s' begins empty, and all of it is sent: %s",
                g->disks[i].target, r->vm_name, error_message(why));
    g->disks[i].stands_on = NULL;
    g->n_standing--;
}

/* Each alone, in the folder that is made anew afterwards. */
static bool
drop_unusable(struct daemon *d, struct replication *r, struct ground *g,
              struct error **err)
{
    for (size_t i = 0; i < g->n; i++) {
        struct error *e = NULL;

        if (g->disks[i].stands_on == NULL)
            continue;
        if (!store_qcow2_ops.destroy(r->folder, err))
            return false;
        if (store_qcow2_ops.create(r->folder, &g->disks[i], 1, &e))
            continue;
        if (!error_is(e, ERROR_NOT_FOUND))
            return error_propagate(err, e);
        leave_out(d, r, g, i, e);
        error_free(e);
    }
    return true;
}

static bool
make_store(struct daemon *d, struct replication *r, struct ground *g, struct error **err)
{
    struct replica_request request = { .disks = g->disks, .n_disks = g->n };
    struct error *e = NULL;

    if (replica_make_store(d, r, &request, &e))
        return true;
    if (!error_is(e, ERROR_NOT_FOUND))
        return error_propagate(err, e);
    error_free(e);
    return drop_unusable(d, r, g, err) && replica_make_store(d, r, &request, err);
}

/* --- the point that they are -------------------------------------------------------- */

/* When something was last written to one of them. */
static int64_t
last_write_ms(const struct ground *g)
{
    int64_t newest_ms = 0;

    for (size_t i = 0; i < g->n; i++) {
        struct stat st;

        if (stat(g->images[i].path, &st) == 0 && S_ISREG(st.st_mode))
            newest_ms = MAX(newest_ms, (int64_t)st.st_mtim.tv_sec * 1000 +
                                           st.st_mtim.tv_nsec / 1000000);
    }
    return newest_ms > 0 ? MIN(newest_ms, units_now_ms()) : units_now_ms();
}

static void
name_point(int64_t time_ms, struct point *ret)
{
    time_t s = (time_t)(time_ms / 1000);
    struct tm tm;

    *ret = (struct point){ .sequence = ORIGINALS_SEQUENCE,
                           .time_ms = time_ms,
                           .received_ms = units_now_ms(),
                           .pinned = true };
    gmtime_r(&s, &tm);
    strftime(ret->name, sizeof ret->name, "unreplicated-%Y%m%dT%H%M%SZ", &tm);
}

static bool
mark(struct daemon *d, struct replication *r, struct ground *g, struct error **err)
{
    struct cycle c = { .daemon = d, .r = r, .domain = g->domain };
    struct store_blob blobs[WIRE_MAX_BLOBS];
    struct store_first first = { .seq = ORIGINALS_SEQUENCE, .blobs = blobs };
    struct exchange_begin begin = { 0 };
    struct store *store;
    bool ok;

    cycle_name_blobs(&c, &begin);
    ok = cycle_read_blobs(&c, err) && replica_store(d, r, &store, err);
    for (size_t i = 0; i < c.n_blobs; i++)
        blobs[first.n_blobs++] =
            (struct store_blob){ c.blobs[i].name,
                                 c.blobs[i].data != NULL ? c.blobs[i].data : "",
                                 c.blobs[i].length };
    if (ok) {
        replica_lock_tip(r);
        ok = store->ops->mark_originals(store, &first, err);
        replica_unlock_tip(r);
    }
    cycle_drop_blobs(&c);
    return ok;
}

/* From here on there is something to compare with, and to fail over to. */
static bool
record(struct daemon *d, struct replication *r, const struct point *point,
       struct error **err)
{
    AUTOFREE(char) *key = NULL;
    AUTOJSON *doc = NULL;
    struct points *points;
    bool ok;

    if (!replica_points(d, r, &points, err))
        return false;
    doc = points_document(points, point, &key);
    pthread_mutex_lock(&r->lock);
    snprintf(r->newest.name, sizeof r->newest.name, "%s", point->name);
    r->newest.sequence = point->sequence;
    r->newest.time_ms = point->time_ms;
    r->phase = PHASE_RESYNCING;
    ok = replication_store(d->replications, r, &(struct state_write){ "point", key, doc },
                           1, err);
    if (ok) {
        points_added(points, point);
    } else {
        r->newest = (struct replication_point){ 0 };
        r->phase = PHASE_INITIAL_SYNC;
    }
    pthread_mutex_unlock(&r->lock);
    return ok;
}

/* Some of the disks alone are no point of the VM, but they need not be sent. */
static bool
note_seed(struct daemon *d, struct replication *r, struct error **err)
{
    struct json_object *o = json_object_new_object();
    bool ok;

    json_set_string(o, "state", "done");
    pthread_mutex_lock(&r->lock);
    json_object_put(r->seed);
    r->seed = o;
    ok = replication_store(d->replications, r, NULL, 0, err);
    pthread_mutex_unlock(&r->lock);
    return ok;
}

static bool
make(struct daemon *d, struct replication *r, struct ground *g, struct error **err)
{
    struct point point;

    if (!make_store(d, r, g, err))
        return false;
    if (g->n_standing == 0)
        return true;
    if (g->n_standing < g->n)
        return note_seed(d, r, err);
    name_point(last_write_ms(g), &point);
    return mark(d, r, g, err) && record(d, r, &point, err);
}

bool
originals_make(struct daemon *d, struct replication *r,
               const struct replica_request *request, struct error **err)
{
    struct ground g;
    bool ok;

    ok = find_ground(d, r, request->disks, request->n_disks, &g, err) &&
         make(d, r, &g, err);
    hv_domain_free(g.domain);
    return ok;
}

/* The same without those that were found to be gone, or shorter than they were. */
static bool
make_without(struct daemon *d, struct replication *r, const struct ground *seen,
             const bool *gone, struct error **err)
{
    struct ground g;
    bool ok = find_ground(d, r, seen->disks, seen->n, &g, err);

    for (size_t i = 0; ok && i < g.n; i++)
        if (gone[i] && g.disks[i].stands_on != NULL) {
            g.disks[i].stands_on = NULL;
            g.n_standing--;
        }
    ok = ok && make(d, r, &g, err);
    hv_domain_free(g.domain);
    return ok;
}

/* --- have they changed -------------------------------------------------------------- */

/* The disks go to *ret, those whose image is gone to `gone` (WIRE_MAX_DISKS). */
static bool
look_at(struct store *store, struct ground *ret, bool *gone,
        enum store_original_state *ret_worst, struct error **err)
{
    enum store_original_state worst = STORE_ORIGINAL_NONE, state;
    AUTOFREE(struct store_disk) *disks = NULL;
    size_t n = 0;

    if (!store->ops->disks(store, &disks, &n, err))
        return false;
    ret->n = MIN(n, (size_t)WIRE_MAX_DISKS);
    for (size_t i = 0; i < ret->n; i++) {
        if (!store->ops->original(store, disks[i].target, &state, err))
            return false;
        ret->disks[i] = disks[i];
        gone[i] = state == STORE_ORIGINAL_GONE;
        worst = MAX(worst, state);
    }
    *ret_worst = worst;
    return true;
}

/* What is stored first is that nothing is trusted: cut off then, the change is seen
 * again.
 */
static bool
drop_points(struct daemon *d, struct replication *r, enum replication_phase phase,
            struct error **err)
{
    struct points *points;
    bool ok;

    pthread_mutex_lock(&r->lock);
    r->newest.name[0] = '\0';
    if (phase == PHASE_INITIAL_SYNC)
        r->newest = (struct replication_point){ 0 };
    r->sync = (struct replication_sync){ 0 };
    r->damaged = false;
    r->phase = phase;
    json_object_put(TAKE(r->seed));
    ok = replication_store(d->replications, r, NULL, 0, err);
    pthread_mutex_unlock(&r->lock);
    return ok && replica_points(d, r, &points, err) && points_remove_all(points, err);
}

static void
tell(struct daemon *d, struct replication *r, const char *what)
{
    struct log_ctx log = replication_log(r);

    events_emit(d, EVENT_CRITICAL, &log, "seed-changed",
                "an old image of VM '%s', which its replica here stands on, %s: all "
                "recovery points are void, and are dropped",
                r->vm_name, what);
}

static bool
compare_anew(struct daemon *d, struct replication *r, struct store *store,
             struct error **err)
{
    bool ok;

    tell(d, r, "was written to; the disks are compared anew");
    if (!drop_points(d, r, PHASE_RESYNCING, err))
        return false;
    replica_lock_tip(r);
    ok = store->ops->accept_originals(store, err);
    replica_unlock_tip(r);
    return ok;
}

static bool
make_anew(struct daemon *d, struct replication *r, const struct ground *seen,
          const bool *gone, struct error **err)
{
    tell(d, r, "is gone, or was cut; the disks are sent anew");
    if (!drop_points(d, r, PHASE_INITIAL_SYNC, err))
        return false;
    replica_close(r);
    return make_without(d, r, seen, gone, err);
}

static bool
stands_on_some(struct replication *r)
{
    bool yes;

    pthread_mutex_lock(&r->lock);
    yes = r->side == SIDE_TARGET && r->formerly != NULL && states_is_protecting(r->phase);
    pthread_mutex_unlock(&r->lock);
    return yes;
}

bool
originals_check(struct daemon *d, struct replication *r, bool *ret_changed,
                struct error **err)
{
    enum store_original_state state = STORE_ORIGINAL_NONE;
    bool gone[WIRE_MAX_DISKS];
    struct ground seen = { 0 };
    struct store *store;

    *ret_changed = false;
    if (!stands_on_some(r))
        return true;
    if (!replica_store(d, r, &store, err) || !look_at(store, &seen, gone, &state, err))
        return false;
    if (state == STORE_ORIGINAL_NONE || state == STORE_ORIGINAL_SAME)
        return true;
    *ret_changed = true;
    return state == STORE_ORIGINAL_CHANGED ? compare_anew(d, r, store, err)
                                           : make_anew(d, r, &seen, gone, err);
}

void
originals_warn(struct op *op, struct replication *r)
{
    enum store_original_state state = STORE_ORIGINAL_NONE;
    bool gone[WIRE_MAX_DISKS];
    struct ground seen = { 0 };
    struct error *e = NULL;
    struct store *store;

    if (!stands_on_some(r))
        return;
    if (!replica_store(op->daemon, r, &store, &e) ||
        !look_at(store, &seen, gone, &state, &e))
        log_ignore(&op->log, "seed-unknown", &e);
    if (state != STORE_ORIGINAL_NONE && state != STORE_ORIGINAL_SAME)
        op_warn(op,
                "an old image of VM '%s', which the recovery points stand on, is not "
                "what it was when they were made: they are in doubt",
                r->vm_name);
}
