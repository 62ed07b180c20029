/*
 * A pool of worker threads. Everything that may block runs on one.
 *
 * A job has two halves: run() on a worker, then done() on the loop thread.
 * Jobs start in the order of their deadline, then of submission. There are
 * several pools so that one kind of waiting can never starve another: a host
 * whose cycles all wait for acks must still take in the cycles of its peer.
 */
#ifndef DAEMON_WORKERS_H
#define DAEMON_WORKERS_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/mem.h"

struct workers;

typedef void (*workers_fn)(void *opaque);

/* name is at most 12 bytes (it names the threads); threads start when needed. */
struct workers *
workers_new(struct event_base *base, const char *name, unsigned n_threads);

/*
 * Loop thread. Waits for the jobs that run; those that wait are dropped. The
 * done() of each is called, so that what they own is freed: one that was
 * dropped must be able to tell.
 */
void workers_free(struct workers *w);
DEFINE_AUTOPTR(workers);

/* Any thread. done may be NULL. deadline_ms orders jobs (units_monotonic_ms(); 0: now).
 */
void workers_submit(struct workers *w, int64_t deadline_ms, workers_fn run,
                    workers_fn done, void *opaque);

/* Waits a job that is to start before this deadline, because no thread is free? */
bool workers_keep_waiting(struct workers *w, int64_t deadline_ms);

/* Jobs that run or wait. */
unsigned workers_busy(struct workers *w);

#endif
