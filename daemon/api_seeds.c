/* Seeds: the disks of a VM, written to a folder that is carried to another host. */
#include <string.h>

#include "common/json.h"
#include "daemon/api_private.h"
#include "daemon/tasks.h"
#include "drivers/hypervisor.h"

static bool
check_folder(const char *folder, struct error **err)
{
    size_t n = strlen(folder);

    if (folder[0] != '/' || n < 2 || strstr(folder, "/../") != NULL ||
        (n >= 3 && strcmp(folder + n - 3, "/..") == 0))
        return error_set(err, ERROR_USAGE,
                         "'%s' is no absolute path of a folder on the host of virtdrd",
                         folder);
    return true;
}

/* Refused here already, so that nobody has to wait for a task to hear it. */
static bool
check_unprotected(struct daemon *d, const struct hv_domain *domain, struct error **err)
{
    AUTOPTR(replication) *r = NULL;

    return !replications_find(d->replications, domain->uuid, &r, NULL) ||
           error_set(err, ERROR_INVALID_STATE,
                     "VM '%s' is protected already; a seed is for one that is not",
                     domain->name);
}

bool
api_seeds_create(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    struct tasks_request task = { .kind = "export-seed",
                                  .resource_type = "domain",
                                  .user = request->caller.name };
    AUTOJSON *data = json_object_new_object();
    AUTOPTR(hv_domain) *domain = NULL;
    const char *name, *folder;
    struct json_object *body;
    bool recorded = true;

    if (!api_body(request, &body, err) ||
        !api_check_members(body, "domain folder record", err) ||
        !json_get_string(body, "domain", &name, err) ||
        !json_get_string(body, "folder", &folder, err) ||
        !json_opt_bool(body, "record", &recorded, err) || !check_folder(folder, err) ||
        !d->hypervisor->ops->lookup(d->hypervisor, name, &domain, err) ||
        !check_unprotected(d, domain, err))
        return false;
    json_set_string(data, "domain", domain->uuid);
    json_set_string(data, "folder", folder);
    json_set_bool(data, "record", recorded);
    task.resource_id = domain->uuid;
    task.resource_name = domain->name;
    task.data = data;
    request->status = 202;
    return tasks_start(d->tasks, &task, &request->reply, err);
}
