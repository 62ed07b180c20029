/* Retention: rules as text and JSON, verdicts, the plan. */
#include "tests/unit/unit.h"

#include <stdio.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/retention.h"

#define MINUTE_MS 60000ll
#define HOUR_MS   (60 * MINUTE_MS)
#define DAY_MS    (24 * HOUR_MS)
#define NOON_MS   1772366400000ll /* 2026-03-01T12:00:00Z, a Sunday */
#define MAX_LIST  2000

static struct point list[MAX_LIST];
static struct retention_verdict verdicts[MAX_LIST];

/* n points, the last at the time, the others `step` apart before it; 100 bytes each. */
static void
fill(size_t n, int64_t last_ms, int64_t step_ms)
{
    assert_in_range(n, 0, MAX_LIST);
    memset(list, 0, sizeof list);
    for (size_t i = 0; i < n; i++) {
        list[i].sequence = i + 1;
        list[i].time_ms = last_ms - (int64_t)(n - 1 - i) * step_ms;
        list[i].transfer_bytes = 100;
        snprintf(list[i].name, sizeof list[i].name, "p%zu", i + 1);
    }
}

static struct retention
must_parse(const char *rules, int64_t window_ms)
{
    struct retention r = { .window_ms = window_ms };
    struct error *err = NULL;

    assert_ok(retention_parse_rules(rules, &r, &err), err);
    return r;
}

static size_t
count(size_t n, enum retention_reason reason)
{
    size_t found = 0;

    for (size_t i = 0; i < n; i++)
        found += verdicts[i].reason == reason;
    return found;
}

/* --- text and JSON ------------------------------------------------------------ */

static void
rules_are_read_and_written_in_order_of_their_distance(void **state UNUSED)
{
    static const char *const same[][2] = {
        { "hourly:24 daily:7 weekly:4 monthly:12",
          "hourly:24 daily:7 weekly:4 monthly:12" },
        { "daily:7,15m:8", "15m:8 daily:7" },
        { "  1h30m:3 ,, 60m:2 ", "hourly:2 1h30m:3" },
        { "24h:1000", "daily:1000" },
        { "none", "none" },
        { "", "none" },
        { "366d:1", "366d:1" },
    };

    for (size_t i = 0; i < N_ELEMENTS(same); i++) {
        struct retention r = must_parse(same[i][0], 5);
        AUTOFREE(char) *text = retention_format_rules(&r);

        assert_string_equal(text, same[i][1]);
        assert_int_equal(r.window_ms, 5);
    }
}

static void
bad_rules_are_refused_and_change_nothing(void **state UNUSED)
{
    static const char *const bad[] = {
        "hourly",
        ":",
        "hourly:",
        ":24",
        "hourly:0",
        "hourly:1001",
        "hourly:-1",
        "hourly:24x",
        "hourly:18446744073709551617",
        "yearly:1",
        "Hourly:1",
        "59s:1",
        "367d:1",
        "90500ms:1",
        "99999999999999999999d:1",
        "hourly:1 60m:2",
        "hourly:1:2",
        "none:1",
        "hourly:24 none",
        "1m:1 2m:1 3m:1 4m:1 5m:1 6m:1 7m:1 8m:1 9m:1",
        "\xff\xfe:3",
        "%s%n:1",
    };
    AUTOFREE(char) *huge = mem_alloc(1, 5000);
    struct error *err = NULL;

    for (size_t i = 0; i < N_ELEMENTS(bad); i++) {
        struct retention r = must_parse("daily:3", 7);

        if (retention_parse_rules(bad[i], &r, &err))
            fail_msg("'%s' was taken", bad[i]);
        assert_true(error_is(err, ERROR_USAGE));
        error_clear(&err);
        assert_int_equal(r.n_rules, 1);
        assert_int_equal(r.rules[0].instances, 3);
    }
    memset(huge, 'h', 4999);
    assert_fails(retention_parse_rules(huge, &(struct retention){ 0 }, &err), err,
                 ERROR_USAGE);
}

static void
random_rules_are_read_or_refused(void **state UNUSED)
{
    static const char letters[] = "0123456789:, hmdsourlyweakn.\t-";
    unsigned seed = 7;

    for (int round = 0; round < 20000; round++) {
        struct retention r = { .window_ms = 1 };
        AUTOPTR(error) *e = NULL;
        char text[24] = "";
        size_t n = (seed = seed * 1103515245u + 12345u) >> 16 & 15;

        for (size_t i = 0; i < n; i++)
            text[i] = letters[((seed = seed * 1103515245u + 12345u) >> 16) %
                              (sizeof letters - 1)];
        if (!retention_parse_rules(text, &r, &e)) {
            assert_true(error_is(e, ERROR_USAGE));
            continue;
        }
        for (size_t i = 0; i < r.n_rules; i++) {
            assert_in_range(r.rules[i].distance_ms, RETENTION_MIN_DISTANCE_MS,
                            RETENTION_MAX_DISTANCE_MS);
            assert_in_range(r.rules[i].instances, 1, RETENTION_MAX_INSTANCES);
        }
    }
}

static bool
parse_json(const char *text, struct retention *ret, struct error **err)
{
    AUTOJSON *o = json_tokener_parse(text);

    assert_non_null(o);
    return retention_parse(o, ret, err);
}

static void
json_changes_what_it_has_and_no_more(void **state UNUSED)
{
    struct retention r = must_parse("daily:3", 9000);
    struct error *err = NULL;

    assert_ok(parse_json("{}", &r, &err), err);
    assert_ok(parse_json("{\"maxBytes\":4096,\"window\":null}", &r, &err), err);
    assert_int_equal(r.window_ms, 9000);
    assert_int_equal(r.max_bytes, 4096);
    assert_int_equal(r.n_rules, 1);
    assert_ok(parse_json("{\"window\":0,\"rules\":\"hourly:2\"}", &r, &err), err);
    assert_int_equal(r.window_ms, 0);
    assert_int_equal(r.rules[0].distance_ms, HOUR_MS);
    assert_ok(parse_json("{\"rules\":[{\"distance\":86400000,\"numberOfInstances\":7},"
                         "{\"distance\":900000,\"numberOfInstances\":4}]}",
                         &r, &err),
              err);
    assert_int_equal(r.n_rules, 2);
    assert_int_equal(r.rules[0].instances, 4);
    assert_ok(parse_json("{\"rules\":[]}", &r, &err), err);
    assert_int_equal(r.n_rules, 0);
}

static void
json_comes_back_as_it_was_written(void **state UNUSED)
{
    struct retention r = must_parse("15m:8 weekly:4", 3600000), again = { 0 };
    AUTOJSON *o = NULL;
    struct error *err = NULL;

    r.max_bytes = 1ull << 40;
    o = retention_json(&r);
    assert_ok(retention_parse(o, &again, &err), err);
    assert_memory_equal(&r, &again, sizeof r);
}

static void
bad_json_names_the_member_and_changes_nothing(void **state UNUSED)
{
    static const char *const bad[][2] = {
        { "{\"window\":-1}", "window" },
        { "{\"window\":\"4h\"}", "window" },
        { "{\"window\":2592000001}", "window" },
        { "{\"maxBytes\":-5}", "maxBytes" },
        { "{\"maxBytes\":1.5}", "maxBytes" },
        { "{\"rules\":5}", "rules" },
        { "{\"rules\":[5]}", "rules" },
        { "{\"rules\":[null]}", "rules" },
        { "{\"rules\":[{}]}", "rules" },
        { "{\"rules\":[{\"distance\":3600000}]}", "numberOfInstances" },
        { "{\"rules\":[{\"distance\":1,\"numberOfInstances\":1}]}", "distance" },
        { "{\"rules\":[{\"distance\":\"1h\",\"numberOfInstances\":1}]}", "distance" },
        { "{\"rules\":\"hourly\",\"window\":5}", "rules" },
    };
    struct error *err = NULL;

    for (size_t i = 0; i < N_ELEMENTS(bad); i++) {
        struct retention r = must_parse("daily:3", 7), before = r;

        assert_false(parse_json(bad[i][0], &r, &err));
        assert_true(error_is(err, ERROR_USAGE));
        if (strstr(error_message(err), bad[i][1]) == NULL)
            fail_msg("'%s' names no %s", error_message(err), bad[i][1]);
        error_clear(&err);
        assert_memory_equal(&r, &before, sizeof r);
    }
}

/* --- verdicts ------------------------------------------------------------------ */

static void
without_window_and_rules_the_newest_stays(void **state UNUSED)
{
    struct retention r = { 0 };

    retention_judge(&r, NULL, 0, NULL);
    fill(3, NOON_MS, 0); /* at the same time */
    retention_judge(&r, list, 3, verdicts);
    assert_int_equal(verdicts[2].reason, RETENTION_NEWEST);
    assert_int_equal(verdicts[2].expires_ms, 0);
    assert_int_equal(count(3, RETENTION_DROP), 2);
}

static void
the_window_counts_from_the_newest_point_and_not_from_now(void **state UNUSED)
{
    struct retention r = { .window_ms = HOUR_MS };

    fill(100, 1000 * HOUR_MS, MINUTE_MS); /* half a century ago */
    retention_judge(&r, list, 100, verdicts);
    assert_int_equal(verdicts[99].reason, RETENTION_NEWEST);
    assert_int_equal(count(100, RETENTION_WINDOW), 59);
    assert_int_equal(verdicts[40].reason, RETENTION_WINDOW);
    assert_int_equal(verdicts[39].reason, RETENTION_DROP);
    assert_int_equal(verdicts[40].expires_ms, list[40].time_ms + HOUR_MS);
    assert_int_equal(verdicts[39].expires_ms, 0);
}

static void
the_size_limit_takes_the_oldest_of_the_window_and_never_the_newest(void **state UNUSED)
{
    struct retention r = { .window_ms = HOUR_MS, .max_bytes = 1000 };

    fill(30, NOON_MS, MINUTE_MS);
    retention_judge(&r, list, 30, verdicts);
    assert_int_equal(count(30, RETENTION_DROP), 20);
    assert_int_equal(verdicts[20].reason, RETENTION_WINDOW);
    assert_int_equal(verdicts[19].reason, RETENTION_DROP);
    assert_true(verdicts[20].expires_ms <= NOON_MS); /* the next point pushes it out */
    assert_true(verdicts[25].expires_ms > NOON_MS);
    assert_true(verdicts[25].expires_ms < list[25].time_ms + HOUR_MS);
    r.max_bytes = 1;
    retention_judge(&r, list, 30, verdicts);
    assert_int_equal(count(30, RETENTION_DROP), 29);
    assert_int_equal(verdicts[29].reason, RETENTION_NEWEST);
}

static void
a_rule_keeps_the_first_point_of_its_newest_slots(void **state UNUSED)
{
    struct retention r = must_parse("hourly:3", 0);

    fill(601, NOON_MS + 30 * MINUTE_MS, MINUTE_MS); /* 02:30 to 12:30 */
    retention_judge(&r, list, 601, verdicts);
    assert_int_equal(count(601, RETENTION_RULE), 3);
    assert_int_equal(count(601, RETENTION_NEWEST), 1);
    for (int k = 0; k < 3; k++) {
        size_t i = 570 - 60 * (size_t)k;

        assert_int_equal(list[i].time_ms, NOON_MS - k * HOUR_MS);
        assert_int_equal(verdicts[i].reason, RETENTION_RULE);
        assert_int_equal(verdicts[i].expires_ms, NOON_MS + (3 - k) * HOUR_MS);
    }
}

static void
empty_slots_do_not_count(void **state UNUSED)
{
    struct retention r = must_parse("hourly:3", 0);

    fill(5, NOON_MS, 0);
    list[0].time_ms = NOON_MS - 30 * DAY_MS;
    list[1].time_ms = NOON_MS - 9 * DAY_MS;
    list[2].time_ms = NOON_MS - 9 * DAY_MS + 1;
    list[3].time_ms = NOON_MS - 5 * HOUR_MS;
    retention_judge(&r, list, 5, verdicts);
    assert_int_equal(verdicts[0].reason, RETENTION_DROP);
    assert_int_equal(verdicts[1].reason, RETENTION_RULE);
    assert_int_equal(verdicts[2].reason, RETENTION_DROP);
    assert_int_equal(verdicts[3].reason, RETENTION_RULE);
    assert_int_equal(verdicts[4].reason, RETENTION_NEWEST);
}

static void
what_is_kept_stays_kept_while_points_come_and_go(void **state UNUSED)
{
    struct retention r = must_parse("hourly:4 daily:3", 30 * MINUTE_MS);
    size_t n = 0, most = 0;

    memset(list, 0, sizeof list);
    for (int64_t t = NOON_MS; t < NOON_MS + 6 * DAY_MS; t += 5 * MINUTE_MS) {
        size_t kept = 0;

        list[n++] = (struct point){ .time_ms = t, .sequence = (uint64_t)(t / 1000) };
        retention_judge(&r, list, n, verdicts);
        for (size_t i = 0; i < n; i++)
            if (verdicts[i].reason != RETENTION_DROP)
                list[kept++] = list[i];
        n = kept;
        most = MAX(most, n);
    }
    /* Midnights of the last three days, four full hours, half an hour of all. */
    assert_int_equal(list[0].time_ms, NOON_MS + 3 * DAY_MS + 12 * HOUR_MS);
    assert_int_equal(list[1].time_ms, NOON_MS + 4 * DAY_MS + 12 * HOUR_MS);
    assert_int_equal(list[2].time_ms, NOON_MS + 5 * DAY_MS - 12 * HOUR_MS + DAY_MS);
    assert_int_equal(list[3].time_ms, NOON_MS + 6 * DAY_MS - 4 * HOUR_MS);
    assert_in_range(most, 8, 14);
}

static void
weeks_begin_on_mondays(void **state UNUSED)
{
    struct retention r = must_parse("weekly:2", 0);

    fill(60, NOON_MS, HOUR_MS); /* a Sunday: one week only */
    retention_judge(&r, list, 60, verdicts);
    assert_int_equal(verdicts[0].reason, RETENTION_RULE);
    assert_int_equal(count(60, RETENTION_RULE), 1);
    fill(60, NOON_MS + DAY_MS, HOUR_MS); /* Monday */
    retention_judge(&r, list, 60, verdicts);
    assert_int_equal(count(60, RETENTION_RULE), 2);
    assert_int_equal(list[47].time_ms, NOON_MS + 12 * HOUR_MS);
    assert_int_equal(verdicts[47].reason, RETENTION_RULE);
    assert_int_equal(verdicts[47].expires_ms, NOON_MS + 12 * HOUR_MS + 14 * DAY_MS);
}

static void
a_damaged_point_holds_no_slot_while_a_whole_one_is_there(void **state UNUSED)
{
    struct retention r = must_parse("hourly:2", 0);

    fill(120, NOON_MS + 59 * MINUTE_MS, MINUTE_MS); /* 11:00 to 12:59 */
    list[0].damaged = list[1].damaged = true;
    for (size_t i = 60; i < 120; i++)
        list[i].damaged = true;
    retention_judge(&r, list, 120, verdicts);
    assert_int_equal(verdicts[0].reason, RETENTION_DROP);
    assert_int_equal(verdicts[2].reason, RETENTION_RULE);
    assert_int_equal(verdicts[60].reason, RETENTION_RULE); /* there is no better one */
    assert_int_equal(verdicts[119].reason, RETENTION_NEWEST);
    assert_int_equal(verdicts[59].reason,
                     RETENTION_NEWEST); /* the newest that is whole */
}

static void
pinned_and_tagged_points_stay(void **state UNUSED)
{
    struct retention r = { .window_ms = 5 * MINUTE_MS };
    char tag[] = "keep", *tags[] = { tag };

    fill(30, NOON_MS, MINUTE_MS);
    list[0].pinned = true;
    list[1].tags = tags;
    list[1].n_tags = 1;
    list[29].pinned = true;
    retention_judge(&r, list, 30, verdicts);
    assert_int_equal(verdicts[0].reason, RETENTION_PINNED);
    assert_int_equal(verdicts[1].reason, RETENTION_PINNED);
    assert_int_equal(verdicts[29].reason, RETENTION_PINNED);
    assert_int_equal(verdicts[0].expires_ms, 0);
    assert_int_equal(verdicts[2].reason, RETENTION_DROP);
}

static void
the_reason_shown_is_the_one_that_lasts_longest(void **state UNUSED)
{
    struct retention r = must_parse("hourly:24 daily:7", 4 * HOUR_MS);
    char buf[UNITS_TEXT_MAX];

    fill(181, NOON_MS, MINUTE_MS);
    retention_judge(&r, list, 181, verdicts);
    assert_string_equal(retention_reason_name(&r, &verdicts[0], buf), "daily");
    assert_string_equal(retention_reason_name(&r, &verdicts[60], buf), "hourly");
    assert_string_equal(retention_reason_name(&r, &verdicts[61], buf), "window");
    assert_string_equal(retention_reason_name(&r, &verdicts[180], buf), "newest");
    assert_int_equal(verdicts[180].expires_ms, NOON_MS + 24 * HOUR_MS);
    assert_null(retention_reason_name(&r, &(struct retention_verdict){ 0 }, buf));
}

static void
a_point_that_begins_a_slot_is_known_when_it_comes(void **state UNUSED)
{
    struct retention r = must_parse("hourly:24 daily:7", 0);
    struct retention none = { .window_ms = HOUR_MS };

    assert_true(retention_begins_slot(&r, 0, NOON_MS));
    assert_true(retention_begins_slot(&r, NOON_MS - 1, NOON_MS));
    assert_false(retention_begins_slot(&r, NOON_MS, NOON_MS));
    assert_false(retention_begins_slot(&r, NOON_MS, NOON_MS + HOUR_MS - 1));
    assert_false(retention_begins_slot(&none, 0, NOON_MS));
}

/* --- the plan ------------------------------------------------------------------- */

static void
a_plan_says_what_each_part_keeps(void **state UNUSED)
{
    struct retention r = must_parse("hourly:24 daily:7", HOUR_MS);
    AUTOJSON *plan = NULL;
    struct json_object *window, *hourly;

    fill(241, NOON_MS, MINUTE_MS); /* 08:00 to 12:00 */
    plan = retention_plan(&r, list, 241);
    window = json_object_or_null(plan, "window");
    hourly = json_object_array_get_idx(json_array_or_null(plan, "rules"), 0);
    assert_int_equal(json_int_or(window, "have", -1), 60);
    assert_int_equal(json_int_or(window, "bytes", -1), 6000);
    assert_int_equal(json_int_or(window, "oldest", -1), NOON_MS - 59 * MINUTE_MS);
    assert_string_equal(json_string_or(hourly, "name", ""), "hourly");
    assert_int_equal(json_int_or(hourly, "have", -1), 5);
    assert_int_equal(json_int_or(hourly, "oldest", -1), NOON_MS - 4 * HOUR_MS);
    assert_int_equal(json_int_or(hourly, "from", -1), NOON_MS - 23 * HOUR_MS);
    assert_int_equal(json_int_or(plan, "kept", -1), 64); /* 08, 09, 10, 11 h beside it */
    assert_int_equal(json_int_or(plan, "dropped", -1), 241 - 64);
    assert_int_equal(json_int_or(plan, "droppedBytes", -1), 100 * (241 - 64));
}

static void
a_plan_of_nothing_is_empty(void **state UNUSED)
{
    struct retention r = must_parse("hourly:24", HOUR_MS);
    AUTOJSON *plan = retention_plan(&r, NULL, 0);

    assert_int_equal(json_int_or(plan, "kept", -1), 0);
    assert_int_equal(json_int_or(json_object_or_null(plan, "window"), "have", -1), 0);
    assert_int_equal(json_int_or(json_object_or_null(plan, "window"), "oldest", -1), -1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_are_read_and_written_in_order_of_their_distance),
        cmocka_unit_test(bad_rules_are_refused_and_change_nothing),
        cmocka_unit_test(random_rules_are_read_or_refused),
        cmocka_unit_test(json_changes_what_it_has_and_no_more),
        cmocka_unit_test(json_comes_back_as_it_was_written),
        cmocka_unit_test(bad_json_names_the_member_and_changes_nothing),
        cmocka_unit_test(without_window_and_rules_the_newest_stays),
        cmocka_unit_test(the_window_counts_from_the_newest_point_and_not_from_now),
        cmocka_unit_test(
            the_size_limit_takes_the_oldest_of_the_window_and_never_the_newest),
        cmocka_unit_test(a_rule_keeps_the_first_point_of_its_newest_slots),
        cmocka_unit_test(empty_slots_do_not_count),
        cmocka_unit_test(what_is_kept_stays_kept_while_points_come_and_go),
        cmocka_unit_test(weeks_begin_on_mondays),
        cmocka_unit_test(a_damaged_point_holds_no_slot_while_a_whole_one_is_there),
        cmocka_unit_test(pinned_and_tagged_points_stay),
        cmocka_unit_test(the_reason_shown_is_the_one_that_lasts_longest),
        cmocka_unit_test(a_point_that_begins_a_slot_is_known_when_it_comes),
        cmocka_unit_test(a_plan_says_what_each_part_keeps),
        cmocka_unit_test(a_plan_of_nothing_is_empty),
    };

    return cmocka_run_group_tests_name("retention", tests, NULL, NULL);
}
