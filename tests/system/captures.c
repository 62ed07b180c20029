#include "tests/system/captures.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>

#include <libvirt/libvirt-qemu.h>

#include "common/units.h"

#define START_MS 30000

static void
qemu_io(unsigned disk, const char *command)
{
    AUTOFREE(char) *line =
        mem_printf("qemu-io -d /machine/peripheral/virtio-disk%u/virtio-backend \"%s\"",
                   disk, command);
    AUTOFREE(char) *reply = NULL;
    virConnectPtr c;
    virDomainPtr d = world_domain(&c);

    assert_int_equal(
        virDomainQemuMonitorCommand(d, line, &reply, VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP),
        0);
    assert_null(strstr(reply, "rror"));
    virDomainFree(d);
    virConnectClose(c);
}

void
captures_write(unsigned disk, uint8_t pattern, size_t offset, size_t length)
{
    AUTOFREE(char) *command =
        mem_printf("write -P %u %zu %zu", (unsigned)pattern, offset, length);

    qemu_io(disk, command);
    memset(w.model[disk] + offset, pattern, length);
}

void
captures_discard(unsigned disk, size_t offset, size_t length)
{
    AUTOFREE(char) *command = mem_printf("discard %zu %zu", offset, length);

    qemu_io(disk, command);
    memset(w.model[disk] + offset, 0, length);
}

static void
cover(size_t disk, uint64_t offset, uint64_t length)
{
    assert_true(offset + length <= DISK_BYTES);
    for (uint64_t i = offset; i < offset + length; i++)
        assert_int_equal(w.covered[disk][i]++, 0);
}

static bool
sink_data(void *opaque UNUSED, size_t disk, uint64_t offset, const void *data,
          size_t length, struct error **err UNUSED)
{
    assert_in_range(length, 1, CAPTURE_MAX_REQUEST);
    cover(disk, offset, length);
    memcpy(w.copy[disk] + offset, data, length);
    w.data_bytes += length;
    return true;
}

static bool
sink_zero(void *opaque UNUSED, size_t disk, uint64_t offset, uint64_t length,
          struct error **err UNUSED)
{
    cover(disk, offset, length);
    memset(w.copy[disk] + offset, 0, length);
    return true;
}

const struct capture_sink captures_sink = { sink_data, sink_zero, NULL };

char *
captures_name(void)
{
    return mem_printf("vdr-check-%u-%lld", w.sequence++, (long long)units_now_ms());
}

struct capture_request
captures_request(const struct capture_disk *disks, size_t n, const char *base,
                 const char *name)
{
    return (struct capture_request){ .uuid = UUID,
                                     .disks = disks,
                                     .n_disks = n,
                                     .base = base,
                                     .name = name,
                                     .scratch_folder = SCRATCH,
                                     .scratch_limit_bytes = 1ull << 30 };
}

const struct capture_disk captures_both[2] = { { "vda", false }, { "vdb", false } };

void
captures_read_all(struct capture *c, size_t n_disks)
{
    struct error *err = NULL;

    w.data_bytes = 0;
    for (size_t i = 0; i < n_disks; i++) {
        uint64_t capacity = 0, measured = 0, before = w.data_bytes;

        memset(w.covered[i], 0, DISK_BYTES);
        assert_ok(c->driver->ops->capacity(c, i, &capacity, &err), err);
        assert_int_equal(capacity, DISK_BYTES);
        assert_ok(c->driver->ops->measure(c, i, 0, UINT64_MAX, &measured, &err), err);
        assert_ok(c->driver->ops->read(c, i, 0, UINT64_MAX, &captures_sink, &err), err);
        assert_true(w.data_bytes - before <= measured);
    }
}

struct capture *
captures_begin(const struct capture_disk *disks, size_t n, const char *base,
               const char *name)
{
    struct capture_request request = captures_request(disks, n, base, name);
    struct error *err = NULL;
    struct capture *c = NULL;
    int64_t before_ms = units_now_ms(), time_ms = 0;

    assert_ok(w.driver->ops->begin(w.driver, &request, &c, &time_ms, &err), err);
    assert_in_range(time_ms, before_ms, units_now_ms());
    return c;
}

void
captures_take(const struct capture_disk *disks, size_t n, const char *base,
              const char *name)
{
    struct error *err = NULL;
    struct capture *c = captures_begin(disks, n, base, name);

    captures_read_all(c, n);
    assert_ok(w.driver->ops->end(c, &err), err);
}

void
captures_assert_same(unsigned disk)
{
    for (size_t i = 0; i < DISK_BYTES; i += 4096)
        if (memcmp(w.model[disk] + i, w.copy[disk] + i, 4096) != 0)
            fail_msg("disk %u differs at %zu", disk, i);
}

uint64_t
captures_changed(const char *name)
{
    struct error *err = NULL;
    uint64_t bytes = 0;

    assert_ok(
        w.driver->ops->changed(w.driver, UUID, name, captures_both, 2, &bytes, &err),
        err);
    return bytes;
}

void
captures_forget(const char *name)
{
    struct error *err = NULL;

    assert_ok(w.driver->ops->forget(w.driver, UUID, name, &err), err);
}

size_t
captures_files(const char *folder)
{
    DIR *dir = opendir(folder);
    size_t n = 0;

    assert_non_null(dir);
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir))
        n += e->d_name[0] != '.';
    closedir(dir);
    return n;
}

/* --- captures ------------------------------------------------------------------- */

void
a_full_capture_holds_both_disks(void **state UNUSED)
{
    captures_write(0, 0x55, 0, 128 << 10);
    captures_write(0, 0x56, (5 << 20) + 4096, 3 << 20);
    captures_write(1, 0x57, DISK_BYTES - 4096, 4096);
    memset(w.copy[0], 0xff, DISK_BYTES);
    memset(w.copy[1], 0xff, DISK_BYTES);
    captures_take(captures_both, 2, NULL, NULL);
    captures_assert_same(0);
    captures_assert_same(1);
    assert_true(w.data_bytes < 8u << 20);
    assert_int_equal(captures_files(SCRATCH), 0);
}

void
slices_together_are_the_disk(void **state UNUSED)
{
    const size_t cut[] = { 0, (5 << 20) + 12345, 40 << 20, DISK_BYTES };
    struct error *err = NULL;

    memset(w.copy[0], 0xff, DISK_BYTES);
    memset(w.covered[0], 0, DISK_BYTES);
    for (size_t i = 0; i + 1 < N_ELEMENTS(cut); i++) {
        struct capture *c = captures_begin(captures_both, 1, NULL, NULL);

        assert_ok(w.driver->ops->read(c, 0, cut[i], cut[i + 1], &captures_sink, &err),
                  err);
        assert_ok(w.driver->ops->end(c, &err), err);
    }
    for (size_t i = 0; i < DISK_BYTES; i++)
        assert_int_equal(w.covered[0][i], 1);
    captures_assert_same(0);
}

void
an_incremental_holds_what_changed_and_no_more(void **state UNUSED)
{
    AUTOFREE(char) *one = captures_name(), *two = captures_name();

    captures_take(captures_both, 2, NULL, one);
    assert_int_equal(captures_changed(one), 0);
    captures_write(0, 0x61, 10 << 20, 4096);
    captures_write(1, 0x62, 20 << 20, 2 << 20);
    assert_in_range(captures_changed(one), (2 << 20) + 4096, (2 << 20) + (256 << 10));
    captures_take(captures_both, 2, one, two);
    captures_assert_same(0);
    captures_assert_same(1);
    assert_in_range(w.data_bytes, (2 << 20) + 4096, (2 << 20) + (256 << 10));
    captures_forget(one);
    captures_forget(two);
    captures_forget(two);
}

/* What did not change since the base too, and nothing of what came after it. */
void
the_content_of_an_incremental_is_all_of_the_disk_at_its_moment(void **state UNUSED)
{
    AUTOFREE(char) *one = captures_name();
    AUTOFREE(uint8_t) *then = NULL;
    struct error *err = NULL;
    struct capture *c;

    captures_take(captures_both, 2, NULL, one);
    captures_write(0, 0x65, 30 << 20, 65536);
    c = captures_begin(captures_both, 2, one, NULL);
    then = (uint8_t *)mem_memdup(w.model[0], DISK_BYTES);
    captures_write(0, 0x66, 31 << 20, 65536);
    captures_write(0, 0x67, 1 << 20, 4096);
    memset(w.copy[0], 0xff, DISK_BYTES);
    memset(w.covered[0], 0, DISK_BYTES);
    assert_ok(c->driver->ops->content(c, 0, 0, 20 << 20, &captures_sink, &err), err);
    assert_ok(c->driver->ops->content(c, 0, 20 << 20, DISK_BYTES, &captures_sink, &err),
              err);
    assert_memory_equal(w.copy[0], then, DISK_BYTES);
    for (size_t i = 0; i < DISK_BYTES; i++)
        assert_int_equal(w.covered[0][i], 1);
    assert_ok(w.driver->ops->end(c, &err), err);
    captures_forget(one);
}

void
a_discard_arrives_as_zeroes(void **state UNUSED)
{
    AUTOFREE(char) *one = captures_name();

    captures_write(0, 0x71, 16 << 20, 8 << 20);
    captures_take(captures_both, 2, NULL, one);
    captures_discard(0, 16 << 20, 8 << 20);
    captures_take(captures_both, 2, one, NULL);
    captures_assert_same(0);
    assert_int_equal(w.data_bytes, 0);
    assert_int_equal(w.covered[0][20 << 20], 1);
    captures_forget(one);
}

void
a_new_disk_comes_whole_beside_an_incremental(void **state UNUSED)
{
    static const struct capture_disk later[2] = { { "vda", false }, { "vdb", true } };
    AUTOFREE(char) *one = captures_name(), *two = captures_name();

    captures_take(captures_both, 1, NULL, one);
    captures_write(0, 0x81, 0, 65536);
    memset(w.copy[1], 0xff, DISK_BYTES);
    captures_take(later, 2, one, two);
    captures_assert_same(0);
    captures_assert_same(1);
    captures_forget(one);
    captures_write(1, 0x82, 65536, 65536);
    captures_take(captures_both, 2, two, NULL);
    captures_assert_same(1);
    captures_forget(two);
}

void
I1_a_pending_point_that_is_forgotten_loses_nothing(void **state UNUSED)
{
    AUTOFREE(char) *base = captures_name(), *pending = captures_name(),
                   *again = captures_name();
    struct error *err = NULL;
    struct capture *c;

    captures_take(captures_both, 2, NULL, base);
    captures_write(0, 0x91, 30 << 20, 65536);
    c = captures_begin(captures_both, 2, base,
                       pending); /* shipped, but never acknowledged */
    assert_ok(w.driver->ops->end(c, &err), err);
    captures_write(0, 0x92, 31 << 20, 65536);
    captures_forget(pending);
    captures_take(captures_both, 2, base, again);
    captures_assert_same(0);
    captures_forget(base);
    captures_write(0, 0x93, 32 << 20, 65536);
    captures_take(captures_both, 2, again, NULL);
    captures_assert_same(0);
    assert_int_equal(w.data_bytes, 65536);
    captures_forget(again);
}

/* --- trouble -------------------------------------------------------------------- */

static const char foreign_backup[] =
    "<domainbackup mode='pull'><server transport='unix' socket='" FOLDER "/other.sock'/>"
    "<disks><disk name='vda' backup='yes' type='file'><scratch file='" FOLDER
    "/other.scratch'/></disk></disks></domainbackup>";

void
the_job_of_another_is_left_alone(void **state UNUSED)
{
    struct capture_request request = captures_request(captures_both, 2, NULL, NULL);
    struct error *err = NULL;
    struct capture *c = NULL;
    virConnectPtr connection;
    virDomainPtr d = world_domain(&connection);
    int64_t time_ms, before_ms = units_monotonic_ms();
    virDomainJobInfo info;

    assert_int_equal(virDomainBackupBegin(d, foreign_backup, NULL, 0), 0);
    assert_fails(w.driver->ops->begin(w.driver, &request, &c, &time_ms, &err), err,
                 ERROR_JOB_BUSY);
    assert_true(units_monotonic_ms() - before_ms < 5000);
    assert_ok(w.driver->ops->recover(w.driver, UUID, SCRATCH, &err), err);
    assert_int_equal(virDomainGetJobInfo(d, &info), 0);
    assert_int_not_equal(info.type, VIR_DOMAIN_JOB_NONE);
    assert_int_equal(virDomainAbortJob(d), 0);
    do
        assert_int_equal(virDomainGetJobInfo(d, &info), 0);
    while (info.type != VIR_DOMAIN_JOB_NONE);
    virDomainFree(d);
    virConnectClose(connection);
}

void
an_abandoned_capture_is_recovered(void **state UNUSED)
{
    struct error *err = NULL;
    struct capture *c = captures_begin(captures_both, 2, NULL, NULL);

    assert_true(captures_files(SCRATCH) >= 2);
    assert_ok(w.driver->ops->recover(w.driver, UUID, SCRATCH, &err), err);
    assert_int_equal(captures_files(SCRATCH), 0);
    assert_ok(w.driver->ops->recover(w.driver, UUID, SCRATCH, &err), err);
    assert_fails(w.driver->ops->end(c, &err), err, ERROR_INVALID_STATE);
}

void
a_cancelled_read_stops_and_ends_cleanly(void **state UNUSED)
{
    struct capture_request request = captures_request(captures_both, 2, NULL, NULL);
    struct cancel cancel = { 0 };
    struct error *err = NULL;
    struct capture *c = NULL;
    int64_t time_ms;

    request.cancel = &cancel;
    assert_ok(w.driver->ops->begin(w.driver, &request, &c, &time_ms, &err), err);
    cancel_request(&cancel);
    assert_fails(w.driver->ops->read(c, 0, 0, UINT64_MAX, &captures_sink, &err), err,
                 ERROR_CANCELLED);
    assert_ok(w.driver->ops->end(c, &err), err);
    assert_fails(w.driver->ops->begin(w.driver, &request, &c, &time_ms, &err), err,
                 ERROR_CANCELLED);
}

static bool
sink_refuses(void *opaque UNUSED, size_t disk UNUSED, uint64_t offset UNUSED,
             const void *data UNUSED, size_t length UNUSED, struct error **err)
{
    return error_set(err, ERROR_NO_SPACE, "the test refuses");
}

void
a_sink_that_fails_ends_the_read_which_can_be_repeated(void **state UNUSED)
{
    const struct capture_sink refusing = { sink_refuses, sink_zero, NULL };
    struct error *err = NULL;
    struct capture *c = captures_begin(captures_both, 2, NULL, NULL);

    memset(w.covered[0], 0, DISK_BYTES);
    assert_fails(w.driver->ops->read(c, 0, 0, UINT64_MAX, &refusing, &err), err,
                 ERROR_NO_SPACE);
    captures_read_all(c, 2);
    captures_assert_same(0);
    assert_ok(w.driver->ops->end(c, &err), err);
}

void
full_scratch_ends_the_capture_and_not_the_guest(void **state UNUSED)
{
    struct capture_request request = captures_request(captures_both, 2, NULL, NULL);
    struct error *err = NULL;
    struct capture *c = NULL;
    uint64_t capacity;
    int64_t time_ms, until_ms;
    bool ok = true;

    captures_write(0, 0xa1, 0, 16 << 20);
    request.scratch_limit_bytes = 4 << 20;
    assert_ok(w.driver->ops->begin(w.driver, &request, &c, &time_ms, &err), err);
    assert_ok(w.driver->ops->capacity(c, 0, &capacity, &err), err);
    captures_write(0, 0xa2, 0, 16 << 20);
    until_ms = units_monotonic_ms() + WAIT_MS;
    while (ok && units_monotonic_ms() < until_ms) {
        memset(w.covered[0], 0, DISK_BYTES);
        ok = w.driver->ops->read(c, 0, 0, UINT64_MAX, &captures_sink, &err);
    }
    assert_fails(ok, err, ERROR_SCRATCH_FULL);
    assert_fails(w.driver->ops->end(c, &err), err, ERROR_SCRATCH_FULL);
    assert_int_equal(captures_files(SCRATCH), 0);
    captures_write(0, 0xa3, 1 << 20, 65536);
    captures_take(captures_both, 2, NULL, NULL);
    captures_assert_same(0);
}

void
malformed_requests_are_refused(void **state UNUSED)
{
    static const struct capture_disk none[1] = { { "vdz", true } };
    struct capture_request request = captures_request(none, 1, NULL, NULL);
    struct error *err = NULL;
    struct capture *c = NULL;
    int64_t time_ms;

    assert_fails(w.driver->ops->begin(w.driver, &request, &c, &time_ms, &err), err,
                 ERROR_UNSUPPORTED_DISK);
    request = captures_request(captures_both, 2, NULL, "a<b");
    assert_fails(w.driver->ops->begin(w.driver, &request, &c, &time_ms, &err), err,
                 ERROR_USAGE);
    request = captures_request(captures_both, 2, "no-such-point", NULL);
    assert_fails(w.driver->ops->begin(w.driver, &request, &c, &time_ms, &err), err,
                 ERROR_CHECKPOINT_LOST);
    request.uuid = "00000000-0000-0000-0000-000000000001";
    assert_fails(w.driver->ops->begin(w.driver, &request, &c, &time_ms, &err), err,
                 ERROR_DOMAIN_NOT_FOUND);
}

/* --- the domain ends -------------------------------------------------------------- */

void
a_guest_that_ends_makes_its_capture_void(void **state UNUSED)
{
    unsigned before = w.stopped;
    struct error *err = NULL;
    struct capture *c = captures_begin(captures_both, 2, NULL, NULL);
    struct capture_request request = captures_request(captures_both, 2, NULL, NULL);
    int64_t time_ms;

    assert_ok(w.hv->ops->destroy(w.hv, UUID, &err), err);
    assert_ok(w.hv->ops->destroy(w.hv, UUID, &err), err);
    assert_true(world_reaches(&w.stopped, before + 1));
    assert_fails(w.driver->ops->read(c, 0, 0, UINT64_MAX, &captures_sink, &err), err,
                 ERROR_INVALID_STATE);
    assert_fails(w.driver->ops->end(c, &err), err, ERROR_INVALID_STATE);
    assert_fails(w.driver->ops->begin(w.driver, &request, &c, &time_ms, &err), err,
                 ERROR_INVALID_STATE);
    world_start();
}

void
a_bitmap_lost_in_a_crash_is_told(void **state UNUSED)
{
    AUTOFREE(char) *one = captures_name();
    struct capture_request request = captures_request(captures_both, 2, one, NULL);
    struct error *err = NULL;
    struct capture *c = NULL;
    uint64_t bytes;
    int64_t time_ms;

    captures_take(captures_both, 2, NULL, one);
    world_kill_qemu();
    world_start();
    assert_fails(
        w.driver->ops->changed(w.driver, UUID, one, captures_both, 2, &bytes, &err), err,
        ERROR_CHECKPOINT_LOST);
    assert_fails(w.driver->ops->begin(w.driver, &request, &c, &time_ms, &err), err,
                 ERROR_CHECKPOINT_LOST);
    captures_forget(one);
    captures_take(captures_both, 2, NULL, NULL);
}

/*
 * With the pid file of this host, as the usual one is all hosts'. Who was killed has it
 * until he is gone: a moment longer than his connections.
 */
static void
start_libvirtd(void)
{
    const char *const argv[] = { "libvirtd", "-d", "--pid-file",
                                 "/run/libvirt/libvirtd.pid", NULL };
    int64_t until_ms = units_monotonic_ms() + START_MS;

    while (world_run(argv) != 0) {
        assert_true(units_monotonic_ms() < until_ms);
        poll(NULL, 0, 100);
    }
}

void
a_restarted_libvirtd_is_found_again_with_the_capture_open(void **state UNUSED)
{
    unsigned lost = w.disconnected, connected = w.connected, stopped = w.stopped;
    struct error *err = NULL;
    struct hv_domain *d = NULL;
    struct capture *c = captures_begin(captures_both, 2, NULL, NULL);

    assert_int_equal(kill(world_libvirtd_pid(), SIGKILL), 0);
    assert_true(world_reaches(&w.disconnected, lost + 1));
    assert_fails(w.hv->ops->lookup(w.hv, NAME, &d, &err), err, ERROR_CONNECT);
    start_libvirtd();
    assert_true(world_reaches(&w.connected, connected + 1));
    assert_false(w.driver->ops->end(c, NULL));
    assert_ok(w.driver->ops->recover(w.driver, UUID, SCRATCH, &err), err);
    captures_take(captures_both, 2, NULL, NULL);
    captures_assert_same(0);
    assert_ok(w.hv->ops->destroy(w.hv, UUID, &err), err);
    assert_true(world_reaches(&w.stopped, stopped + 1));
    world_start();
}

void
the_copies_equal_the_images(void **state UNUSED)
{
    AUTOFREE(uint8_t) *raw = mem_alloc(1, DISK_BYTES);
    struct error *err = NULL;

    captures_take(captures_both, 2, NULL, NULL);
    assert_ok(w.hv->ops->destroy(w.hv, UUID, &err), err);
    for (unsigned i = 0; i < 2; i++) {
        AUTOFD(fd) = -1;

        RUN("qemu-img", "convert", "-f", w.settings->disks[i].format, "-O", "raw",
            w.paths[i], FOLDER "/raw");
        fd = open(FOLDER "/raw", O_RDONLY | O_CLOEXEC);
        assert_int_equal(read(fd, raw, DISK_BYTES), DISK_BYTES);
        assert_memory_equal(raw, w.copy[i], DISK_BYTES);
    }
}
