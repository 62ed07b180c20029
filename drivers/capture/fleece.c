#include "drivers/capture/fleece.h"

#include <poll.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "drivers/capture/backup_job.h"
#include "drivers/capture/scratch_files.h"
#include "drivers/capture/scratch_image.h"
#include "drivers/hypervisor/qmp.h"

#define PREFIX    "virtdr-"
#define BITMAP    "virtdr-changed"
#define CANCEL_MS 10000
#define POLL_MS   2

char *
fleece_bitmap(const char *target UNUSED)
{
    return mem_strdup(BITMAP);
}

char *
fleece_node(const char *target)
{
    return mem_printf(PREFIX "%s", target);
}

static bool
is_ours(const char *name)
{
    return strncmp(name, PREFIX, strlen(PREFIX)) == 0;
}

/* --- jobs ------------------------------------------------------------------------- */

static bool
query_jobs(virDomainPtr domain, struct json_object **ret, struct error **err)
{
    if (!qmp_execute(domain, "query-jobs", NULL, ret, err))
        return false;
    return json_object_is_type(*ret, json_type_array) ||
           error_set(err, ERROR_PROTOCOL, "QEMU's list of jobs makes no sense");
}

static bool
works_on_disks(const char *type)
{
    return strcmp(type, "backup") == 0 || strcmp(type, "mirror") == 0 ||
           strcmp(type, "commit") == 0 || strcmp(type, "stream") == 0;
}

/* libvirt's own job first: while one runs, a command to QEMU would wait 30 s. */
bool
fleece_check_idle(virDomainPtr domain, struct error **err)
{
    struct backup_job_stats stats = { 0 };
    AUTOJSON *jobs = NULL;

    if (!backup_job_stats(domain, &stats, err))
        return false;
    if (backup_job_is_real(domain, &stats))
        return error_set(err, ERROR_JOB_BUSY, "the domain has a %s under way",
                         backup_job_operation_name(stats.operation));
    if (!query_jobs(domain, &jobs, err))
        return false;
    for (size_t i = 0; i < json_object_array_length(jobs); i++) {
        struct json_object *job = json_object_array_get_idx(jobs, i);
        const char *id = json_string_or(job, "id", "");
        const char *type = json_string_or(job, "type", "");

        if (!is_ours(id) && works_on_disks(type) &&
            strcmp(json_string_or(job, "status", ""), "concluded") != 0)
            return error_set(err, ERROR_JOB_BUSY,
                             "QEMU has a block job '%s' of kind '%s' under way", id,
                             type);
    }
    return true;
}

bool
fleece_check(virDomainPtr domain, size_t n_disks, struct error **err)
{
    AUTOJSON *jobs = NULL;
    size_t n = 0;

    if (!query_jobs(domain, &jobs, err))
        return false;
    for (size_t i = 0; i < json_object_array_length(jobs); i++) {
        struct json_object *job = json_object_array_get_idx(jobs, i);

        n += is_ours(json_string_or(job, "id", "")) &&
             strcmp(json_string_or(job, "status", ""), "running") == 0;
    }
    return n == n_disks ||
           error_set(err, ERROR_INVALID_STATE,
                     "the backup jobs were ended by somebody else during the capture");
}

/* A job that ends by itself meanwhile is no failure: the next look does not find it. */
static bool
cancel_jobs(virDomainPtr domain, size_t *ret_left, struct error **err)
{
    AUTOJSON *jobs = NULL;

    if (!query_jobs(domain, &jobs, err))
        return false;
    *ret_left = 0;
    for (size_t i = 0; i < json_object_array_length(jobs); i++) {
        struct json_object *job = json_object_array_get_idx(jobs, i);
        const char *id = json_string_or(job, "id", "");
        bool concluded = strcmp(json_string_or(job, "status", ""), "concluded") == 0;

        if (!is_ours(id))
            continue;
        ++*ret_left;
        qmp_execute_on(domain, concluded ? "job-dismiss" : "job-cancel", "id", id, NULL);
    }
    return true;
}

static bool
end_jobs(virDomainPtr domain, struct error **err)
{
    int64_t until_ms = units_monotonic_ms() + CANCEL_MS;
    size_t left = 0;

    for (;;) {
        if (!cancel_jobs(domain, &left, err))
            return false;
        if (left == 0)
            return true;
        if (units_monotonic_ms() >= until_ms)
            return error_set(err, ERROR_TIMEOUT,
                             "%zu backup jobs did not end within %d s", left,
                             CANCEL_MS / 1000);
        poll(NULL, 0, POLL_MS);
    }
}

/* --- end -------------------------------------------------------------------------- */

static void
delete_export(virDomainPtr domain, const char *id)
{
    struct json_object *arguments = json_object_new_object();

    json_set_string(arguments, "id", id);
    json_set_string(arguments, "mode", "hard"); /* clients are cut off */
    qmp_execute(domain, "block-export-del", arguments, NULL, NULL);
}

/* Asks our exports to go; *ret_left: how many there were. */
static bool
delete_exports(virDomainPtr domain, size_t *ret_left, struct error **err)
{
    AUTOJSON *exports = NULL;

    if (!qmp_execute(domain, "query-block-exports", NULL, &exports, err))
        return false;
    if (!json_object_is_type(exports, json_type_array))
        return error_set(err, ERROR_PROTOCOL, "QEMU's list of exports makes no sense");
    *ret_left = 0;
    for (size_t i = 0; i < json_object_array_length(exports); i++) {
        struct json_object *export = json_object_array_get_idx(exports, i);
        const char *id = json_string_or(export, "id", "");

        if (!is_ours(id))
            continue;
        ++*ret_left;
        if (!json_bool_or(export, "shutting-down", false))
            delete_export(domain, id);
    }
    return true;
}

static char *
kept_name(unsigned n)
{
    return mem_printf(PREFIX "%u", n);
}

bool
fleece_keep(virDomainPtr domain, unsigned n, int fd, struct error **err)
{
    AUTOFREE(char) *name = kept_name(n);

    return qmp_give_fd(domain, name, fd, err);
}

/* They were numbered as they came; QEMU tells of none, so the first refusal ends it. */
static bool
drop_kept(virDomainPtr domain, struct error **err)
{
    for (unsigned n = 0;; n++) {
        AUTOFREE(char) *name = kept_name(n);
        AUTOPTR(error) *why = NULL;

        if (qmp_execute_on(domain, "closefd", "fdname", name, &why))
            continue;
        return error_code(why) == ERROR_HYPERVISOR || error_propagate(err, TAKE(why));
    }
}

/*
 * Deleting an export ends its connections in QEMU's main thread; from then on they may
 * close. They must, or an answer that nobody fetched would hold the export for ever.
 */
static bool
end_exports(virDomainPtr domain, size_t *ret_n, struct error **err)
{
    int64_t until_ms = units_monotonic_ms() + CANCEL_MS;
    size_t left = 0;

    if (!delete_exports(domain, ret_n, err) || !drop_kept(domain, err))
        return false;
    for (;;) {
        if (!delete_exports(domain, &left, err))
            return false;
        if (left == 0)
            return true;
        if (units_monotonic_ms() >= until_ms)
            return error_set(err, ERROR_TIMEOUT, "%zu exports did not end within %d s",
                             left, CANCEL_MS / 1000);
        poll(NULL, 0, POLL_MS);
    }
}

static bool
delete_named(virDomainPtr domain, struct json_object *names, struct error **err)
{
    for (size_t i = 0; i < json_object_array_length(names); i++)
        if (!qmp_execute_on(domain, "blockdev-del", "node-name",
                            json_object_get_string(json_object_array_get_idx(names, i)),
                            err))
            return false;
    return true;
}

/* What they lie upon is the guest's and stays. */
static bool
delete_nodes(virDomainPtr domain, struct error **err)
{
    AUTOPTR(block_graph) *g = NULL;
    AUTOJSON *names = NULL;

    if (!block_graph_read(domain, &g, err))
        return false;
    names = block_graph_nodes(g, PREFIX);
    return delete_named(domain, names, err);
}

bool
fleece_abort(virDomainPtr domain, struct error **err)
{
    size_t left;

    return cancel_jobs(domain, &left, err) && delete_exports(domain, &left, err);
}

/*
 * QEMU 7.2 with the correction for CVE-2024-7409 stands still, and its guest with it,
 * when it is told to stop the server while that has a connection: nbd-server-stop
 * waits for its end in a loop that does not look at it. So it comes last: deleting
 * the exports has ended the connections to them, without waiting, and those that
 * had not come so far end when their duplicates are closed.
 */
static bool
stop_server(virDomainPtr domain, const char *socket, bool had_exports, struct error **err)
{
    return (!had_exports && !scratch_files_is_served(socket)) ||
           qmp_execute(domain, "nbd-server-stop", NULL, NULL, err);
}

/* A node that is exported or a job's cannot be deleted. */
bool
fleece_end(virDomainPtr domain, const char *socket, struct json_object *nodes,
           struct error **err)
{
    size_t n_exports = 0;

    return end_exports(domain, &n_exports, err) && end_jobs(domain, err) &&
           ((nodes != NULL && delete_named(domain, nodes, NULL)) ||
            delete_nodes(domain, err)) &&
           stop_server(domain, socket, n_exports > 0, err);
}

/* Jobs and exports have a node each; only the server is there before and behind them. */
bool
fleece_is_left(const struct block_graph *g, const char *socket)
{
    AUTOJSON *nodes = block_graph_nodes(g, PREFIX);

    return json_object_array_length(nodes) > 0 || scratch_files_is_served(socket);
}

struct json_object *
fleece_nodes(const struct fleece_settings *settings)
{
    struct json_object *nodes = json_object_new_array();

    for (size_t i = 0; i < settings->n_disks; i++) {
        AUTOFREE(char) *name = fleece_node(settings->disks[i].target);

        json_append_string(nodes, name);
    }
    return nodes;
}

bool
fleece_needs_keeping(virDomainPtr domain, bool *ret, struct error **err)
{
    AUTOJSON *threads = NULL;

    if (!qmp_execute(domain, "query-iothreads", NULL, &threads, err))
        return false;
    if (!json_object_is_type(threads, json_type_array))
        return error_set(err, ERROR_PROTOCOL, "QEMU's list of threads makes no sense");
    *ret = json_object_array_length(threads) > 0;
    return true;
}

/* --- begin ------------------------------------------------------------------------ */

static bool
start_server(virDomainPtr domain, const char *socket, struct error **err)
{
    struct json_object *arguments = json_object_new_object();
    struct json_object *address = json_object_new_object();
    struct json_object *data = json_object_new_object();
    AUTOPTR(error) *why = NULL;

    json_set_string(data, "path", socket);
    json_set_string(address, "type", "unix");
    json_set(address, "data", data);
    json_set(arguments, "addr", address);
    if (qmp_execute(domain, "nbd-server-start", arguments, NULL, &why))
        return true;
    /* QEMU has no code for it and does not translate what it says. */
    if (strstr(error_message(why), "already running") != NULL)
        return error_set(err, ERROR_JOB_BUSY,
                         "QEMU's NBD server is in use by somebody else");
    return error_propagate(err, TAKE(why));
}

static struct json_object *
describe_scratch(const struct fleece_disk *disk, const char *path)
{
    AUTOFREE(char) *name = fleece_node(disk->target);
    struct json_object *node = json_object_new_object();
    struct json_object *file = json_object_new_object();
    struct json_object *cache = json_object_new_object();

    json_set_string(file, "driver", "file");
    json_set_string(file, "filename", path);
    json_set_bool(cache, "direct", false);
    json_set_bool(cache, "no-flush", true); /* it is of no use after a crash */
    json_set_string(node, "driver", "qcow2");
    json_set_string(node, "node-name", name);
    json_set(node, "cache", cache);
    json_set(node, "file", file);
    json_set_string(node, "backing", disk->node.name);
    return node;
}

static bool
add_scratch(virDomainPtr domain, const struct fleece_settings *s,
            const struct fleece_disk *disk, struct error **err)
{
    AUTOFREE(char) *path = scratch_files_image(s->folder, s->stem, disk->target);

    return scratch_image_create(s->folder, path, disk->node.size_bytes, err) &&
           qmp_execute(domain, "blockdev-add", describe_scratch(disk, path), NULL, err);
}

static void
add_action(struct json_object *actions, const char *type, struct json_object *data)
{
    struct json_object *action = json_object_new_object();

    json_set_string(action, "type", type);
    json_set(action, "data", data);
    json_object_array_add(actions, action);
}

static struct json_object *
describe_bitmap(const char *node, const char *name)
{
    struct json_object *data = json_object_new_object();

    json_set_string(data, "node", node);
    json_set_string(data, "name", name);
    json_set_int(data, "granularity", FLEECE_GRAIN);
    return data;
}

/* The new point's own record begins with this transaction. */
static void
plan_point(struct json_object *actions, const struct fleece_disk *disk, const char *name)
{
    struct json_object *data = describe_bitmap(disk->node.name, name);

    json_set_bool(data, "persistent", disk->node.keeps_bitmaps);
    add_action(actions, "block-dirty-bitmap-add", data);
}

/* A copy that does not change any more, on the node that goes with the capture. */
static void
plan_copy(struct json_object *actions, const struct fleece_disk *disk)
{
    AUTOFREE(char) *node = fleece_node(disk->target);
    struct json_object *data = describe_bitmap(node, BITMAP);
    struct json_object *merge = json_object_new_object();

    json_set_bool(data, "disabled", true);
    add_action(actions, "block-dirty-bitmap-add", data);
    json_set_string(merge, "node", node);
    json_set_string(merge, "target", BITMAP);
    json_set(merge, "bitmaps", json_object_get(disk->record));
    add_action(actions, "block-dirty-bitmap-merge", merge);
}

static void
plan_job(struct json_object *actions, const struct fleece_disk *disk)
{
    AUTOFREE(char) *name = fleece_node(disk->target);
    struct json_object *data = json_object_new_object();

    json_set_string(data, "job-id", name);
    json_set_string(data, "device", disk->node.name);
    json_set_string(data, "target", name);
    json_set_string(data, "sync", "none");
    add_action(actions, "blockdev-backup", data);
}

/* One transaction: all disks and all bitmaps at one moment, or nothing. */
static bool
hold(virDomainPtr domain, const struct fleece_settings *s, struct error **err)
{
    struct json_object *arguments = json_object_new_object();
    struct json_object *actions = json_object_new_array();

    for (size_t i = 0; i < s->n_disks; i++) {
        if (s->name != NULL)
            plan_point(actions, &s->disks[i], s->name);
        if (s->disks[i].record != NULL)
            plan_copy(actions, &s->disks[i]);
        plan_job(actions, &s->disks[i]);
    }
    json_set(arguments, "actions", actions);
    return qmp_execute(domain, "transaction", arguments, NULL, err);
}

static bool
add_export(virDomainPtr domain, const struct fleece_disk *disk, struct error **err)
{
    AUTOFREE(char) *name = fleece_node(disk->target);
    struct json_object *arguments = json_object_new_object();

    json_set_string(arguments, "type", "nbd");
    json_set_string(arguments, "id", name);
    json_set_string(arguments, "node-name", name);
    json_set_string(arguments, "name", disk->target);
    if (disk->record != NULL) {
        struct json_object *bitmaps = json_object_new_array();

        json_append_string(bitmaps, BITMAP);
        json_set(arguments, "bitmaps", bitmaps);
    }
    return qmp_execute(domain, "block-export-add", arguments, NULL, err);
}

static bool
begin(virDomainPtr domain, const struct fleece_settings *s, int64_t *ret_time_ms,
      struct error **err)
{
    if (!start_server(domain, s->socket, err))
        return false;
    for (size_t i = 0; i < s->n_disks; i++)
        if (!add_scratch(domain, s, &s->disks[i], err))
            return error_prefix(err, "scratch space of disk '%s'", s->disks[i].target);
    *ret_time_ms = units_now_ms();
    if (!hold(domain, s, err))
        return false;
    for (size_t i = 0; i < s->n_disks; i++)
        if (!add_export(domain, &s->disks[i], err))
            return error_prefix(err, "export of disk '%s'", s->disks[i].target);
    return true;
}

bool
fleece_begin(virDomainPtr domain, const struct fleece_settings *settings,
             int64_t *ret_time_ms, struct error **err)
{
    int64_t time_ms = 0;

    if (!begin(domain, settings, &time_ms, err))
        return false;
    *ret_time_ms = time_ms;
    return true;
}
