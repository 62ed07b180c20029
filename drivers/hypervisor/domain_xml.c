#include "drivers/hypervisor/domain_xml.h"

#include <string.h>

#include "common/json.h"
#include "drivers/hypervisor/xml_node.h"

#define MAX_DISKS 1024

void
domain_xml_head_free(struct domain_xml_head *h)
{
    if (h == NULL)
        return;
    free(h->name);
    free(h->uuid);
    free(h->nvram);
    free(h->type);
    free(h->arch);
    free(h->machine);
    free(h->emulator);
    free(h);
}

/* <nvram>PATH</nvram>, or <nvram type='file'><source file='PATH'/></nvram>. */
static char *
nvram_path(const xmlNode *nvram)
{
    char *file = xml_node_attr(xml_node_child(nvram, "source"), "file");

    return file != NULL ? file : xml_node_content(nvram);
}

#define AGENT_CHANNEL "org.qemu.guest_agent.0"

static enum hv_agent
find_agent(xmlNodePtr devices)
{
    for (xmlNodePtr i = xml_node_child(devices, "channel"); i != NULL;
         i = xml_node_next(i, "channel")) {
        const xmlNode *target = xml_node_child(i, "target");

        if (!xml_node_attr_is(target, "name", AGENT_CHANNEL))
            continue;
        return xml_node_attr_is(target, "state", "connected") ? HV_AGENT_CONNECTED
                                                              : HV_AGENT_AWAY;
    }
    return HV_AGENT_NONE;
}

bool
domain_xml_head(const char *xml, struct domain_xml_head **ret, struct error **err)
{
    AUTOXML *doc = xml_node_parse(xml, "domain", DOMAIN_XML_MAX_BYTES, err);
    xmlNodePtr root, type;
    struct domain_xml_head *h;

    if (doc == NULL)
        return false;
    root = xmlDocGetRootElement(doc);
    type = xml_node_path(root, "os/type");
    h = NEW(struct domain_xml_head);
    h->name = xml_node_content(xml_node_child(root, "name"));
    h->uuid = xml_node_content(xml_node_child(root, "uuid"));
    h->nvram = nvram_path(xml_node_path(root, "os/nvram"));
    h->type = xml_node_attr(root, "type");
    h->arch = xml_node_attr(type, "arch");
    h->machine = xml_node_attr(type, "machine");
    h->emulator = xml_node_content(xml_node_path(root, "devices/emulator"));
    h->agent = find_agent(xml_node_child(root, "devices"));
    *ret = h;
    return true;
}

void
domain_xml_disks_free(struct hv_disk *disks, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(disks[i].target);
        free(disks[i].path);
        free(disks[i].format);
        free(disks[i].excuse);
        free(disks[i].no_checkpoint);
    }
    free(disks);
}

/* libvirt's checkpoints are bitmaps that the image itself holds. */
static char *
no_checkpoint(const char *format)
{
    return strcmp(format, "qcow2") == 0
               ? NULL
               : mem_printf("a %s image holds no bitmaps", format);
}

/* The first reason why a disk cannot be captured; NULL: none. */
static char *
excuse(const xmlNode *disk, const struct hv_disk *d)
{
    AUTOFREE(char) *type = xml_node_attr(disk, "type");

    if (type == NULL || (strcmp(type, "file") != 0 && strcmp(type, "block") != 0))
        return mem_printf("a disk of type '%s' is neither a file nor a block device; "
                          "exclude it with --exclude-disk",
                          type != NULL ? type : "unknown");
    if (xml_node_attr_is(disk, "device", "lun"))
        return mem_strdup("a SCSI device that is passed through (device='lun') bypasses "
                          "QEMU's block layer; exclude it with --exclude-disk");
    if (d->path == NULL)
        return mem_strdup("it has no source");
    if (xml_node_child(disk, "shareable") != NULL)
        return mem_strdup("it is shareable: what other domains write to it is not "
                          "recorded; exclude it with --exclude-disk");
    if (xml_node_child(disk, "transient") != NULL)
        return mem_strdup("it is transient: its changes are thrown away at shutdown; "
                          "exclude it with --exclude-disk");
    if (xml_node_child(disk, "readonly") != NULL)
        return mem_strdup("it is read-only: nothing can be recorded on it; exclude it "
                          "with --exclude-disk");
    return NULL;
}

/* In qcow2 the header has the size that the guest sees. */
static bool
is_wrapped(const xmlNode *disk, const xmlNode *source, const char *format)
{
    return strcmp(format, "raw") == 0 && (xml_node_child(disk, "encryption") != NULL ||
                                          xml_node_child(source, "encryption") != NULL ||
                                          xml_node_child(source, "slices") != NULL);
}

static void
fill_disk(const xmlNode *node, struct hv_disk *d)
{
    xmlNodePtr source = xml_node_child(node, "source");

    d->target = xml_node_attr(xml_node_child(node, "target"), "dev");
    d->path = xml_node_attr(source, "file");
    if (d->path == NULL)
        d->path = xml_node_attr(source, "dev");
    d->format = xml_node_attr(xml_node_child(node, "driver"), "type");
    if (d->format == NULL)
        d->format = mem_strdup("raw"); /* libvirt's default: it never probes */
    d->removable = xml_node_attr_is(node, "device", "cdrom") ||
                   xml_node_attr_is(node, "device", "floppy");
    if (d->removable)
        return;
    d->wrapped = is_wrapped(node, source, d->format);
    d->excuse = excuse(node, d);
    d->no_checkpoint = no_checkpoint(d->format);
    d->keeps_bitmaps = d->no_checkpoint == NULL;
}

bool
domain_xml_disks(const char *xml, struct hv_disk **ret, size_t *ret_n, struct error **err)
{
    AUTOXML *doc = xml_node_parse(xml, "domain", DOMAIN_XML_MAX_BYTES, err);
    xmlNodePtr devices;
    struct hv_disk *disks = NULL;
    size_t n = 0;

    if (doc == NULL)
        return false;
    devices = xml_node_child(xmlDocGetRootElement(doc), "devices");
    for (xmlNodePtr node = xml_node_child(devices, "disk"); node != NULL;
         node = xml_node_next(node, "disk")) {
        disks = mem_realloc(disks, n + 1, sizeof *disks);
        memset(&disks[n], 0, sizeof *disks);
        fill_disk(node, &disks[n]);
        n++;
        if (disks[n - 1].target != NULL && n <= MAX_DISKS)
            continue;
        domain_xml_disks_free(disks, n);
        return error_set(
            err, ERROR_PROTOCOL,
            "the definition of a domain has a disk without a target, or more "
            "than %u disks",
            MAX_DISKS);
    }
    *ret = disks;
    *ret_n = n;
    return true;
}

static bool
has_iothread(xmlNodePtr devices, const char *kind)
{
    for (xmlNodePtr n = xml_node_child(devices, kind); n != NULL;
         n = xml_node_next(n, kind)) {
        xmlNodePtr driver = xml_node_child(n, "driver");
        AUTOFREE(char) *one = xml_node_attr(driver, "iothread");

        if (one != NULL || xml_node_child(driver, "iothreads") != NULL)
            return true;
    }
    return false;
}

bool
domain_xml_uses_iothreads(const char *xml, bool *ret, struct error **err)
{
    AUTOXML *doc = xml_node_parse(xml, "domain", DOMAIN_XML_MAX_BYTES, err);
    xmlNodePtr devices;

    if (doc == NULL)
        return false;
    devices = xml_node_child(xmlDocGetRootElement(doc), "devices");
    *ret = has_iothread(devices, "disk") || has_iothread(devices, "controller");
    return true;
}

bool
domain_xml_networks(const char *xml, struct json_object **ret, struct error **err)
{
    AUTOXML *doc = xml_node_parse(xml, "domain", DOMAIN_XML_MAX_BYTES, err);
    xmlNodePtr devices;

    if (doc == NULL)
        return false;
    devices = xml_node_child(xmlDocGetRootElement(doc), "devices");
    *ret = json_object_new_array();
    for (xmlNodePtr i = xml_node_child(devices, "interface"); i != NULL;
         i = xml_node_next(i, "interface")) {
        AUTOFREE(char) *name = xml_node_attr(xml_node_child(i, "source"), "network");

        if (name != NULL && xml_node_attr_is(i, "type", "network"))
            json_append_string(*ret, name);
    }
    return true;
}

bool
domain_xml_network_of(const char *xml, const char *mac, char **ret, struct error **err)
{
    AUTOXML *doc = xml_node_parse(xml, "domain", DOMAIN_XML_MAX_BYTES, err);
    char *name = NULL;

    if (doc == NULL)
        return false;
    for (xmlNodePtr i = xml_node_path(xmlDocGetRootElement(doc), "devices/interface");
         i != NULL && name == NULL; i = xml_node_next(i, "interface")) {
        AUTOFREE(char) *address = xml_node_attr(xml_node_child(i, "mac"), "address");

        if (address != NULL && strcasecmp(address, mac) == 0 &&
            xml_node_attr_is(i, "type", "network"))
            name = xml_node_attr(xml_node_child(i, "source"), "network");
    }
    if (name == NULL)
        return error_set(err, ERROR_NOT_FOUND,
                         "the VM has no interface %s in a network of libvirt", mac);
    *ret = name;
    return true;
}
