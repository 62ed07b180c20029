/* Domains for tests, and what is seen of their guests; see drivers/hypervisor_testbed.h.
 */
#include <errno.h>
#include <libvirt/libvirt-qemu.h>
#include <string.h>

#include "drivers/hypervisor/domain_isolate.h"
#include "drivers/hypervisor/domain_xml.h"
#include "drivers/hypervisor/libvirt.h"
#include "drivers/hypervisor/libvirt_domain.h"
#include "drivers/hypervisor/libvirt_error.h"

#define AGENT_ASK_S 2

/* --- the domain
 * ------------------------------------------------------------------------- */

static bool
is_running(virConnectPtr c, const char *uuid)
{
    AUTODOMAIN *d = virDomainLookupByUUIDString(c, uuid);

    return d != NULL && virDomainIsActive(d) == 1;
}

static bool
create(struct hypervisor *hv, const char *xml, struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTOPTR(domain_xml_head) *head = NULL;
    AUTODOMAIN *d = NULL;

    if (c == NULL || !domain_xml_head(xml, &head, err))
        return false;
    if (head->name == NULL || head->uuid == NULL)
        return error_set(err, ERROR_PROTOCOL,
                         "the definition of a domain has no name or no UUID");
    if (is_running(c, head->uuid))
        return true;
    d = virDomainCreateXML(c, xml, 0);
    return d != NULL || libvirt_error(err, "start domain '%s'", head->name);
}

/* --- its address
 * ------------------------------------------------------------------------ */

static bool
is_useful(const char *address)
{
    return strncmp(address, "127.", 4) != 0 && strncmp(address, "169.254.", 8) != 0;
}

/* The first that somebody outside may use; NULL: none. */
static char *
pick(virDomainInterfacePtr *interfaces, int n)
{
    for (int i = 0; i < n; i++)
        for (unsigned k = 0; k < interfaces[i]->naddrs; k++) {
            const virDomainIPAddress *a = &interfaces[i]->addrs[k];

            if (a->type == VIR_IP_ADDR_TYPE_IPV4 && is_useful(a->addr))
                return mem_strdup(a->addr);
        }
    return NULL;
}

static char *
address_from(virDomainPtr d, unsigned source)
{
    virDomainInterfacePtr *interfaces = NULL;
    int n = virDomainInterfaceAddresses(d, &interfaces, source, 0);
    char *found = n > 0 ? pick(interfaces, n) : NULL;

    for (int i = 0; i < n; i++)
        virDomainInterfaceFree(interfaces[i]);
    free(interfaces);
    return found;
}

/* An agent that says nothing must not hold us up, nor others who ask it later. */
static char *
address_from_agent(virDomainPtr d)
{
    char *found = NULL;

    if (virDomainAgentSetResponseTimeout(d, AGENT_ASK_S, 0) == 0)
        found = address_from(d, VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT);
    virDomainAgentSetResponseTimeout(d, VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK, 0);
    return found;
}

static bool
address(struct hypervisor *hv, const char *uuid, char **ret, struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = c == NULL ? NULL : libvirt_domain_by_uuid(c, uuid, err);

    if (d == NULL)
        return false;
    *ret = address_from(d, VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE);
    if (*ret == NULL)
        *ret = address_from_agent(d);
    return true;
}

/* --- its agent
 * -------------------------------------------------------------------------- */

static bool
ping(struct hypervisor *hv, const char *uuid, unsigned timeout_s, struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = c == NULL ? NULL : libvirt_domain_by_uuid(c, uuid, err);
    AUTOPTR(error) *why = NULL;
    char *answer;

    if (d == NULL)
        return false;
    answer =
        virDomainQemuAgentCommand(d, "{\"execute\": \"guest-ping\"}", (int)timeout_s, 0);
    if (answer != NULL) {
        free(answer);
        return true;
    }
    libvirt_error(&why, "ask the guest's agent");
    if (error_code(why) != ERROR_HYPERVISOR)
        return error_propagate(err, TAKE(why));
    return error_set(err, ERROR_AGENT, "%s", error_message(why));
}

/* --- its screen
 * ------------------------------------------------------------------------- */

struct sink {
    int fd;
    uint64_t left;
    int failure; /* errno */
};

static int
take(virStreamPtr stream UNUSED, const char *data, size_t n, void *opaque)
{
    struct sink *s = opaque;
    ssize_t done;

    if (n > s->left) {
        s->failure = EFBIG;
        return -1;
    }
    done = write(s->fd, data, n);
    if (done < 0) {
        s->failure = errno;
        return -1;
    }
    s->left -= (uint64_t)done;
    return (int)done;
}

static bool
receive(virStreamPtr stream, struct sink *sink, struct error **err)
{
    if (virStreamRecvAll(stream, take, sink) == 0)
        return virStreamFinish(stream) == 0 ||
               libvirt_error(err, "end the stream of the screenshot");
    if (sink->failure == 0)
        return libvirt_error(err, "read the screenshot");
    errno = sink->failure;
    return error_errno(err, ERROR_STORE, "write the screenshot");
}

static bool
need_display(virDomainPtr d, struct error **err)
{
    AUTOFREE(char) *xml = virDomainGetXMLDesc(d, 0);
    bool has = false;

    if (xml == NULL)
        return libvirt_error(err, "ask for the definition");
    return domain_isolate_has_display(xml, &has, err) &&
           (has || error_set(err, ERROR_NOT_FOUND, "the guest has no display"));
}

static bool
screenshot(struct hypervisor *hv, const char *uuid, int fd, uint64_t max_bytes,
           char **ret_type, struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = c == NULL ? NULL : libvirt_domain_by_uuid(c, uuid, err);
    struct sink sink = { .fd = fd, .left = max_bytes };
    AUTOFREE(char) *type = NULL;
    virStreamPtr stream;
    bool ok;

    if (d == NULL || !need_display(d, err))
        return false;
    stream = virStreamNew(c, 0);
    if (stream == NULL)
        return libvirt_error(err, "make a stream for the screenshot");
    type = virDomainScreenshot(d, stream, 0, 0);
    ok = type != NULL ? receive(stream, &sink, err)
                      : libvirt_error(err, "take a screenshot");
    if (!ok)
        virStreamAbort(stream);
    virStreamFree(stream);
    if (ok)
        *ret_type = TAKE(type);
    return ok;
}

const struct hv_testbed_ops libvirt_testbed = {
    .create = create,
    .network_create = libvirt_network_create,
    .network_remove = libvirt_network_remove,
    .network_check = libvirt_network_check,
    .address = address,
    .ping = ping,
    .screenshot = screenshot,
    .drop_tpm = libvirt_tpm_drop,
};
