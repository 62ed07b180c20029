/* Addresses that libvirt's own networks give to a guest; see drivers/hypervisor.h. */
#include <string.h>

#include "common/json.h"
#include "drivers/hypervisor/domain_xml.h"
#include "drivers/hypervisor/libvirt.h"
#include "drivers/hypervisor/libvirt_domain.h"
#include "drivers/hypervisor/libvirt_error.h"
#include "drivers/hypervisor/xml_node.h"

#define AUTONETWORK CLEANUP(free_network) virNetwork

static void
free_network(virNetworkPtr *n)
{
    if (*n != NULL)
        virNetworkFree(*n);
}

/* --- which network ------------------------------------------------------------------ */

bool
libvirt_network_of(struct hypervisor *hv, const char *uuid, const char *mac, char **ret,
                   struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = c == NULL ? NULL : libvirt_domain_by_uuid(c, uuid, err);
    AUTOFREE(char) *xml = NULL;

    if (d == NULL)
        return false;
    xml = virDomainGetXMLDesc(d, VIR_DOMAIN_XML_INACTIVE);
    if (xml == NULL)
        return libvirt_error(err, "ask for the definition");
    return domain_xml_network_of(xml, mac, ret, err);
}

/* --- reservations ---------------------------------------------------------------------
 */

static virNetworkPtr
find_network(virConnectPtr c, const struct hv_reservation *r, struct error **err)
{
    virNetworkPtr n = virNetworkLookupByName(c, r->network);

    if (n == NULL)
        libvirt_error(err, "look up network '%s'", r->network);
    return n;
}

static bool
is_same(const xmlNode *host, const struct hv_reservation *r)
{
    AUTOFREE(char) *mac = xml_node_attr(host, "mac");
    AUTOFREE(char) *ip = xml_node_attr(host, "ip");

    return mac != NULL && ip != NULL && strcasecmp(mac, r->mac) == 0 &&
           strcmp(ip, r->ip) == 0;
}

static bool
has_host(virNetworkPtr n, const struct hv_reservation *r, bool *ret, struct error **err)
{
    AUTOFREE(char) *xml = virNetworkGetXMLDesc(n, 0);
    AUTOXML *doc = NULL;

    if (xml == NULL)
        return libvirt_error(err, "ask for network '%s'", r->network);
    doc = xml_node_parse(xml, "network", DOMAIN_XML_MAX_BYTES, err);
    if (doc == NULL)
        return false;
    *ret = false;
    for (xmlNodePtr ip = xml_node_child(xmlDocGetRootElement(doc), "ip"); ip != NULL;
         ip = xml_node_next(ip, "ip"))
        for (xmlNodePtr h = xml_node_path(ip, "dhcp/host"); h != NULL;
             h = xml_node_next(h, "host"))
            *ret = *ret || is_same(h, r);
    return true;
}

/* As text for libvirt; what is not in it needs no escaping: both were checked. */
static char *
host_xml(const struct hv_reservation *r)
{
    return mem_printf("<host mac='%s' ip='%s'/>", r->mac, r->ip);
}

static bool
update(virNetworkPtr n, const struct hv_reservation *r, unsigned command,
       struct error **err)
{
    AUTOFREE(char) *xml = host_xml(r);
    unsigned flags = 0;

    if (virNetworkIsActive(n) == 1)
        flags |= VIR_NETWORK_UPDATE_AFFECT_LIVE;
    if (virNetworkIsPersistent(n) == 1)
        flags |= VIR_NETWORK_UPDATE_AFFECT_CONFIG;
    return virNetworkUpdate(n, command, VIR_NETWORK_SECTION_IP_DHCP_HOST, -1, xml,
                            flags) == 0 ||
           libvirt_error(err, "change the reservations of network '%s'", r->network);
}

bool
libvirt_network_is_reserved(struct hypervisor *hv, const struct hv_reservation *r,
                            bool *ret, struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTONETWORK *n = c == NULL ? NULL : find_network(c, r, err);

    return n != NULL && has_host(n, r, ret, err);
}

bool
libvirt_network_reserve(struct hypervisor *hv, const struct hv_reservation *r,
                        struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTONETWORK *n = c == NULL ? NULL : find_network(c, r, err);
    bool there;

    return n != NULL && has_host(n, r, &there, err) &&
           (there || update(n, r, VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, err));
}

bool
libvirt_network_unreserve(struct hypervisor *hv, const struct hv_reservation *r,
                          struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTONETWORK *n = NULL;
    bool there;

    if (c == NULL)
        return false;
    n = virNetworkLookupByName(c, r->network);
    if (n == NULL)
        return libvirt_error_last() == VIR_ERR_NO_NETWORK ||
               libvirt_error(err, "look up network '%s'", r->network);
    return has_host(n, r, &there, err) &&
           (!there || update(n, r, VIR_NETWORK_UPDATE_COMMAND_DELETE, err));
}
