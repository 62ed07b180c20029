/*
 * Which recovery point is meant: latest, by name, tag or time.
 *
 * Pure functions on a sorted list (points.h); any thread. Damaged points are
 * passed over, unless one is named: then it is ERROR_CHECKSUM.
 */
#ifndef DAEMON_POINT_SELECT_H
#define DAEMON_POINT_SELECT_H

#include <json-c/json.h>

#include "common/error.h"
#include "daemon/points.h"

#define POINT_SELECT_KEY_MAX MAX(CAPTURE_NAME_MAX, POINTS_TAG_MAX)

enum point_select_type {
    SELECT_LATEST,
    SELECT_ID, /* name, sequence number or tag */
    SELECT_TAG,
    SELECT_AT,         /* the newest not after that time */
    SELECT_BEFORE,     /* the newest before that time */
    SELECT_INTERVAL,   /* the newest of the interval that holds that time */
    SELECT_CONSISTENT, /* the newest that is consistent for applications */
};

struct point_select {
    enum point_select_type type;
    char key[POINT_SELECT_KEY_MAX + 1]; /* id, tag */
    int64_t time_ms;                    /* at, before, interval */
    int64_t interval_ms; /* interval: its length; they begin at multiples of it
                            since 1970 (UTC); default an hour */
};

/*
 * {type, value, length}: value is a string (a time may be a number); times are
 * as point_select_parse_time() says. o NULL: latest. ERROR_USAGE names the member.
 */
bool
point_select_parse(struct json_object *o, struct point_select *ret, struct error **err);

/* The same back, with times in full: it means the same tomorrow. */
struct json_object *point_select_json(const struct point_select *select);

/*
 * RFC 3339 with an offset, ms since 1970, or this host's local time:
 * "2026-03-01 10:42[:30[.250]]", or "10:42[:30[.250]]", the last time that it was so
 * late.
 */
bool point_select_parse_time(const char *text, int64_t now_ms, int64_t *ret_ms,
                             struct error **err);

/* ERROR_POINT_NOT_FOUND says which points there are; *ret borrows from list. */
bool point_select(const struct point_select *select, const struct point *list, size_t n,
                  const struct point **ret, struct error **err);

#endif
