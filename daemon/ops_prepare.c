/*
 * prepare: the source shuts the VM down and sends what it wrote last, because the target
 * asks for it (prepare.h).
 *
 * data: {id, epoch, shutdown, timeout, delta}, as prepare_ask() has them. Findings: ran,
 * point, sequence. delta 'try': what was written last may stay behind. Until 'prepared'
 * is done all of it is undone: the guard allows the VM, which is started again if it ran.
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/guard_sentence.h"
#include "daemon/ops.h"
#include "daemon/peers.h"
#include "daemon/prepare.h"
#include "daemon/scheduler.h"
#include "drivers/hypervisor.h"

#define LOOK_MS         100
#define BUTTON_AGAIN_MS 10000 /* a guest that was still booting did not see it */
#define DELTA_TRIES     3     /* the first one may find that the record is lost */

static bool
find(struct op *op, struct replication **ret, struct error **err)
{
    return replications_find(op->daemon->replications, op->resource_id, ret, err);
}

static bool
must_have_delta(struct op *op)
{
    return strcmp(json_string_or(op->data, "delta", ""), "must") == 0;
}

static uint64_t
epoch_of(struct op *op)
{
    return (uint64_t)json_int_or(op->data, "epoch", 0);
}

/* --- check ------------------------------------------------------------------------ */

static struct json_object *
findings(struct op *op, struct replication *r, const char *state)
{
    struct json_object *o = json_object_new_object();
    struct peer_name peer = { .name = "" };

    peers_find(op->daemon->peers, r->peer_id, &peer, NULL);
    json_set_string(o, "id", json_string_or(op->data, "id", ""));
    json_set_string(o, "state", state);
    json_set_string(o, "host", peer.name);
    json_set_bool(o, "ran", json_bool_or(op->data, "ran", false));
    json_set_string(o, "point", json_string_or(op->data, "point", ""));
    json_set_int(o, "sequence", json_int_or(op->data, "sequence", 0));
    return o;
}

static bool
check_domain(const struct replication *r, const struct hv_domain *domain,
             struct error **err)
{
    if (!domain->persistent)
        return error_set(err, ERROR_INVALID_STATE,
                         "VM '%s' is transient: shut down, it would be gone; define it "
                         "first",
                         r->vm_name);
    if (domain->migrated || atomic_load(&r->departed))
        return error_set(err, ERROR_INVALID_STATE,
                         "VM '%s' has left this host, it may run on another one",
                         r->vm_name);
    return true;
}

/* Under r->lock. */
static bool
check_replication(struct op *op, struct replication *r, struct error **err)
{
    if (!replication_allows(r, "prepare", err))
        return false;
    if (r->epoch != epoch_of(op))
        return error_set(err, ERROR_EPOCH, "epoch is %llu here, not %llu",
                         (unsigned long long)r->epoch, (unsigned long long)epoch_of(op));
    return !must_have_delta(op) || r->phase == PHASE_REPLICATING ||
           r->phase == PHASE_PREPARED ||
           error_set(err, ERROR_INVALID_STATE,
                     "VM '%s' is '%s' at its source: wait until it replicates",
                     r->vm_name, states_name(r->phase));
}

/* Prepared for an earlier task, it goes over to this one. */
static bool
check(struct op *op, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOPTR(replication) *r = NULL;
    AUTOPTR(hv_domain) *domain = NULL;
    bool ok;

    if (!find(op, &r, err) || !hv->ops->lookup(hv, r->vm_uuid, &domain, err) ||
        !check_domain(r, domain, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ok = check_replication(op, r, err);
    if (ok && !json_bool_or(op->data, "ran", false))
        json_set_bool(
            op->data, "ran",
            domain->state != HV_STATE_OFF ||
                (r->phase == PHASE_PREPARED && json_bool_or(r->prepare, "ran", false)));
    if (ok) {
        json_object_put(r->prepare);
        r->prepare = findings(op, r, "preparing");
        ok = replication_store(op->daemon->replications, r, NULL, 0, err);
    }
    pthread_mutex_unlock(&r->lock);
    return ok;
}

/* --- catch-up, final-delta -------------------------------------------------------- */

static bool
run_cycles(struct op *op, struct replication *r, struct error **err)
{
    struct error *e = NULL;
    bool more = true, ok = true;

    if (!replication_claim(r, &op->cancel, false, err))
        return false;
    while (ok && more) {
        ok = cancel_check(&op->cancel, &e) &&
             cycle_run(op->daemon, r, &op->cancel, &more, &e);
        op_transfer(op, r->progress_done, r->progress_total);
    }
    scheduler_note(op->daemon->scheduler, r, e);
    if (!ok)
        r->agreed = false;
    replication_release(r);
    return ok || error_propagate(err, e);
}

static bool
is_phase(struct replication *r, enum replication_phase phase)
{
    bool yes;

    pthread_mutex_lock(&r->lock);
    yes = r->phase == phase;
    pthread_mutex_unlock(&r->lock);
    return yes;
}

/* What is sent while the VM runs needs not be sent while nobody does. */
static bool
catch_up(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    struct error *e = NULL;

    if (!find(op, &r, err))
        return false;
    if (!is_phase(r, PHASE_REPLICATING) || run_cycles(op, r, &e))
        return true;
    if (must_have_delta(op) || error_is(e, ERROR_CANCELLED))
        return error_propagate(err, e);
    op_warn(op, "ignoring that the changes could not be sent: %s", error_message(e));
    error_free(e);
    return true;
}

static bool
try_final_delta(struct op *op, struct replication *r, struct error **err)
{
    struct error *e = NULL;

    for (unsigned i = 0; i < DELTA_TRIES; i++) {
        error_clear(&e);
        if (run_cycles(op, r, &e))
            return true;
        if (!error_is(e, ERROR_CHECKPOINT_LOST) && !error_is(e, ERROR_CONNECT))
            break;
    }
    return error_propagate(err, e);
}

static void
note_final(struct op *op, struct replication *r)
{
    pthread_mutex_lock(&r->lock);
    json_set_string(op->data, "point", r->newest.name);
    json_set_u64(op->data, "sequence", r->newest.sequence);
    pthread_mutex_unlock(&r->lock);
}

static bool
final_delta(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    struct error *e = NULL;

    if (!find(op, &r, err))
        return false;
    if (is_phase(r, PHASE_PREPARED) || try_final_delta(op, r, &e)) {
        note_final(op, r);
        return true;
    }
    if (must_have_delta(op) || error_is(e, ERROR_CANCELLED))
        return error_propagate(err, e);
    op_warn(op, "what the VM wrote last was not sent: %s", error_message(e));
    error_free(e);
    return true;
}

/* --- lock ------------------------------------------------------------------------- */

static bool
lock_vm(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ok;

    if (!find(op, &r, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ok =
        check_replication(op, r, err) && guard_refuse(op->daemon, r, PHASE_PREPARED, err);
    pthread_mutex_unlock(&r->lock);
    return ok;
}

/* The last one that is undone: what was taken over meanwhile stays locked (I3). */
static bool
unlock_vm(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ours, ok = true;

    if (!find(op, &r, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ours = (states_is_protecting(r->phase) || r->phase == PHASE_PREPARED) &&
           r->epoch == epoch_of(op);
    if (ours)
        ok = prepare_take_back(op->daemon, r, r->epoch, err);
    pthread_mutex_unlock(&r->lock);
    return ok && (!ours || prepare_start_again(op, r, err));
}

/* --- shut-down -------------------------------------------------------------------- */

static bool
look(struct op *op, struct replication *r, struct hv_domain **ret, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;

    return hv->ops->lookup(hv, r->vm_uuid, ret, err);
}

/* True as well if it is not off by then: see *ret. */
static bool
await_off(struct op *op, struct replication *r, int64_t until_ms, bool *ret,
          struct error **err)
{
    for (;;) {
        AUTOPTR(hv_domain) *domain = NULL;

        if (!cancel_check(&op->cancel, err) || !look(op, r, &domain, err))
            return false;
        *ret = domain->state == HV_STATE_OFF;
        if (*ret || units_monotonic_ms() >= until_ms)
            return true;
        poll(NULL, 0, cancel_remaining_ms(&op->cancel, LOOK_MS));
    }
}

/* Its agent first, in half of the time; then its power button, more than once. */
static bool
ask_guest(struct op *op, struct replication *r, const struct hv_domain *domain, bool *ret,
          struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    int64_t begun_ms = units_monotonic_ms();
    int64_t timeout_ms = json_int_or(op->data, "timeout", PREPARE_DEFAULT_TIMEOUT_MS);
    struct error *e = NULL;

    *ret = false;
    if (domain->agent != HV_AGENT_NONE) {
        if (!hv->ops->shutdown(hv, r->vm_uuid, HV_SHUTDOWN_AGENT, &e))
            log_ignore(&op->log, "agent-shutdown-failed", &e);
        else if (!await_off(op, r, begun_ms + timeout_ms / 2, ret, err))
            return false;
    }
    while (!*ret && units_monotonic_ms() < begun_ms + timeout_ms) {
        int64_t again_ms = units_monotonic_ms() + BUTTON_AGAIN_MS;

        if (!hv->ops->shutdown(hv, r->vm_uuid, HV_SHUTDOWN_ACPI, err) ||
            !await_off(op, r, MIN(again_ms, begun_ms + timeout_ms), ret, err))
            return false;
    }
    return true;
}

/* What its guest had not written yet is lost with a QEMU that ends by itself, and the VM
   may well go on where it is: nothing that was meant by moving it. */
static bool
check_end(struct op *op, struct replication *r, bool force, struct error **err)
{
    AUTOPTR(hv_domain) *domain = NULL;

    if (!look(op, r, &domain, err))
        return false;
    if (force || !domain->crashed || !json_bool_or(op->data, "ran", false))
        return true;
    return error_set(err, ERROR_SHUTDOWN,
                     "the QEMU of VM '%s' ended before its guest had shut down (see "
                     "/var/log/libvirt/qemu/%s.log); try again, or let it be stopped by "
                     "force",
                     r->vm_name, r->vm_name);
}

static bool
not_in_time(struct op *op, const struct replication *r, struct error **err)
{
    char timeout[UNITS_TEXT_MAX];

    return error_set(
        err, ERROR_SHUTDOWN,
        "VM '%s' did not shut down within %s; shut it down inside, allow "
        "more time, or let it be stopped by force",
        r->vm_name,
        units_format_duration_ms(json_int_or(op->data, "timeout", 0), timeout));
}

static bool
shut_down(struct op *op, struct error **err)
{
    bool force = strcmp(json_string_or(op->data, "shutdown", ""), "force") == 0;
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOPTR(replication) *r = NULL;
    AUTOPTR(hv_domain) *domain = NULL;
    bool off;

    if (!find(op, &r, err) || !look(op, r, &domain, err))
        return false;
    off = domain->state == HV_STATE_OFF;
    if (domain->state == HV_STATE_PAUSED && !force)
        return error_set(err, ERROR_SHUTDOWN,
                         "VM '%s' is paused and hears nobody; resume it (virsh resume "
                         "%s), or let it be stopped by force",
                         r->vm_name, r->vm_name);
    if (!off && domain->state != HV_STATE_PAUSED && !ask_guest(op, r, domain, &off, err))
        return false;
    if (off)
        return check_end(op, r, force, err);
    if (!force)
        return not_in_time(op, r, err);
    op_warn(op, "VM '%s' did not shut down by itself: stopped by force", r->vm_name);
    return hv->ops->destroy(hv, r->vm_uuid, err);
}

/* --- prepared --------------------------------------------------------------------- */

static bool
check_off(struct op *op, struct replication *r, struct error **err)
{
    AUTOPTR(hv_domain) *domain = NULL;

    return look(op, r, &domain, err) &&
           (domain->state == HV_STATE_OFF ||
            error_set(err, ERROR_INVALID_STATE, "VM '%s' was started meanwhile",
                      r->vm_name));
}

/* From here on only the target's word, or the operator's, lets the VM start here. */
static bool
become_prepared(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ok;

    if (!find(op, &r, err) || !replication_seize(r, &op->cancel, err))
        return false;
    ok = check_off(op, r, err);
    pthread_mutex_lock(&r->lock);
    ok = ok && check_replication(op, r, err);
    if (ok) {
        struct json_object *prepare_before = r->prepare;
        enum replication_phase before = r->phase;

        r->phase = PHASE_PREPARED;
        r->source_running = false;
        r->prepare = findings(op, r, "prepared");
        ok = replication_store(op->daemon->replications, r, NULL, 0, err);
        json_object_put(ok ? prepare_before : r->prepare);
        if (!ok) {
            r->prepare = prepare_before;
            r->phase = before;
        }
    }
    pthread_mutex_unlock(&r->lock);
    replication_release(r);
    if (ok)
        events_emit(op->daemon, EVENT_WARNING, &op->log, "prepared",
                    "VM '%s' is shut down and locked here: the other host takes it over",
                    r->vm_name);
    return ok;
}

/* clang-format off */
static const struct op_step steps[] = {
    /* name           run              undo       timeout_s  commits */
    { "check",        check,           NULL,      60,        false },
    { "catch-up",     catch_up,        NULL,      0,         false },
    { "lock",         lock_vm,         unlock_vm, 120,       false },
    { "shut-down",    shut_down,       NULL,      0,         false },
    { "final-delta",  final_delta,     NULL,      0,         false },
    { "prepared",     become_prepared, NULL,      60,        true  },
    { 0 },
};
/* clang-format on */

/* The target asks how it went. */
static void
ended(struct op *op, const struct error *failure)
{
    AUTOPTR(replication) *r = NULL;
    struct json_object *o;

    if (failure == NULL || !find(op, &r, NULL))
        return;
    o = findings(op, r, "failed");
    json_set(o, "error", json_from_error(failure));
    pthread_mutex_lock(&r->lock);
    if (r->phase != PHASE_PREPARED && r->phase != PHASE_SUPERSEDED) {
        json_object_put(r->prepare);
        r->prepare = TAKE(o);
    }
    pthread_mutex_unlock(&r->lock);
    json_object_put(o);
}

const struct op_kind op_prepare = {
    .name = "prepare", .result_type = "prepare", .steps = steps, .ended = ended
};
