#include "drivers/hypervisor/domain_clone.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "drivers/hypervisor/domain_bound.h"
#include "drivers/hypervisor/xml_node.h"

/* The addresses that QEMU and libvirt give to their guests. */
#define MAC_PREFIX "52:54:00"

/* --- who it is ------------------------------------------------------------------- */

static void
set_content(xmlNodePtr domain, const char *name, const char *text)
{
    xmlNodePtr n = xml_node_child(domain, name);

    if (n == NULL)
        n = xmlNewChild(domain, NULL, BAD_CAST name, NULL);
    xmlNodeSetContent(n, NULL);
    xmlNodeAddContent(n, BAD_CAST text);
}

/* libvirt refuses a UUID in the firmware's tables that is not the domain's. */
static void
drop_firmware_uuid(xmlNodePtr domain)
{
    for (xmlNodePtr info = xml_node_child(domain, "sysinfo"); info != NULL;
         info = xml_node_next(info, "sysinfo"))
        for (xmlNodePtr next, e = xml_node_path(info, "system/entry"); e != NULL;
             e = next) {
            next = xml_node_next(e, "entry");
            if (xml_node_attr_is(e, "name", "uuid"))
                xml_node_remove(e);
        }
}

/* An empty one is filled by libvirt: the guest is to notice that it is another. */
static void
renew_generation(xmlNodePtr domain)
{
    xmlNodePtr n = xml_node_child(domain, "genid");

    if (n != NULL)
        xmlNodeSetContent(n, NULL);
}

/* --- interfaces -------------------------------------------------------------------- */

static bool
new_mac(char ret[18], struct error **err)
{
    unsigned char b[3];

    if (getrandom(b, sizeof b, 0) != (ssize_t)sizeof b)
        return error_errno(err, ERROR_INTERNAL, "make a MAC address");
    snprintf(ret, 18, MAC_PREFIX ":%02x:%02x:%02x", b[0], b[1], b[2]);
    return true;
}

static bool
renew_interface(xmlNodePtr interface, struct error **err)
{
    xmlNodePtr mac = xml_node_child(interface, "mac");
    xmlNodePtr source = xml_node_child(interface, "source");
    xmlNodePtr port = xml_node_path(interface, "virtualport/parameters");
    char address[18];

    if (!new_mac(address, err))
        return false;
    if (mac == NULL)
        mac = xmlNewChild(interface, NULL, BAD_CAST "mac", NULL);
    xml_node_set(mac, "address", address);
    xml_node_unset(mac, "type");
    xml_node_remove_children(interface, "target"); /* the device on the host */
    if (source != NULL)
        xml_node_unset(source, "portid");
    if (port != NULL) {
        xml_node_unset(port, "interfaceid");
        xml_node_unset(port, "instanceid");
    }
    return true;
}

static bool
renew_interfaces(xmlNodePtr domain, struct json_object *report, struct error **err)
{
    unsigned n = 0;

    for (xmlNodePtr i = xml_node_path(domain, "devices/interface"); i != NULL;
         i = xml_node_next(i, "interface"), n++)
        if (!renew_interface(i, err))
            return false;
    if (n > 0)
        domain_bound_say(report,
                         "%u network interface%s got a new MAC address; addresses that "
                         "the guest has set for itself are still the other VM's",
                         n, n == 1 ? "" : "s");
    return true;
}

/* --- what cannot be shared ------------------------------------------------------------
 */

/* Sockets that QEMU makes: libvirt chooses paths below the domain's own folder. */
static void
drop_sockets(xmlNodePtr domain)
{
    for (xmlNodePtr c = xml_node_path(domain, "devices/channel"); c != NULL;
         c = xml_node_next(c, "channel"))
        if (xml_node_attr_is(c, "type", "unix") &&
            !xml_node_attr_is(xml_node_child(c, "source"), "mode", "connect"))
            xml_node_remove_children(c, "source");
}

static void
report_shared(xmlNodePtr domain, struct json_object *report)
{
    static const char *const consoles[] = { "serial", "console", "parallel" };
    xmlNodePtr devices = xml_node_child(domain, "devices");

    for (size_t i = 0; i < N_ELEMENTS(consoles); i++)
        for (xmlNodePtr c = xml_node_child(devices, consoles[i]); c != NULL;
             c = xml_node_next(c, consoles[i])) {
            AUTOFREE(char) *path = xml_node_attr(xml_node_child(c, "source"), "path");

            if (path != NULL)
                domain_bound_say(report, "the %s '%s' is the other VM's too", consoles[i],
                                 path);
        }
    for (xmlNodePtr g = xml_node_child(devices, "graphics"); g != NULL;
         g = xml_node_next(g, "graphics"))
        if (xml_node_attr_is(g, "autoport", "no"))
            domain_bound_say(report, "the port of its graphics is the other VM's too");
}

void
domain_clone_apart(xmlNodePtr domain, const char *name, const char *uuid,
                   struct json_object *report)
{
    set_content(domain, "name", name);
    set_content(domain, "uuid", uuid);
    xml_node_unset(domain, "id");
    drop_firmware_uuid(domain);
    renew_generation(domain);
    drop_sockets(domain);
    report_shared(domain, report);
}

bool
domain_clone(xmlNodePtr domain, const char *name, const char *uuid,
             struct json_object *report, struct error **err)
{
    if (!renew_interfaces(domain, report, err))
        return false;
    domain_clone_apart(domain, name, uuid, report);
    return true;
}
