#include "daemon/api.h"

#include <stdio.h>

#include "common/json.h"
#include "common/units.h"
#include "common/wire.h"
#include "daemon/api_private.h"
#include "daemon/space.h"
#include "daemon/tasks.h"
#include "drivers/hypervisor.h"
#include "drivers/store/qcow2.h"

#define WAIT_MAX_S 30

/* --- shared ------------------------------------------------------------------- */

bool
api_find(struct rest_request *request, struct replication **ret, struct error **err)
{
    struct daemon *d = request->opaque;

    return replications_find(d->replications, request->params[0], ret, err);
}

bool
api_find_for(struct rest_request *request, const char *operation,
             struct replication **ret, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ok;

    if (!api_find(request, &r, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, operation, err);
    pthread_mutex_unlock(&r->lock);
    if (ok)
        *ret = TAKE(r);
    return ok;
}

void
api_reply_items(struct rest_request *request, struct json_object *items)
{
    request->reply = json_object_new_object();
    json_set(request->reply, "items", items);
}

bool
api_body(struct rest_request *request, struct json_object **ret, struct error **err)
{
    if (request->body == NULL)
        return error_set(err, ERROR_USAGE, "the request needs a JSON object as its body");
    *ret = request->body;
    return true;
}

static bool
is_word(const char *words, const char *word)
{
    size_t n = strlen(word);

    for (const char *p = words; (p = strstr(p, word)) != NULL && n > 0; p += n)
        if ((p == words || p[-1] == ' ') && (p[n] == ' ' || p[n] == '\0'))
            return true;
    return false;
}

bool
api_check_members(struct json_object *o, const char *known, struct error **err)
{
    if (o == NULL)
        return true;
    json_object_object_foreach (o, key, value) {
        (void)value;
        if (!is_word(known, key))
            return error_set(err, ERROR_USAGE,
                             "'%.40s' is not known here; this can be said: %s", key,
                             known);
    }
    return true;
}

/* --- this host ------------------------------------------------------------------ */

static struct json_object *
show_hypervisor(struct daemon *d)
{
    struct json_object *o = NULL;
    struct error *e = NULL;

    if (d->hypervisor->ops->describe(d->hypervisor, &o, &e))
        return o;
    o = json_object_new_object();
    json_set(o, "error", json_from_error(e));
    error_free(e);
    return o;
}

/* What hosts that trust a common CA must know of each other before they have met. */
static struct json_object *
show_name(struct daemon *d)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "id", d->host_id);
    json_set_string(o, "name", d->config->host_name);
    json_set_string(o, "site", d->config->site);
    json_set_int(o, "time", units_now_ms());
    json_set_string(o, "fingerprint", d->tls != NULL ? tls_fingerprint(d->tls) : NULL);
    return o;
}

static void
show_details(struct daemon *d, struct json_object *o)
{
    struct json_object *scratch = json_object_new_object();

    json_set_string(scratch, "path", d->config->scratch_folder);
    json_set_u64(scratch, "limitBytes", d->config->scratch_limit_bytes);
    json_set_string(o, "version", PACKAGE_VERSION);
    json_set_int(o, "protocolVersion", WIRE_PROTOCOL_VERSION);
    if (d->tls != NULL)
        json_set_int(o, "certificateDaysLeft", tls_days_left(d->tls));
    json_set(o, "hypervisor", show_hypervisor(d));
    json_set(o, "storages", space_storages(d));
    json_set(o, "scratch", scratch);
}

static bool
host_show(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    bool is_stranger = request->caller.roles == REST_ROLE_ANYONE;

    if (is_stranger && d->config->ca == NULL)
        return error_set(err, ERROR_NOT_AUTHENTICATED,
                         "this host does not know that certificate; pair the hosts first "
                         "(virt-dr peer-invite)");
    request->reply = show_name(d);
    if (!is_stranger)
        show_details(d, request->reply);
    return true;
}

/* --- tasks ----------------------------------------------------------------------- */

static bool
number_of(struct rest_request *request, const char *key, uint64_t max, uint64_t *ret,
          struct error **err)
{
    const char *text = json_string_or(request->query, key, NULL);

    return text == NULL || units_parse_u64(text, 0, max, ret, err) ||
           error_prefix(err, "?%s=", key);
}

static bool
tasks_index(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    struct json_object *items;
    uint64_t limit = 100;

    if (!number_of(request, "limit", TASKS_KEPT, &limit, err) ||
        !tasks_list(d->tasks, limit, &items, err))
        return false;
    api_reply_items(request, items);
    return true;
}

static bool
task_show(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;
    uint64_t wait_s = 0;

    return number_of(request, "wait", WAIT_MAX_S, &wait_s, err) &&
           tasks_wait(d->tasks, request->params[0], (int)wait_s * 1000, &request->reply,
                      err);
}

static bool
task_cancel(struct rest_request *request, struct error **err)
{
    struct daemon *d = request->opaque;

    request->status = 202;
    return tasks_cancel(d->tasks, request->params[0], &request->reply, err);
}

/* --- the table --------------------------------------------------------------------- */

#define SEE   (REST_ROLE_VIEWER | REST_ROLE_ADMIN)
#define ADMIN REST_ROLE_ADMIN
#define PEER  REST_ROLE_PEER

/* clang-format off */
const struct rest_route api_routes[] = {
    { "GET",    "/api/v1/host", SEE | PEER | REST_ROLE_ANYONE, host_show, "this host" },
    { "POST",   "/api/v1/invites", ADMIN, api_invite, "make a pairing token" },
    { "GET",    "/api/v1/peers", SEE, api_peers_list, "paired hosts" },
    { "POST",   "/api/v1/peers", ADMIN, api_peers_join, "pair by token" },
    { "DELETE", "/api/v1/peers/{peer}", ADMIN, api_peer_remove, "forget a peer" },
    { "GET",    "/api/v1/replications", SEE, api_replications_list, "protected VMs" },
    { "POST",   "/api/v1/replications", ADMIN, api_replications_create, "protect a VM" },
    { "GET",    "/api/v1/replications/{vm}", SEE, api_replication_show, "one replication" },
    { "DELETE", "/api/v1/replications/{vm}", ADMIN, api_replication_remove, "unprotect" },
    { "POST",   "/api/v1/replications/{vm}/sync", ADMIN, api_replication_sync, "a cycle now" },
    { "POST",   "/api/v1/replications/{vm}/resync", ADMIN, api_replication_resync, "compare the disks with the replica now" },
    { "POST",   "/api/v1/replications/{vm}/release-bitmaps", ADMIN, api_replication_release, "let the VM be reverted to a snapshot" },
    { "POST",   "/api/v1/seeds", ADMIN, api_seeds_create, "export a VM's disks to a folder" },
    { "POST",   "/api/v1/replications/{vm}/verify", ADMIN, api_replication_verify, "prove that the replica is the same" },
    { "POST",   "/api/v1/replications/{vm}/scrub", ADMIN, api_replication_scrub, "check the replica against its checksums" },
    { "POST",   "/api/v1/replications/{vm}/pause", ADMIN, api_replication_pause, "pause" },
    { "POST",   "/api/v1/replications/{vm}/resume", ADMIN, api_replication_resume, "resume" },
    { "POST",   "/api/v1/replications/{vm}/failover", ADMIN, api_replication_failover,
      "start the VM here" },
    { "POST",   "/api/v1/replications/{vm}/planned-failover", ADMIN, api_replication_planned,
      "move the VM here, losing nothing" },
    { "PUT",    "/api/v1/replications/{vm}/failover-policy", ADMIN, api_failover_policy,
      "how a failover ends by itself" },
    { "POST",   "/api/v1/replications/{vm}/abandon", ADMIN, api_replication_abandon,
      "take a VM back that is prepared for a failover" },
    { "POST",   "/api/v1/replications/{vm}/undo", ADMIN, api_replication_undo, "throw a failover away" },
    { "POST",   "/api/v1/replications/{vm}/failback", ADMIN, api_replication_failback,
      "bring the VM home" },
    { "POST",   "/api/v1/replications/{vm}/reverse", ADMIN, api_replication_reverse,
      "replicate back" },
    { "GET",    "/api/v1/replications/{vm}/points", SEE, api_points_list, "recovery points" },
    { "POST",   "/api/v1/replications/{vm}/points/{point}/pin", ADMIN, api_point_pin,
      "keep a point" },
    { "POST",   "/api/v1/replications/{vm}/points/{point}/unpin", ADMIN, api_point_unpin,
      "let a point go" },
    { "PUT",    "/api/v1/replications/{vm}/points/{point}/tags", ADMIN, api_point_tags,
      "name a point" },
    { "POST",   "/api/v1/replications/{vm}/points/{point}/tags", ADMIN, api_point_tag,
      "name a point once more" },
    { "DELETE", "/api/v1/replications/{vm}/tags/{tag}", ADMIN, api_point_untag,
      "take a name away" },
    { "GET",    "/api/v1/replications/{vm}/retention", SEE, api_retention_show,
      "which points stay" },
    { "PUT",    "/api/v1/replications/{vm}/retention", ADMIN, api_retention_set,
      "change which points stay" },
    { "GET",    "/api/v1/replications/{vm}/consistency", SEE, api_consistency_show,
      "which points are application-consistent" },
    { "PUT",    "/api/v1/replications/{vm}/consistency", ADMIN, api_consistency_set,
      "change which points are application-consistent" },
    { "GET",    "/api/v1/replications/{vm}/bandwidth", SEE, api_bandwidth_show,
      "what may be sent, and when" },
    { "PUT",    "/api/v1/replications/{vm}/bandwidth", ADMIN, api_bandwidth_set,
      "change what may be sent" },
    { "POST",   "/api/v1/replications/{vm}/exports", ADMIN, api_exports_create,
      "serve a point by NBD" },
    { "POST",   "/api/v1/replications/{vm}/clone", ADMIN, api_clone_create,
      "a VM of its own from a point" },
    { "GET",    "/api/v1/exports", SEE, api_exports_list, "exports" },
    { "GET",    "/api/v1/exports/{export}", SEE, api_export_show, "one export" },
    { "GET",    "/api/v1/exports/{export}/credentials", ADMIN, api_export_credentials,
      "a client's certificate for it" },
    { "DELETE", "/api/v1/exports/{export}", ADMIN, api_export_remove, "end an export" },
    { "GET",    "/api/v1/guard", SEE, api_guard_show, "which VMs may start here" },
    { "PUT",    "/api/v1/guard/{vm}", ADMIN, api_guard_override,
      "an operator's word against the guard" },
    { "DELETE", "/api/v1/guard/{vm}", ADMIN, api_guard_override_end, "end it" },
    { "POST",   "/api/v1/replications/{vm}/tests", ADMIN, api_test_create,
      "run the VM here, apart from everything" },
    { "GET",    "/api/v1/tests", SEE, api_tests_list, "test failovers and their results" },
    { "GET",    "/api/v1/tests/{test}", SEE, api_test_show, "one test failover" },
    { "GET",    "/api/v1/tests/{test}/screenshot", SEE, api_test_screenshot,
      "what its guest showed" },
    { "PUT",    "/api/v1/tests/{test}/verdict", ADMIN, api_test_judge,
      "what the operator says of it" },
    { "POST",   "/api/v1/tests/{test}/cleanup", ADMIN, api_test_cleanup,
      "remove what it made" },
    { "GET",    "/api/v1/tasks", SEE, tasks_index, "operations" },
    { "GET",    "/api/v1/tasks/{task}", SEE, task_show, "one operation" },
    { "DELETE", "/api/v1/tasks/{task}", ADMIN, task_cancel, "cancel an operation" },
    { "GET",    "/metrics", SEE, api_metrics, "for Prometheus" },

    /* Between hosts: */
    { "POST",   "/api/v1/peers/accept", REST_ROLE_ANYONE | PEER, api_peers_accept,
      "the other half of pairing" },
    { "POST",   "/api/v1/peers/contact", PEER, api_peers_contact, "heartbeat" },
    { "POST",   "/api/v1/peers/replications", PEER, api_replica_create, "make a replica" },
    { "GET",    "/api/v1/peers/replications/{id}", PEER, api_replica_show,
      "the other side's view" },
    { "GET",    "/api/v1/peers/replications/{id}/points", PEER, api_points_list,
      "its recovery points" },
    { "GET",    "/api/v1/peers/replications/{id}/retention", PEER, api_retention_show,
      "which of them stay" },
    { "DELETE", "/api/v1/peers/replications/{id}", PEER, api_replica_remove,
      "remove a replica" },
    { "POST",   "/api/v1/peers/replications/{id}/prepare", PEER, api_replica_prepare,
      "shut the VM down, for a failover" },
    { "POST",   "/api/v1/peers/replications/{id}/release", PEER, api_replica_release,
      "that failover came to nothing" },
    { "PUT",    "/api/v1/peers/replications/{id}/source", PEER, api_replica_source,
      "another host sends from now on" },
    { "POST",   "/api/v1/peers/replications/{id}/reverse", PEER, api_replica_reverse,
      "replicate back to its home, which asks" },
    { "POST",   "/api/v1/peers/replications/{id}/target", PEER, api_replica_target,
      "take from its former target" },
    { "GET",    "/api/v1/peers/domains/{uuid}", PEER, api_peer_domain,
      "does a VM run here" },
    { "POST",   "/api/v1/peers/sources", PEER, api_peer_offer,
      "a VM came here, with its replication" },
    { 0 },
};
/* clang-format on */
