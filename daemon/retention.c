#include "daemon/retention.h"

#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"

#define SECOND_MS     1000ll
#define HOUR_MS       (3600 * SECOND_MS)
#define DAY_MS        (24 * HOUR_MS)
#define WEEK_MS       (7 * DAY_MS)
#define MONDAY_MS     (4 * DAY_MS) /* the first one: 1970 began on a Thursday */
#define MAX_TEXT      1024         /* of rules */
#define MAX_BYTES     ((uint64_t)INT64_MAX)
#define DEFAULT_HOURS 4

static const struct {
    const char *name;
    int64_t distance_ms;
} names[] = {
    { "hourly", HOUR_MS },
    { "daily", DAY_MS },
    { "weekly", WEEK_MS },
    { "monthly", 30 * DAY_MS },
};

struct retention
retention_default(void)
{
    return (struct retention){ .window_ms = DEFAULT_HOURS * HOUR_MS };
}

/* --- rules as text ------------------------------------------------------------ */

static bool
check_rule(const struct retention *r, int64_t distance_ms, struct error **err)
{
    if (distance_ms < RETENTION_MIN_DISTANCE_MS ||
        distance_ms > RETENTION_MAX_DISTANCE_MS || distance_ms % SECOND_MS != 0)
        return error_set(err, ERROR_USAGE,
                         "a rule's distance is from 1m to 366d, in whole seconds");
    if (r->n_rules == RETENTION_MAX_RULES)
        return error_set(err, ERROR_USAGE, "there are at most %d rules",
                         RETENTION_MAX_RULES);
    for (size_t i = 0; i < r->n_rules; i++)
        if (r->rules[i].distance_ms == distance_ms)
            return error_set(err, ERROR_USAGE, "two rules have the same distance");
    return true;
}

static bool
add_rule(struct retention *r, int64_t distance_ms, unsigned instances, struct error **err)
{
    size_t i;

    if (!check_rule(r, distance_ms, err))
        return false;
    for (i = r->n_rules++; i > 0 && r->rules[i - 1].distance_ms > distance_ms; i--)
        r->rules[i] = r->rules[i - 1];
    r->rules[i] = (struct retention_rule){ distance_ms, instances };
    return true;
}

static bool
parse_distance(const char *text, int64_t *ret_ms, struct error **err)
{
    for (size_t i = 0; i < N_ELEMENTS(names); i++)
        if (strcmp(names[i].name, text) == 0) {
            *ret_ms = names[i].distance_ms;
            return true;
        }
    return units_parse_duration_ms(text, ret_ms, err) ||
           error_prefix(err, "neither hourly, daily, weekly, monthly nor a duration");
}

/* "hourly:24"; the word is cut up. */
static bool
parse_rule(char *word, struct retention *r, struct error **err)
{
    char *colon = strchr(word, ':');
    uint64_t instances;
    int64_t distance_ms;

    if (colon == NULL)
        return error_set(err, ERROR_USAGE, "say how many, for example 'hourly:24'");
    *colon = '\0';
    return parse_distance(word, &distance_ms, err) &&
           units_parse_u64(colon + 1, 1, RETENTION_MAX_INSTANCES, &instances, err) &&
           add_rule(r, distance_ms, (unsigned)instances, err);
}

bool
retention_parse_rules(const char *text, struct retention *ret, struct error **err)
{
    struct retention parsed = *ret;
    AUTOFREE(char) *words = NULL;
    char *rest = NULL;

    if (strlen(text) > MAX_TEXT)
        return error_set(err, ERROR_USAGE, "the rules are longer than %d characters",
                         MAX_TEXT);
    words = mem_strdup(text);
    parsed.n_rules = 0;
    for (char *w = strtok_r(words, " ,", &rest); w != NULL;
         w = strtok_r(NULL, " ,", &rest)) {
        AUTOFREE(char) *word = mem_strdup(w);

        if (strcmp(text, "none") != 0 && !parse_rule(w, &parsed, err))
            return error_prefix(err, "rule '%.40s'", word);
    }
    *ret = parsed;
    return true;
}

const char *
retention_rule_name(const struct retention_rule *rule, char *buf)
{
    for (size_t i = 0; i < N_ELEMENTS(names); i++)
        if (names[i].distance_ms == rule->distance_ms)
            return names[i].name;
    return units_format_duration_ms(rule->distance_ms, buf);
}

char *
retention_format_rules(const struct retention *r)
{
    char *text = mem_strdup(r->n_rules == 0 ? "none" : "");
    char buf[UNITS_TEXT_MAX];

    for (size_t i = 0; i < r->n_rules; i++) {
        char *longer =
            mem_printf("%s%s%s:%u", text, i > 0 ? " " : "",
                       retention_rule_name(&r->rules[i], buf), r->rules[i].instances);

        free(text);
        text = longer;
    }
    return text;
}

/* --- settings as JSON ----------------------------------------------------------- */

/* *ret stays if it is absent or null. */
static bool
take_number(struct json_object *o, const char *key, uint64_t max, uint64_t *ret,
            struct error **err)
{
    struct error *e = NULL;

    if (json_opt_u64(o, key, max, ret, &e))
        return true;
    error_set(err, ERROR_USAGE, "'%s' is a number from 0 to %llu", key,
              (unsigned long long)max);
    error_free(e);
    return false;
}

static bool
take_rule(struct json_object *o, struct retention *r, struct error **err)
{
    uint64_t distance = 0, instances = 0;

    if (!json_object_is_type(o, json_type_object))
        return error_set(err, ERROR_USAGE, "a rule is {distance, numberOfInstances}");
    if (!take_number(o, "distance", RETENTION_MAX_DISTANCE_MS, &distance, err) ||
        !take_number(o, "numberOfInstances", RETENTION_MAX_INSTANCES, &instances, err))
        return false;
    if (instances == 0)
        return error_set(err, ERROR_USAGE, "'numberOfInstances' is at least 1");
    return add_rule(r, (int64_t)distance, (unsigned)instances, err);
}

static bool
take_rules(struct json_object *rules, struct retention *r, struct error **err)
{
    if (json_object_is_type(rules, json_type_string))
        return retention_parse_rules(json_object_get_string(rules), r, err);
    if (!json_object_is_type(rules, json_type_array))
        return error_set(err, ERROR_USAGE,
                         "a list of {distance, numberOfInstances}, or text as "
                         "'hourly:24 daily:7'");
    r->n_rules = 0;
    for (size_t i = 0; i < json_object_array_length(rules); i++)
        if (!take_rule(json_object_array_get_idx(rules, i), r, err))
            return false;
    return true;
}

bool
retention_parse(struct json_object *o, struct retention *ret, struct error **err)
{
    struct retention parsed = *ret;
    struct json_object *rules = NULL;
    uint64_t window = (uint64_t)parsed.window_ms;

    if (!take_number(o, "window", RETENTION_MAX_WINDOW_MS, &window, err) ||
        !take_number(o, "maxBytes", MAX_BYTES, &parsed.max_bytes, err))
        return false;
    parsed.window_ms = (int64_t)window;
    if (json_object_object_get_ex(o, "rules", &rules) && rules != NULL &&
        !take_rules(rules, &parsed, err))
        return error_prefix(err, "'rules'");
    *ret = parsed;
    return true;
}

static struct json_object *
rule_json(const struct retention_rule *rule)
{
    struct json_object *o = json_object_new_object();
    char buf[UNITS_TEXT_MAX];

    json_set_string(o, "name", retention_rule_name(rule, buf));
    json_set_int(o, "distance", rule->distance_ms);
    json_set_int(o, "numberOfInstances", rule->instances);
    return o;
}

struct json_object *
retention_json(const struct retention *r)
{
    struct json_object *o = json_object_new_object();
    struct json_object *rules = json_object_new_array();

    for (size_t i = 0; i < r->n_rules; i++)
        json_object_array_add(rules, rule_json(&r->rules[i]));
    json_set_int(o, "window", r->window_ms);
    json_set_u64(o, "maxBytes", r->max_bytes);
    json_set(o, "rules", rules);
    return o;
}

/* --- slots -------------------------------------------------------------------- */

static int64_t
slot_offset(int64_t distance_ms)
{
    return distance_ms % WEEK_MS == 0 ? MONDAY_MS : 0;
}

/* The number of the slot; it rounds down before 1970 too. */
static int64_t
slot_of(int64_t distance_ms, int64_t time_ms)
{
    int64_t since = time_ms - slot_offset(distance_ms);

    return since / distance_ms - (since % distance_ms < 0);
}

static int64_t
slot_start(int64_t distance_ms, int64_t slot)
{
    return slot * distance_ms + slot_offset(distance_ms);
}

bool
retention_begins_slot(const struct retention *r, int64_t before_ms, int64_t time_ms)
{
    for (size_t i = 0; i < r->n_rules; i++) {
        int64_t distance_ms = r->rules[i].distance_ms;

        if (before_ms == 0 ||
            slot_of(distance_ms, before_ms) != slot_of(distance_ms, time_ms))
            return true;
    }
    return false;
}

/* --- verdicts ----------------------------------------------------------------- */

/* A reason that lasts longer takes the place of one that ends earlier. */
static void
keep(struct retention_verdict *v, enum retention_reason reason, size_t rule,
     int64_t expires_ms)
{
    if (v->reason != RETENTION_DROP && v->expires_ms >= expires_ms)
        return;
    *v = (struct retention_verdict){ reason, rule, expires_ms };
}

/* The window: list[*ret_first] and all behind it. */
static uint64_t
window_bounds(const struct retention *r, const struct point *list, size_t n,
              size_t *ret_first)
{
    uint64_t bytes = 0;
    size_t i = n;

    while (i > 0) {
        const struct point *p = &list[i - 1];
        uint64_t sum = bytes + p->transfer_bytes;

        if (i < n && (list[n - 1].time_ms - p->time_ms >= r->window_ms ||
                      (r->max_bytes > 0 && sum > r->max_bytes)))
            break;
        bytes = sum;
        i--;
    }
    *ret_first = i;
    return bytes;
}

uint64_t
retention_window_bytes(const struct retention *r, const struct point *list, size_t n)
{
    size_t first;

    return window_bounds(r, list, n, &first);
}

/*
 * When the window will have moved on, or, if that comes first, when as many
 * bytes have come as still fit, should they come as fast as they did.
 */
static int64_t
window_end(const struct retention *r, const struct point *list, size_t n, size_t i,
           uint64_t bytes_from_i)
{
    const struct point *newest = &list[n - 1];
    int64_t end_ms = list[i].time_ms + r->window_ms;
    int64_t span_ms = newest->time_ms - list[i].time_ms;
    double rate = span_ms > 0 ? (double)bytes_from_i / (double)span_ms : 0, left_ms;

    if (r->max_bytes == 0 || rate <= 0 || bytes_from_i >= r->max_bytes)
        return bytes_from_i >= r->max_bytes && r->max_bytes > 0
                   ? MIN(end_ms, newest->time_ms)
                   : end_ms;
    left_ms = (double)(r->max_bytes - bytes_from_i) / rate;
    return left_ms < (double)(end_ms - newest->time_ms)
               ? newest->time_ms + (int64_t)left_ms
               : end_ms;
}

static void
judge_window(const struct retention *r, const struct point *list, size_t n,
             struct retention_verdict *v)
{
    uint64_t bytes = 0;
    size_t first;

    window_bounds(r, list, n, &first);
    for (size_t i = n; i > first; i--) {
        bytes += list[i - 1].transfer_bytes;
        keep(&v[i - 1], RETENTION_WINDOW, 0, window_end(r, list, n, i - 1, bytes));
    }
}

/* The slot that ends before list[end] begins at the index returned; *ret_pick is its
 * point. */
static size_t
slot_before(int64_t distance_ms, const struct point *list, size_t end, size_t *ret_pick)
{
    int64_t slot = slot_of(distance_ms, list[end - 1].time_ms);
    size_t whole = end, i = end;

    while (i > 0 && slot_of(distance_ms, list[i - 1].time_ms) == slot) {
        i--;
        if (!list[i].damaged)
            whole = i;
    }
    *ret_pick = whole < end ? whole : i;
    return i;
}

/* Once so many slots more have come it goes. */
static void
judge_rule(const struct retention *r, size_t rule, const struct point *list, size_t n,
           struct retention_verdict *v)
{
    int64_t distance_ms = r->rules[rule].distance_ms;
    int64_t newest = slot_of(distance_ms, list[n - 1].time_ms);
    unsigned left = r->rules[rule].instances;

    for (size_t end = n, pick; end > 0 && left > 0; left--) {
        end = slot_before(distance_ms, list, end, &pick);
        keep(&v[pick], RETENTION_RULE, rule, slot_start(distance_ms, newest + left));
    }
}

/* The newest, and the newest that is whole: one of them must be usable. */
static void
judge_newest(const struct point *list, size_t n, struct retention_verdict *v)
{
    size_t whole = n;

    while (whole > 0 && list[whole - 1].damaged)
        whole--;
    v[n - 1].reason = RETENTION_NEWEST;
    if (whole > 0)
        v[whole - 1].reason = RETENTION_NEWEST;
}

void
retention_judge(const struct retention *r, const struct point *list, size_t n,
                struct retention_verdict *ret_verdicts)
{
    if (n == 0)
        return;
    memset(ret_verdicts, 0, n * sizeof *ret_verdicts);
    if (r->window_ms > 0)
        judge_window(r, list, n, ret_verdicts);
    for (size_t i = 0; i < r->n_rules; i++)
        judge_rule(r, i, list, n, ret_verdicts);
    judge_newest(list, n, ret_verdicts);
    for (size_t i = 0; i < n; i++)
        if (list[i].pinned || list[i].n_tags > 0)
            ret_verdicts[i] = (struct retention_verdict){ .reason = RETENTION_PINNED };
}

const char *
retention_reason_name(const struct retention *r, const struct retention_verdict *v,
                      char *buf)
{
    switch (v->reason) {
    case RETENTION_NEWEST:
        return "newest";
    case RETENTION_WINDOW:
        return "window";
    case RETENTION_RULE:
        return retention_rule_name(&r->rules[v->rule], buf);
    case RETENTION_PINNED:
        return "pinned";
    case RETENTION_DROP:
        break;
    }
    return NULL;
}

/* --- the plan ----------------------------------------------------------------- */

static void
set_time(struct json_object *o, const char *key, const struct point *p)
{
    json_set(o, key, p != NULL ? json_object_new_int64(p->time_ms) : NULL);
}

static struct json_object *
plan_window(const struct retention *r, const struct point *list, size_t n)
{
    struct json_object *o = json_object_new_object();
    size_t first = 0;
    uint64_t bytes = window_bounds(r, list, n, &first);

    json_set_int(o, "window", r->window_ms);
    json_set_u64(o, "maxBytes", r->max_bytes);
    json_set_u64(o, "have", n - first);
    json_set_u64(o, "bytes", bytes);
    json_set(o, "from",
             n > 0 ? json_object_new_int64(list[n - 1].time_ms - r->window_ms) : NULL);
    set_time(o, "oldest", n > 0 ? &list[first] : NULL);
    return o;
}

static struct json_object *
plan_rule(const struct retention_rule *rule, const struct point *list, size_t n)
{
    struct json_object *o = rule_json(rule);
    const struct point *oldest = NULL;
    unsigned have = 0;

    for (size_t end = n, pick; end > 0 && have < rule->instances; have++) {
        end = slot_before(rule->distance_ms, list, end, &pick);
        oldest = &list[pick];
    }
    json_set_int(o, "have", have);
    if (n > 0)
        json_set_int(o, "from",
                     slot_start(rule->distance_ms,
                                slot_of(rule->distance_ms, list[n - 1].time_ms) -
                                    rule->instances + 1));
    else
        json_set(o, "from", NULL);
    set_time(o, "oldest", oldest);
    return o;
}

static void
plan_sums(const struct retention *r, const struct point *list, size_t n,
          struct json_object *o)
{
    AUTOFREE(struct retention_verdict) *v = mem_alloc(n + 1, sizeof *v);
    uint64_t dropped = 0, bytes = 0;

    retention_judge(r, list, n, v);
    for (size_t i = 0; i < n; i++) {
        if (v[i].reason != RETENTION_DROP)
            continue;
        dropped++;
        bytes += list[i].transfer_bytes;
    }
    json_set_u64(o, "kept", n - dropped);
    json_set_u64(o, "dropped", dropped);
    json_set_u64(o, "droppedBytes", bytes);
}

struct json_object *
retention_plan(const struct retention *r, const struct point *list, size_t n)
{
    struct json_object *o = json_object_new_object();
    struct json_object *rules = json_object_new_array();

    for (size_t i = 0; i < r->n_rules; i++)
        json_object_array_add(rules, plan_rule(&r->rules[i], list, n));
    json_set(o, "window", plan_window(r, list, n));
    json_set(o, "rules", rules);
    plan_sums(r, list, n, o);
    return o;
}
