/*
 * Retention: which recovery points stay, and why.
 *
 * Two parts. The window keeps every point for a time, and fewer if their
 * journals take more than a size. Rules keep points for longer: for each of the
 * newest `instances` slots of `distance` (slots begin at multiples of it since
 * 1970, UTC; weeks on Mondays) the first point in it. The newest point,
 * pinned and tagged points always stay. Pure functions; any thread.
 */
#ifndef DAEMON_RETENTION_H
#define DAEMON_RETENTION_H

#include <json-c/json.h>

#include "common/error.h"
#include "daemon/points.h"

#define RETENTION_MAX_RULES     8
#define RETENTION_MAX_INSTANCES 1000
#define RETENTION_MAX_WINDOW_MS (30ll * 24 * 3600 * 1000)

struct retention_rule {
    int64_t distance_ms; /* at least a minute */
    unsigned instances;
};

struct retention {
    int64_t window_ms;  /* 0: only the newest point */
    uint64_t max_bytes; /* of the window's journals; 0: no limit */
    struct retention_rule rules[RETENTION_MAX_RULES];
    size_t n_rules;
};

enum retention_reason {
    RETENTION_DROP,
    RETENTION_NEWEST,
    RETENTION_WINDOW,
    RETENTION_RULE,
    RETENTION_PINNED, /* or tagged */
};

/* For one point. */
struct retention_verdict {
    enum retention_reason reason;
    size_t rule;        /* its index; only with RETENTION_RULE */
    int64_t expires_ms; /* when it will go as things are; 0: not by itself */
};

/* 4 h, no size limit, no rules. */
struct retention retention_default(void);

/* "hourly:24 daily:7 weekly:4", or "15m:8" for any distance. ERROR_USAGE. */
bool retention_parse_rules(const char *text, struct retention *ret, struct error **err);

/* {window ms, maxBytes, rules: "..." or [{distance ms, numberOfInstances}]}; what is
   absent stays as it is in *ret. ERROR_USAGE names the member. */
bool retention_parse(struct json_object *o, struct retention *ret, struct error **err);
struct json_object *retention_json(const struct retention *r);

/* "hourly:24 daily:7"; the caller frees. */
char *retention_format_rules(const struct retention *r);

/* ret_verdicts has n of them, in the order of the list. */
void retention_judge(const struct retention *r, const struct point *list, size_t n,
                     int64_t now_ms, struct retention_verdict *ret_verdicts);

/* Does a point of that time begin a slot of a rule? Then a mark of it is worth making. */
bool retention_begins_slot(const struct retention *r, int64_t before_ms, int64_t time_ms);

/* What will be kept from now on if points come every rpo_ms: items {rule, distance,
   numberOfInstances, from, to}, {window}; and how many there are now. */
struct json_object *retention_plan(const struct retention *r, const struct point *list,
                                   size_t n, int64_t now_ms);

#endif
