#include "daemon/contact.h"

#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/events.h"
#include "daemon/failover_after.h"
#include "daemon/guard_sentence.h"
#include "daemon/guard_source.h"
#include "daemon/handover.h"
#include "daemon/prepare.h"
#include "daemon/readiness.h"
#include "daemon/reversal.h"
#include "daemon/scheduler.h"
#include "daemon/split_brain.h"
#include "daemon/tasks.h"

/* --- saying ------------------------------------------------------------------ */

static struct json_object *
say_replication(struct daemon *d, struct replication *r)
{
    AUTOFREE(char) *task = d->tasks != NULL ? tasks_exclusive(d->tasks, r->id) : NULL;
    struct json_object *o = json_object_new_object();
    bool runs = split_brain_look(d, r);

    if (task != NULL) /* before the phase: it does not end between */
        json_set_string(o, "task", task);
    json_set(o, "readiness", readiness_say(d, r));
    pthread_mutex_lock(&r->lock);
    json_set_string(o, "id", r->id);
    json_set_string(o, "side", r->side == SIDE_SOURCE ? "source" : "target");
    json_set_u64(o, "epoch", r->epoch);
    json_set_string(o, "phase", states_name(r->phase));
    json_set_bool(o, "running", runs);
    if (r->side == SIDE_SOURCE && atomic_load(&r->departed) && r->error != NULL)
        json_set_string(o, "trouble", error_message(r->error));
    if (r->side == SIDE_SOURCE && r->phase == PHASE_PREPARED)
        json_set_string(o, "trouble",
                        "it is shut down and locked for a failover to this host: run "
                        "planned-failover here, or abandon there");
    pthread_mutex_unlock(&r->lock);
    return o;
}

struct json_object *
contact_say(struct daemon *d, const char *peer_id)
{
    struct json_object *o = json_object_new_object();
    struct json_object *host = json_object_new_object();
    struct json_object *list = json_object_new_array();
    AUTOFREE(struct replication *) *all = NULL;
    size_t n = replications_all(d->replications, &all);

    json_set_string(host, "id", d->host_id);
    json_set_string(host, "name", d->config->host_name);
    json_set_string(host, "site", d->config->site);
    json_set(o, "host", host);
    json_set_int(o, "time", units_now_ms());
    for (size_t i = 0; i < n; i++) {
        struct json_object *said = strcmp(all[i]->peer_id, peer_id) == 0
                                       ? say_replication(d, all[i])
                                       : handover_say(all[i], peer_id);

        if (said != NULL)
            json_object_array_add(list, said);
        replication_unref(all[i]);
    }
    json_set(o, "replications", list);
    return o;
}

/* --- hearing: superseded ------------------------------------------------------ */

/* A guard that could not be written then (its file system was full) is written now. */
static void
forbid_again(struct daemon *d, struct replication *r)
{
    struct log_ctx log = replication_log(r);
    AUTOPTR(guard_record) *record = NULL;
    struct error *e = NULL;
    bool ok;

    if (guard_read(&d->guard, r->vm_uuid, &record, NULL) && !record->may_run)
        return;
    pthread_mutex_lock(&r->lock);
    ok = r->phase != PHASE_SUPERSEDED || guard_refuse(d, r, PHASE_SUPERSEDED, &e);
    pthread_mutex_unlock(&r->lock);
    if (!ok)
        log_failure(&log, "superseded-guard-failed", e);
    error_free(e);
}

/*
 * The VM still runs here although the other side has taken over: nobody may miss
 * it. Said each time it begins, not at each contact; the health shows it all along.
 */
static void
alarm_if_running(struct daemon *d, struct replication *r, bool told)
{
    struct log_ctx log = replication_log(r);

    if (split_brain_look(d, r) && !told)
        events_emit(
            d, EVENT_CRITICAL, &log, "split-brain",
            "VM '%s' runs here although the other host has taken it over, and what it "
            "writes is not replicated. See what each has, and choose: virt-dr resolve %s",
            r->vm_name, r->vm_name);
}

void
contact_superseded(struct daemon *d, struct replication *r, uint64_t epoch)
{
    struct log_ctx log = replication_log(r);
    struct error *e = NULL;

    pthread_mutex_lock(&r->lock);
    if (epoch <= r->epoch || r->side != SIDE_SOURCE || r->removed) {
        pthread_mutex_unlock(&r->lock);
        return;
    }
    r->epoch = epoch;
    r->phase = PHASE_SUPERSEDED;
    r->confirmed = false;
    replication_set_error(r, NULL); /* of a cycle: there are none any more */
    if (r->worker != NULL)
        cancel_request(r->worker);
    /* First the guard: if it is cut off then, the next contact says it again. */
    if (!guard_refuse(d, r, PHASE_SUPERSEDED, &e)) {
        log_failure(&log, "superseded-guard-failed", e);
        error_clear(&e);
    }
    if (!replication_store(d->replications, r, NULL, 0, &e)) {
        log_failure(&log, "superseded-store-failed", e);
        error_clear(&e);
    }
    pthread_mutex_unlock(&r->lock);
    events_emit(d, EVENT_CRITICAL, &log, "superseded",
                "the other host has failed VM '%s' over (epoch %llu); this host does not "
                "start it any more and sends nothing",
                r->vm_name, (unsigned long long)epoch);
    alarm_if_running(d, r, false);
}

/* --- hearing: returned -------------------------------------------------------- */

/*
 * Nothing is allowed that is not stored; the guard comes last. If it cannot be written,
 * the phase goes back, and the next contact says it all again. It is confirmed as well,
 * so that nobody starts the VM as after a boot: that is for the operator. Under r->lock.
 */
static bool
take_back(struct daemon *d, struct replication *r, const struct guard_record *record,
          struct error **err)
{
    enum replication_phase phase_before = r->phase;
    uint64_t epoch_before = r->epoch;

    r->epoch = record->epoch;
    r->phase = r->newest.name[0] != '\0' ? PHASE_REPLICATING
               : r->stats.cycles > 0     ? PHASE_RESYNCING
                                         : PHASE_INITIAL_SYNC;
    r->agreed = false;
    if (replication_store(d->replications, r, NULL, 0, err) &&
        guard_write(&d->guard, r->vm_uuid, record, err) &&
        guard_confirm(&d->guard, r->vm_uuid, record->epoch, err))
        return true;
    r->epoch = epoch_before;
    r->phase = phase_before;
    return false;
}

/*
 * The other side has undone its failover: what it has is a replica again, with an epoch
 * that is newer than ours, or the one that superseded us.
 */
static void
returned(struct daemon *d, struct replication *r, uint64_t epoch)
{
    struct log_ctx log = replication_log(r);
    struct guard_record record = { .may_run = true,
                                   .epoch = epoch,
                                   .unconfirmed = guard_source_policy(d, r->peer_id) };
    struct error *e = NULL;
    bool ok;

    pthread_mutex_lock(&r->lock);
    record.vm = r->vm_name;
    ok = take_back(d, r, &record, &e);
    pthread_mutex_unlock(&r->lock);
    if (!ok) {
        log_failure(&log, "return-failed", e);
        error_free(e);
        return;
    }
    events_emit(d, EVENT_WARNING, &log, "failover-undone",
                "the other host has undone the failover of VM '%s' (epoch %llu): it may "
                "run here again, and is replicated",
                r->vm_name, (unsigned long long)epoch);
    split_brain_release(d, r);
    scheduler_wake(d->scheduler, r);
}

/* --- hearing: confirmed --------------------------------------------------------- */

/*
 * After a boot of this host the guard kept libvirt's autostart from starting the
 * VM; now that the other side has said that it did not take over, it may start. False:
 * libvirt does not answer yet; to be tried again.
 */
static bool
start_if_autostart(struct daemon *d, struct replication *r)
{
    struct hypervisor *hv = d->hypervisor;
    struct log_ctx log = replication_log(r);
    AUTOPTR(hv_domain) *domain = NULL;
    struct error *e = NULL;

    if (!hv->ops->lookup(hv, r->vm_uuid, &domain, &e)) {
        bool gone = error_is(e, ERROR_DOMAIN_NOT_FOUND);

        log_ignore(&log, "autostart-lookup-failed", &e);
        return gone;
    }
    if (!domain->autostart || domain->state != HV_STATE_OFF)
        return true;
    if (hv->ops->start(hv, r->vm_uuid, &e)) {
        events_emit(
            d, EVENT_INFO, &log, "autostarted",
            "VM '%s' was started: the other host has confirmed that it may run here",
            r->vm_name);
        return true;
    }
    events_emit(d, EVENT_WARNING, &log, "autostart-failed", "%s", error_message(e));
    error_free(e);
    return true;
}

/* epoch: that both sides have named; another contact may have superseded us since. */
static void
confirm(struct daemon *d, struct replication *r, uint64_t epoch)
{
    struct log_ctx log = replication_log(r);
    bool after_boot = !guard_is_confirmed(&d->guard, r->vm_uuid, epoch);
    struct error *e = NULL;
    bool ours;

    if (after_boot && !guard_confirm(&d->guard, r->vm_uuid, epoch, &e)) {
        log_failure(&log, "guard-confirm-failed", e);
        error_free(e);
        return;
    }
    pthread_mutex_lock(&r->lock);
    ours = states_is_protecting(r->phase) && r->epoch == epoch;
    if (ours)
        r->confirmed = true;
    pthread_mutex_unlock(&r->lock);
    if (after_boot)
        atomic_store(&r->autostart_due, true);
    if (ours && atomic_load(&r->autostart_due) && start_if_autostart(d, r))
        atomic_store(&r->autostart_due, false);
}

/*
 * What was given back was stored, then the guard was to allow it, and a VM that had been
 * suspended to go on: virtdrd may have ended in between. A source that is being prepared
 * is refused on purpose.
 */
static void
finish_return(struct daemon *d, struct replication *r, uint64_t epoch)
{
    struct log_ctx log = replication_log(r);
    AUTOPTR(guard_record) *record = NULL;
    struct error *e = NULL;

    pthread_mutex_lock(&r->lock);
    if (states_is_protecting(r->phase) && r->epoch == epoch &&
        strcmp(json_string_or(r->prepare, "state", ""), "preparing") != 0 &&
        guard_read(&d->guard, r->vm_uuid, &record, NULL) && !record->may_run &&
        record->epoch <= epoch && !guard_source(d, r, &e))
        log_failure(&log, "guard-allow-failed", e);
    pthread_mutex_unlock(&r->lock);
    error_free(e);
    split_brain_release(d, r);
}

static void
hear_replication(struct daemon *d, struct replication *r, struct json_object *said)
{
    uint64_t epoch = (uint64_t)json_int_or(said, "epoch", 0);
    enum replication_phase phase;
    bool is_replica = strcmp(json_string_or(said, "side", ""), "target") == 0 &&
                      states_from_name(json_string_or(said, "phase", ""), &phase) &&
                      states_is_protecting(phase);
    bool is_ours, superseded, newer, same, ran;

    pthread_mutex_lock(&r->lock);
    is_ours = r->side == SIDE_SOURCE &&
              (states_is_protecting(r->phase) || r->phase == PHASE_PREPARED);
    superseded = r->side == SIDE_SOURCE && r->phase == PHASE_SUPERSEDED;
    newer = epoch > r->epoch;
    same = epoch == r->epoch;
    ran = r->source_running;
    if (r->side == SIDE_TARGET && states_is_protecting(r->phase)) {
        r->contact_ms = units_now_ms();
        mem_setstr(&r->source_says, json_string_or(said, "trouble", ""));
    }
    pthread_mutex_unlock(&r->lock);
    if (is_replica && prepare_hear(d, r, said)) {
        /* a task takes it back, or that failover still goes on */
    } else if ((is_ours && newer && is_replica) ||
               (superseded && (newer || same) && is_replica)) {
        returned(d, r, epoch);
    } else if (is_ours && newer) {
        contact_superseded(d, r, epoch);
    } else if (is_ours && same) {
        if (is_replica)
            finish_return(d, r, epoch);
        confirm(d, r, epoch);
    }
    if (superseded) {
        forbid_again(d, r);
        alarm_if_running(d, r, ran || r->split_brain);
    }
    split_brain_meet(d, r, json_bool_or(said, "running", false));
    readiness_hear(d, r, said);
}

static struct json_object *
find_said(struct json_object *list, const char *id)
{
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *o = json_object_array_get_idx(list, i);

        if (strcmp(json_string_or(o, "id", ""), id) == 0)
            return o;
    }
    return NULL;
}

/*
 * The target does not know it: it was installed anew, say. But it may also have
 * failed the VM over and ended the replication since; so nothing is confirmed (I3).
 */
static void
hear_nothing(struct replication *r)
{
    struct log_ctx log = replication_log(r);
    bool ours;

    pthread_mutex_lock(&r->lock);
    ours = r->side == SIDE_SOURCE && states_is_protecting(r->phase) &&
           r->move.from[0] == '\0'; /* else it has not been told yet */
    pthread_mutex_unlock(&r->lock);
    if (ours)
        log_warn(&log, "replica-unknown",
                 "the target does not know the replica of VM '%s'; see that the VM does "
                 "not run there, then unprotect and protect it anew",
                 r->vm_name);
}

void
contact_hear(struct daemon *d, const char *peer_id, struct json_object *said)
{
    struct json_object *list = json_array_or_null(said, "replications");
    AUTOFREE(struct replication *) *all = NULL;
    size_t n;

    if (list == NULL) /* says nothing, not that it knows of none */
        return;
    n = replications_all(d->replications, &all);
    for (size_t i = 0; i < n; i++) {
        struct json_object *o = find_said(list, all[i]->id);

        if (strcmp(all[i]->peer_id, peer_id) == 0) {
            if (o != NULL && json_string_or(o, "source", NULL) != NULL)
                handover_hear(d, all[i], o);
            else if (o != NULL)
                hear_replication(d, all[i], o);
            else
                hear_nothing(all[i]);
            reversal_hear(d, all[i]);
            failover_after_hear(d, all[i]);
        }
        replication_unref(all[i]);
    }
}
