#include "daemon/undo_steps.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/failover_after.h"
#include "daemon/homecoming.h"
#include "daemon/ops_failover.h"
#include "daemon/replica.h"

static bool
find(struct op *op, struct replication **ret, struct error **err)
{
    return replications_find(op->daemon->replications, op->resource_id, ret, err);
}

static uint64_t
epoch_of(struct op *op)
{
    return (uint64_t)json_int_or(op->data, "epoch", 0);
}

bool
undo_check(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ok;

    if (!find(op, &r, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, "undo", err);
    json_set_u64(op->data, "epoch", r->epoch);
    pthread_mutex_unlock(&r->lock);
    return ok;
}

/* The guard first: whatever is cut off after it, the VM does not start here again. */
bool
undo_forbid_start(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ok;

    if (!find(op, &r, err) || !replication_seize(r, &op->cancel, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, "undo", err) && replica_forbid_start(op->daemon, r, err);
    if (ok) {
        enum replication_phase before = r->phase;

        r->phase = PHASE_UNDOING;
        ok = replication_store(op->daemon->replications, r, NULL, 0, err);
        if (!ok)
            r->phase = before;
    }
    pthread_mutex_unlock(&r->lock);
    replication_release(r);
    return ok;
}

/* What somebody has copied out of the replica's folder stays, and is said. */
static void
note_images(struct op *op, struct replication *r, const struct hv_domain *domain)
{
    size_t n = strlen(r->folder);

    for (size_t i = 0; i < domain->n_disks; i++) {
        const struct hv_disk *disk = &domain->disks[i];

        if (disk->path != NULL && !disk->removable &&
            (strncmp(disk->path, r->folder, n) != 0 || disk->path[n] != '/'))
            op_warn(op, "disk '%s' had been moved to '%s', which is left there",
                    disk->target, disk->path);
    }
}

bool
undo_remove_domain(struct op *op, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOPTR(replication) *r = NULL;
    AUTOPTR(hv_domain) *domain = NULL;
    struct error *e = NULL;

    if (!find(op, &r, err))
        return false;
    if (!hv->ops->lookup(hv, r->vm_uuid, &domain, &e)) {
        if (!error_is(e, ERROR_DOMAIN_NOT_FOUND))
            return error_propagate(err, e);
        error_free(e);
        return true;
    }
    note_images(op, r, domain);
    if (homecoming_is(r))
        return homecoming_restore(op->daemon, r, err);
    return hv->ops->destroy(hv, r->vm_uuid, err) &&
           hv->ops->undefine(hv, r->vm_uuid, err);
}

static bool
remove_file(const char *folder, const char *name, struct error **err)
{
    AUTOFREE(char) *path = mem_printf("%s/%s", folder, name);

    return unlink(path) == 0 || errno == ENOENT ||
           error_errno(err, ERROR_STORE, "remove '%s'", path);
}

bool
undo_remove_images(struct op *op, struct error **err)
{
    AUTOFREE(char) *overlay = failover_overlay(epoch_of(op));
    AUTOFREE(char) *nvram = failover_nvram(epoch_of(op));
    AUTOFREE(char) *tpm = failover_tpm_mark(epoch_of(op));
    AUTOPTR(replication) *r = NULL;
    struct store *store;
    bool ok;

    if (!find(op, &r, err) || !failover_after_release(op->daemon, r, err))
        return false;
    replica_lock_tip(r);
    ok = replica_store(op->daemon, r, &store, err) &&
         store->ops->overlay_remove(store, overlay, err);
    replica_unlock_tip(r);
    return ok && remove_file(r->folder, nvram, err) && remove_file(r->folder, tpm, err);
}

/* Nothing is raised that is not stored. Under r->lock. */
static bool
raise_epoch(struct op *op, struct replication *r, struct error **err)
{
    struct json_object *after = r->failover;

    if (r->phase != PHASE_UNDOING)
        return true; /* an earlier run did */
    r->failover = NULL;
    r->epoch++;
    r->phase = r->sync.name[0] != '\0' ? PHASE_RESYNCING : PHASE_REPLICATING;
    if (replication_store(op->daemon->replications, r, NULL, 0, err)) {
        json_object_put(after);
        return true;
    }
    r->failover = after;
    r->epoch--;
    r->phase = PHASE_UNDOING;
    return false;
}

/* From the moment that this is durable on, the VM is the source's (I3). */
bool
undo_give_back(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    uint64_t epoch;
    bool ok;

    if (!find(op, &r, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ok = raise_epoch(op, r, err) && replica_forbid_start(op->daemon, r, err);
    epoch = r->epoch;
    pthread_mutex_unlock(&r->lock);
    if (!ok)
        return false;
    op->result = json_object_new_object();
    json_set_string(op->result, "replication", r->id);
    json_set_string(op->result, "vmName", r->vm_name);
    json_set_u64(op->result, "epoch", epoch);
    events_emit(op->daemon, EVENT_WARNING, &op->log, "failover-undone",
                "the failover of VM '%s' was undone (epoch %llu): the source may run it "
                "again, and is replicated",
                r->vm_name, (unsigned long long)epoch);
    return true;
}
