/*
 * What a target does with a store, from its beginning to its end, and the check
 * of what is there after a fault.
 *
 *     store_scenario run FOLDER SCRATCH     all steps
 *     store_scenario destroy FOLDER SCRATCH
 *     store_scenario verify FOLDER SCRATCH
 *
 * SCRATCH is on a file system that no fault reaches, and keeps the record.
 */
#include <stdio.h>
#include <string.h>

#include "tests/faults/subject.h"
#include "tests/faults/verify.h"

#define POINT(seq) (1ull << (seq))

/* model.h knows which points are special: 1 and 8 come after a sync, 5 is idle, 6 grows.
 */
static const struct subject_step all_steps[] = {
    { "create", subject_create, 0 },
    { "open", subject_open, 0 },
    { "first-sync", subject_sync, 1 },
    { "receive", subject_receive, 1 },
    { "apply-first", subject_apply, 1 },
    { "receive", subject_receive, 2 },
    { "apply", subject_apply, 2 },
    { "receive", subject_receive, 3 },
    { "receive", subject_receive, 4 },
    { "apply", subject_apply, 3 },
    { "apply", subject_apply, 4 },
    { "seal", subject_seal, 0 },
    { "digest", subject_digest, 0 },
    { "replay", subject_overlay, 3 },
    { "receive", subject_receive, 5 },
    { "apply", subject_apply, 5 },
    { "receive", subject_receive, 6 },
    { "apply-grow", subject_apply, 6 },
    { "seal", subject_seal, 0 },
    { "retain", subject_retain, POINT(1) | POINT(3) | POINT(6) },
    { "fold", subject_fold, 0 },
    { "receive", subject_receive, 7 },
    { "apply", subject_apply, 7 },
    { "overlay-remove", subject_no_overlay, 0 },
    { "resync", subject_sync, 8 },
    { "reset", subject_sync, 8 },
    { "receive", subject_receive, 8 },
    { "apply-first", subject_apply, 8 },
    { "receive", subject_receive, 9 },
    { "apply", subject_apply, 9 },
    { "seal", subject_seal, 0 },
    { "retain", subject_retain, POINT(3) | POINT(7) | POINT(8) | POINT(9) },
    { "fold", subject_fold, 0 },
    { "digest", subject_digest, 0 },
    { "scrub", subject_scrub, 0 },
    { "receive", subject_receive, 10 },
    { "close", subject_close, 0 },
};

static const struct subject_step destroy_steps[] = {
    { "destroy", subject_destroy, 0 },
};

static bool
run_steps(struct subject *s, const struct subject_step *steps, size_t n,
          struct error **err)
{
    for (size_t i = 0; i < n; i++)
        if (!subject_run(s, &steps[i], err))
            return false;
    return true;
}

static bool
run_command(struct subject *s, const char *command, struct error **err)
{
    if (strcmp(command, "run") == 0)
        return run_steps(s, all_steps, N_ELEMENTS(all_steps), err);
    if (strcmp(command, "destroy") == 0)
        return run_steps(s, destroy_steps, N_ELEMENTS(destroy_steps), err);
    if (strcmp(command, "verify") == 0)
        return verify_store(s, err);
    return error_set(err, ERROR_USAGE, "'%s' is no command", command);
}

int
main(int argc, char **argv)
{
    AUTOPTR(error) *err = NULL;
    struct subject s;
    bool ok;

    if (argc != 4) {
        fprintf(stderr, "usage: %s run|destroy|verify FOLDER SCRATCH\n", argv[0]);
        return 2;
    }
    ok = subject_begin(&s, argv[2], argv[3], &err) && run_command(&s, argv[1], &err);
    if (!ok)
        fprintf(stderr, "%s\n", error_message(err));
    subject_end(&s);
    return ok ? 0 : 1;
}
