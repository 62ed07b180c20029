#include "tests/unit/unit.h"

#include <json-c/json.h>

#include "drivers/hypervisor/domain_xml.h"

static const char definition[] =
    "<domain type='kvm' xmlns:x='http://example.org/x'>\n"
    "  <name>web01</name>\n"
    "  <uuid>0b1c2d3e-0000-4000-8000-000000000001</uuid>\n"
    "  <vcpu cpuset='2-5'>4</vcpu>\n"
    "  <numatune><memory mode='strict' nodeset='0'/></numatune>\n"
    "  <cputune><vcpupin vcpu='0' cpuset='2'/></cputune>\n"
    "  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type>\n"
    "    <kernel>/nonexistent/vmlinuz</kernel>\n"
    "    <nvram template='/nonexistent/VARS.fd'>/var/lib/nvram/web01.fd</nvram></os>\n"
    "  <cpu mode='host-passthrough'/>\n"
    "  <x:unknown keep='me'/>\n"
    "  <devices>\n"
    "    <emulator>/nonexistent/qemu</emulator>\n"
    "    <disk type='block' device='disk'>\n"
    "      <driver name='qemu' type='raw' cache='none'/>\n"
    "      <source dev='/dev/vg/web01'><encryption format='luks'/></source>\n"
    "      <target dev='vda' bus='virtio'/><serial>abc</serial>\n"
    "    </disk>\n"
    "    <disk type='file' device='disk'>\n"
    "      <driver name='qemu' type='qcow2'/>\n"
    "      <source file='/images/b.qcow2' index='2'/>\n"
    "      <backingStore type='file'><format type='qcow2'/><source "
    "file='/images/base'/>\n"
    "      </backingStore><target dev='vdb' bus='virtio'/>\n"
    "    </disk>\n"
    "    <disk type='network' device='disk'>\n"
    "      <driver name='qemu' type='raw'/><auth username='u'/>\n"
    "      <source protocol='rbd' name='p/i'/><target dev='vdc'/></disk>\n"
    "    <disk type='file' device='disk'>\n"
    "      <driver name='qemu' type='qcow2'/><source file='/images/tmp'/>\n"
    "      <target dev='vdd'/><shareable/></disk>\n"
    "    <disk type='file' device='cdrom'>\n"
    "      <source file='/nonexistent/x.iso'/><target dev='sda' bus='sata'/></disk>\n"
    "    <disk type='file' device='cdrom'>\n"
    "      <source file='/dev/null'/><target dev='sdb' bus='sata'/></disk>\n"
    "    <interface type='network'><mac address='52:54:00:00:00:01'/>\n"
    "      <source network='prod' portid='x' bridge='virbr1'/></interface>\n"
    "    <interface type='bridge'><source bridge='br0'/></interface>\n"
    "    <interface type='network'><source network='other'/></interface>\n"
    "    <serial type='file'><source path='/nonexistent/log/web01'/></serial>\n"
    "    <hostdev mode='subsystem' type='pci'/>\n"
    "    <tpm model='tpm-crb'/>\n"
    "    <filesystem><source dir='/srv/share'/></filesystem>\n"
    "  </devices>\n"
    "  <seclabel type='static' model='selinux'/>\n"
    "</domain>\n";

static const char *const targets[] = { "vda", "vdb" };
static const char *const paths[] = { "/replica/a & b.qcow2", "/replica/b.qcow2" };

static char *
adapted(const struct hv_adapt *adapt, struct json_object **ret_report)
{
    struct error *err = NULL;
    char *xml = NULL;

    assert_ok(domain_xml_adapt(definition, adapt, &xml, ret_report, &err), err);
    return xml;
}

static bool
reported(struct json_object *report, const char *part)
{
    for (size_t i = 0; i < json_object_array_length(report); i++)
        if (strstr(json_object_get_string(json_object_array_get_idx(report, i)), part))
            return true;
    return false;
}

static void
disks_say_why_they_cannot_be_captured(void **state UNUSED)
{
    struct error *err = NULL;
    struct hv_disk *disks = NULL;
    size_t n = 0;

    assert_ok(domain_xml_disks(definition, &disks, &n, &err), err);
    assert_int_equal(n, 6);
    assert_string_equal(disks[0].path, "/dev/vg/web01");
    assert_null(disks[0].excuse);
    assert_non_null(strstr(disks[0].no_checkpoint, "raw"));
    assert_true(disks[0].wrapped);
    assert_false(disks[1].wrapped);
    assert_string_equal(disks[1].target, "vdb");
    assert_string_equal(disks[1].format, "qcow2");
    assert_null(disks[1].excuse);
    assert_null(disks[1].no_checkpoint);
    assert_non_null(strstr(disks[2].excuse, "'network'"));
    assert_null(disks[2].path);
    assert_non_null(strstr(disks[3].excuse, "shareable"));
    assert_true(disks[4].removable);
    assert_null(disks[4].excuse);
    domain_xml_disks_free(disks, n);
}

static void
io_threads_of_disks_and_of_their_controllers_are_seen(void **state UNUSED)
{
    struct error *err = NULL;
    bool used = true;

    assert_ok(domain_xml_uses_iothreads(definition, &used, &err), err);
    assert_false(used);
    assert_ok(domain_xml_uses_iothreads("<domain><devices><disk><driver iothread='1'/>"
                                        "</disk></devices></domain>",
                                        &used, &err),
              err);
    assert_true(used);
    used = false;
    assert_ok(domain_xml_uses_iothreads("<domain><devices><disk/><controller><driver "
                                        "iothread='2'/></controller></devices></domain>",
                                        &used, &err),
              err);
    assert_true(used);
}

static void
the_head_is_read(void **state UNUSED)
{
    AUTOPTR(domain_xml_head) *h = NULL;
    struct error *err = NULL;

    assert_ok(domain_xml_head(definition, &h, &err), err);
    assert_string_equal(h->name, "web01");
    assert_string_equal(h->uuid, "0b1c2d3e-0000-4000-8000-000000000001");
    assert_string_equal(h->nvram, "/var/lib/nvram/web01.fd");
    assert_string_equal(h->machine, "pc-q35-7.2");
    assert_string_equal(h->type, "kvm");
}

static void
disks_get_the_images_that_they_have_here(void **state UNUSED)
{
    const struct hv_adapt adapt = { .targets = targets, .paths = paths, .n_disks = 2 };
    struct json_object *report = NULL;
    AUTOFREE(char) *xml = adapted(&adapt, &report);
    struct error *err = NULL;
    struct hv_disk *disks = NULL;
    size_t n = 0;

    assert_ok(domain_xml_disks(xml, &disks, &n, &err), err);
    assert_int_equal(n, 4);
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(disks[i].path, paths[i]);
        assert_string_equal(disks[i].format, "qcow2");
        assert_null(disks[i].excuse);
    }
    assert_null(disks[2].path);
    assert_string_equal(disks[3].path, "/dev/null");
    assert_null(strstr(xml, "backingStore"));
    assert_null(strstr(xml, "encryption"));
    assert_non_null(strstr(xml, "<serial>abc</serial>"));
    assert_non_null(strstr(xml, "cache=\"none\""));
    assert_true(reported(report, "'vdc' is not part of the replica"));
    assert_true(reported(report, "'/nonexistent/x.iso'"));
    assert_true(reported(report, "encrypted"));
    domain_xml_disks_free(disks, n);
    json_object_put(report);
}

static void
networks_and_bridges_follow_the_map(void **state UNUSED)
{
    struct hv_adapt adapt = { .targets = targets, .paths = paths, .n_disks = 2 };
    struct json_object *report = NULL, *networks = NULL;
    AUTOFREE(char) *xml = NULL;
    struct error *err = NULL;

    adapt.networks =
        json_tokener_parse("{\"prod\": \"bridge:br7\", \"bridge:br0\": \"dr\"}");
    xml = adapted(&adapt, &report);
    assert_non_null(strstr(xml, "<source bridge=\"br7\"/>"));
    assert_null(strstr(xml, "portid"));
    assert_null(strstr(xml, "br0"));
    assert_ok(domain_xml_networks(xml, &networks, &err), err);
    assert_string_equal(json_object_to_json_string_ext(networks, JSON_C_TO_STRING_PLAIN),
                        "[\"dr\",\"other\"]");
    json_object_put(networks);
    json_object_put(adapt.networks);
    json_object_put(report);
}

static void
what_is_bound_to_the_host_is_told_and_the_rest_is_kept(void **state UNUSED)
{
    static const char *const told[] = { "numatune",         "vcpupin",
                                        "processors 2-5",   "host-passthrough",
                                        "hostdev",          "TPM",
                                        "/srv/share",       "selinux",
                                        "kernel",           "/nonexistent/log",
                                        "/nonexistent/qemu" };
    const struct hv_adapt adapt = {
        .targets = targets, .paths = paths, .n_disks = 2, .nvram = "/here/vars.fd"
    };
    AUTOPTR(domain_xml_head) *h = NULL;
    struct json_object *report = NULL;
    AUTOFREE(char) *xml = adapted(&adapt, &report);
    struct error *err = NULL;

    for (size_t i = 0; i < N_ELEMENTS(told); i++)
        if (!reported(report, told[i]))
            fail_msg("nothing is said of %s", told[i]);
    assert_ok(domain_xml_head(xml, &h, &err), err);
    assert_string_equal(h->nvram, "/here/vars.fd");
    assert_null(h->emulator);
    assert_string_equal(h->uuid, "0b1c2d3e-0000-4000-8000-000000000001");
    assert_non_null(strstr(xml, "<x:unknown keep=\"me\"/>"));
    assert_non_null(strstr(xml, "hostdev"));
    json_object_put(report);
}

/* A VM that claims all that a clone must not have as well. */
static const char claiming[] =
    "<domain type='kvm' id='7'>\n"
    "  <name>web01</name>\n"
    "  <uuid>0b1c2d3e-0000-4000-8000-000000000001</uuid>\n"
    "  <genid>0b1c2d3e-0000-4000-8000-0000000000aa</genid>\n"
    "  <sysinfo type='smbios'><system><entry name='manufacturer'>Acme</entry>\n"
    "    <entry name='uuid'>0b1c2d3e-0000-4000-8000-000000000001</entry></system>\n"
    "  </sysinfo>\n"
    "  <devices>\n"
    "    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\n"
    "      <source file='/a'/><target dev='vda'/></disk>\n"
    "    <interface type='network'><mac address='52:54:00:00:00:01'/>\n"
    "      <source network='prod'/><target dev='web-nic'/></interface>\n"
    "    <interface type='bridge'><source bridge='ovs'/>\n"
    "      <virtualport type='openvswitch'><parameters interfaceid='if-1'/>\n"
    "      </virtualport></interface>\n"
    "    <channel type='unix'><source mode='bind' path='/run/web01.sock'/>\n"
    "      <target type='virtio' name='org.qemu.guest_agent.0'/></channel>\n"
    "    <serial type='file'><source path='/log/web01'/></serial>\n"
    "    <graphics type='vnc' port='5901' autoport='no'/>\n"
    "  </devices>\n"
    "</domain>\n";

static char *
cloned(const char *xml, const char *name, const char *uuid,
       struct json_object **ret_report)
{
    const struct hv_adapt adapt = {
        .targets = targets, .paths = paths, .n_disks = 1, .name = name, .uuid = uuid
    };
    struct error *err = NULL;
    char *text = NULL;

    assert_ok(domain_xml_adapt(xml, &adapt, &text, ret_report, &err), err);
    return text;
}

static unsigned
count(const char *text, const char *part)
{
    unsigned n = 0;

    for (; (text = strstr(text, part)) != NULL; text++)
        n++;
    return n;
}

static void
a_clone_is_nobody_elses_twin(void **state UNUSED)
{
    static const char *const gone[] = {
        "000000000001",    "0000000000aa", "52:54:00:00:00:01", "web-nic", "if-1",
        "/run/web01.sock", " id="
    };
    static const char uuid[] = "0b1c2d3e-0000-4000-8000-000000000002";
    AUTOPTR(domain_xml_head) *h = NULL;
    struct json_object *report = NULL;
    struct error *err = NULL;
    AUTOFREE(char) *xml = cloned(claiming, "a & b", uuid, &report);

    for (size_t i = 0; i < N_ELEMENTS(gone); i++)
        if (strstr(xml, gone[i]) != NULL)
            fail_msg("'%s' is there still: %s", gone[i], xml);
    assert_ok(domain_xml_head(xml, &h, &err), err);
    assert_string_equal(h->name, "a & b");
    assert_string_equal(h->uuid, uuid);
    assert_non_null(strstr(xml, "Acme"));
    assert_non_null(strstr(xml, "<genid/>"));
    assert_non_null(strstr(xml, "org.qemu.guest_agent.0"));
    assert_int_equal(count(xml, "52:54:00:"), 2); /* one of them had none before */
    assert_true(reported(report, "2 network interfaces"));
    assert_true(reported(report, "'/log/web01'"));
    assert_true(reported(report, "graphics"));
    json_object_put(report);
}

static void
a_disk_that_the_definition_lacks_is_an_error(void **state UNUSED)
{
    static const char *const lacking[] = { "vda", "vdz" };
    const struct hv_adapt adapt = { .targets = lacking, .paths = paths, .n_disks = 2 };
    struct json_object *report = NULL;
    struct error *err = NULL;
    char *xml = NULL;

    assert_fails(domain_xml_adapt(definition, &adapt, &xml, &report, &err), err,
                 ERROR_UNSUPPORTED_DISK);
    assert_null(xml);
    assert_null(report);
}

static void
what_is_no_definition_is_refused(void **state UNUSED)
{
    static const char *const wrong[] = {
        "",
        "<domain>",
        "<network/>",
        "no xml at all",
        "<!DOCTYPE domain [<!ENTITY a 'aaaa'>]><domain><name>&a;</name></domain>",
        "<domain><devices><disk type='file'/></devices></domain>"
    };
    char *long_one = mem_alloc(1, DOMAIN_XML_MAX_BYTES + 2);
    struct error *err = NULL;
    struct hv_disk *disks = NULL;
    size_t n = 0;

    for (size_t i = 0; i < N_ELEMENTS(wrong); i++)
        assert_fails(domain_xml_disks(wrong[i], &disks, &n, &err), err, ERROR_PROTOCOL);
    memset(long_one, ' ', DOMAIN_XML_MAX_BYTES + 1);
    assert_fails(domain_xml_disks(long_one, &disks, &n, &err), err, ERROR_PROTOCOL);
    free(long_one);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(disks_say_why_they_cannot_be_captured),
        cmocka_unit_test(io_threads_of_disks_and_of_their_controllers_are_seen),
        cmocka_unit_test(the_head_is_read),
        cmocka_unit_test(disks_get_the_images_that_they_have_here),
        cmocka_unit_test(networks_and_bridges_follow_the_map),
        cmocka_unit_test(what_is_bound_to_the_host_is_told_and_the_rest_is_kept),
        cmocka_unit_test(a_clone_is_nobody_elses_twin),
        cmocka_unit_test(a_disk_that_the_definition_lacks_is_an_error),
        cmocka_unit_test(what_is_no_definition_is_refused),
    };

    return cmocka_run_group_tests_name("domain_xml", tests, NULL, NULL);
}
