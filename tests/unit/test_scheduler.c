#include "tests/unit/unit.h"

#include "daemon/scheduler.h"

static const int64_t rpos[] = { 1000, 1500, 2000, 5000, 60000, 3600000, 86400000 };

static void
the_point_is_durable_before_the_rpo_is_broken(void **state UNUSED)
{
    const int64_t newest_ms = 1700000000000;

    for (size_t i = 0; i < N_ELEMENTS(rpos); i++)
        for (int64_t p99 = 0; p99 <= rpos[i] * 3 / 4; p99 += MAX(rpos[i] / 97, 1)) {
            int64_t start = scheduler_next_start_ms(newest_ms, rpos[i], p99);

            assert_true(start > newest_ms);
            assert_true(start + p99 <= newest_ms + rpos[i]);
        }
}

static void
cycles_longer_than_the_rpo_have_air_between_them(void **state UNUSED)
{
    for (size_t i = 0; i < N_ELEMENTS(rpos); i++)
        for (int64_t times = 1; times < 50; times++)
            assert_int_equal(scheduler_next_start_ms(0, rpos[i], rpos[i] * times),
                             rpos[i] / 4);
}

static void
slower_cycles_never_start_later(void **state UNUSED)
{
    for (size_t i = 0; i < N_ELEMENTS(rpos); i++) {
        int64_t last = INT64_MAX;

        for (int64_t p99 = 0; p99 < 2 * rpos[i]; p99 += rpos[i] / 50) {
            int64_t start = scheduler_next_start_ms(0, rpos[i], p99);

            assert_true(start <= last);
            last = start;
        }
    }
}

static void
samples_are(struct replication *r, size_t n)
{
    for (size_t i = 0; i < n; i++) /* a shuffle of 1 to n: 7919 is prime */
        r->stats.samples_ms[r->stats.n_samples++ % REPLICATION_SAMPLES] =
            (uint32_t)((i * 7919) % n + 1);
}

static void
percentiles_are_of_the_samples_that_there_are(void **state UNUSED)
{
    struct replication *r = NEW(struct replication);
    uint32_t p50 = 7, p99 = 7;

    scheduler_percentiles(r, &p50, &p99);
    assert_int_equal(p50, 0);
    assert_int_equal(p99, 0);
    samples_are(r, 1);
    scheduler_percentiles(r, &p50, &p99);
    assert_int_equal(p50, 1);
    assert_int_equal(p99, 1);
    r->stats.n_samples = 0;
    samples_are(r, 100);
    scheduler_percentiles(r, &p50, &p99);
    assert_int_equal(p50, 51);
    assert_int_equal(p99, 100);
    free(r);
}

static void
only_the_last_samples_count(void **state UNUSED)
{
    struct replication *r = NEW(struct replication);
    uint32_t p50, p99;

    for (int i = 0; i < 3 * REPLICATION_SAMPLES; i++)
        r->stats.samples_ms[r->stats.n_samples++ % REPLICATION_SAMPLES] = 90000;
    samples_are(r, REPLICATION_SAMPLES);
    scheduler_percentiles(r, &p50, &p99);
    assert_int_equal(p50, REPLICATION_SAMPLES / 2 + 1);
    assert_in_range(p99, REPLICATION_SAMPLES * 98 / 100, REPLICATION_SAMPLES);
    free(r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_point_is_durable_before_the_rpo_is_broken),
        cmocka_unit_test(cycles_longer_than_the_rpo_have_air_between_them),
        cmocka_unit_test(slower_cycles_never_start_later),
        cmocka_unit_test(percentiles_are_of_the_samples_that_there_are),
        cmocka_unit_test(only_the_last_samples_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
