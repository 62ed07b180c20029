/*
 * The scheduler: when the next cycle of each VM starts.
 *
 * By deadline: the next point must be durable before the newest one is older
 * than the RPO, so its cycle starts early enough for what this VM's cycles take
 * (p99 of the last ones, and some). The earliest deadline goes first. After a
 * failure it tries again with back-off, 1 s to 30 s, and r->next_try_ms says when.
 *
 * One timer on the loop; cycles run on d->cycles. Any thread may call this.
 */
#ifndef DAEMON_SCHEDULER_H
#define DAEMON_SCHEDULER_H

#include "daemon/daemon.h"
#include "daemon/replication.h"

struct scheduler;

struct scheduler *scheduler_new(struct daemon *d);

/* From now on cycles are started. */
void scheduler_start(struct scheduler *s);
void scheduler_free(struct scheduler *s);

/* Looks at this replication now: it was added, resumed, or can run again. */
void scheduler_wake(struct scheduler *s, struct replication *r);

/* Lets the cycles under way stop; none starts any more. */
void scheduler_stop(struct scheduler *s);

/*
 * A cycle ended: e (or NULL) becomes the replication's error, is told, and
 * decides when the next one starts. A copy is made of e.
 */
void scheduler_note(struct scheduler *s, struct replication *r, const struct error *e);

/*
 * When a VM's next cycle is to start, all in ms of one clock: newest is the
 * newest point's time, p99 what its cycles take.
 */
int64_t scheduler_next_start_ms(int64_t newest_ms, int64_t rpo_ms, int64_t p99_ms);

/* p50, p99 of the last cycles' times; 0 if there were none. Under r->lock. */
void scheduler_percentiles(const struct replication *r, uint32_t *ret_p50_ms,
                           uint32_t *ret_p99_ms);

#endif
