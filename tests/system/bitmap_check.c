/*
 * The bitmap capture against a real libvirtd and QEMU, over all kinds of disks;
 * run by test_bitmap.sh on a host of the lab.
 */
#include "tests/system/captures.h"

#include <libvirt/libvirt-qemu.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/units.h"
#include "drivers/capture/bitmap.h"
#include "drivers/capture/checkpoint.h"
#include "drivers/capture/offline.h"
#include "tests/system/bitmap_kills.h"

#define GRAIN 4096

/* What QEMU answers to a command; the caller frees it. */
static char *
ask(const char *command)
{
    virConnectPtr connection;
    virDomainPtr d = world_domain(&connection);
    char *reply = NULL;

    assert_int_equal(virDomainQemuMonitorCommand(d, command, &reply, 0), 0);
    virDomainFree(d);
    virConnectClose(connection);
    return reply;
}

static void
do_it(const char *command)
{
    AUTOFREE(char) *reply = ask(command);

    assert_null(strstr(reply, "\"error\""));
}

static void
assert_nothing_of_ours_is_open(void)
{
    AUTOFREE(char) *nodes = ask("{\"execute\":\"query-named-block-nodes\"}");
    AUTOFREE(char) *jobs = ask("{\"execute\":\"query-jobs\"}");
    AUTOFREE(char) *exports = ask("{\"execute\":\"query-block-exports\"}");

    assert_null(strstr(nodes, "virtdr-"));
    assert_null(strstr(jobs, "virtdr-"));
    assert_null(strstr(exports, "virtdr-"));
    assert_int_equal(captures_files(SCRATCH), 0);
}

static void
assert_no_bitmap_is_left(void)
{
    AUTOFREE(char) *nodes = ask("{\"execute\":\"query-named-block-nodes\"}");

    assert_null(strstr(nodes, "vdr-check-"));
}

/* --- what it is there for ----------------------------------------------------------- */

static void
a_delta_is_exact_to_the_4_KiB_block(void **state UNUSED)
{
    AUTOFREE(char) *one = captures_name(), *two = captures_name();

    captures_take(captures_both, 2, NULL, one);
    for (unsigned i = 0; i < 200; i++) /* each in a 64 KiB cluster of its own */
        captures_write(i % 2, (uint8_t)(i + 1), (size_t)i * 5 * 65536 + 3 * GRAIN, GRAIN);
    assert_int_equal(captures_changed(one), 200 * GRAIN);
    captures_take(captures_both, 2, one, two);
    captures_assert_same(0);
    captures_assert_same(1);
    assert_int_equal(w.data_bytes, 200 * GRAIN);
    assert_int_equal(captures_changed(two), 0);
    captures_forget(one);
    captures_forget(two);
    assert_nothing_of_ours_is_open();
    assert_no_bitmap_is_left();
}

static void
what_the_guest_writes_during_a_capture_is_in_the_next(void **state UNUSED)
{
    AUTOFREE(char) *one = captures_name(), *two = captures_name();
    struct error *err = NULL;
    struct capture *c;

    captures_write(0, 0x31, 0, 8 << 20);
    captures_write(1, 0x32, 0, 8 << 20);
    c = captures_begin(captures_both, 2, NULL, one);
    for (unsigned i = 0; i < 64; i++) {
        AUTOFREE(uint8_t) *before = mem_alloc(1, GRAIN);

        memcpy(before, w.model[i % 2] + (size_t)i * 65536, GRAIN);
        captures_write(i % 2, 0x33, (size_t)i * 65536, GRAIN);
        memcpy(w.model[i % 2] + (size_t)i * 65536, before, GRAIN);
    }
    captures_read_all(c, 2);
    captures_assert_same(0);
    captures_assert_same(1);
    assert_ok(w.driver->ops->end(c, &err), err);
    for (unsigned i = 0; i < 64; i++)
        memset(w.model[i % 2] + (size_t)i * 65536, 0x33, GRAIN);
    captures_take(captures_both, 2, one, two);
    captures_assert_same(0);
    captures_assert_same(1);
    assert_int_equal(w.data_bytes, 64 * GRAIN);
    captures_forget(one);
    captures_forget(two);
}

/* --- others ------------------------------------------------------------------------- */

static bool
answers(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    AUTOFD(fd) = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(address.sun_path, path, strlen(path));
    return connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
}

static void
the_nbd_server_of_another_is_left_alone(void **state UNUSED)
{
    struct capture_request request = captures_request(captures_both, 2, NULL, NULL);
    struct error *err = NULL;
    struct capture *c = NULL;
    int64_t time_ms;

    do_it("{\"execute\":\"nbd-server-start\",\"arguments\":{\"addr\":{\"type\":\"unix\","
          "\"data\":{\"path\":\"" FOLDER "/foreign.sock\"}}}}");
    assert_fails(w.driver->ops->begin(w.driver, &request, &c, &time_ms, &err), err,
                 ERROR_JOB_BUSY);
    assert_ok(w.driver->ops->recover(w.driver, UUID, SCRATCH, &err), err);
    assert_true(answers(FOLDER "/foreign.sock"));
    assert_nothing_of_ours_is_open();
    do_it("{\"execute\":\"nbd-server-stop\"}");
    captures_take(captures_both, 2, NULL, NULL);
}

static void
the_block_job_of_another_is_left_alone(void **state UNUSED)
{
    struct capture_request request = captures_request(captures_both, 2, NULL, NULL);
    struct error *err = NULL;
    struct capture *c = NULL;
    uint64_t bytes;
    int64_t time_ms;
    AUTOFREE(char) *jobs = NULL;
    virConnectPtr connection;
    virDomainPtr d = world_domain(&connection);

    RUN("rm", "-f", FOLDER "/copy");
    assert_int_equal(virDomainBlockCopy(d, "vda",
                                        "<disk type='file'><driver type='qcow2'/>"
                                        "<source file='" FOLDER "/copy'/></disk>",
                                        NULL, 0, VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB),
                     0);
    assert_fails(w.driver->ops->begin(w.driver, &request, &c, &time_ms, &err), err,
                 ERROR_JOB_BUSY);
    assert_fails(
        w.driver->ops->changed(w.driver, UUID, "x", captures_both, 2, &bytes, &err), err,
        ERROR_JOB_BUSY);
    assert_ok(w.driver->ops->recover(w.driver, UUID, SCRATCH, &err), err);
    jobs = ask("{\"execute\":\"query-jobs\"}");
    assert_non_null(strstr(jobs, "\"mirror\""));
    assert_int_equal(virDomainBlockJobAbort(d, "vda", 0), 0);
    virDomainFree(d);
    virConnectClose(connection);
}

/* --- restarts and kills ---------------------------------------------------------------
 */

static void
a_clean_restart_of_the_guest_keeps_the_record(void **state UNUSED)
{
    AUTOFREE(char) *one = captures_name(), *two = captures_name();
    struct error *err = NULL;

    captures_take(captures_both, 2, NULL, one);
    captures_write(0, 0x41, 12 << 20, GRAIN);
    assert_ok(w.hv->ops->destroy(w.hv, UUID, &err), err);
    world_start();
    captures_write(1, 0x42, 13 << 20, GRAIN);
    assert_int_equal(captures_changed(one), 2 * GRAIN);
    captures_take(captures_both, 2, one, two);
    captures_assert_same(0);
    captures_assert_same(1);
    assert_int_equal(w.data_bytes, 2 * GRAIN);
    captures_forget(one);
    captures_forget(two);
}

static void
a_restart_of_the_guest_loses_the_record_and_says_so(void **state UNUSED)
{
    AUTOFREE(char) *one = captures_name();
    struct capture_request request = captures_request(captures_both, 2, one, NULL);
    struct error *err = NULL;
    struct capture *c = NULL;
    int64_t time_ms;

    captures_take(captures_both, 2, NULL, one);
    assert_ok(w.hv->ops->destroy(w.hv, UUID, &err), err);
    world_start();
    assert_fails(w.driver->ops->begin(w.driver, &request, &c, &time_ms, &err), err,
                 ERROR_CHECKPOINT_LOST);
    captures_forget(one);
}

/*
 * A process dies after its `at`-th command. Until it came to forget the base, the
 * base still has all that changed; from then on the new point has.
 */
static bool
survive_kill(unsigned at, const char *base)
{
    AUTOFREE(char) *pending = captures_name(), *next = captures_name();
    struct error *err = NULL;
    uint64_t bytes;
    bool died, has_base;

    captures_write(at % 2, (uint8_t)at, (size_t)at * GRAIN * 31, GRAIN);
    died = bitmap_kills_run(at, base, pending);
    captures_write(at % 2, (uint8_t)~at, (size_t)at * GRAIN * 37, GRAIN);
    assert_ok(w.driver->ops->recover(w.driver, UUID, SCRATCH, &err), err);
    assert_nothing_of_ours_is_open();
    has_base =
        w.driver->ops->changed(w.driver, UUID, base, captures_both, 2, &bytes, &err);
    if (has_base)
        captures_forget(pending);
    else
        assert_fails(has_base, err, ERROR_CHECKPOINT_LOST);
    if (!has_base) /* the process had read it all before it forgot the base */
        memcpy(w.copy[at % 2] + (size_t)at * GRAIN * 31,
               w.model[at % 2] + (size_t)at * GRAIN * 31, GRAIN);
    captures_take(captures_both, 2, has_base ? base : pending, next);
    captures_assert_same(0);
    captures_assert_same(1);
    captures_forget(base);
    captures_forget(pending);
    captures_forget(next);
    return died;
}

static void
I1_I6_a_kill_after_any_command_to_QEMU_loses_and_leaves_nothing(void **state UNUSED)
{
    unsigned at = 0;
    bool died;

    do {
        AUTOFREE(char) *base = captures_name();

        captures_take(captures_both, 2, NULL, base);
        died = survive_kill(++at, base);
    } while (died);
    print_message("# killed after each of %u commands\n", at - 1);
    assert_true(at > 15);
    assert_no_bitmap_is_left();
}

/* --- checkpoints and snapshots
 * ---------------------------------------------------------- */

static void
the_record_of_a_checkpoint_is_continued(void **state UNUSED)
{
    AUTOFREE(char) *one = captures_name(), *two = captures_name();
    struct capture_driver *bitmap = w.driver;
    struct error *err = NULL;

    assert_ok(capture_checkpoint_open(w.hv, &w.driver, &err), err);
    captures_take(captures_both, 2, NULL, one);
    captures_write(0, 0x51, 22 << 20, GRAIN);
    w.driver->ops->close(w.driver);
    w.driver = bitmap;
    captures_take(captures_both, 2, one, two);
    captures_assert_same(0);
    captures_assert_same(1);
    assert_ok(capture_checkpoint_open(w.hv, &w.driver, &err), err);
    captures_forget(one);
    w.driver->ops->close(w.driver);
    w.driver = bitmap;
    captures_forget(two);
    assert_no_bitmap_is_left();
}

static void
an_external_snapshot_continues_the_record(void **state UNUSED)
{
    AUTOFREE(char) *one = captures_name(), *two = captures_name();
    virConnectPtr connection;
    virDomainPtr d = world_domain(&connection);
    virDomainSnapshotPtr s;

    captures_take(captures_both, 2, NULL, one);
    captures_write(0, 0x61, 24 << 20, GRAIN);
    RUN("rm", "-f", FOLDER "/a.snap");
    s = virDomainSnapshotCreateXML(
        d,
        "<domainsnapshot><disks><disk name='vda' snapshot='external'>"
        "<source file='" FOLDER "/a.snap'/></disk><disk name='vdb' snapshot='no'/>"
        "<disk name='vdc' snapshot='no'/></disks></domainsnapshot>",
        VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA);
    assert_non_null(s);
    virDomainSnapshotFree(s);
    captures_write(0, 0x62, 25 << 20, GRAIN);
    assert_int_equal(captures_changed(one), 2 * GRAIN);
    captures_take(captures_both, 2, one, two);
    captures_assert_same(0);
    assert_int_equal(w.data_bytes, 2 * GRAIN);
    virDomainFree(d);
    virConnectClose(connection);
    captures_forget(one);
    captures_forget(two);
}

/* --- off
 * -------------------------------------------------------------------------------- */

static void
turn_off(void)
{
    unsigned before = w.stopped;
    struct error *err = NULL;

    assert_ok(w.hv->ops->destroy(w.hv, UUID, &err), err);
    assert_true(world_reaches(&w.stopped, before + 1));
}

/* The driver for the time that the domain is off; use_bitmap() goes back. */
static struct capture_driver *online;

static void
use_offline(void)
{
    struct error *err = NULL;

    online = w.driver;
    assert_ok(capture_offline_open(w.hv, &w.driver, &err), err);
}

static void
use_bitmap(void)
{
    w.driver->ops->close(w.driver);
    w.driver = online;
}

static void
what_was_written_last_is_read_from_the_images(void **state UNUSED)
{
    AUTOFREE(char) *one = captures_name(), *two = captures_name();
    bool keeps = w.settings->disks[0].compat != NULL;

    captures_take(captures_both, 2, NULL, one);
    captures_write(0, 0x71, 5 << 20, 3 * GRAIN);
    captures_write(1, 0x72, 6 << 20, GRAIN);
    turn_off();
    use_offline();
    if (keeps) {
        captures_take(captures_both, 2, one, two);
        assert_int_equal(w.data_bytes, 4 * GRAIN);
    } else {
        captures_take(captures_both, 2, NULL, two);
    }
    captures_assert_same(0);
    captures_assert_same(1);
    assert_int_equal(captures_files(SCRATCH), 0);
    use_bitmap();
    world_start();
    captures_write(0, 0x73, 7 << 20, GRAIN);
    if (keeps) {
        captures_take(captures_both, 2, one, NULL);
        captures_assert_same(0);
        assert_int_equal(w.data_bytes, 5 * GRAIN);
    }
    captures_forget(one);
}

static void
a_record_that_the_image_does_not_hold_is_told(void **state UNUSED)
{
    struct capture_request request = captures_request(captures_both, 2, "none", NULL);
    struct error *err = NULL;
    struct capture *c = NULL;
    int64_t time_ms;

    turn_off();
    use_offline();
    assert_fails(w.driver->ops->begin(w.driver, &request, &c, &time_ms, &err), err,
                 ERROR_CHECKPOINT_LOST);
    request.unchanged = true;
    assert_ok(w.driver->ops->begin(w.driver, &request, &c, &time_ms, &err), err);
    w.data_bytes = 0;
    assert_ok(w.driver->ops->read(c, 0, 0, UINT64_MAX, &captures_sink, &err), err);
    assert_int_equal(w.data_bytes, 0);
    memset(w.covered[1], 0, DISK_BYTES);
    assert_ok(w.driver->ops->content(c, 1, 0, UINT64_MAX, &captures_sink, &err), err);
    assert_true(w.data_bytes > 0);
    assert_ok(w.driver->ops->end(c, &err), err);
    use_bitmap();
    world_start();
}

static void
a_domain_that_starts_makes_its_capture_void(void **state UNUSED)
{
    struct capture_request request = captures_request(captures_both, 2, NULL, NULL);
    struct error *err = NULL;
    struct capture *c = NULL;
    int64_t time_ms;

    turn_off();
    use_offline();
    c = captures_begin(captures_both, 2, NULL, NULL);
    world_start(); /* nothing of ours keeps it from that */
    captures_write(0, 0x74, 9 << 20, GRAIN);
    captures_read_all(c, 2);
    assert_fails(w.driver->ops->end(c, &err), err, ERROR_INVALID_STATE);
    assert_fails(w.driver->ops->begin(w.driver, &request, &c, &time_ms, &err), err,
                 ERROR_INVALID_STATE);
    assert_int_equal(captures_files(SCRATCH), 0);
    use_bitmap();
}

static void
a_domain_that_ran_meanwhile_makes_its_capture_void_too(void **state UNUSED)
{
    struct error *err = NULL;
    struct capture *c;

    turn_off();
    use_offline();
    c = captures_begin(captures_both, 2, NULL, NULL);
    world_start();
    captures_write(0, 0x75, 9 << 20, GRAIN);
    turn_off();
    assert_fails(w.driver->ops->end(c, &err), err, ERROR_INVALID_STATE);
    use_bitmap();
    world_start();
}

static void
a_process_that_a_crash_left_is_ended(void **state UNUSED)
{
    struct error *err = NULL;
    struct capture *c;

    turn_off();
    use_offline();
    c = captures_begin(captures_both, 2, NULL, NULL);
    assert_int_equal(captures_files(SCRATCH), 1);
    assert_ok(w.driver->ops->recover(w.driver, UUID, SCRATCH, &err), err);
    assert_int_equal(captures_files(SCRATCH), 0);
    assert_ok(w.driver->ops->recover(w.driver, UUID, SCRATCH, &err), err);
    w.driver->ops->end(c, NULL);
    captures_take(captures_both, 2, NULL, NULL);
    captures_assert_same(0);
    use_bitmap();
    world_start();
}

/* --- all -------------------------------------------------------------------------------
 */

#define BITMAP_CASES                                                             \
    cmocka_unit_test(a_delta_is_exact_to_the_4_KiB_block),                       \
        cmocka_unit_test(what_the_guest_writes_during_a_capture_is_in_the_next), \
        cmocka_unit_test(the_nbd_server_of_another_is_left_alone),               \
        cmocka_unit_test(the_block_job_of_another_is_left_alone)

static int
run_qcow2(void)
{
    static const struct world_settings settings = {
        .open = capture_bitmap_open,
        .disks = { { "qcow2", "1.1", false }, { "qcow2", "1.1", false } },
        .iothread = true,
    };
    const struct CMUnitTest tests[] = {
        CAPTURES_CASES,
        BITMAP_CASES,
        cmocka_unit_test(a_clean_restart_of_the_guest_keeps_the_record),
        cmocka_unit_test(I1_I6_a_kill_after_any_command_to_QEMU_loses_and_leaves_nothing),
        cmocka_unit_test(the_copies_equal_the_images),
    };

    w.settings = &settings;
    return cmocka_run_group_tests_name("qcow2", tests, world_set_up, world_tear_down);
}

#define OFFLINE_CASES                                                             \
    cmocka_unit_test(what_was_written_last_is_read_from_the_images),              \
        cmocka_unit_test(a_record_that_the_image_does_not_hold_is_told),          \
        cmocka_unit_test(a_domain_that_starts_makes_its_capture_void),            \
        cmocka_unit_test(a_domain_that_ran_meanwhile_makes_its_capture_void_too), \
        cmocka_unit_test(a_process_that_a_crash_left_is_ended)

static int
run_offline(void)
{
    static const struct world_settings settings = {
        .open = capture_bitmap_open,
        .disks = { { "qcow2", "1.1", false }, { "qcow2", "1.1", false } },
    };
    const struct CMUnitTest tests[] = { OFFLINE_CASES };

    w.settings = &settings;
    return cmocka_run_group_tests_name("offline", tests, world_set_up, world_tear_down);
}

static int
run_offline_raw(void)
{
    static const struct world_settings settings = {
        .open = capture_bitmap_open,
        .disks = { { "raw", NULL, false }, { "raw", NULL, true } },
    };
    const struct CMUnitTest tests[] = { OFFLINE_CASES };

    w.settings = &settings;
    return cmocka_run_group_tests_name("offline-raw", tests, world_set_up,
                                       world_tear_down);
}

static int
run_snapshot(void)
{
    static const struct world_settings settings = {
        .open = capture_bitmap_open,
        .disks = { { "qcow2", "1.1", false }, { "qcow2", "1.1", false } },
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_record_of_a_checkpoint_is_continued),
        cmocka_unit_test(an_external_snapshot_continues_the_record),
    };

    w.settings = &settings;
    return cmocka_run_group_tests_name("snapshot", tests, world_set_up, world_tear_down);
}

static int
run_raw(void)
{
    static const struct world_settings settings = {
        .open = capture_bitmap_open,
        .disks = { { "raw", NULL, false }, { "raw", NULL, true } },
        .iothread = true,
    };
    const struct CMUnitTest tests[] = {
        CAPTURES_CASES,
        BITMAP_CASES,
        cmocka_unit_test(a_restart_of_the_guest_loses_the_record_and_says_so),
        cmocka_unit_test(the_copies_equal_the_images),
    };

    w.settings = &settings;
    return cmocka_run_group_tests_name("raw-block", tests, world_set_up, world_tear_down);
}

static int
run_old(void)
{
    static const struct world_settings settings = {
        .open = capture_bitmap_open,
        .disks = { { "qcow2", "0.10", false }, { "raw", NULL, false } },
        .iothread = true,
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_capture_holds_both_disks),
        cmocka_unit_test(an_incremental_holds_what_changed_and_no_more),
        cmocka_unit_test(I1_a_pending_point_that_is_forgotten_loses_nothing),
        cmocka_unit_test(full_scratch_ends_the_capture_and_not_the_guest),
        BITMAP_CASES,
        cmocka_unit_test(a_restart_of_the_guest_loses_the_record_and_says_so),
        cmocka_unit_test(the_copies_equal_the_images),
    };

    w.settings = &settings;
    return cmocka_run_group_tests_name("old-raw", tests, world_set_up, world_tear_down);
}

int
main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(void);
    } groups[] = {
        { "qcow2", run_qcow2 },     { "snapshot", run_snapshot },
        { "raw", run_raw },         { "old", run_old },
        { "offline", run_offline }, { "offline-raw", run_offline_raw },
    };

    bitmap_kills_child(argc, argv);
    for (size_t i = 0; argc == 2 && i < N_ELEMENTS(groups); i++)
        if (strcmp(argv[1], groups[i].name) == 0)
            return groups[i].run();
    fprintf(stderr, "usage: bitmap_check qcow2|snapshot|raw|old|offline|offline-raw\n");
    return 2;
}
