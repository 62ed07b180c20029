/* REST: what the guard answers, and an operator's word against it. */
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/api_private.h"
#include "daemon/events.h"
#include "daemon/guard_override.h"
#include "daemon/guard_status.h"

#define FOR_MAX_MS ((int64_t)366 * 24 * 3600 * 1000)

/* What the records do not say: the replication that the record is of. */
static void
add_replication(struct daemon *d, struct json_object *o)
{
    AUTOPTR(replication) *r = NULL;

    if (!replications_find(d->replications, json_string_or(o, "vmId", ""), &r, NULL))
        return;
    pthread_mutex_lock(&r->lock);
    json_set_string(o, "side", r->side == SIDE_SOURCE ? "source" : "target");
    json_set_string(o, "state", states_name(r->phase));
    pthread_mutex_unlock(&r->lock);
}

bool
api_guard_show(struct rest_request *request, struct error **err UNUSED)
{
    struct daemon *d = request->opaque;
    struct json_object *items;

    request->reply = guard_status_all(&d->guard, &guard_hook_system_files);
    items = json_array_or_null(request->reply, "items");
    for (size_t i = 0; i < json_object_array_length(items); i++)
        add_replication(d, json_object_array_get_idx(items, i));
    return true;
}

/* By what the guard or the registry calls it. */
static bool
find_guarded(struct rest_request *request, char ret_uuid[GUARD_UUID_TEXT],
             struct error **err)
{
    struct daemon *d = request->opaque;
    AUTOPTR(replication) *r = NULL;

    if (!replications_find(d->replications, request->params[0], &r, NULL))
        return guard_status_find(&d->guard, request->params[0], ret_uuid, err);
    return guard_file_uuid(r->vm_uuid, ret_uuid, err);
}

static bool
answer(struct rest_request *request, const char *uuid)
{
    struct daemon *d = request->opaque;

    request->reply = guard_status(&d->guard, uuid);
    add_replication(d, request->reply);
    return true;
}

bool
api_guard_override(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    struct guard_override o = { 0 };
    struct json_object *body;
    char uuid[GUARD_UUID_TEXT];
    const char *reason, *by = request->caller.name;
    int64_t for_ms = 0;

    if (!api_body(request, &body, err) ||
        !api_check_members(body, "allow reason for by", err) ||
        !json_get_bool(body, "allow", &o.allow, err) ||
        !json_get_string(body, "reason", &reason, err) ||
        !json_opt_string(body, "by", &by, err) ||
        !json_opt_int(body, "for", 0, FOR_MAX_MS, &for_ms, err) ||
        !find_guarded(request, uuid, err))
        return false;
    o.reason = (char *)reason;
    /* Over TLS the certificate says it. */
    o.by = (char *)(request->caller.fingerprint[0] == '\0' ? by : request->caller.name);
    if (for_ms > 0)
        o.until_ms = units_now_ms() + for_ms;
    return guard_override_set(&d->guard, uuid, &o, err) && answer(request, uuid);
}

bool
api_guard_override_end(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    char uuid[GUARD_UUID_TEXT];

    return find_guarded(request, uuid, err) && guard_override_end(&d->guard, uuid, err) &&
           answer(request, uuid);
}
