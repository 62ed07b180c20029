#include "tests/unit/unit.h"

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "drivers/hypervisor/fake.h"

#define UUID "0b1c2d3e-0000-4000-8000-000000000001"

static const char definition[] =
    "<domain type='kvm'><name>web01</name><uuid>" UUID "</uuid><devices>"
    "<disk type='file'><driver type='qcow2'/><source file='/a'/><target "
    "dev='vda'/></disk>"
    "</devices></domain>";

static unsigned started, stopped;

static void
count(enum hv_event event, const char *uuid, void *opaque UNUSED)
{
    assert_string_equal(uuid, UUID);
    started += event == HV_EVENT_STARTED;
    stopped += event == HV_EVENT_STOPPED;
}

static void
a_domain_starts_stops_and_is_recorded(void **state UNUSED)
{
    AUTOPTR(fake_world) *world = fake_world_new();
    struct hypervisor *hv = fake_open(world, count, NULL);
    AUTOPTR(hv_domain) *d = NULL;
    struct error *err = NULL;

    started = stopped = 0;
    assert_ok(fake_add(hv, definition, &err), err);
    assert_ok(hv->ops->start(hv, UUID, &err), err);
    assert_ok(hv->ops->start(hv, UUID, &err), err);
    assert_ok(hv->ops->lookup(hv, "web01", &d, &err), err);
    assert_int_equal(d->state, HV_STATE_RUNNING);
    assert_int_equal(d->n_disks, 1);
    assert_ok(hv->ops->destroy(hv, UUID, &err), err);
    assert_int_equal(fake_starts(hv, UUID), 1);
    assert_int_equal(started, 1);
    assert_int_equal(stopped, 1);
    assert_string_equal(fake_calls(hv), "start " UUID "\nstart " UUID "\nlookup web01\n"
                                        "destroy " UUID "\n");
    assert_ok(hv->ops->undefine(hv, UUID, &err), err);
    assert_ok(hv->ops->undefine(hv, UUID, &err), err);
    assert_fails(hv->ops->start(hv, UUID, &err), err, ERROR_DOMAIN_NOT_FOUND);
    hv->ops->close(hv);
}

static void
a_call_fails_when_it_is_told_to(void **state UNUSED)
{
    AUTOPTR(fake_world) *world = fake_world_new();
    struct hypervisor *hv = fake_open(world, NULL, NULL);
    struct error *err = NULL;

    fake_fail(hv, FAKE_DEFINE, 2, ERROR_CONNECT);
    assert_ok(hv->ops->define(hv, definition, &err), err);
    assert_fails(hv->ops->define(hv, definition, &err), err, ERROR_CONNECT);
    assert_ok(hv->ops->define(hv, definition, &err), err);
    hv->ops->close(hv);
}

static void
a_name_belongs_to_one_domain(void **state UNUSED)
{
    AUTOPTR(fake_world) *world = fake_world_new();
    struct hypervisor *hv = fake_open(world, NULL, NULL);
    struct error *err = NULL;

    assert_ok(fake_add(hv, definition, &err), err);
    assert_fails(hv->ops->define(hv,
                                 "<domain><name>web01</name><uuid>0b1c2d3e-0000-4000-"
                                 "8000-000000000002</uuid></domain>",
                                 &err),
                 err, ERROR_EXISTS);
    hv->ops->close(hv);
}

static void
I3_the_world_ends_when_two_hosts_run_the_same_domain(void **state UNUSED)
{
    struct fake_world *world = fake_world_new();
    struct hypervisor *a = fake_open(world, NULL, NULL),
                      *b = fake_open(world, NULL, NULL);
    struct error *err = NULL;
    int status = 0;
    pid_t pid;

    assert_ok(fake_add(a, definition, &err), err);
    assert_ok(fake_add(b, definition, &err), err);
    assert_ok(a->ops->start(a, UUID, &err), err);
    pid = fork();
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL);
        if (freopen("/dev/null", "w", stderr) == NULL)
            _exit(1);
        b->ops->start(b, UUID, NULL);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_ok(a->ops->destroy(a, UUID, &err), err);
    assert_ok(b->ops->start(b, UUID, &err), err);
    a->ops->close(a);
    b->ops->close(b);
    fake_world_free(world);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_domain_starts_stops_and_is_recorded),
        cmocka_unit_test(a_call_fails_when_it_is_told_to),
        cmocka_unit_test(a_name_belongs_to_one_domain),
        cmocka_unit_test(I3_the_world_ends_when_two_hosts_run_the_same_domain),
    };

    return cmocka_run_group_tests_name("hypervisor_fake", tests, NULL, NULL);
}
