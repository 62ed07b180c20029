/* Using points without a failover: exports and clones. */
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "daemon/address.h"
#include "daemon/api_private.h"
#include "daemon/exports.h"
#include "daemon/tasks.h"

#define SHORT_ID       8
#define CLONE_NAME_MAX 63

/* --- shared ---------------------------------------------------------------------------
 */

static bool
check_allowed(struct replication *r, const char *operation, struct error **err)
{
    bool ok;

    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, operation, err);
    pthread_mutex_unlock(&r->lock);
    return ok;
}

/* The task is of a resource of its own, which does not hold up the replication's. */
static bool
start_task(struct rest_request *request, struct replication *r, const char *kind,
           const char *resource, struct json_object *data, struct error **err)
{
    struct daemon *d = request->opaque;
    struct tasks_request task = { .kind = kind,
                                  .resource_id = resource,
                                  .resource_name = r->vm_name,
                                  .resource_type = kind,
                                  .user = request->caller.name,
                                  .data = data };

    request->status = 202;
    return tasks_start(d->tasks, &task, &request->reply, err);
}

/* --- exports
 * ----------------------------------------------------------------------------- */

/* "web01-1a2b3c4d": of the VM's name what a name may have. The caller frees. */
static char *
default_name(const char *vm, const char *id)
{
    char text[EXPORTS_NAME_MAX - SHORT_ID];
    size_t n = 0;

    for (; *vm != '\0' && n < sizeof text - 1; vm++) {
        char c = *vm;

        if (c >= 'A' && c <= 'Z')
            c = (char)(c - 'A' + 'a');
        if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
            text[n++] = c;
        else if (n > 0 && text[n - 1] != '-')
            text[n++] = '-';
    }
    text[n] = '\0';
    return mem_printf("%s%s%.*s", text, n > 0 && text[n - 1] != '-' ? "-" : "", SHORT_ID,
                      id);
}

static bool
take_transport(struct json_object *body, struct json_object *data, struct error **err)
{
    char host[NI_MAXHOST], port[NI_MAXSERV];
    const char *listen = NULL, *transport = NULL;

    if (body != NULL && (!json_opt_string(body, "listen", &listen, err) ||
                         !json_opt_string(body, "transport", &transport, err)))
        return false;
    if (transport == NULL)
        transport = listen != NULL ? "tls" : "unix";
    if (strcmp(transport, "tls") != 0 && strcmp(transport, "unix") != 0)
        return error_set(err, ERROR_USAGE, "'transport' is \"unix\" or \"tls\"");
    if ((strcmp(transport, "tls") == 0) != (listen != NULL))
        return error_set(err, ERROR_USAGE,
                         "'listen' (HOST:PORT) is for \"tls\", which needs it");
    if (listen != NULL && !address_split(listen, host, port, err))
        return false;
    json_set_string(data, "transport", transport);
    json_set_string(data, "listen", listen);
    return true;
}

static bool
take_name(struct daemon *d, struct replication *r, struct json_object *body,
          const char *id, struct json_object *data, struct error **err)
{
    AUTOFREE(char) *made = default_name(r->vm_name, id);
    const char *name = made;

    if ((body != NULL && !json_opt_string(body, "name", &name, err)) ||
        !exports_check_name(d->exports, name, err))
        return false;
    json_set_string(data, "name", name);
    return true;
}

bool
api_exports_create(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *data = json_object_new_object();
    AUTOFREE(char) *overlay = NULL;
    char id[ID_TEXT];

    id_new(id);
    overlay = mem_printf("export-%.*s", SHORT_ID, id);
    if (!api_check_members(request->body, "point transport listen name", err) ||
        !api_find(request, &r, err) || !check_allowed(r, "export", err) ||
        !api_take_point(request->body, "point", data, err) ||
        !take_transport(request->body, data, err) ||
        !take_name(d, r, request->body, id, data, err))
        return false;
    json_set_string(data, "replication", r->id);
    json_set_string(data, "overlay", overlay);
    json_set_string(data, "user", request->caller.name);
    return start_task(request, r, "export", overlay, data, err);
}

bool
api_exports_list(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    const char *vm = json_string_or(request->query, "vm", NULL);
    AUTOPTR(replication) *r = NULL;

    if (vm != NULL && !replications_find(d->replications, vm, &r, err))
        return false;
    api_reply_items(request, exports_list(d->exports, r != NULL ? r->id : NULL));
    return true;
}

bool
api_export_show(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;

    return exports_get(d->exports, request->params[0], &request->reply, err);
}

bool
api_export_credentials(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;

    return exports_credentials(d->exports, request->params[0], &request->reply, err);
}

bool
api_export_remove(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;

    return exports_get(d->exports, request->params[0], &request->reply, err) &&
           exports_remove(d->exports, json_string_or(request->reply, "id", ""), err);
}

/* --- clones
 * --------------------------------------------------------------------------------- */

/* It becomes a folder, too. */
static bool
check_clone_name(const char *name, struct error **err)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789._+-";
    size_t n = strlen(name);

    if (n == 0 || n > CLONE_NAME_MAX || strspn(name, letters) != n || name[0] == '.' ||
        name[0] == '-')
        return error_set(err, ERROR_USAGE,
                         "'%.80s' is no name for a clone: 1 to %d letters, digits, '.', "
                         "'_', '+', '-', not beginning with '.' or '-'",
                         name, CLONE_NAME_MAX);
    return true;
}

bool
api_clone_create(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *data = json_object_new_object();
    AUTOFREE(char) *overlay = NULL;
    struct json_object *body;
    const char *name, *storage;
    char uuid[ID_TEXT];

    if (!api_body(request, &body, err) ||
        !api_check_members(body, "point name storage", err) ||
        !api_find(request, &r, err) || !check_allowed(r, "clone", err) ||
        !json_get_string(body, "name", &name, err) || !check_clone_name(name, err) ||
        !api_take_point(body, "point", data, err))
        return false;
    storage = r->storage; /* never changes once it is set */
    if (!json_opt_string(body, "storage", &storage, err))
        return false;
    if (config_storage(d->config, storage) == NULL)
        return error_set(err, ERROR_STORAGE_NOT_FOUND, "this host has no storage '%.64s'",
                         storage);
    id_new(uuid);
    overlay = mem_printf("clone-%.*s", SHORT_ID, uuid);
    json_set_string(data, "replication", r->id);
    json_set_string(data, "overlay", overlay);
    json_set_string(data, "name", name);
    json_set_string(data, "storage", storage);
    json_set_string(data, "uuid", uuid);
    return start_task(request, r, "clone", uuid, data, err);
}
