/* How many marks a replica gets, whatever is asked for. */
#include "tests/unit/unit.h"

#include "common/units.h"
#include "daemon/mark_pace.h"
#include "drivers/store/layout.h"
#include "drivers/store/mark.h"

#define CYCLE_MS  10000ll
#define MINUTE_MS 60000ll
#define DAY_MS    (24 * 60 * MINUTE_MS)
#define MIB       (1ull << 20)
#define SPARE     100 /* for what is made beside: overlays of the newest point, syncs */

struct load {
    int64_t days;
    int64_t slot_ms; /* a rule's distance; 0: no rule */
    uint64_t cycle_bytes;
};

/* Of a replica whose points all stay. */
static size_t
count_marks(const struct config *c, const struct load *load)
{
    struct store_status st = { .n_marks = 1, .n_layers = 2 };
    struct mark_pace p = { .config = c, .status = &st };

    for (int64_t now = CYCLE_MS; now < load->days * DAY_MS; now += CYCLE_MS) {
        st.unsealed_bytes += load->cycle_bytes;
        p.since_mark_ms += CYCLE_MS;
        p.begins_slot = load->slot_ms > 0 && now % load->slot_ms < CYCLE_MS;
        if (!mark_pace_is_due(&p))
            continue;
        st = (struct store_status){ .n_marks = st.n_marks + 1,
                                    .n_layers = st.n_layers + 1 };
        p.since_mark_ms = 0;
    }
    return st.n_marks;
}

static struct config
defaults(void)
{
    return (struct config){ .mark_ms = 5 * MINUTE_MS, .mark_bytes = 256 * MIB };
}

static void
marks_are_made_in_time_at_first(void **state UNUSED)
{
    struct config c = defaults();
    const struct load idle = { .days = 1 };

    assert_in_range(count_marks(&c, &idle), 24, 24 * 12);
}

static void
marks_are_made_after_many_bytes(void **state UNUSED)
{
    struct config c = defaults();
    struct store_status st = { .unsealed_bytes = 256 * MIB - 1 };
    struct mark_pace p = { .config = &c, .status = &st };

    assert_false(mark_pace_is_due(&p));
    st.unsealed_bytes++;
    assert_true(mark_pace_is_due(&p));
    st.n_marks = 64;
    assert_false(mark_pace_is_due(&p));
    st.unsealed_bytes *= 2;
    assert_true(mark_pace_is_due(&p));
}

static void
the_slots_of_a_rule_are_marks(void **state UNUSED)
{
    struct config c = defaults();
    struct store_status st = { .n_marks = 300, .n_layers = 301 };
    struct mark_pace p = { .config = &c, .status = &st, .begins_slot = true };

    assert_true(mark_pace_is_due(&p));
}

/* The longest window that can be set, and as many journals as a large storage holds. */
static void
a_replica_never_runs_out_of_marks(void **state UNUSED)
{
    static const struct load loads[] = {
        { .days = 60 },
        { .days = 60, .slot_ms = MINUTE_MS },
        { .days = 60, .cycle_bytes = 100 * MIB },
        { .days = 6, .slot_ms = MINUTE_MS, .cycle_bytes = 1000 * MIB },
    };
    struct config c = defaults();

    for (size_t i = 0; i < N_ELEMENTS(loads); i++) {
        size_t n = count_marks(&c, &loads[i]);

        assert_true(n + SPARE < MARK_MAX && n + SPARE < LAYOUT_MAX_LAYERS);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_are_made_in_time_at_first),
        cmocka_unit_test(marks_are_made_after_many_bytes),
        cmocka_unit_test(the_slots_of_a_rule_are_marks),
        cmocka_unit_test(a_replica_never_runs_out_of_marks),
    };

    return cmocka_run_group_tests_name("mark-pace", tests, NULL, NULL);
}
