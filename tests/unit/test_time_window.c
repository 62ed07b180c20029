#include "tests/unit/unit.h"

#include <stdlib.h>
#include <time.h>

#include "daemon/time_window.h"

/* Local time of 2026, in ms. */
static int64_t
at(int month, int day, int hour, int minute)
{
    struct tm tm = { .tm_year = 126,
                     .tm_mon = month - 1,
                     .tm_mday = day,
                     .tm_hour = hour,
                     .tm_min = minute,
                     .tm_isdst = -1 };

    return (int64_t)mktime(&tm) * 1000;
}

static struct time_window
window(const char *text)
{
    struct time_window w = { 0, 0 };
    struct error *err = NULL;

    assert_ok(time_window_parse(text, &w, &err), err);
    return w;
}

static void
a_window_is_two_times_of_day(void **state UNUSED)
{
    static const char *const bad[] = { "",
                                       "22:00",
                                       "22:00-06:0",
                                       "24:00-06:00",
                                       "22:60-06:00",
                                       "22.00-06.00",
                                       "22:00 06:00",
                                       "2200-0600",
                                       "+2:00-06:00",
                                       "22:00-06:00 " };
    struct time_window w = window("22:05-06:10");
    struct error *err = NULL;

    assert_int_equal(w.from_min, 22 * 60 + 5);
    assert_int_equal(w.to_min, 6 * 60 + 10);
    for (size_t i = 0; i < N_ELEMENTS(bad); i++)
        assert_fails(time_window_parse(bad[i], &w, &err), err, ERROR_USAGE);
    assert_int_equal(w.from_min, 22 * 60 + 5);
}

static void
within_the_window_it_is_now(void **state UNUSED)
{
    struct time_window night = window("22:00-06:00"), day = window("08:00-18:00");
    struct time_window always = { 0, 0 };

    assert_int_equal(time_window_next_ms(&night, at(5, 1, 22, 0)), at(5, 1, 22, 0));
    assert_int_equal(time_window_next_ms(&night, at(5, 1, 3, 7)), at(5, 1, 3, 7));
    assert_int_equal(time_window_next_ms(&night, at(5, 1, 5, 59)), at(5, 1, 5, 59));
    assert_int_equal(time_window_next_ms(&day, at(5, 1, 12, 0)), at(5, 1, 12, 0));
    assert_int_equal(time_window_next_ms(&always, at(5, 1, 12, 0)), at(5, 1, 12, 0));
}

static void
outside_it_is_when_the_window_begins(void **state UNUSED)
{
    struct time_window night = window("22:00-06:00"), day = window("08:00-18:00");

    assert_int_equal(time_window_next_ms(&night, at(5, 1, 6, 0)), at(5, 1, 22, 0));
    assert_int_equal(time_window_next_ms(&night, at(5, 1, 21, 59)), at(5, 1, 22, 0));
    assert_int_equal(time_window_next_ms(&day, at(5, 1, 7, 0)), at(5, 1, 8, 0));
    assert_int_equal(time_window_next_ms(&day, at(5, 31, 18, 0)), at(6, 1, 8, 0));
}

/* On 29 March 2026 two o'clock became three o'clock in Berlin. */
static void
the_night_of_summer_time_is_right(void **state UNUSED)
{
    struct time_window day = window("08:00-18:00");

    assert_int_equal(time_window_next_ms(&day, at(3, 28, 18, 0)), at(3, 29, 8, 0));
    assert_int_equal(at(3, 29, 8, 0) - at(3, 28, 18, 0), 13 * 3600 * 1000);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_window_is_two_times_of_day),
        cmocka_unit_test(within_the_window_it_is_now),
        cmocka_unit_test(outside_it_is_when_the_window_begins),
        cmocka_unit_test(the_night_of_summer_time_is_right),
    };

    setenv("TZ", "Europe/Berlin", 1);
    tzset();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
