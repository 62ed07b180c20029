#include "daemon/split_brain.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "daemon/events.h"
#include "daemon/guard_file.h"
#include "daemon/peers.h"
#include "drivers/hypervisor.h"

/* --- looking ------------------------------------------------------------------------ */

/* A source that replicates is looked at by its cycles; a replica has nothing that could
   run, until somebody has started it by hand. */
static bool
is_worth_a_look(const struct replication *r)
{
    if (!states_is_protecting(r->phase))
        return true;
    return r->side == SIDE_TARGET && (atomic_load(&r->has_run) || r->runs_here);
}

/* *ret_off: libvirt has said so; else it may be that it does not answer. */
static bool
ask(struct daemon *d, struct replication *r, bool *ret_off)
{
    AUTOPTR(hv_domain) *domain = NULL;
    struct error *e = NULL;

    if (d->hypervisor->ops->lookup(d->hypervisor, r->vm_uuid, &domain, &e)) {
        *ret_off = domain->state == HV_STATE_OFF;
        return true;
    }
    *ret_off = error_is(e, ERROR_DOMAIN_NOT_FOUND);
    error_free(e);
    return *ret_off;
}

static bool
look_closely(struct daemon *d, struct replication *r)
{
    bool off;

    if (!ask(d, r, &off))
        return r->runs_here; /* as last seen */
    r->runs_here = !off;
    if (off && r->side == SIDE_TARGET)
        atomic_store(&r->has_run, false);
    return !off;
}

bool
split_brain_look(struct daemon *d, struct replication *r)
{
    bool worth, runs;

    pthread_mutex_lock(&r->lock);
    worth = is_worth_a_look(r);
    runs = r->side == SIDE_SOURCE && r->source_running;
    pthread_mutex_unlock(&r->lock);
    if (!worth) {
        r->runs_here = runs;
        return runs;
    }
    runs = look_closely(d, r);
    if (r->side == SIDE_SOURCE) {
        pthread_mutex_lock(&r->lock);
        r->source_running = runs;
        pthread_mutex_unlock(&r->lock);
    }
    return runs;
}

/* --- suspending ----------------------------------------------------------------------
 */

static bool
note_suspended(struct daemon *d, const struct replication *r, struct error **err)
{
    AUTOFREE(char) *name = mem_printf("%s.suspended", r->vm_uuid);

    return guard_file_write(d->guard.confirmations, name, "", err);
}

static char *
note_path(struct daemon *d, const struct replication *r)
{
    return mem_printf("%s/%s.suspended", d->guard.confirmations, r->vm_uuid);
}

bool
split_brain_suspend(struct daemon *d, struct replication *r, struct error **err)
{
    struct hypervisor *hv = d->hypervisor;
    struct log_ctx log = replication_log(r);
    AUTOPTR(hv_domain) *domain = NULL;

    if (!hv->ops->lookup(hv, r->vm_uuid, &domain, err))
        return false;
    if (domain->state != HV_STATE_RUNNING)
        return true;
    if (!note_suspended(d, r, err) || !hv->ops->suspend(hv, r->vm_uuid, err))
        return false;
    events_emit(d, EVENT_CRITICAL, &log, "split-brain-suspended",
                "VM '%s' was suspended here, because the other host runs it too and has "
                "taken it over; decide with: virt-dr resolve %s",
                r->vm_name, r->vm_name);
    return true;
}

/* The note goes last: until the VM goes on, it is ours to be resumed. */
void
split_brain_release(struct daemon *d, struct replication *r)
{
    AUTOFREE(char) *note = note_path(d, r);
    struct hypervisor *hv = d->hypervisor;
    struct log_ctx log = replication_log(r);
    AUTOPTR(hv_domain) *domain = NULL;
    AUTOPTR(error) *e = NULL;

    if (access(note, F_OK) < 0 || !hv->ops->lookup(hv, r->vm_uuid, &domain, NULL))
        return;
    if (domain->state == HV_STATE_PAUSED && !hv->ops->resume(hv, r->vm_uuid, &e)) {
        log_failure(&log, "split-brain-resume-failed", e);
        return;
    }
    unlink(note);
    if (domain->state == HV_STATE_PAUSED)
        events_emit(
            d, EVENT_WARNING, &log, "split-brain-resumed",
            "VM '%s' goes on here: the split brain is over, and it is this host's",
            r->vm_name);
}

/* --- meeting -------------------------------------------------------------------------
 */

/* Whose VM is it not? Of two that claim it the one that the epoch has left. */
static bool
must_yield(const struct replication *r)
{
    if (r->side == SIDE_SOURCE)
        return r->phase == PHASE_SUPERSEDED || r->phase == PHASE_MOVED;
    return states_is_protecting(r->phase) || r->phase == PHASE_UNDOING ||
           r->phase == PHASE_RESOLVING;
}

static void
raise_alarm(struct daemon *d, struct replication *r, bool yields)
{
    struct peer_name peer = { .name = "(unknown)" };
    struct log_ctx log = replication_log(r);

    peers_find(d->peers, r->peer_id, &peer, NULL);
    events_emit(
        d, EVENT_CRITICAL, &log, "split-brain",
        "VM '%s' runs here and on host '%s'; it is %s's by its epoch. See what each "
        "has, and choose: virt-dr resolve %s",
        r->vm_name, peer.name, yields ? peer.name : "this host", r->vm_name);
}

static void
tell_end(struct daemon *d, struct replication *r)
{
    struct log_ctx log = replication_log(r);

    events_emit(d, EVENT_WARNING, &log, "split-brain-over",
                "VM '%s' runs on one host only again", r->vm_name);
}

static void
obey_policy(struct daemon *d, struct replication *r)
{
    struct log_ctx log = replication_log(r);
    AUTOPTR(error) *e = NULL;

    if (d->config->split_brain == SPLIT_BRAIN_SUSPEND && !split_brain_suspend(d, r, &e))
        log_failure(&log, "split-brain-suspend-failed", e);
}

/* The last run of this host's side is what counts: the other one may have ended. */
void
split_brain_meet(struct daemon *d, struct replication *r, bool runs_there)
{
    bool both = runs_there && look_closely(d, r);
    bool was = atomic_exchange(&r->split_brain, both);
    bool yields;

    pthread_mutex_lock(&r->lock);
    yields = must_yield(r);
    pthread_mutex_unlock(&r->lock);
    if (both && !was)
        raise_alarm(d, r, yields);
    if (!both && was)
        tell_end(d, r);
    if (both && yields)
        obey_policy(d, r);
}

char *
split_brain_text(const struct replication *r)
{
    if (r->split_brain)
        return mem_printf(
            "SPLIT BRAIN: both hosts run the VM, or have it suspended, and %s "
            "took it over; see and choose: virt-dr resolve %s",
            must_yield(r) ? "the other one" : "this one", r->vm_name);
    if (r->side == SIDE_SOURCE && r->phase == PHASE_SUPERSEDED && r->source_running)
        return mem_printf(
            "SPLIT BRAIN: the other host has taken the VM over, and it runs "
            "here too; see and choose: virt-dr resolve %s",
            r->vm_name);
    return NULL;
}
