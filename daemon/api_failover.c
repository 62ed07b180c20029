/* Failing over, as planned or not, and back. */
#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>

#include "common/json.h"
#include "daemon/api_private.h"
#include "daemon/failover_after.h"
#include "daemon/peers.h"
#include "daemon/prepare.h"
#include "daemon/replication_view.h"
#include "daemon/tasks.h"

#define MAC_TEXT 17

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

/* --- what is different here -------------------------------------------------------- */

static bool
take_networks(struct json_object *body, struct json_object *data, struct error **err)
{
    struct json_object *map = json_object_or_null(body, "networks");

    if (map == NULL)
        return true;
    json_object_object_foreach (map, there, here)
        if (!json_object_is_type(here, json_type_string) || there[0] == '\0' ||
            json_object_get_string(here)[0] == '\0')
            return error_set(err, ERROR_USAGE,
                             "'networks' has the names of networks: {there: here}");
    json_set(data, "networks", json_object_get(map));
    return true;
}

static bool
is_mac(const char *text)
{
    for (size_t i = 0; i < MAC_TEXT; i++)
        if (i % 3 == 2 ? text[i] != ':' : !isxdigit((unsigned char)text[i]))
            return false;
    return text[MAC_TEXT] == '\0';
}

static bool
check_address(struct json_object *o, struct error **err)
{
    struct in_addr v4;
    const char *mac, *ip;

    if (!api_check_members(o, "mac ip", err) || !json_get_string(o, "mac", &mac, err) ||
        !json_get_string(o, "ip", &ip, err))
        return false;
    return (is_mac(mac) && inet_pton(AF_INET, ip, &v4) == 1) ||
           error_set(err, ERROR_USAGE,
                     "'%s', '%s': an interface's MAC address and an IPv4 address", mac,
                     ip);
}

static bool
take_addresses(struct json_object *body, struct json_object *data, struct error **err)
{
    struct json_object *list = json_array_or_null(body, "addresses");

    for (size_t i = 0; list != NULL && i < json_object_array_length(list); i++)
        if (!check_address(json_object_array_get_idx(list, i), err))
            return error_prefix(err, "'addresses'");
    if (list != NULL)
        json_set(data, "addresses", json_object_get(list));
    return true;
}

/* --- how it ends ---------------------------------------------------------------------
 */

bool
api_take_end(struct daemon *d, struct json_object *body, struct json_object **ret,
             struct error **err)
{
    int64_t commit_ms = 0, undo_ms = 0;

    *ret = NULL;
    if (!json_opt_int(body, "autoCommit", FAILOVER_AFTER_MIN_MS, FAILOVER_AFTER_MAX_MS,
                      &commit_ms, err) ||
        !json_opt_int(body, "autoUndo", FAILOVER_AFTER_MIN_MS, FAILOVER_AFTER_MAX_MS,
                      &undo_ms, err))
        return false;
    if (commit_ms > 0 && undo_ms > 0)
        return error_set(err, ERROR_USAGE,
                         "autoCommit and autoUndo: it can end in one way only");
    if (commit_ms > 0 && !tasks_knows(d->tasks, "commit"))
        return error_set(err, ERROR_USAGE, "this virtdrd cannot commit");
    if (commit_ms == 0 && undo_ms == 0)
        return true;
    *ret = json_object_new_object();
    json_set_string(*ret, "action", commit_ms > 0 ? "commit" : "undo");
    json_set_int(*ret, "after", MAX(commit_ms, undo_ms));
    return true;
}

static bool
take_flags(struct json_object *body, struct json_object *data, struct error **err)
{
    bool fence = true, start = true;

    if (!json_opt_bool(body, "fence", &fence, err) ||
        !json_opt_bool(body, "start", &start, err))
        return false;
    json_set_bool(data, "fence", fence);
    json_set_bool(data, "start", start);
    return true;
}

static bool
take_settings(struct daemon *d, struct json_object *body, struct json_object *data,
              struct error **err)
{
    struct json_object *end = NULL;

    if (!take_networks(body, data, err) || !take_addresses(body, data, err) ||
        !take_flags(body, data, err) || !api_take_end(d, body, &end, err))
        return false;
    if (end != NULL)
        json_set(data, "auto", end);
    return true;
}

bool
api_replication_failover(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *data = json_object_new_object();

    return api_check_members(request->body,
                             "force point shutdown shutdownTimeout networks addresses "
                             "fence start autoCommit autoUndo",
                             err) &&
           take_shutdown(request->body, data, err) &&
           (request->body == NULL ||
            (api_take_point(request->body, "select", data, err) &&
             take_settings(request->opaque, request->body, data, err))) &&
           api_find(request, &r, err) &&
           api_start_task(request, r, "failover", data, err);
}

bool
api_failover_policy(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *end = NULL;
    struct json_object *body;

    if (!api_body(request, &body, err) ||
        !api_check_members(body, "autoCommit autoUndo", err) ||
        !api_take_end(d, body, &end, err) || !api_find(request, &r, err) ||
        !failover_after_set(d, r, end, err))
        return false;
    request->reply = replication_view(d, r);
    return true;
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
    bool reverse = true;

    if (!api_check_members(request->body,
                           "shutdown shutdownTimeout networks addresses autoCommit "
                           "autoUndo reverse",
                           err) ||
        !take_shutdown(request->body, data, err) ||
        (request->body != NULL &&
         !take_settings(request->opaque, request->body, data, err)))
        return false;
    if (!json_opt_bool(request->body, "reverse", &reverse, err))
        return false;
    json_set_bool(data, "reverse", reverse && json_object_or_null(data, "auto") == NULL);
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

bool
api_replication_commit(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *data = json_object_new_object();
    bool reverse = true;

    if (!api_check_members(request->body, "reverse", err) ||
        (request->body != NULL &&
         !json_opt_bool(request->body, "reverse", &reverse, err)))
        return false;
    json_set_bool(data, "reverse", reverse);
    return api_find(request, &r, err) && api_start_task(request, r, "commit", data, err);
}
