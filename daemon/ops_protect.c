/*
 * protect: from "nothing" to a replication whose first sync is under way.
 *
 * data: {domain (UUID), peer (id), rpo, storage, excluded[], retention, consistency,
 * seed}; the resource id is that of the replication to be. Findings: {disks[{target,
 * capacity}], needed, seedRecord}.
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/consistency.h"
#include "daemon/cycle.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/guard_source.h"
#include "daemon/ops.h"
#include "daemon/peers.h"
#include "daemon/protect_disks.h"
#include "daemon/replication.h"
#include "daemon/scheduler.h"
#include "daemon/seed_source.h"
#include "daemon/tasks.h"
#include "daemon/testruns.h"
#include "drivers/hypervisor/domain_secret.h"

#define ASK_MS     500
#define PATIENT_MS 10000 /* with a target that is being started anew */

/* A name in --exclude-disk that the VM does not have is a typing error. */
static bool
check_excluded(struct json_object *excluded, const struct hv_domain *domain,
               struct error **err)
{
    for (size_t i = 0; i < json_object_array_length(excluded); i++) {
        const char *name = json_object_get_string(json_object_array_get_idx(excluded, i));
        bool found = false;

        for (size_t k = 0; k < domain->n_disks; k++)
            found = found || strcmp(domain->disks[k].target, name) == 0;
        if (!found)
            return error_set(err, ERROR_USAGE,
                             "VM '%s' has no disk '%s' that could be excluded",
                             domain->name, name);
    }
    return true;
}

static bool
check_disks(struct op *op, const struct hv_domain *domain, struct error **err)
{
    struct json_object *disks = NULL;
    uint64_t needed;

    if (!protect_disks_check(domain, json_array_or_null(op->data, "excluded"), &disks,
                             &needed, err))
        return false;
    json_set(op->data, "disks", disks);
    json_set_u64(op->data, "needed", needed);
    return true;
}

/* What the replica will be without: said before somebody relies on it. */
static bool
warn_of_keys(struct op *op, const struct hv_domain *domain, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOJSON *secrets = NULL;

    if (domain_secret_of_disk(domain->xml))
        op_warn(op,
                "VM '%s' has an encrypted disk: it is replicated as the guest sees "
                "it, and the replica is not encrypted",
                domain->name);
    if (!hv->ops->read_secrets(hv, domain->xml, &secrets, err))
        return false;
    for (size_t i = 0; i < json_object_array_length(secrets); i++) {
        struct json_object *s = json_object_array_get_idx(secrets, i);
        const char *problem = json_string_or(s, "problem", NULL);

        if (problem != NULL)
            op_warn(op, "%s", problem);
    }
    if (json_object_array_length(secrets) > 0 && !op->daemon->config->replicate_secrets)
        op_warn(op,
                "VM '%s' needs secrets, which do not leave this host ([secrets] "
                "replicate = no): define them on the other one",
                domain->name);
    return true;
}

/* QEMU refuses to revert to one while there are bitmaps, and libvirt has ended the VM. */
static bool
warn_of_snapshots(struct op *op, const struct hv_domain *domain, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOJSON *names = NULL;
    AUTOFREE(char) *list = mem_strdup("");

    if (!hv->ops->snapshots(hv, domain->uuid, &names, err))
        return false;
    for (size_t i = 0; i < json_object_array_length(names); i++) {
        char *longer =
            mem_printf("%s%s'%s'", list, i > 0 ? ", " : "",
                       json_object_get_string(json_object_array_get_idx(names, i)));

        free(list);
        list = longer;
    }
    if (*list != '\0')
        op_warn(op,
                "VM '%s' has internal snapshots (%s): before 'virsh snapshot-revert' run "
                "'virt-dr release-bitmaps %s', or the revert fails and leaves the VM off",
                domain->name, list, domain->name);
    return true;
}

/* Both capture the VM, and one would end what the other one has open. */
static bool
check_no_export(struct op *op, struct error **err)
{
    return !tasks_busy(op->daemon->tasks, json_string_or(op->data, "domain", "")) ||
           error_set(
               err, ERROR_IN_PROGRESS,
               "the disks of VM '%s' are being exported; wait for that, or cancel it "
               "(virt-dr task-list)",
               op->log.vm);
}

static bool
check_vm(struct op *op, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOPTR(hv_domain) *domain = NULL;

    if (!hv->ops->lookup(hv, json_string_or(op->data, "domain", ""), &domain, err) ||
        !check_no_export(op, err))
        return false;
    if (op->daemon->testruns != NULL &&
        testruns_is_domain(op->daemon->testruns, domain->uuid))
        return error_set(err, ERROR_INVALID_STATE,
                         "'%s' is the domain of a test failover, and goes with it",
                         domain->name);
    if (!domain->persistent)
        return error_set(err, ERROR_INVALID_STATE,
                         "VM '%s' is transient; define it first (virsh define)",
                         domain->name);
    if (json_object_or_null(op->data, "consistency") != NULL &&
        !consistency_check_domain(domain, err))
        return false;
    return check_excluded(json_array_or_null(op->data, "excluded"), domain, err) &&
           check_disks(op, domain, err) && warn_of_keys(op, domain, err) &&
           warn_of_snapshots(op, domain, err);
}

static bool
check_scratch(struct op *op, struct error **err)
{
    const char *folder = op->daemon->config->scratch_folder;

    if (access(folder, W_OK | X_OK) < 0)
        return error_errno(err, ERROR_STORE, "scratch folder '%s'", folder);
    return true;
}

static bool
create_replica(struct op *op, struct error **err)
{
    AUTOJSON *body = json_object_new_object();

    json_set_string(body, "replication", op->resource_id);
    json_set_string(body, "vmId", json_string_or(op->data, "domain", ""));
    json_set_string(body, "vmName", op->log.vm);
    json_set_string(body, "storage", json_string_or(op->data, "storage", "default"));
    json_set_int(body, "rpo", json_int_or(op->data, "rpo", 5000));
    json_set(body, "retention",
             json_object_get(json_object_or_null(op->data, "retention")));
    json_set_int(body, "needed", json_int_or(op->data, "needed", 0));
    json_set(body, "disks", json_object_get(json_array_or_null(op->data, "disks")));
    if (json_object_or_null(op->data, "seed") != NULL)
        json_set(body, "seed", json_object_get(json_object_or_null(op->data, "seed")));
    return peers_call(op->daemon->peers, json_string_or(op->data, "peer", ""), "POST",
                      "/api/v1/peers/replications", body, NULL, err);
}

/* A target that has crashed over it, and comes back, has a replica that nobody else knows
   of and that would be in the way of the next try. */
static bool
remove_replica(struct op *op, struct error **err)
{
    AUTOFREE(char) *path = mem_printf("/api/v1/peers/replications/%s", op->resource_id);
    int64_t until_ms = units_monotonic_ms() + PATIENT_MS;

    for (;;) {
        struct error *e = NULL;

        if (peers_call(op->daemon->peers, json_string_or(op->data, "peer", ""), "DELETE",
                       path, NULL, NULL, &e))
            return true;
        if (!error_is(e, ERROR_CONNECT) || units_monotonic_ms() > until_ms ||
            !cancel_check(&op->cancel, NULL))
            return error_propagate(err, e);
        error_free(e);
        poll(NULL, 0, cancel_remaining_ms(&op->cancel, ASK_MS));
    }
}

/* The target copies what is there; the source's part is over when it knows the result. */
static bool
import_seed(struct op *op, struct error **err)
{
    return json_object_or_null(op->data, "seed") == NULL || seed_source_await(op, err);
}

static bool
record(struct op *op, struct error **err)
{
    struct daemon *d = op->daemon;
    AUTOPTR(replication) *r = NULL;

    if (replications_find(d->replications, op->resource_id, &r, NULL)) /* a second time */
        return seed_source_drop(d, r->vm_uuid, err) && guard_source(d, r, err);
    if (!check_no_export(op, err))
        return false;
    r = replication_new(SIDE_SOURCE, op->resource_id,
                        json_string_or(op->data, "domain", ""), op->log.vm,
                        json_string_or(op->data, "peer", ""));
    r->rpo_ms = json_int_or(op->data, "rpo", 5000);
    r->storage = mem_strdup(json_string_or(op->data, "storage", "default"));
    consistency_from_doc(json_object_or_null(op->data, "consistency"), &r->consistency);
    if (!bandwidth_parse(json_string_or(op->data, "bandwidth", ""), &r->bandwidth, err))
        return false;
    /* A copy: the task's data and the replication belong to different threads. */
    json_object_put(TAKE(r->excluded));
    json_object_deep_copy(json_array_or_null(op->data, "excluded"), &r->excluded, NULL);
    return seed_source_adopt(d, r, json_string_or(op->data, "seedRecord", ""), err) &&
           replications_add(d->replications, r, err) &&
           seed_source_drop(d, r->vm_uuid, err) && guard_source(d, r, err);
}

/* A first cycle may have begun already, and make a record behind those that go. */
static bool
forget(struct op *op, struct error **err)
{
    struct daemon *d = op->daemon;
    AUTOPTR(replication) *r = NULL;
    bool ok;

    if (!replications_find(d->replications, op->resource_id, &r, NULL))
        return true;
    if (!replication_seize(r, &op->cancel, err))
        return false;
    ok = cycle_forget_all(d, r, err) && /* what an export has left to it */
         guard_remove(&d->guard, r->vm_uuid, err) &&
         replications_remove(d->replications, r, err);
    replication_release(r);
    return ok;
}

static bool
start(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;

    if (!replications_find(op->daemon->replications, op->resource_id, &r, err))
        return false;
    op->result = json_object_new_object();
    json_set_string(op->result, "replication", r->id);
    json_set_string(op->result, "vmName", r->vm_name);
    events_emit(op->daemon, EVENT_INFO, &op->log, "protected",
                "VM '%s' is protected; the first sync begins", r->vm_name);
    scheduler_wake(op->daemon->scheduler, r);
    return true;
}

/* clang-format off */
static const struct op_step steps[] = {
    /* name              run             undo            timeout_s  commits */
    { "check-vm",        check_vm,       NULL,           30,        false },
    { "check-scratch",   check_scratch,  NULL,           10,        false },
    { "create-replica",  create_replica, remove_replica, 90,        false },
    { "import-seed",     import_seed,    NULL,           0,         false },
    { "record",          record,         forget,         30,        false },
    { "start",           start,          NULL,           10,        true  },
    { 0 },
};
/* clang-format on */

const struct op_kind op_protect = { .name = "protect",
                                    .result_type = "replication",
                                    .steps = steps };
