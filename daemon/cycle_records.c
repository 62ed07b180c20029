/*
 * What is recorded on the source under the names of points, and what becomes of it: it is
 * dropped once a newer point follows, and all of it is begun anew when it is lost.
 */
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle_private.h"
#include "daemon/divergence.h"
#include "daemon/events.h"

#define MAX_STALE 16 /* points that could not be forgotten yet */

void
cycle_add_stale(struct replication *r, const char *name)
{
    if (name[0] != '\0')
        json_append_string(r->stale, name);
}

void
cycle_retire(struct replication *r, const struct replication_point *p,
             const struct replication_point *next)
{
    if (strcmp(replication_record(p), replication_record(next)) != 0)
        cycle_add_stale(r, replication_record(p));
}

void
cycle_drop(struct replication *r, struct replication_point *p)
{
    if (p->record[0] == '\0')
        cycle_add_stale(r, p->name);
    *p = (struct replication_point){ .sequence = p->sequence };
}

bool
cycle_forget_name(struct daemon *d, const char *vm_uuid, bool used_bitmaps,
                  const char *name, struct error **err)
{
    struct capture_driver *checkpoint = d->captures[CAPTURE_CHECKPOINT];
    struct capture_driver *bitmap = d->captures[CAPTURE_BITMAP];

    return checkpoint->ops->forget(checkpoint, vm_uuid, name, err) &&
           (!used_bitmaps || bitmap->ops->forget(bitmap, vm_uuid, name, err));
}

bool
cycle_forget(struct daemon *d, struct replication *r, const char *name,
             struct error **err)
{
    return cycle_forget_name(d, r->vm_uuid,
                             json_bool_or(r->capture, "usedBitmaps", false), name, err);
}

/*
 * Below an external snapshot lies an image with a bitmap that was forgotten meanwhile.
 * Nobody writes there; once the snapshot is committed it would record again.
 */
static void
drop_remains(struct cycle *c)
{
    const char *keep[] = { replication_record(&c->r->newest), c->r->pending.name,
                           c->r->pending.record, c->r->sync.name };
    const struct capture_sweep what = { .uuid = c->r->vm_uuid,
                                        .keep = keep,
                                        .n_keep = N_ELEMENTS(keep),
                                        .scratch_folder =
                                            c->daemon->config->scratch_folder };
    struct error *e = NULL;
    size_t n;

    if (!c->driver->ops->sweep(c->driver, &what, &n, &e))
        log_ignore(&c->log, "forget-failed", &e);
}

/* Forgets what is stale; what cannot be forgotten now stays on the list. */
void
cycle_forget_stale(struct cycle *c)
{
    struct json_object *left = json_object_new_array();
    AUTOJSON *names = NULL;

    pthread_mutex_lock(&c->r->lock);
    names = c->r->stale;
    c->r->stale = json_object_new_array();
    pthread_mutex_unlock(&c->r->lock);
    for (size_t i = 0; i < json_object_array_length(names); i++) {
        const char *name = json_object_get_string(json_object_array_get_idx(names, i));
        struct error *e = NULL;

        if (cycle_forget(c->daemon, c->r, name, &e))
            continue;
        log_ignore(&c->log, "forget-failed", &e);
        json_append_string(left, name);
    }
    pthread_mutex_lock(&c->r->lock);
    for (size_t i = 0; i < json_object_array_length(c->r->stale); i++)
        json_object_array_add(left,
                              json_object_get(json_object_array_get_idx(c->r->stale, i)));
    json_object_put(c->r->stale);
    c->r->stale = left;
    pthread_mutex_unlock(&c->r->lock);
    /* Checkpoints are removed from all images of the chain. */
    if (c->moved && c->kind == CAPTURE_BITMAP)
        drop_remains(c);
}

/* Each is a bitmap in the VM's images, which must not fill them up cycle by cycle. */
bool
cycle_check_stale(struct cycle *c, struct error **err)
{
    size_t n;

    pthread_mutex_lock(&c->r->lock);
    n = json_object_array_length(c->r->stale);
    pthread_mutex_unlock(&c->r->lock);
    return n <= MAX_STALE ||
           error_set(
               err, ERROR_HYPERVISOR,
               "%zu old checkpoints of VM '%s' could not be removed, so no more are "
               "made; the log says why",
               n, c->domain->name);
}

/* The bitmaps are of no use any more: begin anew; points at the target stay. */
void
cycle_start_over(struct daemon *d, struct replication *r, const char *why)
{
    struct log_ctx log = replication_log(r);

    cycle_add_stale(r, replication_record(&r->newest));
    cycle_drop(r, &r->pending);
    if (strcmp(r->sync.name, replication_record(&r->newest)) != 0)
        cycle_add_stale(r, r->sync.name);
    r->newest.name[0] = r->newest.record[0] = '\0';
    r->newest.generation = 0;
    r->sync = (struct replication_sync){ 0 };
    divergence_drop(r);
    r->resync = (struct replication_resync){ .started_ms = units_now_ms(),
                                             .held_until_ms = r->resync.held_until_ms };
    snprintf(r->resync.reason, sizeof r->resync.reason, "%s", why);
    if (r->phase == PHASE_REPLICATING)
        r->phase = PHASE_RESYNCING;
    events_emit(
        d, EVENT_WARNING, &log, "resync",
        "the disks are synchronised anew, what differs is sent: %s; earlier points "
        "stay usable",
        why);
}

/* --- all of it ---------------------------------------------------------------------- */

static bool
sweep(struct daemon *d, struct replication *r, enum capture_kind kind, size_t *n,
      struct error **err)
{
    const struct capture_sweep what = { .uuid = r->vm_uuid,
                                        .scratch_folder = d->config->scratch_folder };
    struct capture_driver *driver = d->captures[kind];
    size_t dropped = 0;

    if (!driver->ops->sweep(driver, &what, &dropped, err))
        return false;
    *n += dropped;
    return true;
}

/* libvirt's own first: its checkpoints know their bitmaps. Those that it has forgotten,
   with a definition that was removed, are left to QEMU. */
static bool
sweep_all(struct daemon *d, struct replication *r, size_t *n, struct error **err)
{
    struct hypervisor *hv = d->hypervisor;
    AUTOPTR(hv_domain) *domain = NULL;

    if (!hv->ops->lookup(hv, r->vm_uuid, &domain, err) ||
        !sweep(d, r, CAPTURE_CHECKPOINT, n, err))
        return false;
    return sweep(d, r, domain->state == HV_STATE_OFF ? CAPTURE_OFFLINE : CAPTURE_BITMAP,
                 n, err);
}

bool
cycle_release(struct daemon *d, struct replication *r, int64_t held_until_ms,
              size_t *ret_n, struct error **err)
{
    size_t n = 0;
    bool ok;

    cycle_recover(d, r);
    if (!sweep_all(d, r, &n, err))
        return false;
    pthread_mutex_lock(&r->lock);
    cycle_start_over(d, r, "its bitmaps were released for a snapshot");
    r->resync.held_until_ms = held_until_ms;
    json_object_put(r->stale);
    r->stale = json_object_new_array();
    r->agreed = false;
    ok = replication_store(d->replications, r, NULL, 0, err);
    pthread_mutex_unlock(&r->lock);
    if (ok)
        *ret_n = n;
    return ok;
}

void
cycle_disown(struct daemon *d, struct replication *r, struct json_object *names)
{
    struct log_ctx log = replication_log(r);

    for (size_t k = 0; k < CAPTURE_N_KINDS; k++) {
        struct capture_driver *driver = d->captures[k];

        for (size_t i = 0;
             driver->ops->disown != NULL && i < json_object_array_length(names); i++) {
            const char *name =
                json_object_get_string(json_object_array_get_idx(names, i));
            struct error *e = NULL;

            if (name[0] != '\0' && !driver->ops->disown(driver, r->vm_uuid, name, &e))
                log_ignore(&log, "disown-failed", &e);
        }
    }
}
