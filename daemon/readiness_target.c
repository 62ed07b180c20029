/* Readiness: what the target has for the replica. */
#include <sys/statvfs.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/readiness.h"
#include "daemon/replica.h"
#include "drivers/hypervisor.h"
#include "drivers/hypervisor/domain_secret.h"

/* An overlay grows with what the VM writes: this much is wanted at least. */
#define GROWTH_BYTES (1ull << 30)
#define GROWTH_SHARE 20 /* or the 20th part of the disks */

/* --- space ------------------------------------------------------------------------- */

static uint64_t
growth_of(struct replication *r)
{
    uint64_t capacity = 0;

    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; r->disks != NULL && i < json_object_array_length(r->disks); i++)
        capacity +=
            (uint64_t)json_int_or(json_object_array_get_idx(r->disks, i), "capacity", 0);
    pthread_mutex_unlock(&r->lock);
    return MIN(GROWTH_BYTES, capacity / GROWTH_SHARE);
}

static void
check_space(struct replication *r, struct json_object *findings)
{
    uint64_t wanted = growth_of(r), free_bytes;
    char have[UNITS_TEXT_MAX], need[UNITS_TEXT_MAX];
    AUTOFREE(char) *text = NULL;
    struct statvfs fs;

    if (statvfs(r->folder, &fs) < 0)
        return;
    free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    text =
        mem_printf("the storage has %s free, a failover wants %s for what the VM writes",
                   units_format_size(free_bytes, have), units_format_size(wanted, need));
    if (free_bytes >= wanted)
        readiness_ok(findings, "space", "%s", text);
    else
        readiness_find(findings, "space", free_bytes < wanted / 4 ? "failed" : "warning",
                       text, "free space in the storage, or give it more");
}

/* --- secrets ----------------------------------------------------------------------- */

static bool
has_blob(struct store *store, const char *name)
{
    AUTOFREE(char) *data = NULL;
    size_t n = 0;

    return store->ops->blob(store, name, &data, &n, NULL) && n > 0;
}

/* What this host lacks has to come with the points. */
static void
check_secrets(struct daemon *d, bool replicated, const char *xml,
              struct json_object *findings)
{
    struct hypervisor *hv = d->hypervisor;
    AUTOJSON *secrets = NULL;
    const char *problem = NULL;

    if (!hv->ops->read_secrets(hv, xml, &secrets, NULL))
        return;
    for (size_t i = 0; i < json_object_array_length(secrets) && problem == NULL; i++)
        problem = json_string_or(json_object_array_get_idx(secrets, i), "problem", NULL);
    if (problem == NULL || replicated)
        readiness_ok(findings, "secrets", "no secret is missing");
    else
        readiness_find(findings, "secrets", "failed", problem,
                       "define it here (virsh secret-define, secret-set-value), or let "
                       "secrets be replicated ([secrets] replicate)");
}

/* --- all --------------------------------------------------------------------------- */

/* The newest definition; false while there is none. */
static bool
read_xml(struct daemon *d, struct replication *r, struct json_object *findings,
         struct store **ret_store, char **ret_xml)
{
    AUTOPTR(error) *e = NULL;
    size_t n;

    if (replica_store(d, r, ret_store, &e) &&
        (*ret_store)->ops->blob(*ret_store, "domain.xml", ret_xml, &n, &e))
        return true;
    readiness_find(findings, "definition", "not-done",
                   "there is no recovery point yet, so it is not known what the VM needs",
                   "wait for the first sync");
    return false;
}

static void
assess(struct daemon *d, const char *xml, bool has_secrets, struct json_object *findings)
{
    struct hypervisor *hv = d->hypervisor;
    AUTOPTR(error) *e = NULL;

    if (!hv->ops->assess(hv, xml, d->config->networks, findings, &e))
        readiness_find(findings, "definition", "not-done", error_message(e),
                       "see that libvirtd runs on the target");
    check_secrets(d, has_secrets, xml, findings);
}

/* The tip's lock, since whoever closes the store takes it, too; libvirt is asked without.
 */
void
readiness_check_target(struct daemon *d, struct replication *r,
                       struct json_object *findings)
{
    AUTOFREE(char) *xml = NULL;
    bool has_xml, has_secrets = false;
    struct store *store;

    if (r->folder == NULL)
        return;
    check_space(r, findings);
    replica_lock_tip(r);
    has_xml = read_xml(d, r, findings, &store, &xml);
    if (has_xml)
        has_secrets = has_blob(store, "secrets");
    replica_unlock_tip(r);
    if (has_xml)
        assess(d, xml, has_secrets, findings);
}
