/* Which point is meant, and what is said when there is none. */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <time.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/point_select.h"

#define HOUR_MS 3600000ll
#define NOON_MS 1772366400000ll /* 2026-03-01T12:00:00Z */
#define N       6

static char tag_text[] = "before-upgrade";
static char *tags[] = { tag_text };
static char damage_text[] = "block 7 of vda";

/* 10:00, 11:00, 11:00, 11:30 (damaged), 11:59:59.999 (application), 12:00. */
static struct point list[N];

static int
set_up(void **state UNUSED)
{
    static const int64_t before_ms[N] = {
        2 * HOUR_MS, HOUR_MS, HOUR_MS, HOUR_MS / 2, 1, 0
    };

    setenv("TZ", "Europe/Berlin", 1);
    tzset();
    memset(list, 0, sizeof list);
    for (size_t i = 0; i < N; i++) {
        snprintf(list[i].name, sizeof list[i].name, "virt-dr-%zu", i);
        list[i].sequence = 10 + i;
        list[i].time_ms = NOON_MS - before_ms[i];
    }
    list[1].tags = tags;
    list[1].n_tags = 1;
    list[3].damaged = true;
    list[3].damage = damage_text;
    list[4].application = true;
    return 0;
}

static struct point_select
must_parse(const char *text)
{
    AUTOJSON *o = json_tokener_parse(text);
    AUTOJSON *again = NULL;
    struct point_select select, second;
    struct error *err = NULL;

    assert_non_null(o);
    assert_ok(point_select_parse(o, &select, &err), err);
    again = point_select_json(&select);
    assert_ok(point_select_parse(again, &second, &err), err);
    assert_int_equal(select.type, second.type);
    assert_int_equal(select.time_ms, second.time_ms);
    assert_int_equal(select.interval_ms, second.interval_ms);
    assert_string_equal(select.key, second.key);
    return select;
}

/* The index of the point that is found. */
static size_t
must_find(const char *text)
{
    struct point_select select = must_parse(text);
    const struct point *p = NULL;
    struct error *err = NULL;

    assert_ok(point_select(&select, list, N, &p, &err), err);
    return (size_t)(p - list);
}

static void
must_not_find(const char *text, enum error_code code, const char *says)
{
    struct point_select select = must_parse(text);
    const struct point *p = NULL;
    struct error *err = NULL;

    assert_false(point_select(&select, list, N, &p, &err));
    assert_null(p);
    if (!error_is(err, code) || strstr(error_message(err), says) == NULL)
        fail_msg("%s: %s", text, error_message(err));
    error_clear(&err);
}

static void
every_kind_finds_its_point(void **state UNUSED)
{
    static const struct {
        const char *text;
        size_t index;
    } found[] = {
        { "{\"type\":\"latest\"}", 5 },
        { "{\"type\":\"id\",\"value\":\"virt-dr-0\"}", 0 },
        { "{\"type\":\"id\",\"value\":\"12\"}", 2 },
        { "{\"type\":\"id\",\"value\":12}", 2 },
        { "{\"type\":\"id\",\"value\":\"before-upgrade\"}", 1 },
        { "{\"type\":\"tag\",\"value\":\"before-upgrade\"}", 1 },
        { "{\"type\":\"consistent\"}", 4 },
        { "{\"type\":\"at\",\"value\":\"2026-03-01T12:00:00Z\"}", 5 },
        { "{\"type\":\"at\",\"value\":\"2026-03-01T12:59:59.999+01:00\"}", 4 },
        { "{\"type\":\"at\",\"value\":\"2026-03-01 12:59:59.998\"}", 2 },
        { "{\"type\":\"at\",\"value\":1772366400000}", 5 },
        { "{\"type\":\"at\",\"value\":253402300799999}", 5 },
        { "{\"type\":\"before\",\"value\":\"2026-03-01T12:00:00Z\"}", 4 },
        { "{\"type\":\"before\",\"value\":\"2026-03-01T11:00:00Z\"}", 0 },
        { "{\"type\":\"interval\",\"value\":\"2026-03-01T11:12:00Z\"}", 4 },
        { "{\"type\":\"interval\",\"value\":\"2026-03-01T10:00:00Z\"}", 0 },
        { "{\"type\":\"interval\",\"value\":\"2026-03-01T11:01:00Z\",\"length\":900000}",
          2 },
    };

    for (size_t i = 0; i < N_ELEMENTS(found); i++)
        if (must_find(found[i].text) != found[i].index)
            fail_msg("%s finds another one", found[i].text);
}

static void
of_equal_times_the_newest_is_meant(void **state UNUSED)
{
    assert_int_equal(must_find("{\"type\":\"at\",\"value\":\"2026-03-01T11:00:00Z\"}"),
                     2);
}

static void
damaged_points_are_passed_over(void **state UNUSED)
{
    assert_int_equal(must_find("{\"type\":\"at\",\"value\":\"2026-03-01T11:45:00Z\"}"),
                     2);
    list[5].damaged = list[4].damaged = true;
    assert_int_equal(must_find("{\"type\":\"latest\"}"), 2);
    must_not_find("{\"type\":\"consistent\"}", ERROR_POINT_NOT_FOUND,
                  "3 of them damaged");
}

static void
a_damaged_point_that_is_named_is_a_checksum_error(void **state UNUSED)
{
    must_not_find("{\"type\":\"id\",\"value\":\"13\"}", ERROR_CHECKSUM, "block 7 of vda");
    list[1].damaged = true;
    must_not_find("{\"type\":\"tag\",\"value\":\"before-upgrade\"}", ERROR_CHECKSUM,
                  "virt-dr-1");
}

static void
what_is_not_found_says_what_there_is(void **state UNUSED)
{
    must_not_find("{\"type\":\"id\",\"value\":\"nothing\"}", ERROR_POINT_NOT_FOUND,
                  "there are 6 from 2026-03-01T10:00:00.000Z to 2026-03-01T12:00");
    must_not_find("{\"type\":\"id\",\"value\":\"99\"}", ERROR_POINT_NOT_FOUND, "'99'");
    must_not_find("{\"type\":\"tag\",\"value\":\"virt-dr-1\"}", ERROR_POINT_NOT_FOUND,
                  "tag");
    must_not_find("{\"type\":\"at\",\"value\":\"2026-03-01T09:59:59Z\"}",
                  ERROR_POINT_NOT_FOUND, "2026-03-01T09:59:59.000Z");
    must_not_find("{\"type\":\"before\",\"value\":\"2026-03-01T10:00:00Z\"}",
                  ERROR_POINT_NOT_FOUND, "before");
    must_not_find("{\"type\":\"interval\",\"value\":\"2026-03-01T13:30:00Z\"}",
                  ERROR_POINT_NOT_FOUND, "interval of 1h");
    must_not_find("{\"type\":\"interval\",\"value\":\"9999-12-31T23:59:59Z\"}",
                  ERROR_POINT_NOT_FOUND, "interval");
}

static void
of_no_points_none_is_found(void **state UNUSED)
{
    static const char *const texts[] = {
        "{\"type\":\"latest\"}",
        "{\"type\":\"consistent\"}",
        "{\"type\":\"id\",\"value\":\"1\"}",
        "{\"type\":\"at\",\"value\":\"10:00\"}",
        "{\"type\":\"before\",\"value\":\"1970-01-01T00:00:00Z\"}",
        "{\"type\":\"interval\",\"value\":\"10:00:05\"}",
    };
    const struct point *p = NULL;
    struct error *err = NULL;

    for (size_t i = 0; i < N_ELEMENTS(texts); i++) {
        struct point_select select = must_parse(texts[i]);

        assert_fails(point_select(&select, NULL, 0, &p, &err), err,
                     ERROR_POINT_NOT_FOUND);
    }
}

static void
nothing_said_is_the_latest(void **state UNUSED)
{
    struct point_select select = { .type = SELECT_TAG };
    struct error *err = NULL;

    assert_ok(point_select_parse(NULL, &select, &err), err);
    assert_int_equal(select.type, SELECT_LATEST);
}

static void
what_is_no_choice_is_refused(void **state UNUSED)
{
    static const char *const bad[] = {
        "{}",
        "[]",
        "{\"type\":5}",
        "{\"type\":\"newest\"}",
        "{\"type\":\"id\"}",
        "{\"type\":\"id\",\"value\":\"\"}",
        "{\"type\":\"id\",\"value\":null}",
        "{\"type\":\"id\",\"value\":{}}",
        "{\"type\":\"tag\",\"value\":\"0123456789012345678901234567890123456789"
        "01234567890123456789012\"}",
        "{\"type\":\"tag\",\"value\":\"0123456789012345678901234567890123456789"
        "012345678901234567890123\"}",
        "{\"type\":\"at\",\"value\":\"noon\"}",
        "{\"type\":\"at\",\"value\":\"-5\"}",
        "{\"type\":\"at\",\"value\":1.5}",
        "{\"type\":\"at\",\"value\":\"24:00\"}",
        "{\"type\":\"at\",\"value\":\"2026-02-31 10:42\"}",
        "{\"type\":\"at\",\"value\":\"10:60\"}",
        "{\"type\":\"at\",\"value\":\"10:4\"}",
        "{\"type\":\"at\",\"value\":\"10\"}",
        "{\"type\":\"at\",\"value\":1042}",
        "{\"type\":\"at\",\"value\":\"9223372036854775807\"}",
        "{\"type\":\"interval\",\"value\":\"10:05\",\"length\":999}",
        "{\"type\":\"interval\",\"value\":\"10:05\",\"length\":\"1h\"}",
        "{\"type\":\"interval\",\"value\":\"10:05\",\"length\":99999999999999}",
    };
    size_t refused = 0;

    for (size_t i = 0; i < N_ELEMENTS(bad); i++) {
        AUTOJSON *o = json_tokener_parse(bad[i]);
        struct point_select select;
        AUTOPTR(error) *e = NULL;

        if (!point_select_parse(o, &select, &e)) {
            assert_true(error_is(e, ERROR_USAGE));
            refused++;
        } else if (strstr(bad[i], "0123456789012\"}") == NULL) {
            fail_msg("%s was taken", bad[i]);
        }
    }
    assert_int_equal(refused, N_ELEMENTS(bad) - 1); /* 63 characters are a tag */
}

static void
a_time_of_day_is_the_last_one_by_the_hosts_clock(void **state UNUSED)
{
    static const struct {
        const char *text;
        int64_t ms;
    } times[] = {
        { "13:00", NOON_MS }, /* Berlin */
        { "12:59:59", NOON_MS - 1000 },
        { "12:59:59.250", NOON_MS - 750 },
        { "13:00:00.001", NOON_MS + 1 - 24 * HOUR_MS },
        { "13:01", NOON_MS + 60000 - 24 * HOUR_MS },
        { "00:00", NOON_MS - 13 * HOUR_MS },
        { "2026-03-01 13:00", NOON_MS },
        { "2026-03-01T13:00:00.500", NOON_MS + 500 },
        { "2025-07-01 14:00:00", NOON_MS - 243 * 24 * HOUR_MS }, /* summer time */
        { "2026-03-01T13:00:00+01:00", NOON_MS },
        { "1772366400000", NOON_MS },
    };
    struct error *err = NULL;

    for (size_t i = 0; i < N_ELEMENTS(times); i++) {
        int64_t ms = -1;

        assert_ok(point_select_parse_time(times[i].text, NOON_MS, &ms, &err), err);
        if (ms != times[i].ms)
            fail_msg("%s is %lld", times[i].text, (long long)ms);
    }
}

static void
random_times_are_read_or_refused(void **state UNUSED)
{
    static const char letters[] = "0123456789::--T Z.+";
    unsigned seed = 3;

    for (int round = 0; round < 50000; round++) {
        AUTOPTR(error) *e = NULL;
        char text[32] = "";
        size_t n = (seed = seed * 1103515245u + 12345u) >> 16 & 31;
        int64_t ms = -7;

        for (size_t i = 0; i < n; i++)
            text[i] = letters[((seed = seed * 1103515245u + 12345u) >> 16) %
                              (sizeof letters - 1)];
        if (!point_select_parse_time(text, NOON_MS, &ms, &e)) {
            assert_true(error_is(e, ERROR_USAGE));
            assert_int_equal(ms, -7);
        }
    }
}

#define TEST(f) cmocka_unit_test_setup(f, set_up)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_kind_finds_its_point),
        TEST(of_equal_times_the_newest_is_meant),
        TEST(damaged_points_are_passed_over),
        TEST(a_damaged_point_that_is_named_is_a_checksum_error),
        TEST(what_is_not_found_says_what_there_is),
        TEST(of_no_points_none_is_found),
        TEST(nothing_said_is_the_latest),
        TEST(what_is_no_choice_is_refused),
        TEST(a_time_of_day_is_the_last_one_by_the_hosts_clock),
        TEST(random_times_are_read_or_refused),
    };

    return cmocka_run_group_tests_name("point select", tests, NULL, NULL);
}
