#include "daemon/point_select.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/json.h"
#include "common/units.h"

#define HOUR_MS         (3600ll * 1000)
#define MAX_INTERVAL_MS (366 * 24 * HOUR_MS)

/* A bare number below (in 1973) was meant otherwise: '10' is no time. Above: year 9999.
 */
#define MIN_NUMBER_MS 100000000000ull
#define MAX_NUMBER_MS 253402300799999ull

static const char *const types[] = {
    [SELECT_LATEST] = "latest",
    [SELECT_ID] = "id",
    [SELECT_TAG] = "tag",
    [SELECT_AT] = "at",
    [SELECT_BEFORE] = "before",
    [SELECT_INTERVAL] = "interval",
    [SELECT_CONSISTENT] = "consistent",
};

/* --- times ------------------------------------------------------------------- */

/* Exactly `digits` digits, then a character that is read past; '\0' is the end. */
static bool
take_field(const char **p, int digits, const char *then, int *ret)
{
    int n = 0;

    for (int i = 0; i < digits; i++, (*p)++) {
        if (**p < '0' || **p > '9')
            return false;
        n = n * 10 + (**p - '0');
    }
    if (strchr(then, **p) == NULL) /* also finds the end */
        return false;
    *p += **p != '\0';
    *ret = n;
    return true;
}

/* "HH:MM[:SS[.mmm]]" to its end. */
static bool
take_clock(const char *p, struct tm *tm, int *ret_ms)
{
    int ms = 0;

    tm->tm_sec = 0;
    if (!take_field(&p, 2, ":", &tm->tm_hour) || p[-1] != ':' ||
        !take_field(&p, 2, ":", &tm->tm_min) ||
        (p[-1] == ':' && !take_field(&p, 2, ".", &tm->tm_sec)) ||
        (p[-1] == '.' && !take_field(&p, 3, "", &ms)) || *p != '\0' || tm->tm_hour > 23 ||
        tm->tm_min > 59 || tm->tm_sec > 59)
        return false;
    *ret_ms = ms;
    return true;
}

/* "YYYY-MM-DD" and a blank or 'T'; what comes behind is at *ret_rest. */
static bool
take_date(const char *text, struct tm *tm, const char **ret_rest)
{
    const char *p = text;

    if (strlen(text) < strlen("2026-03-01 10:42") ||
        !take_field(&p, 4, "-", &tm->tm_year) || !take_field(&p, 2, "-", &tm->tm_mon) ||
        !take_field(&p, 2, " T", &tm->tm_mday) || tm->tm_year < 1970 || tm->tm_mon < 1 ||
        tm->tm_mon > 12 || tm->tm_mday < 1 || tm->tm_mday > 31)
        return false;
    tm->tm_year -= 1900;
    tm->tm_mon--;
    *ret_rest = p;
    return true;
}

/* By the host's time zone; which of two hours the clock shows twice is the zone's word.
 */
static int64_t
local_ms(struct tm *tm, int ms)
{
    tm->tm_isdst = -1;
    return (int64_t)mktime(tm) * 1000 + ms;
}

static bool
parse_local(const char *text, int64_t now_ms, int64_t *ret_ms)
{
    struct tm day = { 0 }, today;
    time_t now_s = (time_t)(now_ms / 1000);
    const char *rest = text;
    int ms;

    if (take_date(text, &day, &rest)) {
        struct tm there = { 0 };

        if (!take_clock(rest, &day, &ms))
            return false;
        there = day;
        *ret_ms = local_ms(&there, ms);
        return there.tm_mday == day.tm_mday; /* the 31st of February is no day */
    }
    if (localtime_r(&now_s, &day) == NULL || !take_clock(text, &day, &ms))
        return false;
    today = day; /* mktime() changes what it is given */
    *ret_ms = local_ms(&today, ms);
    if (*ret_ms > now_ms) {
        day.tm_mday--;
        *ret_ms = local_ms(&day, ms);
    }
    return true;
}

bool
point_select_parse_time(const char *text, int64_t now_ms, int64_t *ret_ms,
                        struct error **err)
{
    uint64_t number;

    if (units_parse_u64(text, MIN_NUMBER_MS, MAX_NUMBER_MS, &number, NULL)) {
        *ret_ms = (int64_t)number;
        return true;
    }
    return units_parse_time_ms(text, ret_ms, NULL) || parse_local(text, now_ms, ret_ms) ||
           error_set(err, ERROR_USAGE,
                     "time '%.64s' is not valid; write for example '10:42', '10:42:30', "
                     "'2026-03-01 10:42:30' or '2026-03-01T10:42:30+01:00'",
                     text);
}

/* --- what is asked for --------------------------------------------------------- */

static bool
parse_type(struct json_object *o, enum point_select_type *ret, struct error **err)
{
    const char *type = json_string_or(o, "type", "");

    for (size_t i = 0; i < N_ELEMENTS(types); i++)
        if (strcmp(types[i], type) == 0) {
            *ret = (enum point_select_type)i;
            return true;
        }
    return error_set(err, ERROR_USAGE,
                     "point: 'type' is none of latest, id, tag, at, before, interval, "
                     "consistent");
}

static bool
parse_key(const char *value, struct point_select *select, struct error **err)
{
    if (value[0] == '\0' || strlen(value) > POINT_SELECT_KEY_MAX)
        return error_set(err, ERROR_USAGE, "point: 'value' is no id, number or tag");
    snprintf(select->key, sizeof select->key, "%s", value);
    return true;
}

static bool
parse_length(struct json_object *o, struct point_select *select, struct error **err)
{
    struct json_object *length;

    if (!json_object_object_get_ex(o, "length", &length) || length == NULL)
        return true;
    if (!json_object_is_type(length, json_type_int) ||
        json_object_get_int64(length) < 1000 ||
        json_object_get_int64(length) > MAX_INTERVAL_MS)
        return error_set(err, ERROR_USAGE, "point: 'length' is from 1 s to 366 d, in ms");
    select->interval_ms = json_object_get_int64(length);
    return true;
}

static bool
parse_value(struct json_object *o, struct point_select *select, struct error **err)
{
    struct json_object *value;

    if (!json_object_object_get_ex(o, "value", &value) ||
        (!json_object_is_type(value, json_type_string) &&
         !json_object_is_type(value, json_type_int)))
        return error_set(err, ERROR_USAGE, "point: '%s' needs a 'value', which is text",
                         types[select->type]);
    if (select->type == SELECT_ID || select->type == SELECT_TAG)
        return parse_key(json_object_get_string(value), select, err);
    return point_select_parse_time(json_object_get_string(value), units_now_ms(),
                                   &select->time_ms, err) ||
           error_prefix(err, "point: 'value'");
}

bool
point_select_parse(struct json_object *o, struct point_select *ret, struct error **err)
{
    struct point_select select = { .interval_ms = HOUR_MS };

    if (o != NULL && !json_object_is_type(o, json_type_object))
        return error_set(err, ERROR_USAGE, "'point' is {type, value}");
    if (o != NULL &&
        (!parse_type(o, &select.type, err) || !parse_length(o, &select, err)))
        return false;
    if (select.type != SELECT_LATEST && select.type != SELECT_CONSISTENT &&
        !parse_value(o, &select, err))
        return false;
    *ret = select;
    return true;
}

struct json_object *
point_select_json(const struct point_select *select)
{
    struct json_object *o = json_object_new_object();
    bool is_key = select->type == SELECT_ID || select->type == SELECT_TAG;
    char time[UNITS_TEXT_MAX];

    json_set_string(o, "type", types[select->type]);
    if (select->type != SELECT_LATEST && select->type != SELECT_CONSISTENT)
        json_set_string(o, "value",
                        is_key ? select->key
                               : units_format_time_ms(select->time_ms, time));
    if (select->type == SELECT_INTERVAL)
        json_set_int(o, "length", select->interval_ms);
    return o;
}

/* --- choosing ---------------------------------------------------------------- */

/* How many points are before that time: times never fall along the list. */
static size_t
count_before(const struct point *list, size_t n, int64_t time_ms)
{
    size_t from = 0, to = n;

    while (from < to) {
        size_t middle = from + (to - from) / 2;

        if (list[middle].time_ms < time_ms)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

/* The newest whole one of list[from] to list[to - 1]; NULL if there is none. */
static const struct point *
newest_whole(const struct point *list, size_t from, size_t to, bool application)
{
    for (size_t i = to; i > from; i--)
        if (!list[i - 1].damaged && (!application || list[i - 1].application))
            return &list[i - 1];
    return NULL;
}

static const struct point *
newest_of_interval(const struct point_select *s, const struct point *list, size_t n)
{
    int64_t begin_ms = s->time_ms - s->time_ms % s->interval_ms;

    return newest_whole(list, count_before(list, n, begin_ms),
                        count_before(list, n, begin_ms + s->interval_ms), false);
}

static const struct point *
by_tag(const char *tag, const struct point *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < list[i].n_tags; k++)
            if (strcmp(list[i].tags[k], tag) == 0)
                return &list[i];
    return NULL;
}

static const struct point *
by_id(const char *id, const struct point *list, size_t n)
{
    uint64_t sequence;

    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].name, id) == 0)
            return &list[i];
    for (size_t i = 0; units_parse_u64(id, 0, UINT64_MAX, &sequence, NULL) && i < n; i++)
        if (list[i].sequence == sequence)
            return &list[i];
    return by_tag(id, list, n);
}

static const struct point *
choose(const struct point_select *s, const struct point *list, size_t n)
{
    switch (s->type) {
    case SELECT_LATEST:
        return newest_whole(list, 0, n, false);
    case SELECT_ID:
        return by_id(s->key, list, n);
    case SELECT_TAG:
        return by_tag(s->key, list, n);
    case SELECT_AT:
        return newest_whole(
            list, 0, s->time_ms < INT64_MAX ? count_before(list, n, s->time_ms + 1) : n,
            false);
    case SELECT_BEFORE:
        return newest_whole(list, 0, count_before(list, n, s->time_ms), false);
    case SELECT_INTERVAL:
        return newest_of_interval(s, list, n);
    case SELECT_CONSISTENT:
        return newest_whole(list, 0, n, true);
    }
    return NULL;
}

/* "no point is at or before <time>" and so on; the caller frees. */
static char *
say_what(const struct point_select *s)
{
    char time[UNITS_TEXT_MAX], length[UNITS_TEXT_MAX];

    units_format_time_ms(s->time_ms, time);
    switch (s->type) {
    case SELECT_LATEST:
        return mem_strdup("no point is whole");
    case SELECT_ID:
        return mem_printf("no point has the id, number or tag '%s'", s->key);
    case SELECT_TAG:
        return mem_printf("no point has the tag '%s'", s->key);
    case SELECT_AT:
        return mem_printf("no whole point is from %s or earlier", time);
    case SELECT_BEFORE:
        return mem_printf("no whole point is from before %s", time);
    case SELECT_INTERVAL:
        return mem_printf("no whole point is from the interval of %s around %s",
                          units_format_duration_ms(s->interval_ms, length), time);
    case SELECT_CONSISTENT:
        return mem_strdup("no whole point is consistent for applications");
    }
    return NULL;
}

static bool
say_not_found(const struct point_select *s, const struct point *list, size_t n,
              struct error **err)
{
    AUTOFREE(char) *what = say_what(s);
    char first[UNITS_TEXT_MAX], last[UNITS_TEXT_MAX];
    size_t damaged = 0;

    if (n == 0)
        return error_set(err, ERROR_POINT_NOT_FOUND, "there is no recovery point yet");
    for (size_t i = 0; i < n; i++)
        damaged += list[i].damaged;
    return error_set(err, ERROR_POINT_NOT_FOUND,
                     "%s; there are %zu from %s to %s, %zu of them damaged", what, n,
                     units_format_time_ms(list[0].time_ms, first),
                     units_format_time_ms(list[n - 1].time_ms, last), damaged);
}

bool
point_select(const struct point_select *select, const struct point *list, size_t n,
             const struct point **ret, struct error **err)
{
    const struct point *p = choose(select, list, n);

    if (p == NULL)
        return say_not_found(select, list, n, err);
    if (p->damaged)
        return error_set(err, ERROR_CHECKSUM, "recovery point '%s' is damaged: %s",
                         p->name, p->damage != NULL ? p->damage : "(no reason stored)");
    *ret = p;
    return true;
}
