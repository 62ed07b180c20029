#include "drivers/hypervisor/domain_needs.h"

#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "common/units.h"
#include "drivers/hypervisor/domain_bound.h"
#include "drivers/hypervisor/xml_node.h"

void
domain_needs_say(struct json_object *findings, const char *check, const char *state,
                 const char *fix, const char *format, ...)
{
    struct json_object *o = json_object_new_object();
    AUTOFREE(char) *text = NULL;
    va_list args;

    va_start(args, format);
    text = mem_vprintf(format, args);
    va_end(args);
    json_set_string(o, "check", check);
    json_set_string(o, "state", state);
    json_set_string(o, "text", text);
    json_set_string(o, "fix", fix);
    json_object_array_add(findings, o);
}

/* --- files ------------------------------------------------------------------------- */

static void
look_at_emulator(xmlNodePtr domain, struct json_object *to)
{
    AUTOFREE(char) *path = xml_node_content(xml_node_path(domain, "devices/emulator"));

    if (path == NULL || access(path, X_OK) == 0)
        domain_needs_say(to, "emulator", "ok", "", "the emulator is there");
    else
        domain_needs_say(
            to, "emulator", "warning",
            "install the same QEMU under that path; else this host's default "
            "one is taken",
            "the emulator '%s' is not on this host", path);
}

static void
look_at_firmware(xmlNodePtr domain, struct json_object *to)
{
    xmlNodePtr nvram = xml_node_path(domain, "os/nvram");
    AUTOFREE(char) *loader = xml_node_content(xml_node_path(domain, "os/loader"));
    AUTOFREE(char) *template = xml_node_attr(nvram, "template");
    bool whole = true;

    if (loader != NULL && !domain_bound_path_exists(loader)) {
        domain_needs_say(to, "firmware", "failed",
                         "install the firmware's package (ovmf, say) on this host",
                         "the firmware '%s' is not on this host", loader);
        whole = false;
    }
    if (template != NULL && !domain_bound_path_exists(template)) {
        domain_needs_say(to, "firmware", "warning",
                         "install the firmware's package on this host; the VM's own "
                         "variables travel with its points",
                         "the template '%s' of UEFI variables is not on this host",
                         template);
        whole = false;
    }
    if (whole)
        domain_needs_say(to, "firmware", "ok", "", "the firmware is there");
}

static bool
look_at_medium(xmlNodePtr disk, struct json_object *to)
{
    AUTOFREE(char) *path = xml_node_attr(xml_node_child(disk, "source"), "file");
    AUTOFREE(char) *target = xml_node_attr(xml_node_child(disk, "target"), "dev");

    if ((!xml_node_attr_is(disk, "device", "cdrom") &&
         !xml_node_attr_is(disk, "device", "floppy")) ||
        path == NULL || domain_bound_path_exists(path))
        return true;
    domain_needs_say(
        to, "media", "warning",
        "copy it to this host, or eject it at the source (virsh change-media); "
        "it is ejected at a failover",
        "the medium '%s' of '%s' is not on this host", path,
        target != NULL ? target : "?");
    return false;
}

static void
look_at_media(xmlNodePtr domain, struct json_object *to)
{
    xmlNodePtr devices = xml_node_child(domain, "devices");
    bool whole = true;

    for (xmlNodePtr disk = devices == NULL ? NULL : xml_node_child(devices, "disk");
         disk != NULL; disk = xml_node_next(disk, "disk"))
        whole = look_at_medium(disk, to) && whole;
    if (whole)
        domain_needs_say(to, "media", "ok", "", "no medium is missing");
}

static void
look_at_tpm(xmlNodePtr domain, struct json_object *to)
{
    xmlNodePtr backend = xml_node_path(domain, "devices/tpm/backend");

    if (!xml_node_attr_is(backend, "type", "emulator"))
        return;
    if (access("/usr/bin/swtpm", X_OK) == 0 || access("/usr/local/bin/swtpm", X_OK) == 0)
        domain_needs_say(to, "tpm", "ok", "", "swtpm is there");
    else
        domain_needs_say(to, "tpm", "failed",
                         "install swtpm and swtpm-tools on this host",
                         "the VM has a TPM, and this host has no swtpm to emulate it");
}

/* What domain_bound.h finds: passthrough, pinning and the like. */
static void
look_at_devices(xmlNodePtr domain, struct json_object *to)
{
    AUTOJSON *sentences = json_object_new_array();

    domain_bound_report(domain, sentences);
    for (size_t i = 0; i < json_object_array_length(sentences); i++)
        domain_needs_say(to, "devices", "warning",
                         "see that this host has the like under the same name, or take "
                         "it out of the VM",
                         "%s",
                         json_object_get_string(json_object_array_get_idx(sentences, i)));
    if (json_object_array_length(sentences) == 0)
        domain_needs_say(to, "devices", "ok", "",
                         "nothing is bound to the source's host");
}

void
domain_needs_files(xmlNodePtr domain, struct json_object *findings)
{
    look_at_emulator(domain, findings);
    look_at_firmware(domain, findings);
    look_at_media(domain, findings);
    look_at_devices(domain, findings);
    look_at_tpm(domain, findings);
}

/* --- memory ------------------------------------------------------------------------ */

static uint64_t
in_bytes(const char *number, const char *unit)
{
    static const struct {
        const char *unit;
        uint64_t bytes;
    } units[] = {
        { "b", 1 },
        { "bytes", 1 },
        { "KB", 1000 },
        { "KiB", 1ull << 10 },
        { "k", 1ull << 10 },
        { "MB", 1000000 },
        { "MiB", 1ull << 20 },
        { "M", 1ull << 20 },
        { "GB", 1000000000 },
        { "GiB", 1ull << 30 },
        { "G", 1ull << 30 },
        { "TiB", 1ull << 40 },
    };
    uint64_t value = 0;

    if (number == NULL || !units_parse_u64(number, 0, UINT64_MAX >> 40, &value, NULL))
        return 0;
    for (size_t i = 0; i < N_ELEMENTS(units); i++)
        if (unit != NULL && strcmp(unit, units[i].unit) == 0)
            return value * units[i].bytes;
    return value << 10; /* libvirt's default */
}

uint64_t
domain_needs_memory_bytes(xmlNodePtr domain)
{
    xmlNodePtr memory = xml_node_child(domain, "memory");
    AUTOFREE(char) *number = xml_node_content(memory);
    AUTOFREE(char) *unit = xml_node_attr(memory, "unit");

    return in_bytes(number, unit);
}

bool
domain_needs_huge_pages(xmlNodePtr domain, uint64_t *ret_page_bytes)
{
    xmlNodePtr huge = xml_node_path(domain, "memoryBacking/hugepages");
    xmlNodePtr page = huge == NULL ? NULL : xml_node_child(huge, "page");
    AUTOFREE(char) *size = xml_node_attr(page, "size");
    AUTOFREE(char) *unit = xml_node_attr(page, "unit");

    *ret_page_bytes = size != NULL ? in_bytes(size, unit) : 0;
    return huge != NULL;
}
