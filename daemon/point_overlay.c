#include "daemon/point_overlay.h"

#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "daemon/daemon.h"
#include "daemon/kept.h"
#include "daemon/point_select.h"
#include "daemon/points.h"
#include "daemon/replica.h"
#include "drivers/hypervisor/domain_xml.h"

#define IMAGE_SUFFIX ".qcow2"

static const char *
overlay_of(struct op *op)
{
    return json_string_or(op->data, "overlay", "");
}

static bool
find(struct op *op, struct replication **ret, struct error **err)
{
    return replications_find(op->daemon->replications,
                             json_string_or(op->data, "replication", ""), ret, err);
}

/* The overlay of a point that is none of the journal's (kept.h); NULL. */
static const char *
kept_of(struct op *op)
{
    return json_string_or(json_object_or_null(op->data, "chosen"), "overlay", NULL);
}

/* --- the point ---------------------------------------------------------------------- */

static bool
check_allowed(struct op *op, struct replication *r, struct error **err)
{
    bool ok;

    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, op->kind->name, err);
    pthread_mutex_unlock(&r->lock);
    return ok;
}

bool
point_overlay_choose(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    struct point_select select;
    struct json_object *kept;
    struct point point;

    if (!point_select_parse(json_object_or_null(op->data, "point"), &select, err) ||
        !find(op, &r, err) || !check_allowed(op, r, err))
        return false;
    kept = select.type == SELECT_ID ? kept_find(r, select.key) : NULL;
    if (kept != NULL) {
        json_set(op->data, "chosen", kept);
        return true;
    }
    if (!replica_hold_point(op->daemon, r, op, &select, &point, err))
        return false;
    json_set(op->data, "chosen", point_json(&point));
    point_clear(&point);
    return true;
}

/* What the step before held, a restart has let go. */
static bool
hold_chosen(struct op *op, struct replication *r, struct error **err)
{
    struct point_select select = { .type = SELECT_ID };
    struct point point;

    snprintf(select.key, sizeof select.key, "%s",
             json_string_or(json_object_or_null(op->data, "chosen"), "id", ""));
    if (kept_of(op) != NULL)
        return true; /* no rule looks at it */
    if (!replica_hold_point(op->daemon, r, op, &select, &point, err))
        return false;
    point_clear(&point);
    return true;
}

void
point_overlay_release(struct op *op)
{
    AUTOPTR(replication) *r = NULL;

    if (find(op, &r, NULL))
        replica_release_point(r, op);
}

/* --- the overlay ---------------------------------------------------------------------
 */

/* "vda" of "/replica/overlay/x/vda.qcow2"; the caller frees. */
static char *
target_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    size_t n = strlen(name), suffix = strlen(IMAGE_SUFFIX);

    return mem_memdup(name, n > suffix ? n - suffix : n);
}

static bool
has_disk(const struct hv_disk *disks, size_t n, const char *target)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(disks[i].target, target) == 0)
            return true;
    return false;
}

/* Those that the VM had at that point: the replica keeps what it lost before. */
static bool
note_disks(struct op *op, const char *xml, char **paths, size_t n, struct error **err)
{
    struct json_object *array;
    struct hv_disk *disks = NULL;
    size_t n_disks = 0;

    if (!domain_xml_disks(xml, &disks, &n_disks, err))
        return false;
    array = json_object_new_array();
    for (size_t i = 0; i < n; i++) {
        AUTOFREE(char) *target = target_of(paths[i]);
        struct json_object *o;

        if (!has_disk(disks, n_disks, target))
            continue;
        o = json_object_new_object();
        json_set_string(o, "target", target);
        json_set_string(o, "path", paths[i]);
        json_object_array_add(array, o);
    }
    domain_xml_disks_free(disks, n_disks);
    json_set(op->data, "disks", array);
    return true;
}

static void
show_replay(uint64_t done, uint64_t total, void *opaque)
{
    op_transfer(opaque, done, total);
}

/* Under the tip's lock, which whoever closes or removes the store takes too. */
static bool
create(struct op *op, struct replication *r, struct error **err)
{
    struct json_object *chosen = json_object_or_null(op->data, "chosen");
    struct store_overlay wanted = { .id = overlay_of(op),
                                    .seq = (uint64_t)json_int_or(chosen, "sequenceNumber",
                                                                 0),
                                    .from = kept_of(op),
                                    .cancel = &op->cancel,
                                    .progress = show_replay,
                                    .opaque = op };
    AUTOFREE(char) *xml = NULL;
    struct store *store;
    char **paths = NULL;
    size_t n = 0, length;
    bool ok;

    if (!check_allowed(op, r, err) || !replica_store(op->daemon, r, &store, err) ||
        !store->ops->overlay_create(store, &wanted, &paths, &n, err))
        return false;
    ok = store->ops->overlay_blob(store, wanted.id, "domain.xml", &xml, &length, err) &&
         note_disks(op, xml, paths, n, err);
    for (size_t i = 0; i < n; i++)
        free(paths[i]);
    free(paths);
    if (ok)
        json_set_string(op->data, "xml", xml);
    return ok;
}

bool
point_overlay_make(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ok;

    if (!find(op, &r, err) || !hold_chosen(op, r, err) ||
        (!replica_tip_is_broken(r) && !replica_apply(op->daemon, r, &op->cancel, err)))
        return false;
    replica_lock_tip(r);
    ok = create(op, r, err);
    replica_unlock_tip(r);
    return ok;
}

/* The images may be a VM's own now: the store is not kept open beside it. */
static void
put_back(struct replication *r)
{
    bool failed_over;

    pthread_mutex_lock(&r->lock);
    failed_over = states_owns_vm(r->phase);
    pthread_mutex_unlock(&r->lock);
    replica_unlock_tip(r);
    if (failed_over)
        replica_close(r);
}

bool
point_overlay_blob(struct op *op, const char *name, char **ret_data, size_t *ret_length,
                   struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    struct store *store;
    bool ok;

    if (!find(op, &r, err))
        return false;
    replica_lock_tip(r);
    ok = replica_store(op->daemon, r, &store, err) &&
         store->ops->overlay_blob(store, overlay_of(op), name, ret_data, ret_length, err);
    put_back(r);
    return ok;
}

/* --- its end -------------------------------------------------------------------------
 */

static bool
is_removing(struct replication *r)
{
    bool removing;

    pthread_mutex_lock(&r->lock);
    removing = r->phase == PHASE_REMOVING;
    pthread_mutex_unlock(&r->lock);
    return removing;
}

bool
point_overlay_drop(struct daemon *d, const char *replication, const char *overlay,
                   struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    struct error *e = NULL;
    struct store *store;
    bool ok;

    if (!replications_find(d->replications, replication, &r, &e)) {
        error_free(e); /* unprotected meanwhile: nothing is left of it */
        return true;
    }
    if (is_removing(r)) /* it goes with all the rest */
        return true;
    replica_lock_tip(r);
    ok = replica_store(d, r, &store, err) &&
         store->ops->overlay_remove(store, overlay, err);
    put_back(r);
    return ok;
}

bool
point_overlay_remove(struct op *op, struct error **err)
{
    return point_overlay_drop(op->daemon, json_string_or(op->data, "replication", ""),
                              overlay_of(op), err);
}

/* --- who uses it ---------------------------------------------------------------------
 */

/* The failover's is the VM's, and somebody else's business. */
static bool
is_ours(const char *overlay)
{
    return strncmp(overlay, "export-", 7) == 0 || strncmp(overlay, "clone-", 6) == 0;
}

bool
point_overlay_check_unused(struct daemon *d, struct replication *r,
                           bool (*is_known)(const char *overlay, void *opaque),
                           void *opaque, struct error **err)
{
    AUTOFREE(char *) *ids = NULL;
    struct store *store;
    size_t n = 0;
    bool ok, final;

    /* Then there may be no store any more, and flatten looks for overlays itself. */
    pthread_mutex_lock(&r->lock);
    final = r->phase == PHASE_COMMITTED;
    pthread_mutex_unlock(&r->lock);
    if (final)
        return true;
    replica_lock_tip(r);
    ok = replica_store(d, r, &store, err) && store->ops->overlays(store, &ids, &n, err);
    put_back(r);
    for (size_t i = 0; i < n; i++) {
        if (ok && is_ours(ids[i]) && !is_known(ids[i], opaque))
            ok = error_set(err, ERROR_INVALID_STATE,
                           "VM '%s' is being exported or cloned; wait for the task, or "
                           "cancel it (virt-dr task-list)",
                           r->vm_name);
        free(ids[i]);
    }
    return ok;
}
