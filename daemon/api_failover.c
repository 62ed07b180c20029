/* Failing over, as planned or not, and back. */
#include <string.h>

#include "common/json.h"
#include "daemon/api_private.h"
#include "daemon/peers.h"
#include "daemon/prepare.h"
#include "daemon/tasks.h"

/* --- what becomes of the source -------------------------------------------------- */

static bool
is_among(const char *word, const char *const *words)
{
    while (*words != NULL && strcmp(*words, word) != 0)
        words++;
    return *words != NULL;
}

/* "force": true is short for "shutdown": "leave". */
static bool
take_shutdown(struct json_object *body, struct json_object *data, struct error **err)
{
    static const char *const policies[] = { "refuse", "leave", "graceful", "force",
                                            NULL };
    int64_t timeout_ms = PREPARE_DEFAULT_TIMEOUT_MS;
    const char *policy = NULL;
    bool force = false;

    if (body != NULL && (!json_opt_bool(body, "force", &force, err) ||
                         !json_opt_string(body, "shutdown", &policy, err) ||
                         !json_opt_int(body, "shutdownTimeout", PREPARE_MIN_TIMEOUT_MS,
                                       PREPARE_MAX_TIMEOUT_MS, &timeout_ms, err)))
        return false;
    if (policy != NULL && !is_among(policy, policies))
        return error_set(err, ERROR_USAGE,
                         "'shutdown' is '%s', not refuse, leave, graceful or force",
                         policy);
    if (policy != NULL && force && strcmp(policy, "leave") != 0)
        return error_set(err, ERROR_USAGE,
                         "'force' leaves the source as it is, 'shutdown' says '%s'",
                         policy);
    json_set_string(data, "shutdown",
                    policy != NULL ? policy
                    : force        ? "leave"
                                   : "refuse");
    json_set_int(data, "timeout", timeout_ms);
    return true;
}

bool
api_replication_failover(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *data = json_object_new_object();

    return api_check_members(request->body, "force point shutdown shutdownTimeout",
                             err) &&
           take_shutdown(request->body, data, err) &&
           (request->body == NULL ||
            api_take_point(request->body, "select", data, err)) &&
           api_find(request, &r, err) &&
           api_start_task(request, r, "failover", data, err);
}

/* --- planned ----------------------------------------------------------------------- */

static bool
check_target(struct daemon *d, const struct replication *r, struct error **err)
{
    struct peer_name peer;

    if (r->side == SIDE_TARGET || !peers_find(d->peers, r->peer_id, &peer, NULL))
        return true;
    return error_set(err, ERROR_INVALID_STATE,
                     "VM '%s' is taken over by the host of its replica: run this on host "
                     "'%s'",
                     r->vm_name, peer.name);
}

bool
api_replication_planned(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *data = json_object_new_object();
    const char *policy;

    if (!api_check_members(request->body, "shutdown shutdownTimeout", err) ||
        !take_shutdown(request->body, data, err))
        return false;
    policy = json_string_or(data, "shutdown", "");
    if (json_string_or(request->body, "shutdown", NULL) == NULL)
        json_set_string(data, "shutdown", "graceful");
    else if (strcmp(policy, "graceful") != 0 && strcmp(policy, "force") != 0)
        return error_set(err, ERROR_USAGE,
                         "a planned failover shuts the VM down: graceful or force");
    return api_find(request, &r, err) && check_target(request->opaque, r, err) &&
           api_start_task(request, r, "planned-failover", data, err);
}

bool
api_replication_undo(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;

    return api_find(request, &r, err) && api_start_task(request, r, "undo", NULL, err);
}
