#include "drivers/hypervisor/domain_isolate.h"

#include <stdio.h>
#include <string.h>

#include "common/units.h"
#include "drivers/hypervisor/domain_bound.h"
#include "drivers/hypervisor/domain_xml.h"
#include "drivers/hypervisor/xml_node.h"

#define KIB 1024u

static bool
is_one_of(const char *name, const char *const *names)
{
    while (*names != NULL && strcmp(name, *names) != 0)
        names++;
    return *names != NULL;
}

/* Children whose name is in `kept`, or is not, as `keep` says, go. */
static void
keep_children(xmlNodePtr n, const char *const *kept)
{
    for (xmlNodePtr next, c = xml_node_child(n, NULL); c != NULL; c = next) {
        next = xml_node_next(c, NULL);
        if (!is_one_of((const char *)c->name, kept))
            xml_node_remove(c);
    }
}

static void
set_text(xmlNodePtr n, const char *text)
{
    xmlNodeSetContent(n, NULL);
    xmlNodeAddContent(n, BAD_CAST text);
}

/* --- network --------------------------------------------------------------------------
 */

/* What the guest sees of it stays, with its place on the bus. */
static void
move_interface(xmlNodePtr interface, const char *network)
{
    static const char *const kept[] = { "mac", "model", "address", "boot", "rom",
                                        "mtu", "link",  "alias",   "acpi", NULL };
    bool is_host_device = xml_node_attr_is(interface, "type", "hostdev");
    xmlNodePtr source, model;

    keep_children(interface, kept);
    xml_node_set(interface, "type", "network");
    xml_node_unset(interface, "managed");
    xml_node_unset(interface, "trustGuestRxFilters");
    source = xmlNewChild(interface, NULL, BAD_CAST "source", NULL);
    xml_node_set(source, "network", network);
    if (!is_host_device || xml_node_child(interface, "model") != NULL)
        return;
    model = xmlNewChild(interface, NULL, BAD_CAST "model", NULL);
    xml_node_set(model, "type", "virtio");
}

static void
move_interfaces(xmlNodePtr domain, const struct hv_isolation *how,
                struct json_object *report)
{
    unsigned n = 0;

    for (xmlNodePtr i = xml_node_path(domain, "devices/interface"); i != NULL;
         i = xml_node_next(i, "interface"), n++)
        move_interface(i, how->network);
    if (n > 0)
        domain_bound_say(report, "%u network interface%s in network '%s'", n,
                         n == 1 ? " is" : "s are", how->network);
}

/* --- devices and paths of this host ----------------------------------------------------
 */

static void
remove_devices(xmlNodePtr devices, struct json_object *report)
{
    static const char *const names[] = { "hostdev",    "redirdev", "redirfilter",
                                         "filesystem", "shmem",    "smartcard",
                                         "lease",      NULL };

    for (xmlNodePtr next, d = xml_node_child(devices, NULL); d != NULL; d = next) {
        next = xml_node_next(d, NULL);
        if (!is_one_of((const char *)d->name, names))
            continue;
        domain_bound_say(report, "a %s of the host was removed for the test",
                         (const char *)d->name);
        xml_node_remove(d);
    }
}

/* Those whose content is a file of the host. */
static void
remove_memories(xmlNodePtr devices, struct json_object *report)
{
    for (xmlNodePtr next, m = xml_node_child(devices, "memory"); m != NULL; m = next) {
        next = xml_node_next(m, "memory");
        if (xml_node_path(m, "source/path") == NULL)
            continue;
        domain_bound_say(report, "memory in a file of the host was removed for the test");
        xml_node_remove(m);
    }
}

static void
remove_backends(xmlNodePtr devices, struct json_object *report)
{
    for (xmlNodePtr next, t = xml_node_child(devices, "tpm"); t != NULL; t = next) {
        next = xml_node_next(t, "tpm");
        if (xml_node_attr_is(xml_node_child(t, "backend"), "type", "emulator"))
            continue;
        domain_bound_say(report, "a TPM of the host was removed for the test");
        xml_node_remove(t);
    }
    for (xmlNodePtr next, r = xml_node_child(devices, "rng"); r != NULL; r = next) {
        next = xml_node_next(r, "rng");
        if (xml_node_attr_is(xml_node_child(r, "backend"), "model", "egd"))
            xml_node_remove(r);
    }
}

static void
eject_media(xmlNodePtr devices, struct json_object *report)
{
    for (xmlNodePtr d = xml_node_child(devices, "disk"); d != NULL;
         d = xml_node_next(d, "disk")) {
        AUTOFREE(char) *target = xml_node_attr(xml_node_child(d, "target"), "dev");

        if ((!xml_node_attr_is(d, "device", "cdrom") &&
             !xml_node_attr_is(d, "device", "floppy")) ||
            xml_node_child(d, "source") == NULL)
            continue;
        xml_node_remove_children(d, "source");
        xml_node_remove_children(d, "backingStore");
        xml_node_set(d, "type", "file");
        domain_bound_say(report, "the medium in '%s' was ejected for the test",
                         target != NULL ? target : "?");
    }
}

/* A console that goes to a file or a device of the host goes to a terminal of its own. */
static void
redirect_consoles(xmlNodePtr devices, struct json_object *report)
{
    static const char *const names[] = { "serial", "console", "parallel" };
    static const char *const kept[] = { "target", "address", "alias", NULL };

    for (size_t i = 0; i < N_ELEMENTS(names); i++)
        for (xmlNodePtr c = xml_node_child(devices, names[i]); c != NULL;
             c = xml_node_next(c, names[i])) {
            if (!xml_node_attr_is(c, "type", "pty") &&
                !xml_node_attr_is(c, "type", "null"))
                domain_bound_say(report,
                                 "a %s of the guest goes to a terminal (virsh "
                                 "console), not where it went",
                                 names[i]);
            keep_children(c, kept);
            xml_node_unset(c, "tty");
            xml_node_set(c, "type", xml_node_attr_is(c, "type", "null") ? "null" : "pty");
        }
}

/* The agent's socket is libvirt's to place; others lead to somebody on the host. */
static void
drop_channels(xmlNodePtr devices, struct json_object *report)
{
    for (xmlNodePtr next, c = xml_node_child(devices, "channel"); c != NULL; c = next) {
        AUTOFREE(char) *name = xml_node_attr(xml_node_child(c, "target"), "name");

        next = xml_node_next(c, "channel");
        if (xml_node_attr_is(c, "type", "spicevmc"))
            continue;
        if (xml_node_attr_is(c, "type", "unix") &&
            !xml_node_attr_is(xml_node_child(c, "source"), "mode", "connect")) {
            xml_node_remove_children(c, "source");
            continue;
        }
        domain_bound_say(report, "the channel '%s' to the host was removed for the test",
                         name != NULL ? name : "?");
        xml_node_remove(c);
    }
}

/* Any free port, and only from this host. */
static void
hide_graphics(xmlNodePtr devices)
{
    static const char *const away[] = { "port", "tlsPort", "websocket", "socket",
                                        "listen" };
    static const char *const windows[] = { "sdl", "desktop" };

    for (xmlNodePtr next, g = xml_node_child(devices, "graphics"); g != NULL; g = next) {
        xmlNodePtr listen;

        next = xml_node_next(g, "graphics");
        if (xml_node_attr_is(g, "type", windows[0]) ||
            xml_node_attr_is(g, "type", windows[1])) {
            xml_node_remove(g);
            continue;
        }
        if (!xml_node_attr_is(g, "type", "vnc") && !xml_node_attr_is(g, "type", "spice"))
            continue;
        for (size_t i = 0; i < N_ELEMENTS(away); i++)
            xml_node_unset(g, away[i]);
        xml_node_remove_children(g, "listen");
        xml_node_set(g, "autoport", "yes");
        listen = xmlNewChild(g, NULL, BAD_CAST "listen", NULL);
        xml_node_set(listen, "type", "address");
        xml_node_set(listen, "address", "127.0.0.1");
    }
}

static void
free_numbers(xmlNodePtr domain, struct json_object *report)
{
    xmlNodePtr cid = xml_node_path(domain, "devices/vsock/cid");

    if (cid != NULL) {
        xml_node_set(cid, "auto", "yes");
        xml_node_unset(cid, "address");
    }
    if (xml_node_child(domain, "commandline") == NULL)
        return;
    xml_node_remove_children(domain, "commandline");
    domain_bound_say(report,
                     "arguments for QEMU that are not libvirt's (qemu:commandline) "
                     "were removed for the test");
}

/* The variables of the other VM are not this one's, even if it gets none. */
static void
forget_nvram(xmlNodePtr domain)
{
    xmlNodePtr nvram = xml_node_path(domain, "os/nvram");

    if (nvram == NULL)
        return;
    xmlNodeSetContent(nvram, NULL);
    xml_node_unset(nvram, "type");
}

/* --- memory
 * ----------------------------------------------------------------------------- */

static bool
unit_bytes(const char *unit, uint64_t *ret)
{
    static const struct {
        const char *unit;
        uint64_t bytes;
    } units[] = {
        { "b", 1 },          { "bytes", 1 },        { "KB", 1000 },
        { "k", KIB },        { "KiB", KIB },        { "MB", 1000000 },
        { "M", 1u << 20 },   { "MiB", 1u << 20 },   { "GB", 1000000000 },
        { "G", 1u << 30 },   { "GiB", 1u << 30 },   { "TB", 1000000000000ull },
        { "T", 1ull << 40 }, { "TiB", 1ull << 40 },
    };

    for (size_t i = 0; i < N_ELEMENTS(units); i++)
        if (strcmp(units[i].unit, unit) == 0) {
            *ret = units[i].bytes;
            return true;
        }
    return false;
}

static bool
read_memory(const xmlNode *domain, uint64_t *ret, struct error **err)
{
    xmlNodePtr memory = xml_node_child(domain, "memory");
    AUTOFREE(char) *text = xml_node_content(memory);
    AUTOFREE(char) *unit = xml_node_attr(memory, "unit");
    uint64_t n, factor;

    if (text == NULL || !unit_bytes(unit != NULL ? unit : "KiB", &factor) ||
        !units_parse_u64(text, 1, UINT64_MAX / factor, &n, NULL))
        return error_set(err, ERROR_PROTOCOL, "the definition of a domain has no memory");
    *ret = n * factor;
    return true;
}

static void
limit_memory(xmlNodePtr domain, uint64_t limit_bytes, struct json_object *report)
{
    static const char *const sized[] = { "memory", "currentMemory" };
    uint64_t bytes;
    char text[32], was[UNITS_TEXT_MAX], is[UNITS_TEXT_MAX];

    if (limit_bytes == 0 || !read_memory(domain, &bytes, NULL) || bytes <= limit_bytes)
        return;
    snprintf(text, sizeof text, "%llu", (unsigned long long)(limit_bytes / KIB));
    for (size_t i = 0; i < N_ELEMENTS(sized); i++) {
        xmlNodePtr n = xml_node_child(domain, sized[i]);

        if (n == NULL)
            continue;
        set_text(n, text);
        xml_node_set(n, "unit", "KiB");
    }
    /* What says how the whole is made up would contradict it. */
    xml_node_remove_children(domain, "maxMemory");
    xml_node_remove_children(domain, "numatune");
    xml_node_remove_children(domain, "memtune");
    xml_node_remove_children(xml_node_child(domain, "devices"), "memory");
    if (xml_node_child(domain, "cpu") != NULL)
        xml_node_remove_children(xml_node_child(domain, "cpu"), "numa");
    domain_bound_say(report, "the memory is %s for the test, not %s",
                     units_format_size(limit_bytes, is), units_format_size(bytes, was));
}

/* --- all together
 * ------------------------------------------------------------------------ */

void
domain_isolate(xmlNodePtr domain, const struct hv_isolation *how,
               struct json_object *report)
{
    xmlNodePtr devices = xml_node_child(domain, "devices");

    move_interfaces(domain, how, report);
    remove_devices(devices, report);
    remove_memories(devices, report);
    remove_backends(devices, report);
    eject_media(devices, report);
    redirect_consoles(devices, report);
    drop_channels(devices, report);
    hide_graphics(devices);
    free_numbers(domain, report);
    forget_nvram(domain);
    limit_memory(domain, how->memory_bytes, report);
}

bool
domain_isolate_memory(const char *xml, uint64_t *ret_bytes, struct error **err)
{
    AUTOXML *doc = xml_node_parse(xml, "domain", DOMAIN_XML_MAX_BYTES, err);

    return doc != NULL && read_memory(xmlDocGetRootElement(doc), ret_bytes, err);
}

bool
domain_isolate_needs_network(const char *xml, bool *ret, struct error **err)
{
    AUTOXML *doc = xml_node_parse(xml, "domain", DOMAIN_XML_MAX_BYTES, err);

    if (doc == NULL)
        return false;
    *ret = xml_node_path(xmlDocGetRootElement(doc), "devices/interface") != NULL;
    return true;
}

bool
domain_isolate_has_display(const char *xml, bool *ret, struct error **err)
{
    AUTOXML *doc = xml_node_parse(xml, "domain", DOMAIN_XML_MAX_BYTES, err);
    xmlNodePtr model;

    if (doc == NULL)
        return false;
    model = xml_node_path(xmlDocGetRootElement(doc), "devices/video/model");
    *ret = model != NULL && !xml_node_attr_is(model, "type", "none");
    return true;
}
