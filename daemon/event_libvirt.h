/*
 * libvirt's event loop, on ours: its sockets and timers become libevent events.
 *
 * libvirt has one event implementation per process, so this has one state, too.
 * libvirt may add, change and remove from any thread; all callbacks, also the
 * free callbacks of what was removed, are called on the loop thread only and
 * without a lock held.
 */
#ifndef DAEMON_EVENT_LIBVIRT_H
#define DAEMON_EVENT_LIBVIRT_H

#include <event2/event.h>

/* Once, after evthread_use_pthreads() and before the first connection to libvirt. */
void event_libvirt_register(struct event_base *base);

/*
 * Loop thread, when all connections are closed and before the base is freed:
 * frees what was removed. Nothing may be added afterwards.
 */
void event_libvirt_stop(void);

#endif
