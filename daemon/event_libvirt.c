#include "daemon/event_libvirt.h"

#include <libvirt/libvirt.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/queue.h>

#include "common/mem.h"

/* A socket or a timer. The callbacks are set once; the rest is under the lock. */
struct watch {
    LIST_ENTRY(watch) link;
    int id;
    bool removed;
    struct event *readable; /* of a socket */
    struct event *writable;
    struct event *timer; /* of a timer */
    int fd;
    int conditions;  /* of enum virEventHandleType */
    int interval_ms; /* negative: off */
    virEventHandleCallback on_socket;
    virEventTimeoutCallback on_timer;
    virFreeCallback free_opaque;
    void *opaque;
};

LIST_HEAD(watch_list, watch);

/* libvirt's functions take no argument of ours: this is the process's one instance. */
static struct {
    pthread_mutex_t lock;
    struct event_base *base;
    struct event *reap;
    struct watch_list watches;
    struct watch_list removed;
    int last_id;
} loop = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* The lock is held. */
static struct watch *
find(int id, bool is_timer)
{
    struct watch *w;

    LIST_FOREACH (w, &loop.watches, link)
        if (w->id == id && (w->timer != NULL) == is_timer)
            return w;
    return NULL;
}

static int
insert(struct watch *w)
{
    w->id = ++loop.last_id;
    LIST_INSERT_HEAD(&loop.watches, w, link);
    return w->id;
}

/* --- sockets ---------------------------------------------------------------------- */

/* libevent tells no errors from readiness; poll() does. */
static int
conditions_of(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT };
    int c = 0;

    if (poll(&p, 1, 0) <= 0)
        return 0;
    if ((p.revents & POLLIN) != 0)
        c |= VIR_EVENT_HANDLE_READABLE;
    if ((p.revents & POLLOUT) != 0)
        c |= VIR_EVENT_HANDLE_WRITABLE;
    if ((p.revents & (POLLERR | POLLNVAL)) != 0)
        c |= VIR_EVENT_HANDLE_ERROR;
    if ((p.revents & POLLHUP) != 0)
        c |= VIR_EVENT_HANDLE_HANGUP;
    return c;
}

/*
 * A removed watch stays allocated until reap(), which runs on this same thread,
 * so w is valid here whatever other threads do meanwhile.
 */
static void
on_socket(evutil_socket_t fd, short what UNUSED, void *opaque)
{
    struct watch *w = opaque;
    int conditions = conditions_of(fd);
    bool call;

    pthread_mutex_lock(&loop.lock);
    conditions &= w->conditions | VIR_EVENT_HANDLE_ERROR | VIR_EVENT_HANDLE_HANGUP;
    call = !w->removed && conditions != 0;
    pthread_mutex_unlock(&loop.lock);
    if (call)
        w->on_socket(w->id, w->fd, conditions, w->opaque);
}

/*
 * The lock is held. Never waits for a callback that runs (noblock): the caller
 * may hold the very lock of libvirt that the callback waits for. A hangup on a
 * socket of which neither reading nor writing is wanted shows at the next use.
 */
static void
watch_socket(struct watch *w)
{
    if ((w->conditions & VIR_EVENT_HANDLE_READABLE) != 0)
        event_add(w->readable, NULL);
    else
        event_del_noblock(w->readable);
    if ((w->conditions & VIR_EVENT_HANDLE_WRITABLE) != 0)
        event_add(w->writable, NULL);
    else
        event_del_noblock(w->writable);
}

static int
add_handle(int fd, int conditions, virEventHandleCallback callback, void *opaque,
           virFreeCallback free_opaque)
{
    struct watch *w = NEW(struct watch);
    int id;

    w->fd = fd;
    w->conditions = conditions;
    w->on_socket = callback;
    w->opaque = opaque;
    w->free_opaque = free_opaque;
    w->readable = event_new(loop.base, fd, EV_READ | EV_PERSIST, on_socket, w);
    w->writable = event_new(loop.base, fd, EV_WRITE | EV_PERSIST, on_socket, w);
    if (w->readable == NULL || w->writable == NULL)
        abort();
    pthread_mutex_lock(&loop.lock);
    id = insert(w);
    watch_socket(w);
    pthread_mutex_unlock(&loop.lock);
    return id;
}

static void
update_handle(int id, int conditions)
{
    struct watch *w;

    pthread_mutex_lock(&loop.lock);
    w = find(id, false);
    if (w != NULL) {
        w->conditions = conditions;
        watch_socket(w);
    }
    pthread_mutex_unlock(&loop.lock);
}

/* --- timers ------------------------------------------------------------------------ */

/* The lock is held. */
static void
arm_timer(struct watch *w)
{
    const struct timeval interval = { w->interval_ms / 1000,
                                      w->interval_ms % 1000 * 1000 };

    if (w->interval_ms < 0)
        event_del_noblock(w->timer);
    else
        event_add(w->timer, &interval);
}

static void
on_timer(evutil_socket_t fd UNUSED, short what UNUSED, void *opaque)
{
    struct watch *w = opaque;
    bool call;

    pthread_mutex_lock(&loop.lock);
    call = !w->removed && w->interval_ms >= 0;
    if (call)
        arm_timer(w); /* before the callback, which may change or remove it */
    pthread_mutex_unlock(&loop.lock);
    if (call)
        w->on_timer(w->id, w->opaque);
}

static int
add_timeout(int interval_ms, virEventTimeoutCallback callback, void *opaque,
            virFreeCallback free_opaque)
{
    struct watch *w = NEW(struct watch);
    int id;

    w->fd = -1;
    w->interval_ms = interval_ms;
    w->on_timer = callback;
    w->opaque = opaque;
    w->free_opaque = free_opaque;
    w->timer = evtimer_new(loop.base, on_timer, w);
    if (w->timer == NULL)
        abort();
    pthread_mutex_lock(&loop.lock);
    id = insert(w);
    arm_timer(w);
    pthread_mutex_unlock(&loop.lock);
    return id;
}

static void
update_timeout(int id, int interval_ms)
{
    struct watch *w;

    pthread_mutex_lock(&loop.lock);
    w = find(id, true);
    if (w != NULL) {
        w->interval_ms = interval_ms;
        arm_timer(w);
    }
    pthread_mutex_unlock(&loop.lock);
}

/* --- removing ------------------------------------------------------------------------
 */

static void
watch_free(struct watch *w)
{
    if (w->free_opaque != NULL)
        w->free_opaque(w->opaque);
    if (w->timer != NULL)
        event_free(w->timer);
    if (w->readable != NULL)
        event_free(w->readable);
    if (w->writable != NULL)
        event_free(w->writable);
    free(w);
}

static void
reap(evutil_socket_t fd UNUSED, short what UNUSED, void *opaque UNUSED)
{
    struct watch *w;

    pthread_mutex_lock(&loop.lock);
    while ((w = LIST_FIRST(&loop.removed)) != NULL) {
        LIST_REMOVE(w, link);
        pthread_mutex_unlock(&loop.lock);
        watch_free(w);
        pthread_mutex_lock(&loop.lock);
    }
    pthread_mutex_unlock(&loop.lock);
}

/*
 * The caller may hold locks that the free callback takes, so that is left to
 * the loop. The descriptor may be closed as soon as we return, hence it is out
 * of epoll by then.
 */
static int
remove_watch(int id, bool is_timer)
{
    struct watch *w;

    pthread_mutex_lock(&loop.lock);
    w = find(id, is_timer);
    if (w != NULL) {
        w->removed = true;
        w->conditions = 0;
        w->interval_ms = -1;
        if (is_timer)
            arm_timer(w);
        else
            watch_socket(w);
        LIST_REMOVE(w, link);
        LIST_INSERT_HEAD(&loop.removed, w, link);
        event_active(loop.reap, 0, 0);
    }
    pthread_mutex_unlock(&loop.lock);
    return w != NULL ? 0 : -1;
}

static int
remove_handle(int id)
{
    return remove_watch(id, false);
}

static int
remove_timeout(int id)
{
    return remove_watch(id, true);
}

void
event_libvirt_register(struct event_base *base)
{
    loop.base = base;
    loop.reap = event_new(base, -1, EV_PERSIST, reap, NULL);
    if (loop.reap == NULL)
        abort();
    virEventRegisterImpl(add_handle, update_handle, remove_handle, add_timeout,
                         update_timeout, remove_timeout);
}

void
event_libvirt_stop(void)
{
    reap(-1, 0, NULL);
    event_free(loop.reap);
    loop.reap = NULL;
}
