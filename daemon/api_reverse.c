/* A replication changes its direction (reversal.h): asked for, and between the hosts. */
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "daemon/api_private.h"
#include "daemon/peers.h"
#include "daemon/reversal.h"
#include "daemon/tasks.h"

static bool
take_peer(struct daemon *d, struct json_object *body, struct json_object *data,
          struct error **err)
{
    const char *to = "", *storage = "";
    struct peer_name peer;

    if (body == NULL)
        return true;
    if (!api_check_members(body, "to storage", err) ||
        !json_opt_string(body, "to", &to, err) ||
        !json_opt_string(body, "storage", &storage, err))
        return false;
    if (to[0] != '\0' && !peers_find(d->peers, to, &peer, err))
        return false;
    if (to[0] != '\0')
        json_set_string(data, "to", peer.id);
    if (storage[0] != '\0')
        json_set_string(data, "storage", storage);
    return true;
}

bool
api_replication_reverse(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *data = json_object_new_object();
    struct tasks_request task = { .kind = "reverse",
                                  .user = request->caller.name,
                                  .data = data };

    if (!take_peer(d, request->body, data, err) ||
        !api_find_for(request, "reverse", &r, err))
        return false;
    task.resource_id = r->id;
    task.resource_name = r->vm_name;
    request->status = 202;
    return tasks_start(d->tasks, &task, &request->reply, err);
}

/* Asked by the host that has the VM now. */
bool
api_replica_target(struct rest_request *request, struct error **err)
{
    struct replica_request replica = { 0 };
    struct reversal_request wanted = { .replica = &replica };
    struct retention retention;
    bool ok;

    ok = api_parse_replica(request, &replica, &retention, err) &&
         json_get_u64(request->body, "epoch", INT64_MAX, &replica.epoch, err) &&
         json_get_string(request->body, "home", &replica.home, err) &&
         json_opt_bool(request->body, "check", &wanted.check, err);
    if (ok && (strcmp(replica.replication, request->params[0]) != 0 ||
               !id_is_valid(replica.home) || replica.epoch < 2))
        ok = error_set(err, ERROR_PROTOCOL, "this is no reversal of that replication");
    ok = ok && reversal_accept(request->opaque, &wanted, &request->reply, err);
    free(replica.disks);
    return ok;
}
