#include "tests/unit/unit.h"

#include "common/units.h"

static void
durations_are_read(void **state UNUSED)
{
    static const struct {
        const char *text;
        int64_t ms;
    } rows[] = {
        { "0s", 0 },          { "500ms", 500 },
        { "5s", 5000 },       { "15m", 900000 },
        { "4h", 14400000 },   { "7d", 604800000 },
        { "1h30m", 5400000 }, { "1d2h3m4s5ms", 93784005 },
        { "4.2s", 4200 },     { "1.5h", 5400000 },
        { "0.001s", 1 },      { "9223372036854775807ms", INT64_MAX },
    };

    for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
        struct error *err = NULL;
        int64_t ms = -1;

        assert_ok(units_parse_duration_ms(rows[i].text, &ms, &err), err);
        assert_int_equal(ms, rows[i].ms);
    }
}

static void
durations_that_are_none_are_refused(void **state UNUSED)
{
    static const char *const texts[] = {
        "",
        "5",
        "-5s",
        "+5s",
        " 5s",
        "5s ",
        "5x",
        "s",
        "1h1h",
        "30m1h",
        "1.s",
        ".5s",
        "1.5ms",
        "1.2345s",
        "5S",
        "1e3s",
        "5s,",
        "0x5s",
        "5 s s",
        "5min",
        "9223372036854775808ms",
        "18446744073709551616ms",
        "106751991168d",
        "106751991167d23h59m",
        "9223372036854775807ms1ms",
        "99999999999999999999999999999999s",
    };

    for (size_t i = 0; i < N_ELEMENTS(texts); i++) {
        struct error *err = NULL;
        int64_t ms = 42;

        assert_fails(units_parse_duration_ms(texts[i], &ms, &err), err, ERROR_USAGE);
        assert_int_equal(ms, 42);
    }
}

static void
sizes_are_read(void **state UNUSED)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } rows[] = {
        { "0", 0 },
        { "512", 512 },
        { "512 B", 512 },
        { "64KiB", 65536 },
        { "64 KiB", 65536 },
        { "20GiB", 20ull << 30 },
        { "1TiB", 1ull << 40 },
        { "1.5GiB", 3ull << 29 },
        { "3kB", 3000 },
        { "5MB", 5000000 },
        { "7GB", 7000000000 },
        { "16383PiB", 16383ull << 50 },
        { "18446744073709551615", UINT64_MAX },
    };

    for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
        struct error *err = NULL;
        uint64_t bytes = 1;

        assert_ok(units_parse_size(rows[i].text, &bytes, &err), err);
        assert_int_equal(bytes, rows[i].bytes);
    }
}

static void
sizes_that_are_none_are_refused(void **state UNUSED)
{
    static const char *const texts[] = {
        "",         "-1",     "KiB",      "1K",       "1 ",
        " 1",       "1  KiB", "1kib",     "1KiBs",    "1.5",
        "1.5B",     "0x10",   "1e9",      "16384PiB", "18446744073709551616",
        "20000PiB", "1.KiB",  "1KiB2KiB",
    };

    for (size_t i = 0; i < N_ELEMENTS(texts); i++) {
        struct error *err = NULL;
        uint64_t bytes = 42;

        assert_fails(units_parse_size(texts[i], &bytes, &err), err, ERROR_USAGE);
        assert_int_equal(bytes, 42);
    }
}

static void
a_long_foreign_text_is_quoted_only_in_part(void **state UNUSED)
{
    struct error *err = NULL;
    char text[4096];
    int64_t ms;

    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_false(units_parse_duration_ms(text, &ms, &err));
    assert_true(strlen(error_message(err)) < 300);
    error_clear(&err);
}

static void
times_are_read_with_any_offset(void **state UNUSED)
{
    static const struct {
        const char *text;
        int64_t ms;
    } rows[] = {
        { "1970-01-01T00:00:00Z", 0 },
        { "2026-03-01T10:42:00.123Z", 1772361720123 },
        { "2026-03-01t10:42:00.123456789z", 1772361720123 },
        { "2026-03-01 10:42:00.1Z", 1772361720100 },
        { "2026-03-01T11:42:00+01:00", 1772361720000 },
        { "2026-03-01T05:12:00-05:30", 1772361720000 },
        { "2024-02-29T00:00:00Z", 1709164800000 },
        { "2000-02-29T00:00:00Z", 951782400000 },
        { "2016-12-31T23:59:60Z", 1483228800000 }, /* a leap second */
        { "2017-01-01T05:59:60+06:00", 1483228800000 },
        { "1969-12-31T23:59:59.999Z", -1 },
        { "0001-01-01T00:00:00Z", -62135596800000 },
        { "9999-12-31T23:59:59.999Z", 253402300799999 },
    };

    for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
        struct error *err = NULL;
        int64_t ms = 42;

        assert_ok(units_parse_time_ms(rows[i].text, &ms, &err), err);
        assert_int_equal(ms, rows[i].ms);
    }
}

static void
times_that_are_none_are_refused(void **state UNUSED)
{
    static const char *const texts[] = {
        "",
        "2026-03-01",
        "2026-03-01T10:42:00",
        "2026-03-01T10:42Z",
        "2026-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-04-00T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "2026-03-01T24:00:00Z",
        "2026-03-01T10:60:00Z",
        "2026-03-01T10:42:60Z",
        "2026-03-01T10:59:61Z",
        "2026-03-01T10:42:00.Z",
        "2026-03-01T10:42:00Zx",
        "2026-03-01T10:42:00+1:00",
        "2026-03-01T10:42:00+24:00",
        "2026-03-01T10:42:00+01:60",
        "+026-03-01T10:42:00Z",
        "2026-3-1T10:42:00Z",
    };

    for (size_t i = 0; i < N_ELEMENTS(texts); i++) {
        struct error *err = NULL;
        int64_t ms = 42;

        assert_fails(units_parse_time_ms(texts[i], &ms, &err), err, ERROR_USAGE);
        assert_int_equal(ms, 42);
    }
}

static void
numbers_keep_to_their_range(void **state UNUSED)
{
    static const char *const bad[] = { "",    "9",   "101",
                                       "-10", "+10", " 10",
                                       "10 ", "1x",  "18446744073709551616" };
    struct error *err = NULL;
    uint64_t n = 42;

    for (size_t i = 0; i < N_ELEMENTS(bad); i++)
        assert_fails(units_parse_u64(bad[i], 10, 100, &n, &err), err, ERROR_USAGE);
    assert_int_equal(n, 42);
    assert_ok(units_parse_u64("10", 10, 100, &n, &err), err);
    assert_int_equal(n, 10);
    assert_ok(units_parse_u64("100", 10, 100, &n, &err), err);
    assert_int_equal(n, 100);
    assert_ok(units_parse_u64("18446744073709551615", 0, UINT64_MAX, &n, &err), err);
    assert_int_equal(n, UINT64_MAX);
}

static void
durations_are_written_for_people(void **state UNUSED)
{
    char buf[UNITS_TEXT_MAX];

    assert_string_equal(units_format_duration_ms(0, buf), "0s");
    assert_string_equal(units_format_duration_ms(130, buf), "130ms");
    assert_string_equal(units_format_duration_ms(5000, buf), "5s");
    assert_string_equal(units_format_duration_ms(4213, buf), "4.2s");
    assert_string_equal(units_format_duration_ms(59999, buf), "59.9s");
    assert_string_equal(units_format_duration_ms(5400000, buf), "1h30m");
    assert_string_equal(units_format_duration_ms(93784005, buf), "1d2h3m4s");
    assert_string_equal(units_format_duration_ms(-4200, buf), "-4.2s");
    assert_string_equal(units_format_duration_ms(INT64_MIN, buf),
                        "-106751991167d7h12m55s");
}

static void
sizes_are_written_for_people(void **state UNUSED)
{
    char buf[UNITS_TEXT_MAX];

    assert_string_equal(units_format_size(0, buf), "0 B");
    assert_string_equal(units_format_size(1023, buf), "1023 B");
    assert_string_equal(units_format_size(1024, buf), "1.0 KiB");
    assert_string_equal(units_format_size(20ull << 30, buf), "20.0 GiB");
    assert_string_equal(units_format_size((1ull << 30) - 1, buf), "1023.9 MiB");
    assert_string_equal(units_format_size(UINT64_MAX, buf), "16383.9 PiB");
}

static void
what_is_written_can_be_read_again(void **state UNUSED)
{
    static const int64_t durations[] = { 0,     1,        999,
                                         1000,  1500,     59900,
                                         60000, 86400000, INT64_MAX / 1000 * 1000 };
    static const int64_t times[] = { -62135596800000, -1, 0, 1709251199999,
                                     253402300799999 };
    static const uint64_t sizes[] = { 0, 1, 1023, 1024, 1ull << 40, UINT64_MAX };
    struct error *err = NULL;
    char buf[UNITS_TEXT_MAX];
    int64_t n;

    for (size_t i = 0; i < N_ELEMENTS(durations); i++) {
        assert_ok(units_parse_duration_ms(units_format_duration_ms(durations[i], buf), &n,
                                          &err),
                  err);
        assert_int_equal(n, durations[i]);
    }
    for (size_t i = 0; i < N_ELEMENTS(times); i++) {
        assert_ok(units_parse_time_ms(units_format_time_ms(times[i], buf), &n, &err),
                  err);
        assert_int_equal(n, times[i]);
    }
    for (size_t i = 0; i < N_ELEMENTS(sizes); i++) {
        uint64_t bytes;

        assert_ok(units_parse_size(units_format_size(sizes[i], buf), &bytes, &err), err);
        assert_true(bytes <= sizes[i]);
        assert_true(sizes[i] - bytes <= sizes[i] / 10);
    }
}

static void
a_time_out_of_all_calendars_is_still_written(void **state UNUSED)
{
    char buf[UNITS_TEXT_MAX];

    assert_string_equal(units_format_time_ms(INT64_MAX, buf), "(no valid time)");
    assert_string_equal(units_format_time_ms(INT64_MIN, buf), "(no valid time)");
    assert_string_equal(units_format_time_ms(253402300800000, buf), "(no valid time)");
}

static void
the_monotonic_clock_does_not_go_back(void **state UNUSED)
{
    int64_t before = units_monotonic_ms();

    for (int i = 0; i < 1000; i++) {
        int64_t now = units_monotonic_ms();

        assert_true(now >= before);
        before = now;
    }
    assert_true(units_now_ms() > 1700000000000);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations_are_read),
        cmocka_unit_test(durations_that_are_none_are_refused),
        cmocka_unit_test(sizes_are_read),
        cmocka_unit_test(sizes_that_are_none_are_refused),
        cmocka_unit_test(a_long_foreign_text_is_quoted_only_in_part),
        cmocka_unit_test(times_are_read_with_any_offset),
        cmocka_unit_test(times_that_are_none_are_refused),
        cmocka_unit_test(numbers_keep_to_their_range),
        cmocka_unit_test(durations_are_written_for_people),
        cmocka_unit_test(sizes_are_written_for_people),
        cmocka_unit_test(what_is_written_can_be_read_again),
        cmocka_unit_test(a_time_out_of_all_calendars_is_still_written),
        cmocka_unit_test(the_monotonic_clock_does_not_go_back),
    };

    return cmocka_run_group_tests_name("units", tests, NULL, NULL);
}
