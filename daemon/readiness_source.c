/* Readiness: what only the source can see. */
#include "common/json.h"
#include "daemon/guard_source.h"
#include "daemon/readiness.h"
#include "drivers/hypervisor.h"

/* Without one a planned failover asks the guest by ACPI, and no point is prepared. */
static void
check_agent(const struct hv_domain *domain, struct json_object *findings)
{
    if (domain->agent == HV_AGENT_CONNECTED || domain->state != HV_STATE_RUNNING)
        readiness_ok(findings, "agent", "the guest's agent answers, or the VM is off");
    else if (domain->agent == HV_AGENT_NONE)
        readiness_ok(findings, "agent", "the VM has no channel for an agent");
    else
        readiness_find(findings, "agent", "warning",
                       "the VM has a channel for the guest's agent, and nobody answers",
                       "start qemu-guest-agent in the guest, or take the channel out");
}

static void
check_excluded(struct replication *r, struct json_object *findings)
{
    AUTOFREE(char) *text = NULL;
    size_t n;

    pthread_mutex_lock(&r->lock);
    n = r->excluded != NULL ? json_object_array_length(r->excluded) : 0;
    text = mem_printf("%zu disks are left out by the operator: %s", n,
                      n > 0 ? json_text(r->excluded) : "none");
    pthread_mutex_unlock(&r->lock);
    readiness_ok(findings, "disks", "%s", text);
}

void
readiness_check_source(struct daemon *d, struct replication *r,
                       struct json_object *findings)
{
    AUTOPTR(hv_domain) *domain = NULL;
    AUTOPTR(error) *e = NULL;
    AUTOPTR(error) *stale = NULL;

    if (!guard_source_follow(d, r, &stale))
        readiness_find(findings, "guard", "warning", error_message(stale),
                       "see that the guard's folder can be written");
    if (d->hypervisor->ops->lookup(d->hypervisor, r->vm_uuid, &domain, &e))
        check_agent(domain, findings);
    else
        readiness_find(findings, "agent", "not-done", error_message(e),
                       "see that libvirtd runs on the source and has the VM");
    check_excluded(r, findings);
}
