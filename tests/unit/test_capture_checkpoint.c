/*
 * The reader against a real qemu-nbd, and what is written for libvirt. The whole
 * capture with a real libvirtd is in tests/system/capture_check.c.
 */
#include "tests/unit/unit.h"

#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/units.h"
#include "drivers/capture/backup_job.h"
#include "drivers/capture/nbd_reader.h"
#include "drivers/capture/scratch_files.h"

#define DISK_BYTES (40u << 20)
#define UUID       "0b1c2d3e-0000-4000-8000-000000000001"

extern char **environ;

static struct {
    char folder[32];
    char *image;
    char *socket;
    pid_t server;
    uint8_t *model;
    uint8_t *copy;
    uint8_t *covered;
    uint64_t data_bytes;
} w;

static pid_t
spawn(const char *const *argv)
{
    pid_t pid;

    assert_int_equal(
        posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *)argv, environ), 0);
    return pid;
}

static void
run(const char *const *argv)
{
    pid_t pid = spawn(argv);
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

#define RUN(...) run((const char *const[]){ __VA_ARGS__, NULL })

static bool
data(void *opaque UNUSED, size_t disk, uint64_t offset, const void *bytes, size_t length,
     struct error **err UNUSED)
{
    assert_int_equal(disk, 3);
    assert_true(length <= CAPTURE_MAX_REQUEST && offset + length <= DISK_BYTES);
    memcpy(w.copy + offset, bytes, length);
    for (size_t i = 0; i < length; i++)
        assert_int_equal(w.covered[offset + i]++, 0);
    w.data_bytes += length;
    return true;
}

static bool
zero(void *opaque UNUSED, size_t disk UNUSED, uint64_t offset, uint64_t length,
     struct error **err UNUSED)
{
    assert_true(offset + length <= DISK_BYTES);
    memset(w.copy + offset, 0, length);
    for (size_t i = 0; i < length; i++)
        assert_int_equal(w.covered[offset + i]++, 0);
    return true;
}

static const struct capture_sink sink = { data, zero, NULL };

static void
fresh(void)
{
    memset(w.copy, 0xff, DISK_BYTES);
    memset(w.covered, 0, DISK_BYTES);
    w.data_bytes = 0;
}

static void
write_image(const char *command)
{
    RUN("qemu-io", "-f", "qcow2", "-c", command, w.image);
}

static int
set_up(void **state UNUSED)
{
    memcpy(w.folder, "/tmp/vdr-reader-XXXXXX", sizeof "/tmp/vdr-reader-XXXXXX");
    assert_non_null(mkdtemp(w.folder));
    w.image = mem_printf("%s/image", w.folder);
    w.socket = mem_printf("%s/sock", w.folder);
    w.model = mem_alloc(1, DISK_BYTES);
    w.copy = mem_alloc(1, DISK_BYTES);
    w.covered = mem_alloc(1, DISK_BYTES);
    RUN("qemu-img", "create", "-q", "-f", "qcow2", w.image, "40M");
    write_image("write -q -P 17 1048576 33554432");
    memset(w.model + (1 << 20), 17, 32 << 20);
    RUN("qemu-img", "bitmap", "--add", w.image, "b");
    write_image("write -q -P 18 4194304 65536");
    memset(w.model + (4 << 20), 18, 65536);
    write_image("discard -q 8388608 4194304");
    memset(w.model + (8 << 20), 0, 4 << 20);
    w.server = spawn((const char *const[]){ "qemu-nbd", "-t", "-r", "-e", "8", "-f",
                                            "qcow2", "-x", "vda", "-B", "b", "-k",
                                            w.socket, w.image, NULL });
    for (int64_t until_ms = units_monotonic_ms() + 10000;
         access(w.socket, F_OK) < 0 && units_monotonic_ms() < until_ms;)
        poll(NULL, 0, 5);
    return 0;
}

static int
tear_down(void **state UNUSED)
{
    kill(w.server, SIGKILL);
    waitpid(w.server, NULL, 0);
    unlink(w.image);
    unlink(w.socket);
    rmdir(w.folder);
    free(w.image);
    free(w.socket);
    free(w.model);
    free(w.copy);
    free(w.covered);
    return 0;
}

static void
a_whole_disk_is_read_with_its_holes_as_zeroes(void **state UNUSED)
{
    AUTOPTR(nbd_reader) *r = nbd_reader_new(w.socket, "vda", NULL, NULL);
    struct error *err = NULL;
    uint64_t size = 0, bytes = 0;

    fresh();
    assert_ok(nbd_reader_size(r, &size, &err), err);
    assert_int_equal(size, DISK_BYTES);
    assert_ok(nbd_reader_measure(r, 0, UINT64_MAX, &bytes, &err), err);
    assert_int_equal(bytes, 28 << 20);
    assert_ok(nbd_reader_read(r, 3, 0, UINT64_MAX, &sink, &err), err);
    assert_int_equal(w.data_bytes, bytes);
    assert_memory_equal(w.copy, w.model, DISK_BYTES);
}

static void
a_slice_is_read_and_no_more(void **state UNUSED)
{
    AUTOPTR(nbd_reader) *r = nbd_reader_new(w.socket, "vda", NULL, NULL);
    const size_t from = (3 << 20) + 777, to = (9 << 20) + 1;
    struct error *err = NULL;

    fresh();
    assert_ok(nbd_reader_read(r, 3, from, to, &sink, &err), err);
    assert_memory_equal(w.copy + from, w.model + from, to - from);
    assert_int_equal(w.covered[from - 1], 0);
    assert_int_equal(w.covered[to], 0);
    assert_ok(nbd_reader_read(r, 3, DISK_BYTES, UINT64_MAX, &sink, &err), err);
}

static void
only_what_the_bitmap_has_is_read_and_discards_are_zeroes(void **state UNUSED)
{
    AUTOPTR(nbd_reader) *r = nbd_reader_new(w.socket, "vda", "b", NULL);
    struct error *err = NULL;
    uint64_t bytes = 0;

    fresh();
    assert_ok(nbd_reader_measure(r, 0, UINT64_MAX, &bytes, &err), err);
    assert_int_equal(bytes, 65536);
    assert_ok(nbd_reader_read(r, 3, 0, UINT64_MAX, &sink, &err), err);
    assert_int_equal(w.data_bytes, 65536);
    assert_memory_equal(w.copy + (4 << 20), w.model + (4 << 20), 65536);
    assert_memory_equal(w.copy + (8 << 20), w.model + (8 << 20), 4 << 20);
    assert_int_equal(w.covered[0], 0);
    assert_int_equal(w.covered[(12 << 20)], 0);
}

static void
an_export_or_bitmap_that_is_missing_is_an_error(void **state UNUSED)
{
    AUTOPTR(nbd_reader) *nowhere = nbd_reader_new("/nonexistent/s", "vda", NULL, NULL);
    AUTOPTR(nbd_reader) *other = nbd_reader_new(w.socket, "vdz", NULL, NULL);
    AUTOPTR(nbd_reader) *no_bitmap = nbd_reader_new(w.socket, "vda", "none", NULL);
    struct error *err = NULL;
    uint64_t size;

    assert_fails(nbd_reader_size(nowhere, &size, &err), err, ERROR_HYPERVISOR);
    assert_fails(nbd_reader_size(other, &size, &err), err, ERROR_HYPERVISOR);
    assert_fails(nbd_reader_size(no_bitmap, &size, &err), err, ERROR_HYPERVISOR);
}

static void
a_server_that_stands_still_is_left_when_the_deadline_comes(void **state UNUSED)
{
    struct cancel cancel = { 0 };
    AUTOPTR(nbd_reader) *r = nbd_reader_new(w.socket, "vda", NULL, &cancel);
    struct error *err = NULL;
    uint64_t size;
    bool ok;

    assert_ok(nbd_reader_size(r, &size, &err), err);
    kill(w.server, SIGSTOP);
    cancel_set_timeout(&cancel, 300);
    ok = nbd_reader_read(r, 3, 0, UINT64_MAX, &sink, &err);
    kill(w.server, SIGCONT);
    assert_fails(ok, err, ERROR_TIMEOUT);
    cancel_set_timeout(&cancel, 0);
    fresh();
    assert_ok(nbd_reader_read(r, 3, 0, UINT64_MAX, &sink, &err), err);
    assert_memory_equal(w.copy, w.model, DISK_BYTES);
}

static void
each_disk_is_named_in_what_libvirt_gets(void **state UNUSED)
{
    const struct capture_disk disks[] = { { "vda", false }, { "vdc", true } };
    struct hv_disk all[] = { { .target = (char *)(uintptr_t) "vda" },
                             { .target = (char *)(uintptr_t) "vdb" },
                             { .target = (char *)(uintptr_t) "vdc" } };
    const struct capture_request r = { .uuid = UUID,
                                       .disks = disks,
                                       .n_disks = 2,
                                       .base = "p1",
                                       .name = "p2",
                                       .scratch_folder = "/s & t",
                                       .scratch_limit_bytes = 1 };
    AUTOFREE(char) *backup = NULL;
    AUTOFREE(char) *checkpoint = NULL;
    struct error *err = NULL;

    assert_ok(backup_job_define(&r, "/s & t/x", all, 3, &backup, &checkpoint, &err), err);
    assert_non_null(strstr(backup, "socket=\"/s &amp; t/x\""));
    assert_non_null(strstr(backup, "backupmode=\"incremental\" incremental=\"p1\""));
    assert_non_null(strstr(backup, "exportname=\"vdc\" backupmode=\"full\""));
    assert_non_null(strstr(backup, "name=\"vdb\" backup=\"no\""));
    assert_non_null(strstr(checkpoint, "<name>p2</name>"));
    assert_non_null(strstr(checkpoint, "name=\"vdb\" checkpoint=\"no\""));
    assert_non_null(strstr(checkpoint, "name=\"vdc\" checkpoint=\"bitmap\""));
}

static void
only_our_files_of_the_domain_are_removed(void **state UNUSED)
{
    static const struct {
        const char *name;
        bool ours;
    } rows[] = { { UUID ".sock", true },
                 { UUID "-vda.scratch", true },
                 { UUID ".qcow2", false },
                 { UUID "-vda.qcow2", false },
                 { "0b1c2d3e-0000-4000-8000-000000000002-vda.scratch", false } };
    char folder[] = "/tmp/vdr-files-XXXXXX";
    struct error *err = NULL;

    assert_non_null(mkdtemp(folder));
    for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
        AUTOFREE(char) *path = mem_printf("%s/%s", folder, rows[i].name);
        FILE *f = fopen(path, "w");

        assert_non_null(f);
        fclose(f);
    }
    assert_ok(scratch_files_remove(folder, UUID, &err), err);
    for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
        AUTOFREE(char) *path = mem_printf("%s/%s", folder, rows[i].name);

        assert_int_equal(unlink(path) == 0, !rows[i].ours);
    }
    rmdir(folder);
    assert_ok(scratch_files_remove(folder, UUID, &err), err);
}

static void
a_folder_too_long_for_a_socket_is_refused(void **state UNUSED)
{
    char folder[100];
    char *path = NULL;
    struct error *err = NULL;

    memset(folder, 'x', sizeof folder - 1);
    folder[sizeof folder - 1] = '\0';
    assert_fails(scratch_files_socket(folder, UUID, &path, &err), err, ERROR_CONFIG);
    folder[60] = '\0';
    assert_ok(scratch_files_socket(folder, UUID, &path, &err), err);
    free(path);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_disk_is_read_with_its_holes_as_zeroes),
        cmocka_unit_test(a_slice_is_read_and_no_more),
        cmocka_unit_test(only_what_the_bitmap_has_is_read_and_discards_are_zeroes),
        cmocka_unit_test(an_export_or_bitmap_that_is_missing_is_an_error),
        cmocka_unit_test(a_server_that_stands_still_is_left_when_the_deadline_comes),
        cmocka_unit_test(each_disk_is_named_in_what_libvirt_gets),
        cmocka_unit_test(only_our_files_of_the_domain_are_removed),
        cmocka_unit_test(a_folder_too_long_for_a_socket_is_refused),
    };

    return cmocka_run_group_tests_name("capture_checkpoint", tests, set_up, tear_down);
}
