#include "drivers/hypervisor/domain_bound.h"

#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "drivers/hypervisor/xml_node.h"

void
domain_bound_say(struct json_object *report, const char *format, ...)
{
    AUTOFREE(char) *sentence = NULL;
    va_list args;

    va_start(args, format);
    sentence = mem_vprintf(format, args);
    va_end(args);
    json_append_string(report, sentence);
}

bool
domain_bound_path_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static const char *
or_unknown(const char *s)
{
    return s != NULL ? s : "unknown";
}

/* --- elements whose presence alone is worth a sentence ---------------------------- */

static const struct {
    const char *path; /* below <domain> */
    const char *sentence;
} present[] = {
    { "numatune",
      "memory is bound to NUMA nodes (numatune) by their numbers on the source" },
    { "cputune/vcpupin",
      "virtual processors are pinned (vcpupin) to processor numbers of "
      "the source" },
    { "cputune/emulatorpin",
      "the emulator is pinned (emulatorpin) to processor numbers of "
      "the source" },
    { "cputune/iothreadpin",
      "I/O threads are pinned (iothreadpin) to processor numbers of "
      "the source" },
    { "memoryBacking/hugepages", "memory is in huge pages, of which this host must have "
                                 "enough free" },
    { "launchSecurity", "launchSecurity (encrypted memory) is bound to the processor of "
                        "the source; the guest may not start here" },
    { "devices/memory",
      "there are memory devices (DIMM, NVDIMM), whose backing must exist "
      "on this host" },
    { "devices/shmem",
      "shared memory with other domains (shmem) must exist on this host" },
};

static void
report_present(xmlNodePtr domain, struct json_object *report)
{
    AUTOFREE(char) *cpuset = xml_node_attr(xml_node_child(domain, "vcpu"), "cpuset");

    for (size_t i = 0; i < N_ELEMENTS(present); i++)
        if (xml_node_path(domain, present[i].path) != NULL)
            json_append_string(report, present[i].sentence);
    if (cpuset != NULL)
        domain_bound_say(
            report, "virtual processors run only on processors %s of the source", cpuset);
}

static void
report_cpu(xmlNodePtr domain, struct json_object *report)
{
    AUTOFREE(char) *mode = xml_node_attr(xml_node_child(domain, "cpu"), "mode");

    if (mode != NULL && strcmp(mode, "host-passthrough") == 0)
        domain_bound_say(report,
                         "the CPU is host-passthrough: the guest sees the processor "
                         "of this host, which may be another model");
    else if (mode != NULL && strcmp(mode, "host-model") == 0)
        domain_bound_say(report,
                         "the CPU is host-model: the guest gets the model nearest "
                         "to the processor of this host");
}

static void
report_seclabels(xmlNodePtr domain, struct json_object *report)
{
    for (xmlNodePtr s = xml_node_child(domain, "seclabel"); s != NULL;
         s = xml_node_next(s, "seclabel")) {
        AUTOFREE(char) *model = xml_node_attr(s, "model");

        if (xml_node_attr_is(s, "type", "static"))
            domain_bound_say(report,
                             "a static security label (%s) must be allowed on this "
                             "host, and fit the images' labels",
                             or_unknown(model));
    }
}

/* --- paths ------------------------------------------------------------------------ */

static void
report_boot_files(xmlNodePtr domain, struct json_object *report)
{
    static const char *const names[] = { "kernel", "initrd", "dtb", "loader" };

    for (size_t i = 0; i < N_ELEMENTS(names); i++) {
        AUTOFREE(char) *path =
            xml_node_content(xml_node_child(xml_node_child(domain, "os"), names[i]));

        if (path != NULL && path[0] == '/' && !domain_bound_path_exists(path))
            domain_bound_say(report, "%s '%s' does not exist on this host", names[i],
                             path);
    }
}

static void
report_folder(const char *device, const char *path, struct json_object *report)
{
    AUTOFREE(char) *folder = mem_strdup(path);
    char *slash = folder == NULL ? NULL : strrchr(folder, '/');

    if (slash == NULL || slash == folder)
        return;
    *slash = '\0';
    if (!domain_bound_path_exists(folder))
        domain_bound_say(report, "%s writes to '%s', but this host has no folder '%s'",
                         device, path, folder);
}

static void
report_character_device(const xmlNode *n, struct json_object *report)
{
    const char *device = (const char *)n->name;
    AUTOFREE(char) *type = xml_node_attr(n, "type");
    AUTOFREE(char) *path = xml_node_attr(xml_node_child(n, "source"), "path");
    AUTOFREE(char) *log = xml_node_attr(xml_node_child(n, "log"), "file");

    if (log != NULL)
        report_folder(device, log, report);
    if (type == NULL || path == NULL)
        return;
    if (strcmp(type, "file") == 0)
        report_folder(device, path, report);
    else if (strcmp(type, "dev") == 0 && !domain_bound_path_exists(path))
        domain_bound_say(report, "%s uses the device '%s', which this host does not have",
                         device, path);
}

/* --- devices ---------------------------------------------------------------------- */

static void
report_hostdev(const xmlNode *n, struct json_object *report)
{
    AUTOFREE(char) *type = xml_node_attr(n, "type");

    domain_bound_say(report,
                     "a %s device of the source is passed through (hostdev); this "
                     "host must have it at the same address",
                     or_unknown(type));
}

static void
report_filesystem(const xmlNode *n, struct json_object *report)
{
    AUTOFREE(char) *dir = xml_node_attr(xml_node_child(n, "source"), "dir");

    domain_bound_say(report,
                     "the folder '%s' is shared with the guest (filesystem); it is "
                     "not replicated%s",
                     or_unknown(dir),
                     dir != NULL && !domain_bound_path_exists(dir)
                         ? " and does not exist on this host"
                         : "");
}

static void
report_interface(const xmlNode *n, struct json_object *report)
{
    AUTOFREE(char) *type = xml_node_attr(n, "type");
    AUTOFREE(char) *mac = xml_node_attr(xml_node_child(n, "mac"), "address");
    AUTOFREE(char) *dev = xml_node_attr(xml_node_child(n, "source"), "dev");

    if (type == NULL)
        return;
    if (strcmp(type, "direct") == 0)
        domain_bound_say(report,
                         "interface %s is attached directly (macvtap) to '%s', "
                         "which this host must have",
                         or_unknown(mac), or_unknown(dev));
    else if (strcmp(type, "hostdev") == 0 || strcmp(type, "vdpa") == 0)
        domain_bound_say(report,
                         "interface %s is a device of the source that is passed "
                         "through (%s)",
                         or_unknown(mac), type);
    else if (strcmp(type, "vhostuser") == 0)
        domain_bound_say(report,
                         "interface %s is vhost-user: the switch's socket must "
                         "exist on this host",
                         or_unknown(mac));
}

static void
report_graphics(const xmlNode *n, struct json_object *report)
{
    static const char *const everywhere[] = { "127.0.0.1", "0.0.0.0", "::", "::1",
                                              "localhost" };
    AUTOFREE(char) *listen = xml_node_attr(n, "listen");

    if (listen == NULL)
        return;
    for (size_t i = 0; i < N_ELEMENTS(everywhere); i++)
        if (strcmp(listen, everywhere[i]) == 0)
            return;
    domain_bound_say(
        report, "graphics listens on '%s', an address that this host must have", listen);
}

/* An emulated one's state belongs to the point. */
static void
report_tpm(const xmlNode *n, struct json_object *report)
{
    AUTOFREE(char) *type = xml_node_attr(xml_node_child(n, "backend"), "type");

    if (type == NULL || strcmp(type, "emulator") != 0)
        domain_bound_say(report,
                         "the TPM (%s) is not emulated for this VM alone: its state "
                         "stayed at the source; a guest that sealed keys in it may ask "
                         "for recovery keys",
                         or_unknown(type));
}

static void
report_rng(const xmlNode *n, struct json_object *report)
{
    AUTOFREE(char) *path = xml_node_content(xml_node_child(n, "backend"));

    if (path != NULL && path[0] == '/' && !domain_bound_path_exists(path))
        domain_bound_say(report,
                         "the random number generator reads '%s', which this host "
                         "does not have",
                         path);
}

static const struct {
    const char *name;
    void (*report)(const xmlNode *n, struct json_object *report);
} devices[] = {
    { "channel", report_character_device },  { "console", report_character_device },
    { "filesystem", report_filesystem },     { "graphics", report_graphics },
    { "hostdev", report_hostdev },           { "interface", report_interface },
    { "parallel", report_character_device }, { "rng", report_rng },
    { "serial", report_character_device },   { "tpm", report_tpm },
};

void
domain_bound_report(xmlNodePtr domain, struct json_object *report)
{
    report_present(domain, report);
    report_cpu(domain, report);
    report_seclabels(domain, report);
    report_boot_files(domain, report);
    for (xmlNodePtr n = xml_node_child(xml_node_child(domain, "devices"), NULL);
         n != NULL; n = xml_node_next(n, NULL))
        for (size_t i = 0; i < N_ELEMENTS(devices); i++)
            if (xml_node_is(n, devices[i].name))
                devices[i].report(n, report);
}
