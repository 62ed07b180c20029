/*
 * How much may be sent per second, and when. Pure; any thread.
 *
 * A limit is text: "20MiB/s", "unlimited", "cycles" (only cycles send: no first sync,
 * nothing else that can wait), "cycles 20MiB/s"; "0" is the same as "cycles". Several
 * stand for times of the day, local time, separated by commas:
 *
 *     22:00-06:00 50MiB/s, 08:00-18:00 cycles 5MiB/s, else 20MiB/s
 *
 * The first window that holds the time counts; one may go over midnight. What is in none
 * has the limit after "else", or no limit.
 */
#ifndef DAEMON_BANDWIDTH_H
#define DAEMON_BANDWIDTH_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

#define BANDWIDTH_TEXT_MAX 200
#define BANDWIDTH_WINDOWS  8
#define BANDWIDTH_MIN_RATE (256u << 10)
#define BANDWIDTH_MAX_RATE (1ull << 40)

struct bandwidth_limit {
    uint64_t rate;    /* bytes per second; 0: no limit */
    bool cycles_only; /* what can wait waits */
};

struct bandwidth_window {
    unsigned from_min, to_min; /* of the day; to is not in it */
    struct bandwidth_limit limit;
};

/* All zero: no limit. */
struct bandwidth {
    char text[BANDWIDTH_TEXT_MAX]; /* as it was given; "" no limit */
    struct bandwidth_window windows[BANDWIDTH_WINDOWS];
    unsigned n_windows;
    struct bandwidth_limit otherwise;
};

/* ERROR_USAGE. "" and "unlimited" are no limit. */
bool bandwidth_parse(const char *text, struct bandwidth *ret, struct error **err);

/* At this minute of the day. */
struct bandwidth_limit bandwidth_at_minute(const struct bandwidth *b, unsigned minute);

/* Now, by the clock and time zone of this host. */
struct bandwidth_limit bandwidth_now(const struct bandwidth *b);

/* What keeps to both. */
struct bandwidth_limit bandwidth_both(struct bandwidth_limit a, struct bandwidth_limit b);

/*
 * What may be sent at once. It comes at the rate, half a second of it is kept at
 * most. Whoever takes may go below zero; the next one waits for it.
 */
struct bandwidth_bucket {
    int64_t tokens; /* millionths of bytes */
    int64_t at_us;  /* 0: new */
};

/* 0: taken. Else nothing is taken, and it is to be tried again after so many us. */
int64_t
bandwidth_take(struct bandwidth_bucket *b, uint64_t rate, int64_t now_us, uint64_t bytes);

#endif
