/*
 * What a target does with a store (scenario.h), and the check of what is there after a
 * fault.
 *
 *     store_scenario PART FOLDER SCRATCH       that part
 *     store_scenario to-PART FOLDER SCRATCH    all parts up to it
 *     store_scenario originals FOLDER SCRATCH  makes the images that replicas stand on
 *     store_scenario verify FOLDER SCRATCH     tells how many points it saw
 *
 * SCRATCH is on a file system that no fault reaches, and keeps the record.
 */
#include <stdio.h>
#include <string.h>

#include "tests/faults/originals.h"
#include "tests/faults/scenario.h"
#include "tests/faults/verify.h"

#define TO "to-"

static bool
run_command(struct subject *s, const char *command, struct error **err)
{
    bool all = strncmp(command, TO, strlen(TO)) == 0;
    const struct scenario_part *part = scenario_find(command + (all ? strlen(TO) : 0));

    if (strcmp(command, "verify") == 0)
        return verify_store(s, err) && printf("%zu points\n", s->n_seen) > 0;
    if (strcmp(command, "originals") == 0)
        return originals_make(s->scratch, err);
    if (part == NULL)
        return error_set(err, ERROR_USAGE, "'%s' is no command", command);
    return all ? scenario_run_to(part, s, err) : scenario_run(part, s, err);
}

int
main(int argc, char **argv)
{
    AUTOPTR(error) *err = NULL;
    struct subject s;
    bool ok;

    if (argc != 4) {
        fprintf(stderr, "usage: %s PART|to-PART|originals|verify FOLDER SCRATCH\n",
                argv[0]);
        return 2;
    }
    ok = subject_begin(&s, argv[2], argv[3], &err) && run_command(&s, argv[1], &err);
    if (!ok)
        fprintf(stderr, "%s\n", error_message(err));
    subject_end(&s);
    return ok ? 0 : 1;
}
