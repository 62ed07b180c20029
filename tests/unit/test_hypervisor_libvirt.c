/* Against libvirt's own test driver: the real library, no daemon. */
#include "tests/unit/unit.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include <libvirt/virterror.h>

#include "common/json.h"
#include "common/units.h"
#include "drivers/hypervisor/libvirt.h"
#include "drivers/hypervisor/libvirt_error.h"

#define UUID "0b1c2d3e-0000-4000-8000-000000000001"

static atomic_bool stop;
static atomic_uint connected, started, stopped;
static struct hypervisor *hv;
static pthread_t loop;

static void *
loop_main(void *opaque UNUSED)
{
    while (!stop)
        virEventRunDefaultImpl();
    return NULL;
}

static void
count(enum hv_event event, const char *uuid, void *opaque UNUSED)
{
    assert_true(pthread_equal(pthread_self(), loop));
    connected += event == HV_EVENT_CONNECTED;
    started += event == HV_EVENT_STARTED && strcmp(uuid, UUID) == 0;
    stopped += event == HV_EVENT_STOPPED && strcmp(uuid, UUID) == 0;
}

static bool
reaches(atomic_uint *counter, unsigned wanted)
{
    int64_t until_ms = units_monotonic_ms() + 10000;

    while (*counter < wanted && units_monotonic_ms() < until_ms)
        poll(NULL, 0, 2);
    return *counter >= wanted;
}

static int
set_up(void **state UNUSED)
{
    struct error *err = NULL;

    virEventRegisterDefaultImpl();
    pthread_create(&loop, NULL, loop_main, NULL);
    assert_ok(libvirt_open("test:///default", count, NULL, &hv, &err), err);
    return 0;
}

static void
wake(int timer UNUSED, void *opaque UNUSED)
{
}

static int
tear_down(void **state UNUSED)
{
    int timer;

    hv->ops->close(hv);
    stop = true;
    timer = virEventAddTimeout(0, wake, NULL, NULL);
    pthread_join(loop, NULL);
    virEventRemoveTimeout(timer);
    return 0;
}

static void
a_connection_is_told_on_the_loop_thread(void **state UNUSED)
{
    AUTOJSON *about = NULL;
    struct error *err = NULL;

    assert_true(reaches(&connected, 1));
    assert_ok(hv->ops->describe(hv, &about, &err), err);
    assert_non_null(json_string_or(about, "hypervisor", NULL));
    assert_non_null(strchr(json_string_or(about, "libraryVersion", ""), '.'));
}

static void
a_domain_is_defined_started_stopped_and_undefined(void **state UNUSED)
{
    static const char xml[] =
        "<domain type='test'><name>web01</name><uuid>" UUID "</uuid>"
        "<memory>1024</memory><os><type>hvm</type></os></domain>";
    struct hv_domain *d = NULL;
    struct error *err = NULL;

    assert_ok(hv->ops->define(hv, xml, &err), err);
    assert_ok(hv->ops->define(hv, xml, &err), err);
    assert_ok(hv->ops->start(hv, UUID, &err), err);
    assert_ok(hv->ops->start(hv, UUID, &err), err);
    assert_true(reaches(&started, 1));
    assert_ok(hv->ops->set_autostart(hv, UUID, true, &err), err);
    assert_ok(hv->ops->lookup(hv, UUID, &d, &err), err);
    assert_string_equal(d->name, "web01");
    assert_int_equal(d->state, HV_STATE_RUNNING);
    assert_true(d->autostart);
    hv_domain_free(d);
    assert_ok(hv->ops->destroy(hv, UUID, &err), err);
    assert_ok(hv->ops->destroy(hv, UUID, &err), err);
    assert_true(reaches(&stopped, 1));
    assert_fails(hv->ops->lookup(hv, "nobody", &d, &err), err, ERROR_DOMAIN_NOT_FOUND);
    assert_fails(hv->ops->start(hv, "0b1c2d3e-0000-4000-8000-000000000002", &err), err,
                 ERROR_DOMAIN_NOT_FOUND);
    assert_fails(hv->ops->start(hv, "nonsense", &err), err, ERROR_DOMAIN_NOT_FOUND);
}

static void
names_and_uuids_that_are_taken_are_refused(void **state UNUSED)
{
    struct error *err = NULL;

    assert_fails(hv->ops->define(hv,
                                 "<domain type='test'><name>test</name><uuid>" UUID
                                 "</uuid></domain>",
                                 &err),
                 err, ERROR_EXISTS);
    assert_fails(hv->ops->define(hv, "<domain type='test'><name>x</name></domain>", &err),
                 err, ERROR_PROTOCOL);
}

static void
without_a_libvirtd_open_succeeds_and_calls_fail(void **state UNUSED)
{
    struct hypervisor *away = NULL;
    struct hv_domain *d = NULL;
    struct error *err = NULL;

    assert_ok(libvirt_open("qemu+unix:///system?socket=/nonexistent/sock", NULL, NULL,
                           &away, &err),
              err);
    assert_fails(away->ops->lookup(away, "x", &d, &err), err, ERROR_CONNECT);
    away->ops->close(away);
}

static void
errors_are_told_apart_by_code_and_domain(void **state UNUSED)
{
    static const struct {
        int code;
        int domain;
        enum error_code wanted;
    } rows[] = {
        { VIR_ERR_NO_DOMAIN, VIR_FROM_QEMU, ERROR_DOMAIN_NOT_FOUND },
        { VIR_ERR_HOOK_SCRIPT_FAILED, VIR_FROM_HOOK, ERROR_GUARD },
        { VIR_ERR_OPERATION_TIMEOUT, VIR_FROM_QEMU, ERROR_JOB_BUSY },
        { VIR_ERR_CHECKPOINT_INCONSISTENT, VIR_FROM_QEMU, ERROR_CHECKPOINT_LOST },
        { VIR_ERR_NO_DOMAIN_CHECKPOINT, VIR_FROM_QEMU, ERROR_CHECKPOINT_LOST },
        { VIR_ERR_INTERNAL_ERROR, VIR_FROM_RPC, ERROR_CONNECT },
        { VIR_ERR_SYSTEM_ERROR, VIR_FROM_RPC, ERROR_CONNECT },
        { VIR_ERR_INTERNAL_ERROR, VIR_FROM_QEMU, ERROR_HYPERVISOR },
        { VIR_ERR_CONFIG_UNSUPPORTED, VIR_FROM_QEMU, ERROR_HYPERVISOR },
    };

    for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
        const virError e = { .code = rows[i].code, .domain = rows[i].domain };

        assert_int_equal(libvirt_error_code(&e), rows[i].wanted);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_connection_is_told_on_the_loop_thread),
        cmocka_unit_test(a_domain_is_defined_started_stopped_and_undefined),
        cmocka_unit_test(names_and_uuids_that_are_taken_are_refused),
        cmocka_unit_test(without_a_libvirtd_open_succeeds_and_calls_fail),
        cmocka_unit_test(errors_are_told_apart_by_code_and_domain),
    };

    return cmocka_run_group_tests_name("hypervisor_libvirt", tests, set_up, tear_down);
}
