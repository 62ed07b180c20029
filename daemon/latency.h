/*
 * What a cycle costs the guest: how long its writes take while one is captured, compared
 * with how long they take between cycles. Pure.
 *
 * When that is too much in several cycles in a row, the interval between cycles is
 * doubled, again and again up to a limit, so that the guest is hurt less often; when
 * cycles have been cheap for a while it is halved again. A restart of the VM or of
 * virtdrd begins anew.
 */
#ifndef DAEMON_LATENCY_H
#define DAEMON_LATENCY_H

#include <stdbool.h>
#include <stdint.h>

#define LATENCY_MIN_WRITES    8  /* fewer say nothing */
#define LATENCY_COSTLY_CYCLES 5  /* in a row, until the interval is doubled */
#define LATENCY_CHEAP_CYCLES  10 /* in a row, until it is halved */

/* Writes of the guest so far, as the hypervisor counts them. */
struct latency_sample {
    uint64_t requests;
    uint64_t time_ns; /* of all of them together */
};

struct latency_rule {
    unsigned factor; /* a cycle is costly when writes take so many times as long... */
    uint64_t min_ns; /* ...and so long at least; factor 0: never */
    unsigned most;   /* times the interval that it may become */
};

/* All zero: nothing is known. */
struct latency {
    struct latency_sample last; /* after the last cycle; requests 0: none */
    uint64_t between_ns;        /* of one write, smoothed; 0: not known */
    uint64_t during_ns;         /* in the last cycle that had enough of them */
    unsigned costly, cheap;     /* cycles in a row */
    unsigned doublings;         /* of the interval */
};

enum latency_change {
    LATENCY_SAME,
    LATENCY_LENGTHENED,
    LATENCY_SHORTENED,
};

/* A cycle is about to begin. */
void latency_between(struct latency *l, struct latency_sample begin);

/* A cycle ended that began so. */
enum latency_change
latency_during(struct latency *l, const struct latency_rule *rule,
               struct latency_sample begin, struct latency_sample end);

/* The time between two cycles, of what was set. */
int64_t latency_interval_ms(const struct latency *l, int64_t set_ms);

#endif
