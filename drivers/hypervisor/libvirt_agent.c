/* What a guest is asked for, most of it through its agent; see drivers/hypervisor.h. */
#include "drivers/hypervisor/domain_xml.h"
#include "drivers/hypervisor/libvirt.h"
#include "drivers/hypervisor/libvirt_domain.h"
#include "drivers/hypervisor/libvirt_error.h"

/*
 * libvirt waits for ever for an agent that has taken a command, unless it is told not
 * to, for all commands from then on. Its default is put back, so that nobody else's
 * commands to this agent are cut short.
 */
static bool
limit_wait(virDomainPtr d, int timeout_s, struct error **err)
{
    return virDomainAgentSetResponseTimeout(d, timeout_s, 0) == 0 ||
           libvirt_error(err, "limit the wait for the agent in the guest");
}

static void
unlimit_wait(virDomainPtr d)
{
    virDomainAgentSetResponseTimeout(d, VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK, 0);
}

/* What the agent itself answered is no doubt: it did not do it. */
static bool
agent_error(const char *what, struct error **err)
{
    const virError *e = virGetLastError();
    const char *why =
        e != NULL && e->message != NULL ? e->message : "no reason was given";
    enum error_code code = e != NULL ? libvirt_error_code(e) : ERROR_HYPERVISOR;

    if (e != NULL &&
        (e->code == VIR_ERR_AGENT_UNRESPONSIVE || e->code == VIR_ERR_AGENT_UNSYNCED))
        code = ERROR_TIMEOUT;
    else if (code == ERROR_HYPERVISOR)
        code = ERROR_AGENT;
    return error_set(err, code, "%s: %s", what, why);
}

static bool
need_agent(virDomainPtr d, struct error **err)
{
    AUTOFREE(char) *xml = virDomainGetXMLDesc(d, 0);
    AUTOPTR(domain_xml_head) *head = NULL;

    if (xml == NULL)
        return libvirt_error(err, "ask for the definition");
    if (!domain_xml_head(xml, &head, err))
        return false;
    if (head->agent == HV_AGENT_CONNECTED)
        return true;
    return error_set(err, ERROR_AGENT, "%s",
                     head->agent == HV_AGENT_NONE
                         ? "the VM has no channel for a guest agent"
                         : "no agent answers in the guest; is qemu-guest-agent "
                           "installed and running there?");
}

#define SHUTDOWN_ANSWER_S 5 /* the agent takes the command and says nothing more */

/* The agent may be gone before it has answered: then the guest does what it was told. */
static bool
ask_agent(virDomainPtr d, struct error **err)
{
    struct error *e = NULL;

    if (!need_agent(d, err) || !limit_wait(d, SHUTDOWN_ANSWER_S, err))
        return false;
    if (virDomainShutdownFlags(d, VIR_DOMAIN_SHUTDOWN_GUEST_AGENT) < 0)
        agent_error("ask the agent to shut the guest down", &e);
    unlimit_wait(d);
    if (error_is(e, ERROR_TIMEOUT) || virDomainIsActive(d) == 0)
        error_clear(&e);
    return e == NULL || error_propagate(err, e);
}

static bool
press_button(virDomainPtr d, struct error **err)
{
    struct error *e = NULL;

    if (virDomainShutdownFlags(d, VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN) == 0)
        return true;

    /* Before anything else is asked, which makes libvirt forget the reason. */
    libvirt_error(&e, "press the power button of domain '%s'", virDomainGetName(d));
    if (virDomainIsActive(d) != 0)
        return error_propagate(err, e);
    error_free(e);
    return true;
}

bool
libvirt_agent_shutdown(struct hypervisor *hv, const char *uuid, enum hv_shutdown how,
                       struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = c == NULL ? NULL : libvirt_domain_by_uuid(c, uuid, err);

    if (d == NULL)
        return false;
    if (virDomainIsActive(d) == 0)
        return true;
    return how == HV_SHUTDOWN_AGENT ? ask_agent(d, err) : press_button(d, err);
}

bool
libvirt_agent_freeze(struct hypervisor *hv, const char *uuid, unsigned timeout_s,
                     struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = c == NULL ? NULL : libvirt_domain_by_uuid(c, uuid, err);
    bool ok;

    if (d == NULL || !need_agent(d, err) || !limit_wait(d, (int)timeout_s, err))
        return false;
    ok = virDomainFSFreeze(d, NULL, 0, 0) >= 0 ||
         agent_error("freeze the guest's file systems", err);
    unlimit_wait(d);
    return ok;
}

bool
libvirt_agent_thaw(struct hypervisor *hv, const char *uuid, unsigned timeout_s,
                   struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = NULL;
    struct error *e = NULL;

    if (c == NULL)
        return false;
    d = virDomainLookupByUUIDString(c, uuid);
    if (d == NULL)
        return libvirt_error_last() == VIR_ERR_NO_DOMAIN ||
               libvirt_error(err, "look up domain '%s'", uuid);
    if (virDomainIsActive(d) == 0)
        return true;
    if (limit_wait(d, (int)timeout_s, &e)) {
        if (virDomainFSThaw(d, NULL, 0, 0) < 0)
            agent_error("thaw the guest's file systems", &e);
        unlimit_wait(d);
    }
    /* A guest that ended meanwhile is not frozen any more. */
    if (e != NULL && virDomainIsActive(d) == 0)
        error_clear(&e);
    return e == NULL || error_propagate(err, e);
}
