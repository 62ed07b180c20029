/* The new target's part: what was a source, or nothing, becomes a replica. */
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/consistency.h"
#include "daemon/contact.h"
#include "daemon/cycle.h"
#include "daemon/divergence.h"
#include "daemon/events.h"
#include "daemon/failover_after.h"
#include "daemon/flatten.h"
#include "daemon/originals.h"
#include "daemon/peers.h"
#include "daemon/reversal.h"
#include "drivers/hypervisor.h"
#include "drivers/store/qcow2.h"

#define CLAIM_MS 30000

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

/* --- may it be ------------------------------------------------------------------- */

static bool
check_off(struct daemon *d, const char *uuid, struct error **err)
{
    AUTOPTR(hv_domain) *domain = NULL;

    if (!look_up(d, uuid, &domain, err))
        return false;
    return domain == NULL || domain->state == HV_STATE_OFF ||
           error_set(err, ERROR_SOURCE_ALIVE,
                     "VM '%s' runs on host '%s' too: stop it there first (virsh destroy "
                     "%s)",
                     domain->name, d->config->host_name, domain->name);
}

/* Only whom the VM was replicated to may say that it is the source now. Under r->lock. */
static bool
check_source(struct replication *r, uint64_t epoch, struct error **err)
{
    bool passed = r->phase == PHASE_SUPERSEDED || r->phase == PHASE_PREPARED;

    if (!passed && !states_is_protecting(r->phase))
        return error_set(err, ERROR_INVALID_STATE,
                         "the replication of VM '%s' is '%s' there", r->vm_name,
                         states_name(r->phase));
    return (passed ? epoch >= r->epoch : epoch > r->epoch) ||
           error_set(err, ERROR_EPOCH, "epoch is %llu here, so %llu cannot follow",
                     (unsigned long long)r->epoch, (unsigned long long)epoch);
}

/* One that is the target already: of that very reversal. Under r->lock. */
static bool
check_target(struct replication *r, uint64_t epoch, struct error **err)
{
    return (r->epoch == epoch && replication_allows(r, "receive", err)) ||
           error_set(err, ERROR_EPOCH,
                     "VM '%s' is replicated to that host under epoch %llu, not %llu",
                     r->vm_name, (unsigned long long)r->epoch, (unsigned long long)epoch);
}

static bool
check_role(struct replication *r, const struct replica_request *request,
           struct error **err)
{
    bool ok;

    pthread_mutex_lock(&r->lock);
    if (strcmp(r->peer_id, request->peer_id) != 0 ||
        strcmp(r->vm_uuid, request->vm_uuid) != 0)
        ok = error_set(err, ERROR_REPLICATION_NOT_FOUND,
                       "this host shares no such replication with the caller");
    else
        ok = r->side == SIDE_SOURCE ? check_source(r, request->epoch, err)
                                    : check_target(r, request->epoch, err);
    pthread_mutex_unlock(&r->lock);
    return ok;
}

/* --- becoming the target ------------------------------------------------------------ */

static struct json_object *
settings_of(struct replication *r)
{
    struct json_object *o = json_object_new_object(), *excluded = NULL;

    pthread_mutex_lock(&r->lock);
    json_object_deep_copy(r->excluded, &excluded, NULL);
    json_set(o, "excluded", excluded);
    json_set(o, "consistency", consistency_to_doc(&r->consistency));
    json_set_string(o, "bandwidth", r->bandwidth.text);
    pthread_mutex_unlock(&r->lock);
    return o;
}

/* Under r->lock. */
static struct json_object *
remember_source(const struct replication *r, const struct hv_domain *domain)
{
    struct json_object *o = NULL, *excluded = NULL;
    struct json_object *folders;

    if (r->formerly == NULL || json_object_deep_copy(r->formerly, &o, NULL) < 0)
        o = json_object_new_object();
    json_object_deep_copy(r->excluded, &excluded, NULL);
    json_set(o, "excluded", excluded);
    json_set(o, "consistency", consistency_to_doc(&r->consistency));
    json_set_string(o, "bandwidth", r->bandwidth.text);
    json_set_string(o, "targetStorage", r->storage);
    if (domain != NULL) {
        json_set_string(o, "xml", domain->xml);
        json_set_bool(o, "autostart", domain->autostart);
    }
    folders = json_array_or_null(o, "folders");
    folders = folders != NULL ? json_object_get(folders) : json_object_new_array();
    if (r->folder != NULL)
        json_append_string(folders, r->folder);
    json_set(o, "folders", folders);
    return o;
}

/*
 * libvirt's records of our checkpoints go, or the definition could never be removed; the
 * bitmaps stay in the images, which are not written to now, and under these names they
 * are forgotten once the VM runs here again.
 */
static struct json_object *
take_records(struct daemon *d, struct replication *r)
{
    struct json_object *names = NULL;

    pthread_mutex_lock(&r->lock);
    json_object_deep_copy(r->stale, &names, NULL);
    json_append_string(names, replication_record(&r->newest));
    json_append_string(names, r->newest.name);
    json_append_string(names, r->pending.name);
    json_append_string(names, r->sync.name);
    pthread_mutex_unlock(&r->lock);
    cycle_disown(d, r, names);
    return names;
}

/* What differs from the images that are here is not known before it comes. */
static bool
check_room(struct daemon *d, const struct replica_request *request,
           const struct config_storage **ret, struct error **err)
{
    struct replica_request lighter = *request;

    if (originals_cover(d, request->vm_uuid, request))
        lighter.needed_bytes = 0;
    return replica_check_room(d, &lighter, ret, err);
}

static struct replication *
new_target(const struct replica_request *request, const struct config_storage *storage)
{
    struct replication *n =
        replication_new(SIDE_TARGET, request->replication, request->vm_uuid,
                        request->vm_name, request->peer_id);

    n->epoch = request->epoch;
    n->rpo_ms = request->rpo_ms;
    if (request->retention != NULL)
        n->retention = *request->retention;
    mem_setstr(&n->home, request->home);
    mem_setstr(&n->storage, storage->name);
    /* Another one than before: the VM's disks may be in that. */
    n->folder = mem_printf("%s/%s-%llu", storage->path, request->replication,
                           (unsigned long long)request->epoch);
    n->contact_ms = units_now_ms();
    return n;
}

/* The VM has them elsewhere, if at all; a network that is gone is no reason to stop. */
static void
release_addresses(struct daemon *d, struct replication *r)
{
    struct log_ctx log = replication_log(r);
    struct error *e = NULL;

    if (!failover_after_release(d, r, &e))
        log_ignore(&log, "addresses-stay", &e);
}

/* Stored first: what a crash leaves in the folder has an owner (I6). */
static bool
turn(struct daemon *d, struct replication *r, const struct reversal_request *wanted,
     struct error **err)
{
    const struct replica_request *request = wanted->replica;
    const struct config_storage *storage = NULL;
    AUTOPTR(replication) *n = NULL;
    AUTOPTR(hv_domain) *domain = NULL;
    /* What is not one image yet stays as it is: the replica stands on it. */
    const struct state_write no_flatten = { .kind = FLATTEN_KIND, .id = r->vm_uuid };
    struct points *points = NULL;
    bool ok;

    if (!check_room(d, request, &storage, err) || !look_up(d, r->vm_uuid, &domain, err))
        return false;
    n = new_target(request, storage);
    json_object_put(n->stale);
    n->stale = take_records(d, r);
    pthread_mutex_lock(&r->lock);
    n->created_ms = r->created_ms;
    n->capture = json_object_get(r->capture);
    n->formerly = remember_source(r, domain);
    json_set(n->formerly, "left", divergence_leave(r, wanted->fork));
    json_set_string(n->formerly, "defined", wanted->defined);
    pthread_mutex_unlock(&r->lock);
    release_addresses(d, r);
    ok = replica_forbid_start(d, n, err) && points_open(d->state, n->id, &points, err) &&
         points_remove_all(points, err) &&
         replications_replace(d->replications, r, n, &no_flatten, err) &&
         originals_make(d, n, request, err);
    points_free(points);
    return ok;
}

/* It may not have heard of the failover yet. */
static void
supersede(struct daemon *d, struct replication *r, uint64_t epoch)
{
    bool protecting;

    pthread_mutex_lock(&r->lock);
    protecting = states_is_protecting(r->phase);
    pthread_mutex_unlock(&r->lock);
    if (protecting)
        contact_superseded(d, r, epoch);
}

/* Nobody works on it any more, and it has not changed meanwhile. */
static bool
turn_claimed(struct daemon *d, struct replication *r,
             const struct reversal_request *wanted, struct error **err)
{
    const struct replica_request *request = wanted->replica;
    struct cancel patience = { 0 };
    struct log_ctx log = replication_log(r);
    bool ok;

    supersede(d, r, request->epoch);
    cancel_set_timeout(&patience, CLAIM_MS);
    if (!replication_seize(r, &patience, err))
        return false;
    ok = check_role(r, request, err) && check_off(d, r->vm_uuid, err) &&
         turn(d, r, wanted, err);
    replication_release(r);
    if (ok)
        events_emit(d, EVENT_INFO, &log, "reversed",
                    "VM '%s' is replicated to this host from now on (epoch %llu)",
                    request->vm_name, (unsigned long long)request->epoch);
    return ok;
}

/* After a lost answer, or a crash between the document and the folder: nothing has been
   sent yet, as the source waits for that answer. */
static bool
make_again(struct daemon *d, struct replication *r, const struct replica_request *request,
           struct error **err)
{
    bool empty;

    pthread_mutex_lock(&r->lock);
    empty = r->phase == PHASE_INITIAL_SYNC && r->newest.name[0] == '\0' &&
            r->sync.name[0] == '\0';
    pthread_mutex_unlock(&r->lock);
    if (!empty)
        return true;
    replica_close(r);
    return originals_make(d, r, request, err);
}

/* This host has never seen the VM, or was installed anew. */
static bool
accept_new(struct daemon *d, const struct reversal_request *request, struct error **err)
{
    const struct config_storage *storage;

    if (!check_off(d, request->replica->vm_uuid, err))
        return false;
    return request->check ? replica_check_room(d, request->replica, &storage, err)
                          : replica_create(d, request->replica, err);
}

/* Of the object as it is now. */
static struct json_object *
settle(struct daemon *d, const struct replica_request *request)
{
    AUTOPTR(replication) *r = NULL;

    return replications_find(d->replications, request->replication, &r, NULL)
               ? divergence_settle(d, r)
               : NULL;
}

bool
reversal_accept(struct daemon *d, const struct reversal_request *request,
                struct json_object **ret, struct error **err)
{
    const struct replica_request *replica = request->replica;
    const struct config_storage *storage;
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *settings = NULL;
    bool ok;

    if (!replications_find(d->replications, replica->replication, &r, NULL)) {
        ok = accept_new(d, request, err);
    } else if (!check_role(r, replica, err)) {
        return false;
    } else {
        settings = settings_of(r);
        if (r->side == SIDE_TARGET)
            ok = request->check || make_again(d, r, replica, err);
        else if (request->check)
            ok = check_off(d, r->vm_uuid, err) && check_room(d, replica, &storage, err);
        else
            ok = turn_claimed(d, r, request, err);
    }
    if (ok)
        *ret = settings != NULL ? TAKE(settings) : json_object_new_object();
    if (ok && !request->check)
        json_set(*ret, "divergence", settle(d, replica));
    return ok;
}

/* --- the end of such a target ----------------------------------------------------------
 */

/* The images of the time when the VM ran here, unless it does so again. */
static bool
remove_folders(struct replication *r, struct error **err)
{
    struct json_object *folders = json_array_or_null(r->formerly, "folders");

    for (size_t i = 0; folders != NULL && i < json_object_array_length(folders); i++)
        if (!store_qcow2_ops.destroy(
                json_object_get_string(json_object_array_get_idx(folders, i)), err))
            return false;
    return true;
}

/*
 * At home the VM stays defined, and is another host's now: it does not start with its
 * host. Elsewhere the definition was a failover's, and goes with what it used.
 */
bool
reversal_retire(struct daemon *d, struct replication *r, struct error **err)
{
    struct hypervisor *hv = d->hypervisor;
    AUTOPTR(hv_domain) *domain = NULL;

    if (r->side != SIDE_TARGET || r->formerly == NULL)
        return true;
    if (!look_up(d, r->vm_uuid, &domain, err))
        return false;
    if (domain != NULL && domain->state != HV_STATE_OFF)
        return true;
    if (r->home != NULL && strcmp(r->home, d->host_id) == 0)
        return domain == NULL || !domain->autostart ||
               hv->ops->set_autostart(hv, r->vm_uuid, false, err);
    return (domain == NULL || hv->ops->undefine(hv, r->vm_uuid, err)) &&
           remove_folders(r, err);
}
