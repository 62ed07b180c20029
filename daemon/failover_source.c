/* What the target has with the source while it fails a VM over. */
#include <poll.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/daemon.h"
#include "daemon/failover_steps.h"
#include "daemon/peers.h"
#include "daemon/prepare.h"
#include "daemon/replica.h"

#define ASK_MS     200
#define PATIENT_MS 30000 /* with a source that is silent, or busy with another task */
#define RELEASE_MS 30000 /* then it is left to the contacts */

static bool
find(struct op *op, struct replication **ret, struct error **err)
{
    return replications_find(op->daemon->replications, op->resource_id, ret, err);
}

/* --- asking ------------------------------------------------------------------------ */

/* Nobody is there, or somebody else: all other errors are words of the source. */
static bool
is_silence(const struct error *e)
{
    return error_is(e, ERROR_CONNECT) || error_is(e, ERROR_TIMEOUT) ||
           error_is(e, ERROR_TLS) || error_is(e, ERROR_NOT_AUTHENTICATED) ||
           error_is(e, ERROR_FORBIDDEN) || error_is(e, ERROR_PEER_NOT_FOUND);
}

enum failover_source
failover_ask_source(struct op *op, struct replication *r, struct json_object **ret)
{
    AUTOFREE(char) *path = mem_printf("/api/v1/peers/replications/%s", r->id);
    AUTOPTR(error) *e = NULL;
    AUTOJSON *answer = NULL;
    bool silent;

    if (peers_probe(op->daemon->peers, r->peer_id, path, &answer, &e)) {
        enum failover_source does = json_bool_or(answer, "departed", false)
                                        ? SOURCE_DEPARTED
                                    : json_bool_or(answer, "running", true) ? SOURCE_RUNS
                                                                            : SOURCE_OFF;
        if (ret != NULL)
            *ret = TAKE(answer);
        return does;
    }
    silent = is_silence(e);
    log_info(&op->log, silent ? "source-silent" : "source-unclear", "%s",
             error_message(e));
    return silent ? SOURCE_SILENT : SOURCE_UNCLEAR;
}

/* --- preparing it --------------------------------------------------------------------
 */

static bool
call(struct op *op, struct replication *r, const char *what, struct json_object *body,
     struct json_object **ret, struct error **err)
{
    AUTOFREE(char) *path = mem_printf("/api/v1/peers/replications/%s/%s", r->id, what);

    return peers_call(op->daemon->peers, r->peer_id, "POST", path, body, ret, err);
}

static struct json_object *
request_of(struct op *op, struct replication *r)
{
    struct json_object *body = json_object_new_object();

    json_set_string(body, "id", op_id(op));
    pthread_mutex_lock(&r->lock);
    json_set_u64(body, "epoch", r->epoch);
    pthread_mutex_unlock(&r->lock);
    json_set_string(body, "shutdown", json_string_or(op->data, "shutdown", ""));
    json_set_string(body, "delta", json_string_or(op->data, "delta", "try"));
    json_set_int(body, "timeout",
                 json_int_or(op->data, "timeout", PREPARE_DEFAULT_TIMEOUT_MS));
    return body;
}

static bool
is_state(struct json_object *view, const char *state)
{
    return strcmp(json_string_or(view, "state", ""), state) == 0;
}

/* *ret_done: it is prepared. */
static bool
take_view(struct op *op, struct json_object *view, bool *ret_done, struct error **err)
{
    if (is_state(view, "failed"))
        return json_to_error(json_object_or_null(view, "error"), err) ||
               error_prefix(err, "at the source");
    *ret_done = is_state(view, "prepared");
    if (*ret_done) {
        json_set_string(op->data, "finalPoint", json_string_or(view, "point", ""));
        json_set_bool(op->data, "stopped", true);
    }
    return true;
}

/* It was started anew, the link is slow, or it has just begun and has not stored it. */
static bool
is_passing(const struct error *e)
{
    return error_is(e, ERROR_CONNECT) || error_is(e, ERROR_TIMEOUT) ||
           error_is(e, ERROR_IN_PROGRESS);
}

bool
failover_prepare_source(struct op *op, struct error **err)
{
    int64_t heard_ms = units_monotonic_ms();
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *body = NULL;
    bool done = false;

    if (!find(op, &r, err))
        return false;
    json_set_bool(op->data, "asked", true);
    body = request_of(op, r);
    while (!done) {
        AUTOJSON *view = NULL;
        struct error *e = NULL;

        if (!cancel_check(&op->cancel, err))
            return false;
        if (call(op, r, "prepare", body, &view, &e)) {
            heard_ms = units_monotonic_ms();
            if (!take_view(op, view, &done, err))
                return false;
        } else if (!is_passing(e) || units_monotonic_ms() - heard_ms > PATIENT_MS) {
            return error_propagate(err, e);
        }
        error_free(e);
        if (!done)
            poll(NULL, 0, cancel_remaining_ms(&op->cancel, ASK_MS));
    }
    return true;
}

bool
failover_check_prepared(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *body = NULL;
    AUTOJSON *view = NULL;
    bool done = false;

    if (!find(op, &r, err))
        return false;
    body = request_of(op, r);
    if (!call(op, r, "prepare", body, &view, err) || !take_view(op, view, &done, err))
        return false;
    if (!done)
        return error_set(err, ERROR_SOURCE_ALIVE,
                         "the source is not prepared any more; it may run VM '%s'",
                         r->vm_name);
    json_set_int(op->data, "checked", units_now_ms());
    return true;
}

/* --- releasing it --------------------------------------------------------------------
 */

/* Its task was told, and has come to an end: prepared or not, it is the source's again.
 */
bool
failover_release_source(struct op *op, struct error **err)
{
    int64_t begun_ms = units_monotonic_ms();
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *body = json_object_new_object();
    bool done = !json_bool_or(op->data, "asked", false);

    if (!find(op, &r, err))
        return false;
    json_set_string(body, "id", op_id(op));
    pthread_mutex_lock(&r->lock);
    if (!states_is_protecting(r->phase))
        done = true; /* this host has not given it back: the VM may run here */
    json_set_u64(body, "epoch", r->epoch);
    pthread_mutex_unlock(&r->lock);
    while (!done) {
        AUTOJSON *view = NULL;
        struct error *e = NULL;

        if (call(op, r, "release", body, &view, &e))
            done = is_state(view, "none") || is_state(view, "failed");
        else if (!is_passing(e))
            return error_propagate(err, e);
        if (!done && units_monotonic_ms() - begun_ms > RELEASE_MS)
            return e != NULL ? error_propagate(err, e)
                             : error_set(err, ERROR_TIMEOUT,
                                         "the source has not taken VM '%s' back yet",
                                         r->vm_name);
        error_free(e);
        if (!done)
            poll(NULL, 0, ASK_MS);
    }
    return true;
}
