/*
 * failback: the VM goes home, and nothing is lost: a planned failover to the host that it
 * was protected on at first.
 *
 * On that host. data: {select} (point_select.h; absent: all that the VM has written);
 * {shutdown, timeout} as in a planned failover. If it is not replicated back yet, the
 * other host is asked to (ops_reverse.c), and the sync is waited for. Findings: those of
 * the shared steps; dropped (ms of what the VM has written, that a chosen point leaves
 * out).
 */
#include <poll.h>
#include <stdatomic.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/daemon.h"
#include "daemon/failover_steps.h"
#include "daemon/ops.h"
#include "daemon/peers.h"
#include "daemon/planned_steps.h"
#include "daemon/replica.h"
#include "daemon/reversal.h"

#define LOOK_MS      300
#define ASK_AGAIN_MS 5000
#define PATIENT_MS   60000 /* with another host that does not do what it is asked */

static bool
find(struct op *op, struct replication **ret, struct error **err)
{
    return replications_find(op->daemon->replications, op->resource_id, ret, err);
}

/* --- reverse --------------------------------------------------------------------------
 */

/* Again: its first try may have ended with the link, and goes on otherwise. */
static bool
ask_to_reverse(struct op *op, struct replication *r, bool again, struct error **err)
{
    AUTOFREE(char) *path = mem_printf("/api/v1/peers/replications/%s/reverse", r->id);
    AUTOJSON *body = json_object_new_object();
    struct error *e = NULL;

    if (peers_call(op->daemon->peers, r->peer_id, "POST", path, body, NULL, &e))
        return true;
    if (!again)
        return error_propagate(err, e) ||
               error_prefix(err, "the other host is to replicate VM '%s' back",
                            r->vm_name);
    log_ignore(&op->log, "reverse-not-begun", &e);
    return true;
}

/* Under r->lock. */
static bool
is_home(struct op *op, const struct replication *r, struct error **err)
{
    struct peer_name peer = { .name = "(unknown)" };

    if (r->side == SIDE_SOURCE || reversal_is_reversed(r, op->daemon->host_id))
        return true;
    peers_find(op->daemon->peers, r->peer_id, &peer, NULL);
    return error_set(err, ERROR_INVALID_STATE,
                     "VM '%s' is at home on host '%s', not on this one: to move it here, "
                     "virt-dr planned-failover %s",
                     r->vm_name, peer.name, r->vm_name);
}

/* *ret_target: it is replicated to this host. */
static bool
look_at_role(struct op *op, bool *ret_target, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ok, target;

    if (!find(op, &r, err))
        return false;
    pthread_mutex_lock(&r->lock);
    target = r->side == SIDE_TARGET;
    ok = replication_allows(r, "failback", err) && is_home(op, r, err);
    pthread_mutex_unlock(&r->lock);
    if (!ok)
        return false;
    if (target)
        atomic_store(&r->comes_home, true);
    *ret_target = target;
    return true;
}

static bool
await(struct op *op, int64_t since_ms, const char *what, struct error **err)
{
    if (!cancel_check(&op->cancel, err))
        return false;
    if (since_ms > 0 && units_monotonic_ms() - since_ms > PATIENT_MS)
        return error_set(err, ERROR_TIMEOUT, "%s", what);
    poll(NULL, 0, cancel_remaining_ms(&op->cancel, LOOK_MS));
    return true;
}

static bool
have_it_reversed(struct op *op, struct error **err)
{
    int64_t begun_ms = units_monotonic_ms(), ask_ms = begun_ms;
    bool target = false;

    while (look_at_role(op, &target, err) && !target) {
        AUTOPTR(replication) *r = NULL;
        int64_t now_ms = units_monotonic_ms();

        if (!find(op, &r, err) ||
            (now_ms >= ask_ms && !ask_to_reverse(op, r, ask_ms > begun_ms, err)))
            return false;
        if (now_ms >= ask_ms)
            ask_ms = now_ms + ASK_AGAIN_MS;
        if (!await(op, begun_ms,
                   "the other host did not begin to replicate it back; see its tasks",
                   err))
            return false;
    }
    return target;
}

/* --- wait-for-sync
 * ----------------------------------------------------------------------
 */

/* It may not have taken the acknowledgement of its first point yet. One that says nothing
   is left to the next step. */
static bool
source_knows_it(struct op *op, struct replication *r)
{
    AUTOJSON *answer = NULL;
    enum replication_phase phase;

    failover_ask_source(op, r, &answer);
    return !states_from_name(json_string_or(answer, "phase", ""), &phase) ||
           (phase != PHASE_INITIAL_SYNC && phase != PHASE_RESYNCING);
}

static bool
is_synchronised(struct op *op, bool *ret, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool target;

    if (!look_at_role(op, &target, err) || !find(op, &r, err))
        return false;
    pthread_mutex_lock(&r->lock);
    *ret = r->phase == PHASE_REPLICATING || r->phase == PHASE_FAILING_OVER;
    pthread_mutex_unlock(&r->lock);
    *ret = *ret && source_knows_it(op, r);
    return true;
}

static bool
wait_for_sync(struct op *op, struct error **err)
{
    bool done = false;

    while (is_synchronised(op, &done, err) && !done)
        if (!await(op, 0, "", err))
            return false;
    return done;
}

/* --- choose-point
 * ------------------------------------------------------------------------
 */

/* It was asked for: what is newer is lost, and how much that is is said. */
static bool
choose_point(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    int64_t newest_ms, dropped_ms;

    if (json_object_or_null(op->data, "select") == NULL)
        return planned_choose_final(op, err);
    if (!failover_choose_point(op, err) || !find(op, &r, err))
        return false;
    pthread_mutex_lock(&r->lock);
    newest_ms = r->newest.time_ms;
    pthread_mutex_unlock(&r->lock);
    dropped_ms = MAX(newest_ms - json_int_or(op->data, "time", newest_ms), 0);
    json_set_int(op->data, "dropped", dropped_ms);
    if (dropped_ms > 0)
        op_warn(op, "what VM '%s' has written in the last %lld.%03lld s is dropped",
                r->vm_name, (long long)(dropped_ms / 1000),
                (long long)(dropped_ms % 1000));
    return true;
}

/* --- record
 * -------------------------------------------------------------------------------
 */

static bool
record(struct op *op, struct error **err)
{
    if (!failover_record(op, err))
        return false;
    json_set_double(op->result, "droppedSeconds",
                    (double)json_int_or(op->data, "dropped", 0) / 1000);
    return true;
}

static void
ended(struct op *op, const struct error *failure)
{
    AUTOPTR(replication) *r = NULL;

    if (find(op, &r, NULL))
        atomic_store(&r->comes_home, false);
    failover_ended(op, failure);
}

/* clang-format off */
static const struct op_step steps[] = {
    /* name              run                      undo                     timeout_s  commits */
    { "reverse",         have_it_reversed,        NULL,                    0,         false },
    { "wait-for-sync",   wait_for_sync,           NULL,                    0,         false },
    { "check",           planned_check,           NULL,                    30,        false },
    { "prepare-source",  failover_prepare_source, failover_release_source, 0,         false },
    { "choose-point",    choose_point,            NULL,                    10,        false },
    { "raise-epoch",     planned_raise_epoch,     planned_give_back,       300,       false },
    { "make-overlay",    failover_make_overlay,   NULL,                    600,       false },
    { "define-domain",   failover_define_domain,  NULL,                    60,        false },
    { "start-domain",    failover_start_domain,   NULL,                    120,       true  },
    { "record",          record,                  NULL,                    30,        false },
    { 0 },
};
/* clang-format on */

const struct op_kind op_failback = {
    .name = "failback", .result_type = "failover", .steps = steps, .ended = ended
};
