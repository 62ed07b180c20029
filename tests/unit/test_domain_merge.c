/* A VM comes home: what the operator changed comes along, what fits the other host not.
 */
#include "drivers/hypervisor/domain_merge.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "tests/unit/unit.h"

#define HOME                                                                        \
    "<domain type='kvm'><name>web</name><memory unit='KiB'>1024</memory>"           \
    "<os><type machine='pc-q35-7.2'>hvm</type><nvram>/home/web.fd</nvram></os>"     \
    "<devices><emulator>/usr/bin/qemu-a</emulator>"                                 \
    "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>" \
    "<source file='/home/vda.img'/><target dev='vda' bus='virtio'/></disk>"         \
    "<disk type='file' device='disk'><driver name='qemu' type='raw'/>"              \
    "<source file='/home/vdc.img'/><target dev='vdc' bus='virtio'/></disk>"         \
    "<interface type='network'><mac address='52:54:00:00:00:01'/>"                  \
    "<source network='lan'/><model type='virtio'/></interface>"                     \
    "<hostdev mode='subsystem' type='pci'><source><address bus='0x01'/></source>"   \
    "</hostdev></devices></domain>"

/* As it was made to fit: other paths, another network and emulator, no disk that was not
   replicated, no device of the host. */
#define THERE(memory, cache, model, more)                                            \
    "<domain type='kvm'><name>web</name><memory unit='KiB'>" memory "</memory>"      \
    "<os><type machine='pc-q35-7.2'>hvm</type><nvram>/there/nvram-2.fd</nvram></os>" \
    "<devices><emulator>/usr/bin/qemu-b</emulator>"                                  \
    "<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='" cache \
    "'/><source file='/there/vda.qcow2'/><target dev='vda' bus='virtio'/></disk>"    \
    "<interface type='network'><mac address='52:54:00:00:00:01'/>"                   \
    "<source network='lan-dr'/><model type='" model "'/></interface>" more           \
    "<controller type='usb' index='0'/></devices></domain>"

#define THEN THERE("1024", "none", "virtio", "")

static char *
merged(const char *now)
{
    struct error *err = NULL;
    char *xml = NULL;

    assert_ok(domain_merge(HOME, THEN, now, &xml, &err), err);
    return xml;
}

static void
has(const char *xml, const char *part)
{
    if (strstr(xml, part) == NULL)
        fail_msg("'%s' is not in: %s", part, xml);
}

static void
lacks(const char *xml, const char *part)
{
    if (strstr(xml, part) != NULL)
        fail_msg("'%s' is in: %s", part, xml);
}

static void
what_nobody_changed_is_as_it_was_at_home(void **state UNUSED)
{
    AUTOFREE(char) *xml = merged(THEN);

    has(xml, "/usr/bin/qemu-a");
    has(xml, "/home/web.fd");
    has(xml, "file=\"/home/vda.img\"");
    has(xml, "type=\"raw\" cache=\"none\"");
    has(xml, "network=\"lan\"");
    has(xml, "dev=\"vdc\"");
    has(xml, "<hostdev");
    lacks(xml, "there");
    lacks(xml, "lan-dr");
    lacks(xml, "<controller");
}

static void
what_the_operator_changed_comes_along(void **state UNUSED)
{
    AUTOFREE(char) *xml = merged(THERE("2048", "writeback", "e1000", ""));

    has(xml, "<memory unit=\"KiB\">2048</memory>");
    has(xml, "type=\"raw\" cache=\"writeback\"");
    has(xml, "<model type=\"e1000\"/>");
    lacks(xml, "<model type=\"virtio\"/>");
    has(xml, "network=\"lan\"");
}

static void
what_the_operator_added_comes_along(void **state UNUSED)
{
    AUTOFREE(char) *xml = merged(THERE("1024", "none", "virtio",
                                       "<interface type='network'>"
                                       "<mac address='52:54:00:00:00:02'/>"
                                       "<source network='backup'/></interface>"
                                       "<watchdog model='i6300esb'/>"));

    has(xml, "52:54:00:00:00:02");
    has(xml, "network=\"backup\"");
    has(xml, "<watchdog model=\"i6300esb\"/>");
    has(xml, "network=\"lan\"");
}

static void
what_the_operator_removed_is_removed(void **state UNUSED)
{
    const char *now =
        "<domain type='kvm'><name>web</name><memory unit='KiB'>1024</memory>"
        "<os><type machine='pc-q35-7.2'>hvm</type></os><devices>"
        "<emulator>/usr/bin/qemu-b</emulator>"
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
        "<source file='/there/vda.qcow2'/><target dev='vda' bus='virtio'/></disk>"
        "</devices></domain>";
    AUTOFREE(char) *xml = merged(now);

    lacks(xml, "52:54:00:00:00:01");
    lacks(xml, "cache=");
    has(xml, "/home/web.fd"); /* where it lies is the host's own */
    has(xml, "dev=\"vdc\"");
    has(xml, "<hostdev");
}

/* The other host made one image of the chain, elsewhere. */
static void
where_disks_lie_is_not_taken_over(void **state UNUSED)
{
    const char *now =
        "<domain type='kvm'><name>web</name><memory unit='KiB'>1024</memory><devices>"
        "<emulator>/usr/bin/qemu-b</emulator><disk type='file' device='disk'>"
        "<driver name='qemu' type='qcow2' cache='none'/><source file='/new/vda.qcow2'/>"
        "<backingStore/><target dev='vda' bus='virtio'/></disk></devices></domain>";
    AUTOFREE(char) *xml = merged(now);

    has(xml, "/home/vda.img");
    lacks(xml, "/new/vda.qcow2");
    lacks(xml, "backingStore");
}

static void
texts_are_escaped(void **state UNUSED)
{
    AUTOFREE(char) *xml = NULL;
    struct error *err = NULL;

    assert_ok(domain_merge("<domain><title>a</title></domain>",
                           "<domain><title>a</title></domain>",
                           "<domain><title>a &lt;b&gt; &amp; c</title></domain>", &xml,
                           &err),
              err);
    has(xml, "a &lt;b&gt; &amp; c");
}

static void
what_is_no_definition_is_refused(void **state UNUSED)
{
    static const char *const wrong[] = { "", "<pool/>", "<domain>" };
    struct error *err = NULL;
    char *xml = NULL;

    for (size_t i = 0; i < N_ELEMENTS(wrong); i++) {
        assert_fails(domain_merge(wrong[i], THEN, THEN, &xml, &err), err, ERROR_PROTOCOL);
        assert_fails(domain_merge(HOME, wrong[i], THEN, &xml, &err), err, ERROR_PROTOCOL);
        assert_fails(domain_merge(HOME, THEN, wrong[i], &xml, &err), err, ERROR_PROTOCOL);
    }
}

int
main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_nobody_changed_is_as_it_was_at_home),
        cmocka_unit_test(what_the_operator_changed_comes_along),
        cmocka_unit_test(what_the_operator_added_comes_along),
        cmocka_unit_test(what_the_operator_removed_is_removed),
        cmocka_unit_test(where_disks_lie_is_not_taken_over),
        cmocka_unit_test(texts_are_escaped),
        cmocka_unit_test(what_is_no_definition_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
