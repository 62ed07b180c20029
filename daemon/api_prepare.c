/* Preparing a source for a failover: what the target asks for, and giving it up. */
#include "common/json.h"
#include "daemon/api_private.h"
#include "daemon/prepare.h"
#include "daemon/tasks.h"

bool
api_replica_prepare(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    struct json_object *body;

    return api_body(request, &body, err) && api_find_shared(request, &r, err) &&
           prepare_ask(request->opaque, r, body, &request->reply, err);
}

bool
api_replica_release(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    struct json_object *body;
    const char *id;
    uint64_t epoch;

    return api_body(request, &body, err) && json_get_string(body, "id", &id, err) &&
           json_get_u64(body, "epoch", INT64_MAX, &epoch, err) &&
           api_find_shared(request, &r, err) &&
           prepare_release(request->opaque, r, id, epoch, &request->reply, err);
}

bool
api_replication_abandon(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *data = json_object_new_object();
    bool force = false;

    if (request->body != NULL && (!api_check_members(request->body, "force", err) ||
                                  !json_opt_bool(request->body, "force", &force, err)))
        return false;
    json_set_bool(data, "force", force);
    return api_find(request, &r, err) && api_start_task(request, r, "abandon", data, err);
}
