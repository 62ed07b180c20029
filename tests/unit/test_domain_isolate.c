/* A definition that runs for a test beside everything else, and harms nothing. */
#include "tests/unit/unit.h"

#include <json-c/json.h>
#include <string.h>

#include "drivers/hypervisor/domain_isolate.h"
#include "drivers/hypervisor/domain_xml.h"

static const char definition[] =
    "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n"
    "  <name>web01</name>\n"
    "  <uuid>0b1c2d3e-0000-4000-8000-000000000001</uuid>\n"
    "  <maxMemory slots='4' unit='KiB'>16777216</maxMemory>\n"
    "  <memory unit='KiB'>4194304</memory>\n"
    "  <currentMemory unit='KiB'>2097152</currentMemory>\n"
    "  <cputune><vcpupin vcpu='0' cpuset='2'/></cputune>\n"
    "  <os><type>hvm</type><nvram>/var/lib/nvram/web01.fd</nvram></os>\n"
    "  <cpu mode='host-passthrough'><numa><cell id='0' memory='4194304'/></numa></cpu>\n"
    "  <qemu:commandline><qemu:arg value='-drive'/></qemu:commandline>\n"
    "  <devices>\n"
    "    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\n"
    "      <source file='/images/a.qcow2'/><target dev='vda' bus='virtio'/></disk>\n"
    "    <disk type='file' device='cdrom'><source file='/dev/null'/>\n"
    "      <target dev='sda'/><readonly/></disk>\n"
    "    <interface type='network'><mac address='52:54:00:00:00:01'/>\n"
    "      <source network='prod' portid='x' bridge='virbr1'/><model type='e1000'/>\n"
    "      <target dev='vnet7'/><filterref filter='clean'/>\n"
    "      <address type='pci' bus='0x01'/></interface>\n"
    "    <interface type='direct'><mac address='52:54:00:00:00:02'/>\n"
    "      <source dev='eth0' mode='bridge'/></interface>\n"
    "    <interface type='hostdev' managed='yes'><mac address='52:54:00:00:00:03'/>\n"
    "      <source><address type='pci' bus='0x09'/></source></interface>\n"
    "    <hostdev mode='subsystem' type='pci'/>\n"
    "    <hostdev mode='subsystem' type='usb'/>\n"
    "    <filesystem type='mount'><source dir='/srv/share'/></filesystem>\n"
    "    <memory model='nvdimm'><source><path>/srv/nvdimm</path></source></memory>\n"
    "    <tpm model='tpm-tis'><backend type='passthrough'>"
    "<device path='/dev/tpm0'/></backend></tpm>\n"
    "    <serial type='file'><source path='/var/log/console.log'/>"
    "<target port='0'/></serial>\n"
    "    <serial type='tcp'><source mode='connect' host='10.0.0.1' service='99'/>"
    "<target port='1'/></serial>\n"
    "    <channel type='unix'><source mode='bind' path='/run/agent.sock'/>\n"
    "      <target type='virtio' name='org.qemu.guest_agent.0'/></channel>\n"
    "    <channel type='unix'><source mode='connect' path='/run/host-service'/>\n"
    "      <target type='virtio' name='org.example.service'/></channel>\n"
    "    <graphics type='vnc' port='5901' autoport='no' listen='0.0.0.0'>\n"
    "      <listen type='address' address='0.0.0.0'/></graphics>\n"
    "    <video><model type='vga'/></video>\n"
    "    <vsock><cid auto='no' address='3'/></vsock>\n"
    "  </devices>\n"
    "</domain>\n";

static const char *const targets[] = { "vda" };
static const char *const paths[] = { "/replica/vda.qcow2" };

static char *
isolated(const struct hv_isolation *how)
{
    struct hv_adapt adapt = { .targets = targets,
                              .paths = paths,
                              .n_disks = 1,
                              .name = "web01-test-1a2b",
                              .uuid = "0b1c2d3e-0000-4000-8000-00000000ffff",
                              .isolation = how };
    struct json_object *report = NULL;
    struct error *err = NULL;
    char *xml = NULL;

    assert_ok(domain_xml_adapt(definition, &adapt, &xml, &report, &err), err);
    json_object_put(report);
    return xml;
}

static unsigned
count(const char *text, const char *part)
{
    unsigned n = 0;

    for (const char *p = text; (p = strstr(p, part)) != NULL; p += strlen(part))
        n++;
    return n;
}

static const struct hv_isolation own = { .network = "virt-dr-1a2b",
                                         .same_addresses = true };

static void
no_device_and_no_path_of_the_host_is_left(void **state UNUSED)
{
    static const char *const gone[] = {
        "hostdev",  "filesystem",   "/srv/",   "/dev/tpm0",   "/dev/null", "/var/log",
        "10.0.0.1", "host-service", "vnet7",   "commandline", "nvdimm",    "/run/agent",
        "web01.fd", "5901",         "0.0.0.0", "eth0",
    };
    AUTOFREE(char) *xml = isolated(&own);

    for (size_t i = 0; i < N_ELEMENTS(gone); i++)
        if (strstr(xml, gone[i]) != NULL)
            fail_msg("'%s' is still in %s", gone[i], xml);
    assert_non_null(strstr(xml, "/replica/vda.qcow2"));
    assert_non_null(strstr(xml, "org.qemu.guest_agent.0"));
    assert_int_equal(count(xml, "<serial type=\"pty\""), 2);
    assert_non_null(strstr(xml, "127.0.0.1"));
}

static void
all_interfaces_are_in_the_given_network(void **state UNUSED)
{
    AUTOFREE(char) *xml = isolated(&own);

    assert_int_equal(count(xml, "<interface type=\"network\""), 3);
    assert_int_equal(count(xml, "network=\"virt-dr-1a2b\""), 3);
    assert_null(strstr(xml, "prod"));
    assert_non_null(strstr(xml, "e1000"));
}

/* Guests bind their configuration to them, and nobody else is there. */
static void
addresses_stay_in_a_network_of_its_own(void **state UNUSED)
{
    AUTOFREE(char) *xml = isolated(&own);

    assert_non_null(strstr(xml, "52:54:00:00:00:01"));
    assert_non_null(strstr(xml, "52:54:00:00:00:03"));
}

static void
addresses_are_new_where_the_original_may_be(void **state UNUSED)
{
    static const struct hv_isolation shared = { .network = "lan" };
    AUTOFREE(char) *xml = isolated(&shared);

    assert_null(strstr(xml, "52:54:00:00:00:0"));
    assert_int_equal(count(xml, "<mac address="), 3);
}

static void
name_and_uuid_are_its_own(void **state UNUSED)
{
    AUTOFREE(char) *xml = isolated(&own);

    assert_non_null(strstr(xml, "<name>web01-test-1a2b</name>"));
    assert_null(strstr(xml, "0b1c2d3e-0000-4000-8000-000000000001"));
}

static void
memory_is_limited_and_never_raised(void **state UNUSED)
{
    struct hv_isolation how = { .network = "x", .memory_bytes = 1u << 30 };
    AUTOFREE(char) *less = isolated(&how);
    AUTOFREE(char) *same = NULL;
    struct error *err = NULL;
    uint64_t bytes = 0;

    assert_ok(domain_isolate_memory(less, &bytes, &err), err);
    assert_int_equal(bytes, 1u << 30);
    assert_null(strstr(less, "numa"));
    assert_null(strstr(less, "maxMemory"));
    how.memory_bytes = 8ull << 30;
    same = isolated(&how);
    assert_ok(domain_isolate_memory(same, &bytes, &err), err);
    assert_int_equal(bytes, 4ull << 30);
    assert_non_null(strstr(same, "numa"));
}

/* A test shows what a failover would. */
static void
what_a_failover_keeps_and_is_no_danger_stays(void **state UNUSED)
{
    AUTOFREE(char) *xml = isolated(&own);

    assert_non_null(strstr(xml, "vcpupin"));
    assert_non_null(strstr(xml, "host-passthrough"));
    assert_non_null(strstr(xml, "<video>"));
}

static void
a_definition_tells_what_a_test_needs(void **state UNUSED)
{
    static const char plain[] = "<domain><memory unit='MiB'>96</memory><devices>"
                                "<video><model type='none'/></video></devices></domain>";
    struct error *err = NULL;
    uint64_t bytes = 0;
    bool has = true;

    assert_ok(domain_isolate_memory(plain, &bytes, &err), err);
    assert_int_equal(bytes, 96u << 20);
    assert_ok(domain_isolate_needs_network(plain, &has, &err), err);
    assert_false(has);
    has = true;
    assert_ok(domain_isolate_has_display(plain, &has, &err), err);
    assert_false(has);
    assert_ok(domain_isolate_has_display(definition, &has, &err), err);
    assert_true(has);
    assert_fails(domain_isolate_memory("<domain/>", &bytes, &err), err, ERROR_PROTOCOL);
    assert_fails(domain_isolate_memory(
                     "<domain><memory unit='parsec'>1</memory></domain>", &bytes, &err),
                 err, ERROR_PROTOCOL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_device_and_no_path_of_the_host_is_left),
        cmocka_unit_test(all_interfaces_are_in_the_given_network),
        cmocka_unit_test(addresses_stay_in_a_network_of_its_own),
        cmocka_unit_test(addresses_are_new_where_the_original_may_be),
        cmocka_unit_test(name_and_uuid_are_its_own),
        cmocka_unit_test(memory_is_limited_and_never_raised),
        cmocka_unit_test(what_a_failover_keeps_and_is_no_danger_stays),
        cmocka_unit_test(a_definition_tells_what_a_test_needs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
