#include "tests/unit/net.h"

#include <event2/thread.h>
#include <fcntl.h>
#include <libvirt/libvirt.h>
#include <stdatomic.h>
#include <time.h>

#include "common/units.h"
#include "daemon/event_libvirt.h"

struct probe {
    pthread_t loop_thread;
    atomic_int calls;
    atomic_int conditions; /* all that were seen */
    atomic_int freed;
    atomic_int wrong_thread;
    atomic_bool in_callback;
    atomic_bool remove_itself;
    int fd;
};

static struct net_loop the_loop;

static void
wait_until(atomic_int *counter, int at_least)
{
    int64_t until_ms = units_monotonic_ms() + 10000;

    while (*counter < at_least && units_monotonic_ms() < until_ms)
        nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
    assert_true(*counter >= at_least);
}

static void
called(struct probe *p)
{
    if (!pthread_equal(pthread_self(), the_loop.thread))
        p->wrong_thread++;
    p->calls++;
}

static void
on_handle(int watch, int fd, int conditions, void *opaque)
{
    struct probe *p = opaque;
    char byte;

    p->in_callback = true;
    p->conditions |= conditions;
    if ((conditions & VIR_EVENT_HANDLE_READABLE) != 0)
        (void)!read(fd, &byte, 1);
    if (p->remove_itself || (conditions & VIR_EVENT_HANDLE_HANGUP) != 0)
        virEventRemoveHandle(watch);
    p->in_callback = false;
    called(p);
}

static void
on_timeout(int timer, void *opaque)
{
    struct probe *p = opaque;

    if (p->remove_itself)
        virEventRemoveTimeout(timer);
    called(p);
}

static void
freed(void *opaque)
{
    struct probe *p = opaque;

    if (!pthread_equal(pthread_self(), the_loop.thread) || p->in_callback)
        p->wrong_thread++;
    p->freed++;
}

static void
conditions_are_told_apart(void **state UNUSED)
{
    struct probe p = { .fd = -1 };
    int fds[2], watch;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    watch = virEventAddHandle(fds[0], VIR_EVENT_HANDLE_READABLE, on_handle, &p, freed);
    assert_true(watch > 0);
    assert_int_equal(write(fds[1], "x", 1), 1);
    wait_until(&p.calls, 1);
    assert_int_equal(p.conditions, VIR_EVENT_HANDLE_READABLE);
    virEventUpdateHandle(watch, VIR_EVENT_HANDLE_WRITABLE);
    wait_until(&p.calls, 3); /* as long as there is room */
    virEventUpdateHandle(watch, 0);
    assert_int_equal(p.conditions, VIR_EVENT_HANDLE_READABLE | VIR_EVENT_HANDLE_WRITABLE);
    virEventUpdateHandle(watch, VIR_EVENT_HANDLE_READABLE);
    close(fds[1]);
    wait_until(&p.freed, 1); /* on_handle removes it at a hangup */
    assert_true((p.conditions & VIR_EVENT_HANDLE_HANGUP) != 0);
    assert_int_equal(virEventRemoveHandle(watch), -1);
    assert_int_equal(p.wrong_thread, 0);
    close(fds[0]);
}

static void
timers_repeat_until_they_are_switched_off(void **state UNUSED)
{
    struct probe p = { .fd = -1 };
    int timer = virEventAddTimeout(-1, on_timeout, &p, freed);
    int calls;

    assert_true(timer > 0);
    virEventUpdateTimeout(timer, 5);
    wait_until(&p.calls, 3);
    virEventUpdateTimeout(timer, -1);
    nanosleep(&(struct timespec){ 0, 20000000 }, NULL);
    calls = p.calls;
    virEventUpdateTimeout(timer, 0);
    wait_until(&p.calls, calls + 3);
    assert_int_equal(virEventRemoveTimeout(timer), 0);
    assert_int_equal(virEventRemoveTimeout(timer), -1);
    wait_until(&p.freed, 1);
    assert_int_equal(p.wrong_thread, 0);
}

static void
a_callback_may_remove_itself(void **state UNUSED)
{
    struct probe p = { .fd = -1, .remove_itself = true };

    assert_true(virEventAddTimeout(1, on_timeout, &p, freed) > 0);
    wait_until(&p.freed, 1);
    assert_int_equal(p.calls, 1);
    assert_int_equal(p.wrong_thread, 0);
}

/* --- removing while the callback waits for the remover's lock
 * ---------------------------- */

struct locked {
    pthread_mutex_t lock;
    atomic_int waiting;
    atomic_int freed;
};

static void
on_locked(int timer UNUSED, void *opaque)
{
    struct locked *l = opaque;

    l->waiting++;
    pthread_mutex_lock(&l->lock);
    pthread_mutex_unlock(&l->lock);
}

static void
free_locked(void *opaque)
{
    struct locked *l = opaque;

    pthread_mutex_lock(&l->lock);
    l->freed++;
    pthread_mutex_unlock(&l->lock);
}

static void
removing_under_a_lock_that_the_callback_wants_does_not_hang(void **state UNUSED)
{
    static struct locked l = { .lock = PTHREAD_MUTEX_INITIALIZER };
    int timer;

    pthread_mutex_lock(&l.lock);
    timer = virEventAddTimeout(0, on_locked, &l, free_locked);
    wait_until(&l.waiting, 1);
    assert_int_equal(virEventRemoveTimeout(timer), 0);
    assert_int_equal(l.freed, 0);
    pthread_mutex_unlock(&l.lock);
    wait_until(&l.freed, 1);
}

/* --- many threads
 * ------------------------------------------------------------------------- */

static void *
add_and_remove(void *opaque)
{
    struct probe *p = opaque;

    for (int i = 0; i < 300; i++) {
        int fds[2], watch, timer = virEventAddTimeout(0, on_timeout, p, freed);

        if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0)
            return NULL;
        watch = virEventAddHandle(fds[0], VIR_EVENT_HANDLE_READABLE, on_handle, p, freed);
        (void)!write(fds[1], "ab", 2);
        virEventUpdateHandle(watch, i % 2 == 0 ? 0 : VIR_EVENT_HANDLE_READABLE);
        virEventUpdateTimeout(timer, i % 3 == 0 ? -1 : 1);
        virEventRemoveHandle(watch);
        virEventRemoveTimeout(timer);
        close(fds[0]);
        close(fds[1]);
    }
    return NULL;
}

static void
threads_may_add_and_remove_as_they_like(void **state UNUSED)
{
    struct probe p = { .fd = -1 };
    pthread_t threads[4];

    for (size_t i = 0; i < N_ELEMENTS(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add_and_remove, &p), 0);
    for (size_t i = 0; i < N_ELEMENTS(threads); i++)
        pthread_join(threads[i], NULL);
    wait_until(&p.freed, (int)N_ELEMENTS(threads) * 300 * 2);
    assert_int_equal(p.freed, N_ELEMENTS(threads) * 300 * 2);
    assert_int_equal(p.wrong_thread, 0);
}

/* --- libvirt itself, with its built-in test hypervisor
 * -------------------------------------- */

static int
on_lifecycle(virConnectPtr connection UNUSED, virDomainPtr domain, int event UNUSED,
             int detail UNUSED, void *opaque)
{
    struct probe *p = opaque;

    assert_string_equal(virDomainGetName(domain), "test");
    called(p);
    return 0;
}

static void
events_of_libvirt_arrive(void **state UNUSED)
{
    struct probe p = { .fd = -1 };
    virConnectPtr c = virConnectOpen("test:///default");
    virDomainPtr domain;
    int callback;

    assert_non_null(c);
    domain = virDomainLookupByName(c, "test");
    assert_non_null(domain);
    callback = virConnectDomainEventRegisterAny(c, domain, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                                                VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle),
                                                &p, NULL);
    assert_true(callback >= 0);
    assert_int_equal(virDomainSuspend(domain), 0);
    wait_until(&p.calls, 1);
    assert_int_equal(virDomainResume(domain), 0);
    wait_until(&p.calls, 2);
    assert_int_equal(virConnectDomainEventDeregisterAny(c, callback), 0);
    assert_int_equal(p.wrong_thread, 0);
    virDomainFree(domain);
    virConnectClose(c);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conditions_are_told_apart),
        cmocka_unit_test(timers_repeat_until_they_are_switched_off),
        cmocka_unit_test(a_callback_may_remove_itself),
        cmocka_unit_test(removing_under_a_lock_that_the_callback_wants_does_not_hang),
        cmocka_unit_test(threads_may_add_and_remove_as_they_like),
        cmocka_unit_test(events_of_libvirt_arrive),
    };
    int failed;

    evthread_use_pthreads();
    the_loop.base = event_base_new();
    event_libvirt_register(the_loop.base);
    net_loop_start(&the_loop);
    failed = cmocka_run_group_tests_name("event_libvirt", tests, NULL, NULL);
    net_loop_stop(&the_loop);
    event_libvirt_stop();
    event_base_free(the_loop.base);
    return failed;
}
