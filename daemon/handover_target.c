/* The target's part: the same replica, another source. */
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/events.h"
#include "daemon/handover.h"
#include "daemon/peers.h"
#include "daemon/replica.h"

#define MAX_FORMER 16 /* hosts that are remembered */

/* The place in r->former; its length if that peer was never the source. Under r->lock. */
static size_t
find_former(const struct replication *r, const char *peer_id)
{
    size_t n = json_object_array_length(r->former), i = 0;

    while (i < n &&
           strcmp(json_string_or(json_object_array_get_idx(r->former, i), "host", ""),
                  peer_id) != 0)
        i++;
    return i;
}

static bool
is_former(const struct replication *r, const char *peer_id)
{
    return find_former(r, peer_id) < json_object_array_length(r->former);
}

/* As it will be; r->former is shared with what is being stored, so it is not changed. */
struct json_object *
handover_with_former(const struct replication *r, const char *peer_id)
{
    size_t n = json_object_array_length(r->former), same = find_former(r, peer_id);
    struct json_object *list = json_object_new_array();
    struct json_object *o = json_object_new_object();

    for (size_t i = n >= MAX_FORMER ? 1 : 0; i < n; i++)
        if (i != same)
            json_object_array_add(
                list, json_object_get(json_object_array_get_idx(r->former, i)));
    json_set_string(o, "host", peer_id);
    json_set_u64(o, "epoch", r->epoch);
    json_object_array_add(list, o);
    return list;
}

/* --- the change ------------------------------------------------------------------ */

/* Only the source may say who follows it, and only while it is one (I3). Under r->lock.
 */
static bool
check_change(struct daemon *d, struct replication *r, const char *caller,
             const char *host, uint64_t epoch, struct error **err)
{
    if (r->side != SIDE_TARGET || strcmp(r->peer_id, caller) != 0)
        return handover_refuse(d, r, caller, err);
    if (!replication_allows(r, "receive", err))
        return false;
    if (epoch != r->epoch + 1)
        return error_set(err, ERROR_EPOCH, "epoch is %llu here, so %llu cannot follow",
                         (unsigned long long)r->epoch, (unsigned long long)epoch);
    if (strcmp(host, d->host_id) == 0)
        return error_set(err, ERROR_INVALID_STATE,
                         "host '%s' has the replica; it cannot be its source",
                         d->config->host_name);
    return replica_check_source(d, host, r->storage, err);
}

/* Under r->lock. */
static bool
change(struct daemon *d, struct replication *r, const char *host, uint64_t epoch,
       struct error **err)
{
    struct json_object *before = r->former;
    const char *peer_before = r->peer_id; /* stays readable */

    r->former = handover_with_former(r, peer_before);
    replication_set_peer(r, host);
    r->epoch = epoch;
    r->contact_ms = units_now_ms();
    if (replication_store(d->replications, r, NULL, 0, err)) {
        json_object_put(before);
        mem_setstr(&r->source_says, "");
        return true;
    }
    json_object_put(r->former);
    r->former = before;
    replication_set_peer(r, peer_before);
    r->epoch = epoch - 1;
    return false;
}

bool
handover_set_source(struct daemon *d, struct replication *r, const char *caller,
                    const char *host, uint64_t epoch, struct error **err)
{
    struct log_ctx log = replication_log(r);
    struct peer_name name = { .name = "(unknown)" };
    bool ok, done;

    pthread_mutex_lock(&r->lock);
    /* Asked again after a lost answer. */
    done = r->side == SIDE_TARGET && r->epoch == epoch && strcmp(r->peer_id, host) == 0 &&
           is_former(r, caller);
    ok = done ||
         (check_change(d, r, caller, host, epoch, err) && change(d, r, host, epoch, err));
    ok = ok && replica_forbid_start(d, r, err); /* as before, but it names the new one */
    pthread_mutex_unlock(&r->lock);
    peers_find(d->peers, host, &name, NULL);
    if (ok && !done)
        events_emit(d, EVENT_INFO, &log, "source-changed",
                    "VM '%s' was moved to host '%s', which replicates it from now on "
                    "(epoch %llu)",
                    r->vm_name, name.name, (unsigned long long)epoch);
    return ok;
}

/* --- those that were sources before ------------------------------------------------ */

bool
handover_refuse(struct daemon *d, const struct replication *r, const char *peer_id,
                struct error **err)
{
    struct peer_name source = { .name = "(unknown)" };

    if (r->side == SIDE_TARGET &&
        (r->phase == PHASE_FAILING_OVER || states_owns_vm(r->phase) ||
         r->phase == PHASE_UNDOING || r->phase == PHASE_RESOLVING))
        return error_set(err, ERROR_EPOCH,
                         "VM '%s' was failed over to host '%s' (epoch %llu), where it "
                         "runs now: it must not run elsewhere",
                         r->vm_name, d->config->host_name, (unsigned long long)r->epoch);
    if (r->side != SIDE_TARGET || !is_former(r, peer_id))
        return error_set(err, ERROR_REPLICATION_NOT_FOUND,
                         "this host has no replica of that id from that peer");
    peers_find(d->peers, r->peer_id, &source, NULL);
    return error_set(err, ERROR_EPOCH,
                     "VM '%s' was moved to host '%s' (epoch %llu), which replicates it "
                     "since; nothing is taken from its former host",
                     r->vm_name, source.name, (unsigned long long)r->epoch);
}

struct json_object *
handover_say(struct replication *r, const char *peer_id)
{
    struct json_object *o = NULL;

    pthread_mutex_lock(&r->lock);
    if (is_former(r, peer_id)) {
        o = json_object_new_object();
        json_set_string(o, "id", r->id);
        json_set_string(o, "side", r->side == SIDE_TARGET ? "target" : "source");
        json_set_u64(o, "epoch", r->epoch);
        json_set_string(o, "phase", states_name(r->phase));
        if (r->side == SIDE_TARGET)
            json_set_string(o, "source", r->peer_id);
    }
    pthread_mutex_unlock(&r->lock);
    return o;
}
