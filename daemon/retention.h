/*
 * Retention: which recovery points stay, and why.
 *
 * Two parts. The window keeps every point for a time, and fewer if their
 * journals take more than a size. Rules keep points for longer: for each of the
 * newest `instances` slots of `distance` that hold a point (slots begin at
 * multiples of it since 1970, UTC; weeks on Mondays) the first whole point in
 * it: the first, because it is known to be that when it comes. Both count from
 * the newest point, not from now: a source that is lost for long does not cost
 * points. The newest point, pinned and tagged points always stay.
 * Pure functions; any thread.
 */
#ifndef DAEMON_RETENTION_H
#define DAEMON_RETENTION_H

#include <json-c/json.h>

#include "common/error.h"
#include "daemon/points.h"

#define RETENTION_MAX_RULES       8
#define RETENTION_MAX_INSTANCES   1000
#define RETENTION_MAX_WINDOW_MS   (30ll * 24 * 3600 * 1000)
#define RETENTION_MIN_DISTANCE_MS (60ll * 1000)
#define RETENTION_MAX_DISTANCE_MS (366ll * 24 * 3600 * 1000)

struct retention_rule {
    int64_t distance_ms; /* whole seconds */
    unsigned instances;
};

struct retention {
    int64_t window_ms;  /* 0: only the newest point */
    uint64_t max_bytes; /* of the window's points; 0: no limit */
    struct retention_rule rules[RETENTION_MAX_RULES]; /* by distance, each once */
    size_t n_rules;
};

enum retention_reason {
    RETENTION_DROP,
    RETENTION_NEWEST, /* also the newest that is whole */
    RETENTION_WINDOW,
    RETENTION_RULE,
    RETENTION_PINNED, /* or tagged */
};

/* For one point: what keeps it longest. */
struct retention_verdict {
    enum retention_reason reason;
    size_t rule;        /* its index; only with RETENTION_RULE */
    int64_t expires_ms; /* when it will go if points go on coming; 0: not by itself */
};

/* 4 h, no size limit, no rules. */
struct retention retention_default(void);

/* "hourly:24 daily:7 weekly:4", "15m:8" for any distance, "none"; ret's window and
   size stay. ERROR_USAGE. */
bool retention_parse_rules(const char *text, struct retention *ret, struct error **err);

/* {window ms, maxBytes, rules: "..." or [{distance ms, numberOfInstances}]}; what is
   absent stays as it is in *ret. ERROR_USAGE names the member. */
bool retention_parse(struct json_object *o, struct retention *ret, struct error **err);

/* {window, maxBytes, rules [{name, distance, numberOfInstances}]} */
struct json_object *retention_json(const struct retention *r);

/* "hourly:24 daily:7", "none"; the caller frees. */
char *retention_format_rules(const struct retention *r);

/* "hourly", "15m"; buf has UNITS_TEXT_MAX bytes. */
const char *retention_rule_name(const struct retention_rule *rule, char *buf);

/* What the points of the window took on their way. */
uint64_t
retention_window_bytes(const struct retention *r, const struct point *list, size_t n);

/* ret_verdicts has n of them, in the order of the list. */
void retention_judge(const struct retention *r, const struct point *list, size_t n,
                     struct retention_verdict *ret_verdicts);

/* "newest", "window", "hourly", "pinned"; NULL if nothing keeps it. */
const char *retention_reason_name(const struct retention *r,
                                  const struct retention_verdict *v, char *buf);

/*
 * Does a point of that time begin a slot of a rule? Then a mark of it is worth
 * making. before_ms: the time of the one in front of it; 0: there is none.
 */
bool retention_begins_slot(const struct retention *r, int64_t before_ms, int64_t time_ms);

/*
 * {window {window, maxBytes, have, bytes, from, oldest}, rules [{name, distance,
 * numberOfInstances, have, from, oldest}], kept, dropped, droppedBytes}. `have` is
 * how many there are now of what a part keeps, `oldest` the time of the oldest of
 * them (null without one), `from` how far back the part reaches.
 */
struct json_object *
retention_plan(const struct retention *r, const struct point *list, size_t n);

#endif
