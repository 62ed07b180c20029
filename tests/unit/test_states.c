/* The state table is consistent, and the documentation shows it. */
#include "daemon/states.h"

#include <stdio.h>

#include "common/mem.h"
#include "tests/sim/files.h"
#include "tests/unit/unit.h"

static const enum replication_side sides[] = { SIDE_SOURCE, SIDE_TARGET };

static void
each_phase_has_a_name_of_its_own(void **state UNUSED)
{
    for (size_t i = 0; i < N_PHASES; i++) {
        enum replication_phase found = N_PHASES;

        assert_true(states_from_name(states_name((enum replication_phase)i), &found));
        assert_int_equal(found, i);
    }
}

static void
an_unknown_phase_is_not_taken_for_another(void **state UNUSED)
{
    enum replication_phase found;

    assert_false(states_from_name("", &found));
    assert_false(states_from_name("ascended", &found));
}

static void
a_vm_that_is_anothers_is_never_sent_or_failed_over(void **state UNUSED)
{
    static const enum replication_phase others[] = { PHASE_PREPARED,   PHASE_FAILED_OVER,
                                                     PHASE_COMMITTED,  PHASE_UNDOING,
                                                     PHASE_SUPERSEDED, PHASE_MOVED,
                                                     PHASE_REMOVING };

    for (size_t i = 0; i < N_ELEMENTS(others); i++) {
        assert_false(states_is_protecting(others[i]));
        assert_int_equal(states_allow(SIDE_SOURCE, others[i], "sync"), STATES_NOT_NOW);
        assert_int_equal(states_allow(SIDE_TARGET, others[i], "receive"), STATES_NOT_NOW);
        assert_int_equal(states_allow(SIDE_TARGET, others[i], "failover"),
                         STATES_NOT_NOW);
    }
}

static void
an_operation_of_the_other_side_says_so(void **state UNUSED)
{
    for (size_t i = 0; i < N_PHASES; i++) {
        assert_int_equal(states_allow(SIDE_SOURCE, (enum replication_phase)i, "failover"),
                         STATES_OTHER_SIDE);
        assert_int_equal(states_allow(SIDE_TARGET, (enum replication_phase)i, "resync"),
                         STATES_OTHER_SIDE);
    }
}

static void
what_is_listed_is_allowed(void **state UNUSED)
{
    for (size_t side = 0; side < N_ELEMENTS(sides); side++)
        for (size_t i = 0; i < N_PHASES; i++) {
            enum replication_phase phase = (enum replication_phase)i;
            AUTOFREE(char) *list = states_list(sides[side], phase);
            char *rest = list;
            char *word;

            while ((word = strsep(&rest, ", ")) != NULL)
                if (*word != '\0')
                    assert_int_equal(states_allow(sides[side], phase, word),
                                     STATES_ALLOWED);
        }
}

static void
the_documentation_shows_the_table(void **state UNUSED)
{
    const char *top = getenv("top_srcdir");
    AUTOFREE(char) *path = mem_printf("%s/docs/ARCHITECTURE.md", top != NULL ? top : ".");
    AUTOFREE(char) *text = file_read(path);
    AUTOFREE(char) *made = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&made, &size);

    states_print(out);
    fclose(out);
    if (strstr(text, made) == NULL)
        fail_msg("docs/ARCHITECTURE.md does not have what daemon/print-states prints");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_phase_has_a_name_of_its_own),
        cmocka_unit_test(an_unknown_phase_is_not_taken_for_another),
        cmocka_unit_test(a_vm_that_is_anothers_is_never_sent_or_failed_over),
        cmocka_unit_test(an_operation_of_the_other_side_says_so),
        cmocka_unit_test(what_is_listed_is_allowed),
        cmocka_unit_test(the_documentation_shows_the_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
