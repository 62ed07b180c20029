/* What cycles cost a guest, and what follows from it. */
#include "tests/unit/unit.h"

#include "daemon/latency.h"

#define MS UINT64_C(1000000)

static const struct latency_rule rule = { .factor = 3, .min_ns = 5 * MS, .most = 8 };

/* A guest whose writes take so long between cycles, and so long in them. */
struct guest {
    struct latency l;
    struct latency_sample now;
    uint64_t between_ns, during_ns;
    unsigned n_between, n_during;
};

static void
guest_writes(struct guest *g, unsigned n, uint64_t ns)
{
    g->now.requests += n;
    g->now.time_ns += n * ns;
}

static enum latency_change
cycle(struct guest *g, const struct latency_rule *r)
{
    struct latency_sample begin;

    guest_writes(g, g->n_between, g->between_ns);
    begin = g->now;
    latency_between(&g->l, begin);
    guest_writes(g, g->n_during, g->during_ns);
    return latency_during(&g->l, r, begin, g->now);
}

static unsigned
cycles_until(struct guest *g, const struct latency_rule *r, enum latency_change wanted)
{
    for (unsigned n = 1; n < 1000; n++) {
        enum latency_change change = cycle(g, r);

        if (change == wanted)
            return n;
        assert_int_equal(change, LATENCY_SAME);
    }
    return 0;
}

static struct guest
new_guest(uint64_t between_ms, uint64_t during_ms)
{
    return (struct guest){ .between_ns = between_ms * MS,
                           .during_ns = during_ms * MS,
                           .n_between = 100,
                           .n_during = 20 };
}

static void
cheap_cycles_change_nothing(void **state UNUSED)
{
    struct guest g = new_guest(2, 3);

    assert_int_equal(cycles_until(&g, &rule, LATENCY_LENGTHENED), 0);
    assert_int_equal(latency_interval_ms(&g.l, 1000), 1000);
}

/* The first one has nothing to be compared with. */
static void
costly_cycles_double_the_interval_up_to_the_limit(void **state UNUSED)
{
    struct guest g = new_guest(2, 20);

    assert_int_equal(cycles_until(&g, &rule, LATENCY_LENGTHENED),
                     1 + LATENCY_COSTLY_CYCLES);
    assert_int_equal(latency_interval_ms(&g.l, 1000), 2000);
    assert_int_equal(cycles_until(&g, &rule, LATENCY_LENGTHENED), LATENCY_COSTLY_CYCLES);
    assert_int_equal(cycles_until(&g, &rule, LATENCY_LENGTHENED), LATENCY_COSTLY_CYCLES);
    assert_int_equal(latency_interval_ms(&g.l, 1000), 8000);
    assert_int_equal(cycles_until(&g, &rule, LATENCY_LENGTHENED), 0);
    assert_int_equal(latency_interval_ms(&g.l, 1000), 8000);
}

static void
what_is_slow_but_short_is_not_costly(void **state UNUSED)
{
    struct guest g = new_guest(0, 4);

    g.between_ns = MS / 10;
    assert_int_equal(cycles_until(&g, &rule, LATENCY_LENGTHENED), 0);
}

static void
what_is_long_but_no_slower_is_not_costly(void **state UNUSED)
{
    struct guest g = new_guest(50, 140);

    assert_int_equal(cycles_until(&g, &rule, LATENCY_LENGTHENED), 0);
}

static void
it_goes_back_by_itself(void **state UNUSED)
{
    struct guest g = new_guest(2, 20);

    cycles_until(&g, &rule, LATENCY_LENGTHENED);
    cycles_until(&g, &rule, LATENCY_LENGTHENED);
    g.during_ns = 3 * MS;
    assert_int_equal(cycles_until(&g, &rule, LATENCY_SHORTENED), LATENCY_CHEAP_CYCLES);
    assert_int_equal(latency_interval_ms(&g.l, 1000), 2000);
    assert_int_equal(cycles_until(&g, &rule, LATENCY_SHORTENED), LATENCY_CHEAP_CYCLES);
    assert_int_equal(latency_interval_ms(&g.l, 1000), 1000);
    assert_int_equal(cycles_until(&g, &rule, LATENCY_SHORTENED), 0);
}

static void
a_guest_that_falls_silent_gets_its_interval_back(void **state UNUSED)
{
    struct guest g = new_guest(2, 20);

    cycles_until(&g, &rule, LATENCY_LENGTHENED);
    g.n_during = 0;
    assert_int_equal(cycles_until(&g, &rule, LATENCY_SHORTENED), LATENCY_CHEAP_CYCLES);
}

/* Of few writes one that was slow would decide. */
static void
few_writes_are_not_judged(void **state UNUSED)
{
    struct guest g = new_guest(2, 500);

    g.n_during = LATENCY_MIN_WRITES - 1;
    assert_int_equal(cycles_until(&g, &rule, LATENCY_LENGTHENED), 0);
}

static void
one_cheap_cycle_breaks_the_row(void **state UNUSED)
{
    struct guest g = new_guest(2, 20);

    for (int i = 0; i < 100; i++) {
        g.during_ns = (i % LATENCY_COSTLY_CYCLES == 0 ? 3 : 20) * MS;
        assert_int_equal(cycle(&g, &rule), LATENCY_SAME);
    }
}

static void
counters_that_begin_anew_are_not_compared(void **state UNUSED)
{
    struct guest g = new_guest(2, 3);
    uint64_t before;

    cycle(&g, &rule);
    cycle(&g, &rule);
    before = g.l.between_ns;
    g.now = (struct latency_sample){ 0 };
    assert_int_equal(cycle(&g, &rule), LATENCY_SAME);
    assert_int_equal(g.l.between_ns, before);
}

static void
factor_zero_is_no_guard(void **state UNUSED)
{
    const struct latency_rule off = { .factor = 0, .min_ns = 5 * MS, .most = 8 };
    struct guest g = new_guest(2, 200);

    assert_int_equal(cycles_until(&g, &off, LATENCY_LENGTHENED), 0);
    assert_int_equal(cycles_until(&g, &rule, LATENCY_LENGTHENED), LATENCY_COSTLY_CYCLES);
    assert_int_equal(cycles_until(&g, &off, LATENCY_SHORTENED), LATENCY_CHEAP_CYCLES);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cheap_cycles_change_nothing),
        cmocka_unit_test(costly_cycles_double_the_interval_up_to_the_limit),
        cmocka_unit_test(what_is_slow_but_short_is_not_costly),
        cmocka_unit_test(what_is_long_but_no_slower_is_not_costly),
        cmocka_unit_test(it_goes_back_by_itself),
        cmocka_unit_test(a_guest_that_falls_silent_gets_its_interval_back),
        cmocka_unit_test(few_writes_are_not_judged),
        cmocka_unit_test(one_cheap_cycle_breaks_the_row),
        cmocka_unit_test(counters_that_begin_anew_are_not_compared),
        cmocka_unit_test(factor_zero_is_no_guard),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
