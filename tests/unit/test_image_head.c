/* What images tell of themselves, against what qemu-img tells of them. */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/hypervisor/image_head.h"

static char folder[] = "/tmp/vdr-head-XXXXXX";

/* The output of a command of the shell, run in the folder: a number, or nothing. */
static uint64_t
number_of(const char *command)
{
    AUTOFREE(char) *line = mem_printf("cd '%s' && %s", folder, command);
    FILE *f = popen(line, "r");
    unsigned long long n = 0;

    assert_non_null(f);
    if (fscanf(f, "%llu", &n) != 1)
        n = 0;
    assert_int_equal(pclose(f), 0);
    return n;
}

static uint64_t
capacity_by_qemu(const char *format)
{
    AUTOFREE(char) *command =
        mem_printf("qemu-img info -f %s --output json image | "
                   "sed -n 's/.*\"virtual-size\": \\([0-9]*\\).*/\\1/p' | head -n 1",
                   format);

    return number_of(command);
}

static struct image_head
head_of(const char *format)
{
    AUTOFREE(char) *path = mem_printf("%s/image", folder);
    struct image_head head = { .qcow2_version = 99, .capacity_bytes = 99 };

    assert_true(image_head_read(path, format, &head));
    return head;
}

static void
is_as_qemu_sees_it(const char *command, const char *format, uint32_t version)
{
    number_of(command);
    assert_int_equal(head_of(format).qcow2_version, version);
    assert_true(head_of(format).capacity_bytes > 0);
    assert_int_equal(head_of(format).capacity_bytes, capacity_by_qemu(format));
}

static void
a_qcow2_image_tells_its_version_and_what_a_guest_sees(void **state UNUSED)
{
    is_as_qemu_sees_it("qemu-img create -q -f qcow2 -o compat=1.1 image 67109376",
                       "qcow2", 3);
    is_as_qemu_sees_it("qemu-img create -q -f qcow2 -o compat=0.10 image 3T", "qcow2", 2);
    is_as_qemu_sees_it("qemu-img resize -q -f qcow2 image +1G", "qcow2", 2);
    /* Not LUKS: qemu-img times its key derivation, and gives up on a busy machine. */
    is_as_qemu_sees_it("qemu-img create -q -f qcow2 --object secret,id=s,data=x -o "
                       "encrypt.format=aes,encrypt.key-secret=s image 8M",
                       "qcow2", 3);
}

static void
a_raw_image_is_as_long_as_its_file_in_whole_sectors(void **state UNUSED)
{
    is_as_qemu_sees_it("rm -f image; truncate -s 67109376 image", "raw", 0);
    is_as_qemu_sees_it("truncate -s 1000001 image", "raw", 0);
}

static void
what_is_no_image_tells_nothing(void **state UNUSED)
{
    AUTOFREE(char) *path = mem_printf("%s/image", folder);
    struct image_head head = { .qcow2_version = 99 };

    number_of("rm -f image; head -c 100 /dev/zero >image");
    assert_int_equal(head_of("qcow2").qcow2_version, 0);
    assert_int_equal(head_of("qcow2").capacity_bytes, 0);
    assert_false(image_head_read(path, "vmdk", &head));
    number_of("truncate -s 31 image");
    assert_false(image_head_read(path, "qcow2", &head));
    assert_false(image_head_read("/nonexistent/image", "raw", &head));
    assert_int_equal(head.qcow2_version, 99);
}

static int
set_up(void **state UNUSED)
{
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int
tear_down(void **state UNUSED)
{
    AUTOFREE(char) *path = mem_printf("%s/image", folder);

    unlink(path);
    return rmdir(folder);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_qcow2_image_tells_its_version_and_what_a_guest_sees),
        cmocka_unit_test(a_raw_image_is_as_long_as_its_file_in_whole_sectors),
        cmocka_unit_test(what_is_no_image_tells_nothing),
    };

    return cmocka_run_group_tests_name("image head", tests, set_up, tear_down);
}
