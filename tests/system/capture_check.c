/*
 * The libvirt hypervisor and the checkpoint capture against a real libvirtd and
 * QEMU; run by test_capture.sh on a host of the lab.
 */
#include "tests/system/captures.h"

#include <poll.h>

#include "drivers/capture/checkpoint.h"

#define ASKERS     4
#define BEGINNINGS 20
#define ENDINGS    12
#define ENDING_MS  6 /* by which each of them comes later in a beginning */

static struct {
    atomic_bool stop;
    atomic_uint asked, failed;
} asking;

/* --- the hypervisor --------------------------------------------------------------- */

static void
a_domain_is_found_by_name_and_by_uuid(void **state UNUSED)
{
    AUTOPTR(hv_domain) *d = NULL;
    AUTOPTR(hv_domain) *same = NULL;
    struct hv_domain *none = NULL;
    struct error *err = NULL;

    assert_ok(w.hv->ops->lookup(w.hv, NAME, &d, &err), err);
    assert_ok(w.hv->ops->lookup(w.hv, UUID, &same, &err), err);
    assert_string_equal(d->uuid, UUID);
    assert_string_equal(same->name, NAME);
    assert_int_equal(d->n_disks, 4);
    assert_string_equal(d->disks[0].path, FOLDER "/a.qcow2");
    assert_int_equal(d->disks[0].capacity_bytes, DISK_BYTES);
    assert_null(d->disks[0].excuse);
    assert_null(d->disks[2].excuse);
    assert_non_null(strstr(d->disks[2].no_checkpoint, "qemu-img amend"));
    assert_true(d->disks[3].removable);
    assert_true(d->persistent);
    assert_fails(w.hv->ops->lookup(w.hv, "nobody", &none, &err), err,
                 ERROR_DOMAIN_NOT_FOUND);
}

static void
a_name_that_is_taken_is_refused(void **state UNUSED)
{
    struct error *err = NULL;

    assert_fails(w.hv->ops->define(w.hv,
                                   "<domain type='qemu'><name>" NAME "</name><uuid>"
                                   "5c1f3a52-7d0e-4a43-9a52-0d6f8f1f7a02</uuid></domain>",
                                   &err),
                 err, ERROR_EXISTS);
    assert_fails(w.hv->ops->define(w.hv,
                                   "<domain type='qemu'><name>other</name><uuid>" UUID
                                   "</uuid></domain>",
                                   &err),
                 err, ERROR_EXISTS);
}

/* Whoever asks does not wait for the other: each is the daemon's own thread there too, or
   another program that uses libvirt, which makes QEMU list its images. */
static void *
ask_all_the_time(void *arg UNUSED)
{
    static const char *const targets[] = { "vda", "vdb" };
    virConnectPtr connection = NULL;
    virDomainPtr domain = world_domain(&connection);

    while (!atomic_load(&asking.stop)) {
        AUTOPTR(hv_domain) *d = NULL;
        struct hv_writes writes;
        struct error *err = NULL;
        virDomainBlockInfo info;

        if (!w.hv->ops->lookup(w.hv, NAME, &d, &err) || d->state == HV_STATE_OFF ||
            !w.hv->ops->writes(w.hv, UUID, targets, 2, &writes, &err) ||
            virDomainGetBlockInfo(domain, "vda", &info, 0) < 0)
            atomic_fetch_add(&asking.failed, 1);
        error_free(err);
        atomic_fetch_add(&asking.asked, 1);
    }
    virDomainFree(domain);
    virConnectClose(connection);
    return NULL;
}

/* QEMU 7.2 aborts if it is to list its images while it makes one for a backup. */
static void
a_domain_may_be_asked_about_while_backups_begin(void **state UNUSED)
{
    AUTOFREE(char) *base = NULL;
    pthread_t threads[ASKERS];

    for (size_t i = 0; i < ASKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask_all_the_time, NULL), 0);
    for (unsigned i = 0; i < BEGINNINGS; i++) {
        AUTOFREE(char) *name = captures_name();

        captures_take(captures_both, 2, base, name);
        if (base != NULL)
            captures_forget(base);
        free(base);
        base = TAKE(name);
    }
    captures_forget(base);
    atomic_store(&asking.stop, true);
    for (size_t i = 0; i < ASKERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(asking.failed, 0);
    assert_true(asking.asked > BEGINNINGS);
}

/* Its name is given back. */
static void *
begin_whatever_happens(void *base)
{
    AUTOFREE(char) *name = captures_name();
    struct capture_request request = captures_request(captures_both, 2, base, name);
    struct capture *c = NULL;
    int64_t time_ms = 0;

    if (w.driver->ops->begin(w.driver, &request, &c, &time_ms, NULL))
        w.driver->ops->end(c, NULL);
    return TAKE(name);
}

/* QEMU 7.2 aborts if it is told to end while it makes an image for a backup. */
static void
a_guest_that_is_told_to_end_while_a_backup_begins_keeps_its_bitmaps(void **state UNUSED)
{
    AUTOFREE(char) *base = captures_name();

    captures_take(captures_both, 2, NULL, base);
    for (int i = 0; i < ENDINGS; i++) {
        unsigned before = w.stopped;
        pthread_t thread;
        void *name;

        assert_int_equal(pthread_create(&thread, NULL, begin_whatever_happens, base), 0);
        poll(NULL, 0, i * ENDING_MS);
        world_tell_qemu_to_end();
        assert_int_equal(pthread_join(thread, &name), 0);
        assert_true(world_reaches(&w.stopped, before + 1));
        world_start();
        captures_changed(base);
        captures_forget(name);
        free(name);
    }
    captures_forget(base);
}

static void
the_hooks_refusal_is_told_in_its_words(void **state UNUSED)
{
    struct error *err = NULL;
    bool ok;

    assert_ok(w.hv->ops->destroy(w.hv, UUID, &err), err);
    RUN("touch", FOLDER "/refuse");
    ok = w.hv->ops->start(w.hv, UUID, &err);
    RUN("rm", FOLDER "/refuse");
    assert_false(ok);
    assert_non_null(strstr(error_message(err), "the peer runs it"));
    assert_fails(ok, err, ERROR_GUARD);
    world_start();
}

int
main(void)
{
    static const struct world_settings settings = {
        .open = capture_checkpoint_open,
        .disks = { { "qcow2", "1.1", false }, { "qcow2", "1.1", false } },
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_domain_is_found_by_name_and_by_uuid),
        cmocka_unit_test(a_name_that_is_taken_is_refused),
        cmocka_unit_test(a_domain_may_be_asked_about_while_backups_begin),
        cmocka_unit_test(
            a_guest_that_is_told_to_end_while_a_backup_begins_keeps_its_bitmaps),
        CAPTURES_CASES,
        cmocka_unit_test(the_hooks_refusal_is_told_in_its_words),
        cmocka_unit_test(the_copies_equal_the_images),
    };

    w.settings = &settings;
    return cmocka_run_group_tests_name("capture", tests, world_set_up, world_tear_down);
}
