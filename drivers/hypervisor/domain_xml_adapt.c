#include "drivers/hypervisor/domain_xml.h"

#include <string.h>

#include "common/json.h"
#include "drivers/hypervisor/domain_bound.h"
#include "drivers/hypervisor/domain_clone.h"
#include "drivers/hypervisor/domain_isolate.h"
#include "drivers/hypervisor/domain_tpm.h"
#include "drivers/hypervisor/xml_node.h"

#define BRIDGE_KEY "bridge:"

/* --- disks ------------------------------------------------------------------------ */

/* The child of that name, made if it is missing. */
static xmlNodePtr
child_made(xmlNodePtr n, const char *name)
{
    xmlNodePtr child = xml_node_child(n, name);

    return child != NULL ? child : xmlNewChild(n, NULL, BAD_CAST name, NULL);
}

/* What only a device or another kind of image has. */
static void
strip_disk(xmlNodePtr disk, const char *target, struct json_object *report)
{
    static const char *const children[] = { "source", "backingStore", "mirror", "auth" };

    if (xml_node_child(disk, "encryption") != NULL ||
        xml_node_path(disk, "source/encryption") != NULL)
        domain_bound_say(report,
                         "the image of disk '%s' is encrypted on the source; its "
                         "replica is not",
                         target);
    for (size_t i = 0; i < N_ELEMENTS(children); i++)
        xml_node_remove_children(disk, children[i]);
    xml_node_remove_children(disk, "encryption");
    if (!xml_node_attr_is(disk, "device", "lun"))
        return;
    xml_node_set(disk, "device", "disk");
    xml_node_unset(disk, "sgio");
    xml_node_unset(disk, "rawio");
    domain_bound_say(report,
                     "disk '%s' was a SCSI device passed through (lun); its replica "
                     "is a plain disk",
                     target);
}

static void
replace_image(xmlNodePtr disk, const char *target, const char *path,
              struct json_object *report)
{
    xmlNodePtr driver, source;

    strip_disk(disk, target, report);
    xml_node_set(disk, "type", "file");
    driver = child_made(disk, "driver");
    xml_node_set(driver, "name", "qemu");
    xml_node_set(driver, "type", "qcow2");
    source = xmlNewNode(NULL, BAD_CAST "source");
    xml_node_set(source, "file", path);
    xmlAddNextSibling(driver, source);
}

static void
eject(xmlNodePtr disk, const char *target, struct json_object *report)
{
    xmlNodePtr source = xml_node_child(disk, "source");
    AUTOFREE(char) *file = xml_node_attr(source, "file");
    AUTOFREE(char) *dev = file != NULL ? NULL : xml_node_attr(source, "dev");
    const char *path = file != NULL ? file : dev;

    xml_node_remove_children(disk, "backingStore");
    if (source == NULL)
        return;
    if (path == NULL) {
        domain_bound_say(report,
                         "the medium in '%s' is neither a file nor a device; it "
                         "must exist for this host too",
                         target);
        return;
    }
    if (domain_bound_path_exists(path))
        return;
    domain_bound_say(report,
                     "the medium '%s' in '%s' does not exist on this host and was "
                     "ejected",
                     path, target);
    xml_node_remove(source);
    /* A drive without a medium is of type file: a device would need its path. */
    xml_node_set(disk, "type", "file");
}

/* Index into adapt of a disk; n_disks: it is not part of the replica. */
static size_t
wanted(const struct hv_adapt *adapt, const char *target)
{
    size_t i = 0;

    while (i < adapt->n_disks && strcmp(adapt->targets[i], target) != 0)
        i++;
    return i;
}

static bool
adapt_disk(xmlNodePtr disk, const struct hv_adapt *adapt, bool *seen,
           struct json_object *report)
{
    AUTOFREE(char) *target = xml_node_attr(xml_node_child(disk, "target"), "dev");
    size_t i;

    if (target == NULL)
        return false;
    i = wanted(adapt, target);
    if (i < adapt->n_disks) {
        seen[i] = true;
        replace_image(disk, target, adapt->paths[i], report);
    } else if (xml_node_attr_is(disk, "device", "cdrom") ||
               xml_node_attr_is(disk, "device", "floppy")) {
        eject(disk, target, report);
    } else {
        domain_bound_say(report, "disk '%s' is not part of the replica and was removed",
                         target);
        xml_node_remove(disk);
    }
    return true;
}

static bool
adapt_disks(xmlNodePtr domain, const struct hv_adapt *adapt, struct json_object *report,
            struct error **err)
{
    AUTOFREE(bool) *seen = mem_alloc(adapt->n_disks + 1, sizeof *seen);
    xmlNodePtr next;

    for (xmlNodePtr disk = xml_node_path(domain, "devices/disk"); disk != NULL;
         disk = next) {
        next = xml_node_next(disk, "disk");
        if (!adapt_disk(disk, adapt, seen, report))
            return error_set(err, ERROR_PROTOCOL,
                             "the definition of a domain has a disk without a target");
    }
    for (size_t i = 0; i < adapt->n_disks; i++)
        if (!seen[i])
            return error_set(
                err, ERROR_UNSUPPORTED_DISK,
                "the replica has a disk '%s', but the domain's definition has "
                "none of that name",
                adapt->targets[i]);
    return true;
}

/* --- networks --------------------------------------------------------------------- */

/* The key of an interface in the map: "default" or "bridge:br0"; NULL: not mapped. */
static char *
map_key(const xmlNode *interface)
{
    xmlNodePtr source = xml_node_child(interface, "source");
    AUTOFREE(char) *bridge = NULL;

    if (xml_node_attr_is(interface, "type", "network"))
        return xml_node_attr(source, "network");
    if (!xml_node_attr_is(interface, "type", "bridge"))
        return NULL;
    bridge = xml_node_attr(source, "bridge");
    return bridge == NULL ? NULL : mem_printf(BRIDGE_KEY "%s", bridge);
}

static void
attach(xmlNodePtr interface, const char *to)
{
    xmlNodePtr source = child_made(interface, "source");
    bool bridge = strncmp(to, BRIDGE_KEY, strlen(BRIDGE_KEY)) == 0;

    /* What libvirt adds for a running guest, of the network there. */
    xml_node_unset(source, "portid");
    xml_node_unset(source, bridge ? "network" : "bridge");
    if (bridge)
        xml_node_unset(source, "portgroup");
    xml_node_set(interface, "type", bridge ? "bridge" : "network");
    xml_node_set(source, bridge ? "bridge" : "network",
                 bridge ? to + strlen(BRIDGE_KEY) : to);
}

static void
adapt_networks(xmlNodePtr domain, struct json_object *map, struct json_object *report)
{
    for (xmlNodePtr i = xml_node_path(domain, "devices/interface"); i != NULL;
         i = xml_node_next(i, "interface")) {
        AUTOFREE(char) *key = map_key(i);
        const char *to =
            key == NULL || map == NULL ? NULL : json_string_or(map, key, NULL);

        if (to == NULL || to[0] == '\0' || strcmp(to, key) == 0)
            continue;
        attach(i, to);
        domain_bound_say(report, "an interface was moved from '%s' to '%s'", key, to);
    }
}

/* --- firmware, emulator ----------------------------------------------------------- */

static void
adapt_nvram(xmlNodePtr domain, const char *path, struct json_object *report)
{
    xmlNodePtr os = xml_node_child(domain, "os");
    xmlNodePtr nvram = xml_node_child(os, "nvram");
    AUTOFREE(char) *template = xml_node_attr(nvram, "template");

    if (template != NULL && !domain_bound_path_exists(template)) {
        xml_node_unset(nvram, "template");
        domain_bound_say(report,
                         "the template '%s' of the UEFI variables does not exist on "
                         "this host",
                         template);
    }
    if (path == NULL || os == NULL)
        return;
    nvram = child_made(os, "nvram");
    xml_node_unset(nvram, "type");
    xmlNodeSetContent(nvram, NULL);
    xmlNodeAddContent(nvram, BAD_CAST path);
}

static void
adapt_emulator(xmlNodePtr domain, struct json_object *report)
{
    xmlNodePtr emulator = xml_node_path(domain, "devices/emulator");
    AUTOFREE(char) *path = xml_node_content(emulator);

    if (path == NULL || domain_bound_path_exists(path))
        return;
    domain_bound_say(report,
                     "the emulator '%s' does not exist on this host; libvirt "
                     "chooses one",
                     path);
    xml_node_remove(emulator);
}

static bool
adapt_identity(xmlNodePtr domain, const struct hv_adapt *adapt,
               struct json_object *report, struct error **err)
{
    if (adapt->name == NULL)
        return true;
    if (adapt->isolation != NULL && adapt->isolation->same_addresses) {
        domain_clone_apart(domain, adapt->name, adapt->uuid, report);
        return true;
    }
    return domain_clone(domain, adapt->name, adapt->uuid, report, err);
}

bool
domain_xml_adapt(const char *xml, const struct hv_adapt *adapt, char **ret_xml,
                 struct json_object **ret_report, struct error **err)
{
    AUTOXML *doc = xml_node_parse(xml, "domain", DOMAIN_XML_MAX_BYTES, err);
    AUTOJSON *report = NULL;
    xmlNodePtr domain;

    if (doc == NULL)
        return false;
    domain = xmlDocGetRootElement(doc);
    report = json_object_new_array();
    if (!adapt_disks(domain, adapt, report, err))
        return false;
    if (adapt->isolation != NULL)
        domain_isolate(domain, adapt->isolation, report);
    else
        adapt_networks(domain, adapt->networks, report);
    adapt_nvram(domain, adapt->nvram, report);
    adapt_emulator(domain, report);
    domain_tpm_adapt(domain);
    if (!adapt_identity(domain, adapt, report, err))
        return false;
    domain_bound_report(domain, report);
    *ret_xml = xml_node_text(doc);
    *ret_report = TAKE(report);
    return true;
}
