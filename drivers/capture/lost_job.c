#include "drivers/capture/lost_job.h"

#include <poll.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "drivers/capture/scratch_files.h"
#include "drivers/hypervisor/qmp.h"

#define LIBVIRTS_PREFIX "backup-" /* of the ids of libvirt's backup jobs */
#define LIBVIRTS_NODES  "libvirt-"
#define END_MS          10000
#define POLL_MS         5

static bool
query(virDomainPtr domain, const char *command, struct json_object *arguments,
      struct json_object **ret, struct error **err)
{
    if (!qmp_execute(domain, command, arguments, ret, err))
        return false;
    return json_object_is_type(*ret, json_type_array) ||
           error_set(err, ERROR_PROTOCOL, "what QEMU answers to '%s' makes no sense",
                     command);
}

static bool
begins_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static const char *
name_of(struct json_object *node)
{
    return json_string_or(node, "node-name", "");
}

/* libvirt calls the nodes of one image libvirt-3-storage, libvirt-3-format, in
   which they are alike up to the second dash. */
static bool
are_of_one_image(const char *a, const char *b)
{
    const char *number =
        begins_with(a, LIBVIRTS_NODES) ? a + strlen(LIBVIRTS_NODES) : NULL;
    const char *dash = number == NULL ? NULL : strchr(number, '-');
    size_t n = dash == NULL ? strlen(a) + 1 : (size_t)(dash - a) + 1;

    return strncmp(a, b, n) == 0;
}

/* Only the lowest node of an image is sure to tell its path: QEMU describes those above
   in its own way where the header does not say what lies below, as ours does not. */
static bool
is_scratch(struct json_object *nodes, struct json_object *node, const char *prefix)
{
    for (size_t i = 0; i < json_object_array_length(nodes); i++) {
        struct json_object *other = json_object_array_get_idx(nodes, i);

        if (begins_with(json_string_or(other, "file", ""), prefix) &&
            are_of_one_image(name_of(other), name_of(node)))
            return true;
    }
    return false;
}

/* The names of the nodes that show our scratch images, the topmost first. */
static bool
find_nodes(virDomainPtr domain, const char *folder, const char *stem,
           struct json_object **ret, struct error **err)
{
    AUTOFREE(char) *prefix = mem_printf("%s/%s-", folder, stem);
    struct json_object *flat = json_object_new_object();
    AUTOJSON *nodes = NULL;

    json_set_bool(flat, "flat", true);
    if (!query(domain, "query-named-block-nodes", flat, &nodes, err))
        return false;
    *ret = json_object_new_array();
    for (size_t i = 0; i < json_object_array_length(nodes); i++) {
        struct json_object *node = json_object_array_get_idx(nodes, i);

        if (is_scratch(nodes, node, prefix))
            json_object_array_add(*ret, json_object_new_string(name_of(node)));
    }
    return true;
}

static bool
holds(struct json_object *names, const char *name)
{
    for (size_t i = 0; i < json_object_array_length(names); i++)
        if (strcmp(json_object_get_string(json_object_array_get_idx(names, i)), name) ==
            0)
            return true;
    return false;
}

/* libvirt lets a domain have one backup, so that the jobs of one are those of ours. */
static bool
cancel_jobs(virDomainPtr domain, size_t *ret_left, struct error **err)
{
    AUTOJSON *jobs = NULL;

    if (!query(domain, "query-jobs", NULL, &jobs, err))
        return false;
    for (size_t i = 0; i < json_object_array_length(jobs); i++) {
        struct json_object *job = json_object_array_get_idx(jobs, i);
        const char *id = json_string_or(job, "id", "");
        bool concluded = strcmp(json_string_or(job, "status", ""), "concluded") == 0;

        if (strcmp(json_string_or(job, "type", ""), "backup") != 0 ||
            !begins_with(id, LIBVIRTS_PREFIX))
            continue;
        ++*ret_left;
        qmp_execute_on(domain, concluded ? "job-dismiss" : "job-cancel", "id", id, NULL);
    }
    return true;
}

static bool
delete_exports(virDomainPtr domain, struct json_object *names, size_t *ret_left,
               struct error **err)
{
    AUTOJSON *exports = NULL;

    if (!query(domain, "query-block-exports", NULL, &exports, err))
        return false;
    for (size_t i = 0; i < json_object_array_length(exports); i++) {
        struct json_object *export = json_object_array_get_idx(exports, i);
        struct json_object *arguments;

        if (!holds(names, json_string_or(export, "node-name", "")))
            continue;
        ++*ret_left;
        arguments = json_object_new_object();
        json_set_string(arguments, "id", json_string_or(export, "id", ""));
        json_set_string(arguments, "mode", "hard");
        qmp_execute(domain, "block-export-del", arguments, NULL, NULL);
    }
    return true;
}

/* In use by one above it, a node is refused: it goes the next time. */
static void
delete_nodes(virDomainPtr domain, struct json_object *names)
{
    for (size_t i = 0; i < json_object_array_length(names); i++)
        qmp_execute_on(domain, "blockdev-del", "node-name",
                       json_object_get_string(json_object_array_get_idx(names, i)), NULL);
}

/* Once over all that is there; *ret_left: how much it was. */
static bool
end_once(virDomainPtr domain, struct json_object *names, size_t *ret_left,
         struct error **err)
{
    *ret_left = json_object_array_length(names);
    if (!delete_exports(domain, names, ret_left, err) ||
        !cancel_jobs(domain, ret_left, err))
        return false;
    delete_nodes(domain, names);
    return true;
}

static bool
end_all(virDomainPtr domain, const char *folder, const char *stem, struct error **err)
{
    int64_t until_ms = units_monotonic_ms() + END_MS;

    for (;;) {
        AUTOJSON *names = NULL;
        size_t left = 0;

        if (!find_nodes(domain, folder, stem, &names, err) ||
            !end_once(domain, names, &left, err))
            return false;
        if (left == 0)
            return true;
        if (units_monotonic_ms() >= until_ms)
            return error_set(err, ERROR_TIMEOUT,
                             "%zu jobs, exports and nodes of a backup did not end "
                             "within %d s",
                             left, END_MS / 1000);
        poll(NULL, 0, POLL_MS);
    }
}

bool
lost_job_end(virDomainPtr domain, const char *folder, const char *stem,
             const char *socket, struct error **err)
{
    AUTOJSON *names = NULL;

    if (!find_nodes(domain, folder, stem, &names, err))
        return false;
    if (json_object_array_length(names) > 0 && !end_all(domain, folder, stem, err))
        return false;
    /* Last: QEMU 7.2 stands still if the server is stopped while it has exports. */
    return !scratch_files_is_served(socket) ||
           qmp_execute(domain, "nbd-server-stop", NULL, NULL, err);
}
