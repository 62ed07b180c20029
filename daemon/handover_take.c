/* The new source's part: a VM has come here, and its replication follows it. */
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/events.h"
#include "daemon/guard_source.h"
#include "daemon/handover.h"
#include "daemon/peers.h"
#include "daemon/scheduler.h"

#define NAME_START   "virt-dr-"
#define CLAIM_MS     30000
#define TOLD_MS      3000 /* in which the target is told, as a rule */
#define MAX_STALE    64   /* names of an offer; a source has a few at most */
#define MAX_EXCLUDED 256  /* disks */

/* --- the offer ------------------------------------------------------------------ */

/* The document as it is stored, under the epoch that comes. */
struct json_object *
handover_offer(const struct replication *r)
{
    struct json_object *stored = replication_to_doc(r), *o = NULL;

    json_object_deep_copy(stored, &o, NULL); /* parts of it are the replication's own */
    json_object_put(stored);
    json_set_u64(o, "epoch", r->epoch + 1);
    return o;
}

/* What we shall tell libvirt to forget must be of our kind (I6). */
static bool
check_name(const char *name, struct error **err)
{
    size_t n = strlen(name);

    if (n == 0)
        return true;
    if (n > CAPTURE_NAME_MAX || strncmp(name, NAME_START, strlen(NAME_START)) != 0 ||
        strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != n)
        return error_set(err, ERROR_PROTOCOL, "'%.80s' is no name of a point", name);
    return true;
}

static bool
check_strings(struct json_object *o, const char *key, size_t max, bool are_names,
              struct error **err)
{
    struct json_object *array;

    if (!json_get_array(o, key, &array, err))
        return false;
    if (json_object_array_length(array) > max)
        return error_set(err, ERROR_PROTOCOL, "'%s' has %zu members", key,
                         json_object_array_length(array));
    for (size_t i = 0; i < json_object_array_length(array); i++) {
        struct json_object *member = json_object_array_get_idx(array, i);

        if (!json_object_is_type(member, json_type_string))
            return error_set(err, ERROR_PROTOCOL, "'%s' has a member that is no string",
                             key);
        if (are_names && !check_name(json_object_get_string(member), err))
            return false;
    }
    return true;
}

static bool
check_disks(struct json_object *o, struct error **err)
{
    struct json_object *array;

    if (!json_get_array(o, "disks", &array, err))
        return false;
    for (size_t i = 0; i < json_object_array_length(array); i++)
        if (!json_object_is_type(json_object_array_get_idx(array, i), json_type_object))
            return error_set(err, ERROR_PROTOCOL, "'disks' has a member that is no disk");
    return json_object_array_length(array) <= MAX_EXCLUDED ||
           error_set(err, ERROR_PROTOCOL, "'disks' has %zu members",
                     json_object_array_length(array));
}

static bool
check_names(const struct replication *r, struct error **err)
{
    return check_name(r->newest.name, err) && check_name(r->newest.record, err) &&
           check_name(r->pending.name, err) && check_name(r->pending.record, err) &&
           check_name(r->sync.name, err);
}

/* A VM on which nobody can say that anything has been wrong: it was another host's. */
static bool
parse_offer(const char *from, struct json_object *o, struct replication **ret,
            struct error **err)
{
    AUTOPTR(replication) *r = NULL;

    if (!check_strings(o, "stale", MAX_STALE, true, err) ||
        !check_strings(o, "excluded", MAX_EXCLUDED, false, err) || !check_disks(o, err) ||
        !replication_from_doc(o, &r, err))
        return false;
    if (r->side != SIDE_SOURCE || !id_is_valid(r->id) || !id_is_valid(r->vm_uuid) ||
        !id_is_valid(r->peer_id) || !states_is_protecting(r->phase) || r->epoch < 2 ||
        r->rpo_ms < REPLICATION_MIN_RPO_MS || r->rpo_ms > REPLICATION_MAX_RPO_MS)
        return error_set(err, ERROR_PROTOCOL, "this is no replication of a source");
    if (!check_names(r, err))
        return false;
    /* Of images on the other host. */
    r->newest.generation = r->pending.generation = r->sync.generation = 0;
    r->move = (struct replication_move){ .adopt = true };
    snprintf(r->move.from, sizeof r->move.from, "%s", from);
    *ret = TAKE(r);
    return true;
}

/* --- taking it -------------------------------------------------------------------- */

static bool
check_vm(struct daemon *d, const struct replication *r, struct error **err)
{
    AUTOPTR(hv_domain) *domain = NULL;
    struct peer_name target;

    if (strcmp(r->peer_id, d->host_id) == 0)
        return error_set(err, ERROR_INVALID_STATE, "host '%s' has the replica of VM '%s'",
                         d->config->host_name, r->vm_name);
    if (!peers_find(d->peers, r->peer_id, &target, NULL))
        return error_set(err, ERROR_PEER_NOT_FOUND,
                         "host '%s' is not paired with the host that the replica of VM "
                         "'%s' is on",
                         d->config->host_name, r->vm_name);
    if (!d->hypervisor->ops->lookup(d->hypervisor, r->vm_uuid, &domain, err))
        return false;
    return domain->state != HV_STATE_OFF ||
           error_set(err, ERROR_INVALID_STATE, "VM '%s' does not run on host '%s'",
                     r->vm_name, d->config->host_name);
}

/* Is `old` in the way of what is offered? *ret_same: it is that already. */
static bool
check_old(struct replication *old, const struct replication *r, bool *ret_same,
          struct error **err)
{
    bool ours, gone, offered;

    pthread_mutex_lock(&old->lock);
    ours = old->side == SIDE_SOURCE && strcmp(old->id, r->id) == 0;
    gone = old->phase == PHASE_MOVED && old->epoch < r->epoch;
    offered = states_is_protecting(old->phase) && old->move.from[0] != '\0' &&
              strcmp(old->move.from, r->move.from) == 0 && old->epoch <= r->epoch;
    *ret_same = ours && states_is_protecting(old->phase) && old->epoch == r->epoch;
    pthread_mutex_unlock(&old->lock);
    return *ret_same || (ours && (gone || offered)) ||
           error_set(err, ERROR_EXISTS,
                     "VM '%s' has a replication on that host already, as its %s, of "
                     "epoch %llu, not below %llu",
                     r->vm_name, old->side == SIDE_SOURCE ? "source" : "target",
                     (unsigned long long)old->epoch, (unsigned long long)r->epoch);
}

/* From the time when the VM was here before, or of an offer that came to nothing. */
static bool
make_room(struct daemon *d, const struct replication *r, bool *ret_same,
          struct error **err)
{
    AUTOPTR(replication) *old = NULL;
    struct cancel patience = { 0 };
    bool ok;

    *ret_same = false;
    if (!replications_find(d->replications, r->vm_uuid, &old, NULL))
        return true;
    if (!check_old(old, r, ret_same, err) || *ret_same)
        return *ret_same;
    cancel_set_timeout(&patience, CLAIM_MS);
    if (!replication_claim(old, &patience, true, err))
        return false;
    ok = check_old(old, r, ret_same, err) &&
         (*ret_same || replications_remove(d->replications, old, err));
    replication_release(old);
    return ok;
}

bool
handover_accept(struct daemon *d, const char *from, struct json_object *offer,
                struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    AUTOPTR(replication) *kept = NULL;
    struct peer_name host = { .name = "(unknown)" };
    bool same;

    if (!parse_offer(from, offer, &r, err))
        return error_prefix(err, "the replication that is offered");
    if (!check_vm(d, r, err) || !make_room(d, r, &same, err))
        return false;
    if (!same && !replications_add(d->replications, r, err))
        return false;
    if (!replications_find(d->replications, r->id, &kept, err) ||
        !guard_source(d, kept, err))
        return false;
    if (same) { /* the target has been told, or that it was offered was not heard */
        scheduler_wake(d->scheduler, kept);
    } else {
        struct log_ctx log = replication_log(kept);

        pthread_mutex_lock(&kept->lock);
        kept->next_try_ms = units_now_ms() + TOLD_MS;
        pthread_mutex_unlock(&kept->lock);
        peers_find(d->peers, from, &host, NULL);
        events_emit(d, EVENT_INFO, &log, "came",
                    "VM '%s' came from host '%s', with its replication (epoch %llu)",
                    kept->vm_name, host.name, (unsigned long long)kept->epoch);
    }
    return true;
}

/* --- until the target knows ----------------------------------------------------------
 */

bool
handover_explain(struct daemon *d, struct replication *r, struct error **err)
{
    struct peer_name from = { .name = "(unknown)" }, target = { .name = "(unknown)" };

    if (r->move.from[0] == '\0' || err == NULL ||
        (!error_is(*err, ERROR_REPLICATION_NOT_FOUND) && !error_is(*err, ERROR_EPOCH)))
        return false;
    peers_find(d->peers, r->move.from, &from, NULL);
    peers_find(d->peers, r->peer_id, &target, NULL);
    return error_prefix(err,
                        "VM '%s' came from host '%s'; nothing is replicated until that "
                        "one has told '%s' so, which it tries by itself: see that "
                        "virtdrd runs there and that the two reach each other",
                        r->vm_name, from.name, target.name);
}

bool
handover_confirm(struct daemon *d, struct replication *r, struct error **err)
{
    struct log_ctx log = replication_log(r);
    char from[ID_TEXT];
    bool ok;

    pthread_mutex_lock(&r->lock);
    snprintf(from, sizeof from, "%s", r->move.from);
    r->move.from[0] = '\0';
    ok = replication_store(d->replications, r, NULL, 0, err);
    if (!ok)
        snprintf(r->move.from, sizeof r->move.from, "%s", from);
    pthread_mutex_unlock(&r->lock);
    if (ok)
        events_emit(d, EVENT_INFO, &log, "took-over",
                    "VM '%s' is replicated by this host from now on (epoch %llu)",
                    r->vm_name, (unsigned long long)r->epoch);
    return ok;
}
