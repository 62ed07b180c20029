/* How much may be sent, and when. */
#include "tests/unit/unit.h"

#include "daemon/bandwidth.h"

#define KIB      (1ull << 10)
#define MIB      (1ull << 20)
#define AT(h, m) ((h)*60u + (m))
#define S_US     1000000ll

static struct bandwidth
parse(const char *text)
{
    struct bandwidth b;
    struct error *err = NULL;

    assert_ok(bandwidth_parse(text, &b, &err), err);
    return b;
}

static void
is_limit(const struct bandwidth *b, unsigned minute, uint64_t rate, bool cycles_only)
{
    struct bandwidth_limit l = bandwidth_at_minute(b, minute);

    assert_int_equal(l.rate, rate);
    assert_int_equal(l.cycles_only, cycles_only);
}

static void
one_rate_holds_all_day(void **state UNUSED)
{
    struct bandwidth b = parse("20MiB/s");

    is_limit(&b, AT(0, 0), 20 * MIB, false);
    is_limit(&b, AT(23, 59), 20 * MIB, false);
    b = parse("20MiB");
    is_limit(&b, AT(12, 0), 20 * MIB, false);
}

static void
nothing_and_unlimited_are_no_limit(void **state UNUSED)
{
    static const char *const texts[] = { "", "  ", "unlimited", "else unlimited" };

    for (size_t i = 0; i < N_ELEMENTS(texts); i++) {
        struct bandwidth b = parse(texts[i]);

        is_limit(&b, AT(12, 0), 0, false);
        assert_string_equal(b.text, "");
    }
}

static void
windows_have_limits_of_their_own_and_go_over_midnight(void **state UNUSED)
{
    struct bandwidth b = parse("22:00-06:00 5MiB/s, else 50MiB/s");

    is_limit(&b, AT(21, 59), 50 * MIB, false);
    is_limit(&b, AT(22, 0), 5 * MIB, false);
    is_limit(&b, AT(0, 0), 5 * MIB, false);
    is_limit(&b, AT(5, 59), 5 * MIB, false);
    is_limit(&b, AT(6, 0), 50 * MIB, false);
    assert_string_equal(b.text, "22:00-06:00 5MiB/s, else 50MiB/s");
}

static void
the_first_window_that_holds_the_time_counts(void **state UNUSED)
{
    struct bandwidth b = parse("12:00-13:00 unlimited,08:00-18:00 1MiB/s");

    is_limit(&b, AT(12, 30), 0, false);
    is_limit(&b, AT(13, 0), MIB, false);
    is_limit(&b, AT(18, 0), 0, false);
}

static void
a_window_may_be_for_cycles_alone(void **state UNUSED)
{
    struct bandwidth b = parse("08:00-12:00 cycles, 12:00-18:00 cycles 2MiB/s, "
                               "18:00-24:00 0");

    is_limit(&b, AT(8, 0), 0, true);
    is_limit(&b, AT(12, 0), 2 * MIB, true);
    is_limit(&b, AT(23, 59), 0, true);
    is_limit(&b, AT(7, 59), 0, false);
}

static void
nonsense_is_refused(void **state UNUSED)
{
    static const char *const texts[] = {
        "fast",
        "20MiB/h",
        "1KiB/s",
        "2TiB/s",
        "22:00 5MiB/s",
        "22:00-22:00 5MiB/s",
        "22:60-23:00 5MiB/s",
        "24:01-06:00 5MiB/s",
        "2:00-06:00 5MiB/s",
        "22:00-06:00",
        "22:00-06:00 5MiB/s 6MiB/s",
        "cycles cycles",
        "5MiB/s, 6MiB/s",
        "else 5MiB/s, 22:00-06:00 6MiB/s",
        "5MiB/s,",
        ",",
        "else",
        "01:00-02:00 0,01:00-02:00 0,01:00-02:00 0,01:00-02:00 0,01:00-02:00 0,"
        "01:00-02:00 0,01:00-02:00 0,01:00-02:00 0,01:00-02:00 0",
    };

    for (size_t i = 0; i < N_ELEMENTS(texts); i++) {
        struct bandwidth b;
        struct error *err = NULL;

        assert_fails(bandwidth_parse(texts[i], &b, &err), err, ERROR_USAGE);
    }
}

static void
a_text_that_is_too_long_is_refused(void **state UNUSED)
{
    char text[BANDWIDTH_TEXT_MAX + 1];
    struct bandwidth b;
    struct error *err = NULL;

    memset(text, ' ', sizeof text);
    text[sizeof text - 1] = '\0';
    assert_fails(bandwidth_parse(text, &b, &err), err, ERROR_USAGE);
}

static void
two_limits_are_both_kept(void **state UNUSED)
{
    struct bandwidth_limit none = { 0 }, slow = { MIB, false }, held = { 2 * MIB, true };

    assert_int_equal(bandwidth_both(none, slow).rate, MIB);
    assert_int_equal(bandwidth_both(slow, none).rate, MIB);
    assert_int_equal(bandwidth_both(held, slow).rate, MIB);
    assert_true(bandwidth_both(held, slow).cycles_only);
    assert_int_equal(bandwidth_both(none, none).rate, 0);
}

/* What goes through in `us`, by somebody who always has more and never oversleeps. */
static uint64_t
pour(struct bandwidth_bucket *b, uint64_t rate, int64_t us, uint64_t chunk)
{
    uint64_t sent = 0;

    for (int64_t now_us = S_US, wait_us; now_us < S_US + us; now_us += wait_us) {
        wait_us = bandwidth_take(b, rate, now_us, chunk);
        if (wait_us == 0)
            sent += chunk;
    }
    return sent;
}

static void
what_goes_through_is_the_rate(void **state UNUSED)
{
    static const uint64_t rates[] = { 256 * KIB, 5 * MIB, 1000 * MIB };
    static const uint64_t chunks[] = { 40, 64 * KIB, MIB };

    for (size_t i = 0; i < N_ELEMENTS(rates); i++)
        for (size_t k = 0; k < N_ELEMENTS(chunks); k++) {
            struct bandwidth_bucket b = { 0 };
            uint64_t sent = pour(&b, rates[i], 20 * S_US, chunks[k]);

            assert_in_range(sent, 20 * rates[i] * 99 / 100,
                            20 * rates[i] * 101 / 100 + 2 * chunks[k]);
        }
}

static void
a_pause_saves_up_little(void **state UNUSED)
{
    struct bandwidth_bucket b = { 0 };
    uint64_t at_once = 0;

    assert_int_equal(bandwidth_take(&b, 10 * MIB, S_US, 1), 0);
    while (bandwidth_take(&b, 10 * MIB, 3600 * S_US, 64 * KIB) == 0)
        at_once += 64 * KIB;
    assert_in_range(at_once, 5 * MIB, 5 * MIB + 64 * KIB);
}

static void
no_limit_never_waits_and_forgets_what_is_owed(void **state UNUSED)
{
    struct bandwidth_bucket b = { 0 };

    assert_int_equal(bandwidth_take(&b, MIB, S_US, 100 * MIB), 0);
    assert_int_equal(bandwidth_take(&b, MIB, S_US, 1) / S_US, 100);
    assert_int_equal(bandwidth_take(&b, 0, S_US, 100 * MIB), 0);
    assert_int_equal(bandwidth_take(&b, MIB, S_US, 1), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_rate_holds_all_day),
        cmocka_unit_test(nothing_and_unlimited_are_no_limit),
        cmocka_unit_test(windows_have_limits_of_their_own_and_go_over_midnight),
        cmocka_unit_test(the_first_window_that_holds_the_time_counts),
        cmocka_unit_test(a_window_may_be_for_cycles_alone),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(a_text_that_is_too_long_is_refused),
        cmocka_unit_test(two_limits_are_both_kept),
        cmocka_unit_test(what_goes_through_is_the_rate),
        cmocka_unit_test(a_pause_saves_up_little),
        cmocka_unit_test(no_limit_never_waits_and_forgets_what_is_owed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
