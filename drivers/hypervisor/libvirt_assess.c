/* Would a definition from another host run here? See drivers/hypervisor.h. */
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "common/units.h"
#include "drivers/hypervisor/domain_needs.h"
#include "drivers/hypervisor/domain_xml.h"
#include "drivers/hypervisor/libvirt.h"
#include "drivers/hypervisor/libvirt_domain.h"
#include "drivers/hypervisor/libvirt_error.h"
#include "drivers/hypervisor/xml_node.h"

#define DEFAULT_HUGE_KIB 2048

struct assessment {
    virConnectPtr c;
    xmlNodePtr domain;
    const struct domain_xml_head *head;
    struct json_object *networks; /* the map; NULL: none */
    struct json_object *findings;
};

/* --- machine and processor
 * -------------------------------------------------------------- */

static bool
model_is_usable(xmlNodePtr mode, const char *wanted)
{
    for (xmlNodePtr m = xml_node_child(mode, "model"); m != NULL;
         m = xml_node_next(m, "model")) {
        AUTOFREE(char) *name = xml_node_content(m);

        if (name != NULL && strcmp(name, wanted) == 0)
            return !xml_node_attr_is(m, "usable", "no");
    }
    return false;
}

static xmlNodePtr
find_mode(xmlNodePtr capabilities, const char *name)
{
    xmlNodePtr cpu = xml_node_child(capabilities, "cpu");
    xmlNodePtr mode = cpu == NULL ? NULL : xml_node_child(cpu, "mode");

    while (mode != NULL && !xml_node_attr_is(mode, "name", name))
        mode = xml_node_next(mode, "mode");
    return mode;
}

static void
look_at_cpu(struct assessment *a, xmlNodePtr capabilities)
{
    xmlNodePtr cpu = xml_node_child(a->domain, "cpu");
    AUTOFREE(char) *mode_name = xml_node_attr(cpu, "mode");
    AUTOFREE(char) *model =
        cpu == NULL ? NULL : xml_node_content(xml_node_child(cpu, "model"));
    const char *name = mode_name != NULL ? mode_name : "custom";
    xmlNodePtr mode = find_mode(capabilities, name);

    if (strcmp(name, "custom") == 0 && model == NULL)
        domain_needs_say(a->findings, "cpu", "ok", "", "any processor will do");
    else if (mode == NULL || !xml_node_attr_is(mode, "supported", "yes"))
        domain_needs_say(a->findings, "cpu", "failed",
                         "give the VM a processor model that both hosts have",
                         "this host has no processors of mode '%s'", name);
    else if (strcmp(name, "custom") == 0 && !model_is_usable(mode, model))
        domain_needs_say(
            a->findings, "cpu", "failed",
            "give the VM a processor model that both hosts have (virsh "
            "domcapabilities lists this one's), or the host another processor",
            "this host cannot give the VM its processor '%s'", model);
    else
        domain_needs_say(a->findings, "cpu", "ok", "", "the processor fits");
}

static void
look_at_machine(struct assessment *a)
{
    const struct domain_xml_head *h = a->head;
    const char *emulator =
        h->emulator != NULL && access(h->emulator, X_OK) == 0 ? h->emulator : NULL;
    AUTOFREE(char) *text =
        virConnectGetDomainCapabilities(a->c, emulator, h->arch, h->machine, h->type, 0);
    AUTOPTR(error) *why = NULL;
    AUTOXML *doc = NULL;

    if (text == NULL) {
        libvirt_error(&why, "ask for the capabilities");
        domain_needs_say(a->findings, "machine", "failed",
                         "install a QEMU that has it, or give the VM a machine type that "
                         "both hosts have",
                         "this host cannot run machine '%s' of type '%s': %s",
                         h->machine != NULL ? h->machine : "(default)",
                         h->type != NULL ? h->type : "?", error_message(why));
        return;
    }
    domain_needs_say(a->findings, "machine", "ok", "", "the machine type is there");
    doc = xml_node_parse(text, "domainCapabilities", DOMAIN_XML_MAX_BYTES, NULL);
    if (doc != NULL)
        look_at_cpu(a, xmlDocGetRootElement(doc));
}

/* --- memory
 * ----------------------------------------------------------------------------- */

static void
look_at_huge_pages(struct assessment *a, uint64_t page_bytes, uint64_t wanted)
{
    unsigned kib = page_bytes > 0 ? (unsigned)(page_bytes >> 10) : DEFAULT_HUGE_KIB;
    unsigned long long free_pages = 0;
    char have[UNITS_TEXT_MAX], need[UNITS_TEXT_MAX];
    uint64_t bytes;

    if (virNodeGetFreePages(a->c, 1, &kib, -1, 1, &free_pages, 0) <= 0) {
        domain_needs_say(a->findings, "memory", "failed",
                         "reserve huge pages of that size on this host (vm.nr_hugepages)",
                         "this host has no huge pages of %u KiB", kib);
        return;
    }
    bytes = (uint64_t)free_pages * kib << 10;
    if (bytes >= wanted)
        domain_needs_say(a->findings, "memory", "ok", "", "there are huge pages enough");
    else
        domain_needs_say(a->findings, "memory", "failed",
                         "reserve more huge pages on this host (vm.nr_hugepages)",
                         "the VM needs %s in huge pages, %s are free",
                         units_format_size(wanted, need), units_format_size(bytes, have));
}

static void
look_at_memory(struct assessment *a)
{
    uint64_t wanted = domain_needs_memory_bytes(a->domain), page_bytes;
    unsigned long long free_bytes = virNodeGetFreeMemory(a->c);
    virNodeInfo node;
    uint64_t total = 0;
    char have[UNITS_TEXT_MAX], need[UNITS_TEXT_MAX];

    if (domain_needs_huge_pages(a->domain, &page_bytes)) {
        look_at_huge_pages(a, page_bytes, wanted);
        return;
    }
    if (virNodeGetInfo(a->c, &node) == 0)
        total = (uint64_t)node.memory << 10;
    if (total > 0 && wanted > total)
        domain_needs_say(a->findings, "memory", "failed",
                         "give the VM less memory, or the host more",
                         "the VM needs %s of memory, this host has %s",
                         units_format_size(wanted, need), units_format_size(total, have));
    else if (free_bytes > 0 && wanted > free_bytes)
        domain_needs_say(a->findings, "memory", "warning",
                         "stop something on this host, or give it more memory",
                         "the VM needs %s of memory, %s are free now",
                         units_format_size(wanted, need),
                         units_format_size(free_bytes, have));
    else
        domain_needs_say(a->findings, "memory", "ok", "", "there is memory enough");
}

/* --- networks
 * ----------------------------------------------------------------------------- */

static bool
look_at_network(struct assessment *a, const char *there)
{
    const char *name = json_string_or(a->networks, there, there);
    virNetworkPtr n = virNetworkLookupByName(a->c, name);
    bool active = n != NULL && virNetworkIsActive(n) == 1;

    if (n == NULL)
        domain_needs_say(
            a->findings, "networks", "failed",
            "define it (virsh net-define), or name another one in [networks]",
            "network '%s' does not exist on this host", name);
    else if (!active)
        domain_needs_say(a->findings, "networks", "failed",
                         "virsh net-start and virsh net-autostart it",
                         "network '%s' is not active on this host", name);
    if (n != NULL)
        virNetworkFree(n);
    return active;
}

static void
look_at_networks(struct assessment *a, const char *xml)
{
    AUTOJSON *names = NULL;
    bool whole = true;

    if (!domain_xml_networks(xml, &names, NULL))
        return;
    for (size_t i = 0; i < json_object_array_length(names); i++)
        whole = look_at_network(
                    a, json_object_get_string(json_object_array_get_idx(names, i))) &&
                whole;
    if (whole)
        domain_needs_say(a->findings, "networks", "ok", "", "its networks are active");
}

/* --- conflicts
 * ------------------------------------------------------------------------------ */

static void
look_at_names(struct assessment *a)
{
    AUTODOMAIN *named = virDomainLookupByName(a->c, a->head->name);
    AUTODOMAIN *known = virDomainLookupByUUIDString(a->c, a->head->uuid);
    char uuid[VIR_UUID_STRING_BUFLEN];

    if (named != NULL && virDomainGetUUIDString(named, uuid) == 0 &&
        strcasecmp(uuid, a->head->uuid) != 0)
        domain_needs_say(
            a->findings, "conflicts", "failed", "rename or undefine that domain",
            "this host has another domain '%s', of UUID %s", a->head->name, uuid);
    else if (known != NULL && virDomainIsActive(known) == 1)
        domain_needs_say(a->findings, "conflicts", "failed",
                         "see that it is not needed, and stop it",
                         "a domain of the VM's UUID runs on this host ('%s')",
                         virDomainGetName(known));
    else if (known != NULL && strcmp(virDomainGetName(known), a->head->name) != 0)
        domain_needs_say(a->findings, "conflicts", "failed", "undefine that domain",
                         "the VM's UUID belongs to the domain '%s' on this host",
                         virDomainGetName(known));
    else
        domain_needs_say(a->findings, "conflicts", "ok", "",
                         "its name and UUID are free");
}

bool
libvirt_assess(struct hypervisor *hv, const char *xml, struct json_object *networks,
               struct json_object *findings, struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTOXML *doc =
        c == NULL ? NULL : xml_node_parse(xml, "domain", DOMAIN_XML_MAX_BYTES, err);
    AUTOPTR(domain_xml_head) *head = NULL;
    struct assessment a = { .c = c, .networks = networks, .findings = findings };

    if (doc == NULL || !domain_xml_head(xml, &head, err))
        return false;
    if (head->name == NULL || head->uuid == NULL)
        return error_set(err, ERROR_PROTOCOL,
                         "the definition of a domain has no name or no UUID");
    a.head = head;
    a.domain = xmlDocGetRootElement(doc);
    look_at_machine(&a);
    look_at_memory(&a);
    look_at_networks(&a, xml);
    look_at_names(&a);
    domain_needs_files(a.domain, findings);
    return true;
}
