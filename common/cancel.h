/*
 * A cancel flag and a deadline, shared by an operation and whoever may stop it.
 *
 * Code that waits (for a socket, a job, a condition) calls cancel_check()
 * between waits and passes cancel_remaining_ms() to poll(). Any thread may
 * call cancel_request(); the object must outlive its users.
 */
#ifndef COMMON_CANCEL_H
#define COMMON_CANCEL_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/error.h"

struct cancel {
    atomic_bool requested;
    _Atomic int64_t deadline_ms; /* units_monotonic_ms() time; 0 is none */
    struct cancel *above; /* stops this one too; NULL: none; set before it is used */
};

/* Asks whoever works under c to stop at the next check. */
void cancel_request(struct cancel *c);

/* A deadline timeout_ms from now; 0 removes it. */
void cancel_set_timeout(struct cancel *c, int64_t timeout_ms);

/* ERROR_CANCELLED or ERROR_TIMEOUT once stopped. NULL c never stops. */
bool cancel_check(struct cancel *c, struct error **err);

/* How long one wait may last: at most max_ms, at most what the deadline leaves (>= 0). */
int cancel_remaining_ms(struct cancel *c, int max_ms);

#endif
