/* Networks for tests; see drivers/hypervisor_testbed.h. */
#include <string.h>
#include <strings.h>

#include "drivers/hypervisor/libvirt.h"
#include "drivers/hypervisor/libvirt_domain.h"
#include "drivers/hypervisor/libvirt_error.h"

#define AUTONETWORK CLEANUP(networkp) virNetwork

static void
networkp(virNetworkPtr *n)
{
    if (*n != NULL)
        virNetworkFree(*n);
}

/*
 * Without <forward> nothing is routed out of it; without DNS nothing is resolved by the
 * host's names either, so that a guest cannot ask its way out.
 */
static char *
network_xml(const struct hv_network *n)
{
    return mem_printf("<network><name>%s</name><uuid>%s</uuid>"
                      "<bridge name='%s' stp='off' delay='0'/><dns enable='no'/>"
                      "<ip address='%s' prefix='%u'><dhcp><range start='%s' end='%s'/>"
                      "</dhcp></ip></network>",
                      n->name, n->uuid, n->bridge, n->address, n->prefix, n->first,
                      n->last);
}

/* *ret NULL: there is none. */
static bool
find(virConnectPtr c, const char *uuid, virNetworkPtr *ret, struct error **err)
{
    *ret = virNetworkLookupByUUIDString(c, uuid);
    return *ret != NULL || libvirt_error_last() == VIR_ERR_NO_NETWORK ||
           libvirt_error(err, "look for network %s", uuid);
}

static bool
check_name_free(virConnectPtr c, const char *name, struct error **err)
{
    AUTONETWORK *n = virNetworkLookupByName(c, name);

    if (n != NULL)
        return error_set(err, ERROR_EXISTS, "this host has a network '%s' already", name);
    return libvirt_error_last() == VIR_ERR_NO_NETWORK ||
           libvirt_error(err, "look for network '%s'", name);
}

bool
libvirt_network_create(struct hypervisor *hv, const struct hv_network *network,
                       struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTOFREE(char) *xml = network_xml(network);
    AUTONETWORK *known = NULL;
    AUTONETWORK *made = NULL;

    if (c == NULL || !find(c, network->uuid, &known, err))
        return false;
    if (known != NULL && virNetworkIsActive(known) == 1)
        return true;
    if (!check_name_free(c, network->name, err))
        return false;
    made = virNetworkCreateXML(c, xml);
    return made != NULL || libvirt_error(err, "make network '%s' (%s/%u)", network->name,
                                         network->address, network->prefix);
}

bool
libvirt_network_remove(struct hypervisor *hv, const char *uuid, struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTONETWORK *n = NULL;

    if (c == NULL || !find(c, uuid, &n, err))
        return false;
    if (n == NULL || virNetworkDestroy(n) == 0)
        return true;
    return libvirt_error_last() == VIR_ERR_NO_NETWORK ||
           libvirt_error(err, "remove network '%s'", virNetworkGetName(n));
}

bool
libvirt_network_check(struct hypervisor *hv, const char *name, struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTONETWORK *n = NULL;

    if (c == NULL)
        return false;
    n = virNetworkLookupByName(c, name);
    if (n == NULL && libvirt_error_last() != VIR_ERR_NO_NETWORK)
        return libvirt_error(err, "look for network '%s'", name);
    if (n == NULL)
        return error_set(err, ERROR_NOT_FOUND, "this host has no network '%s'", name);
    return virNetworkIsActive(n) == 1 ||
           error_set(err, ERROR_NOT_FOUND,
                     "network '%s' is not active; start it (virsh "
                     "net-start)",
                     name);
}
