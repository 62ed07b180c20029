/*
 * abandon: the source of a VM that is prepared for a failover takes it back.
 *
 * Started when the target says that its task is over (prepare.h), or by the operator.
 * data: {id} of the target's task; {confirmed, epoch}: the target itself said so;
 * {force}: the operator does, although the target cannot be asked. Findings: ran.
 */
#include <string.h>

#include "common/json.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/guard_source.h"
#include "daemon/ops.h"
#include "daemon/peers.h"
#include "daemon/prepare.h"

static bool
find(struct op *op, struct replication **ret, struct error **err)
{
    return replications_find(op->daemon->replications, op->resource_id, ret, err);
}

/* --- ask-target -------------------------------------------------------------------- */

/* It is a replica's host, its VM does not run there, and its task is over for good. */
static bool
judge_answer(struct op *op, struct replication *r, struct json_object *answer,
             struct error **err)
{
    const char *task = json_string_or(answer, "task", "");
    enum replication_phase phase;

    if (!states_from_name(json_string_or(answer, "phase", ""), &phase) ||
        !states_is_protecting(phase))
        return error_set(err, ERROR_INVALID_STATE,
                         "the other host has taken VM '%s' over: it is '%s' there",
                         r->vm_name, json_string_or(answer, "phase", "?"));
    if (json_bool_or(answer, "running", true))
        return error_set(err, ERROR_INVALID_STATE, "VM '%s' runs on the other host",
                         r->vm_name);
    if (strcmp(task, json_string_or(op->data, "id", "")) == 0)
        return error_set(err, ERROR_IN_PROGRESS,
                         "the other host is still at work on it: task %s", task);
    json_set_int(op->data, "epoch", json_int_or(answer, "epoch", 0));
    return true;
}

static bool
ask(struct op *op, struct replication *r, struct error **err)
{
    AUTOFREE(char) *path = mem_printf("/api/v1/peers/replications/%s", r->id);
    AUTOJSON *answer = NULL;

    if (!peers_call(op->daemon->peers, r->peer_id, "GET", path, NULL, &answer, err))
        return error_prefix(err,
                            "ask whether the other host has taken VM '%s' over (if "
                            "you know that it does not run there: --force)",
                            r->vm_name);
    return judge_answer(op, r, answer, err);
}

/* Under r->lock. What is prepared for another task is not meant. */
static bool
is_meant(struct op *op, struct replication *r, struct error **err)
{
    const char *id = json_string_or(r->prepare, "id", "");

    if (r->prepare == NULL ||
        (r->phase != PHASE_PREPARED && r->phase != PHASE_SUPERSEDED))
        return replication_allows(r, "abandon", err);
    if (json_string_or(op->data, "id", NULL) == NULL)
        json_set_string(op->data, "id", id);
    json_set_bool(op->data, "ran", json_bool_or(r->prepare, "ran", false));
    return strcmp(id, json_string_or(op->data, "id", "")) == 0 ||
           error_set(err, ERROR_INVALID_STATE,
                     "VM '%s' is prepared for another failover meanwhile", r->vm_name);
}

static bool
ask_target(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ok;

    if (!find(op, &r, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ok = is_meant(op, r, err);
    pthread_mutex_unlock(&r->lock);
    if (!ok || json_bool_or(op->data, "confirmed", false))
        return ok;
    if (!json_bool_or(op->data, "force", false))
        return ask(op, r, err);
    events_emit(
        op->daemon, EVENT_CRITICAL, &op->log, "abandon-forced",
        "the operator takes VM '%s' back without asking the other host; if it was "
        "taken over there, it runs twice",
        r->vm_name);
    return true;
}

/* --- take-back, start --------------------------------------------------------------- */

static bool
take_back(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ok = true;

    if (!find(op, &r, err))
        return false;
    pthread_mutex_lock(&r->lock);
    if (r->prepare == NULL) /* an earlier run did, all but the guard perhaps */
        ok = !states_is_protecting(r->phase) || guard_source(op->daemon, r, err);
    else
        ok = is_meant(op, r, err) &&
             prepare_take_back(op->daemon, r, (uint64_t)json_int_or(op->data, "epoch", 0),
                               err);
    pthread_mutex_unlock(&r->lock);
    return ok;
}

static bool
start_again(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ours;

    if (!find(op, &r, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ours = states_is_protecting(r->phase);
    pthread_mutex_unlock(&r->lock);
    if (ours && !prepare_start_again(op, r, err)) /* else it was superseded meanwhile */
        return false;
    op->result = json_object_new_object();
    json_set_string(op->result, "replication", r->id);
    json_set_string(op->result, "vmName", r->vm_name);
    json_set_bool(op->result, "started", ours && json_bool_or(op->data, "ran", false));
    return true;
}

/* clang-format off */
static const struct op_step steps[] = {
    /* name           run          undo  timeout_s  commits */
    { "ask-target",   ask_target,  NULL, 30,        false },
    { "take-back",    take_back,   NULL, 30,        true  },
    { "start",        start_again, NULL, 120,       false },
    { 0 },
};
/* clang-format on */

const struct op_kind op_abandon = { .name = "abandon",
                                    .result_type = "abandon",
                                    .steps = steps };
