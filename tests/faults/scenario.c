#include "tests/faults/scenario.h"

#include <string.h>

#include "tests/faults/model.h"

#define POINT(seq) (1ull << (seq))
#define HOME(n)    (MODEL_HOME + (n))

/* model.h knows which points are special: 1 and 8 come after a sync, 5 is idle, 6 grows.
 */
static const struct subject_step sync_steps[] = {
    { "create", subject_create, 0 },     { "open", subject_open, 0 },
    { "first-sync", subject_sync, 1 },   { "receive", subject_receive, 1 },
    { "apply-first", subject_apply, 1 }, { "receive", subject_receive, 2 },
    { "apply", subject_apply, 2 },       { "close", subject_close, 0 },
};

static const struct subject_step points_steps[] = {
    { "open", subject_open, 0 },       { "receive", subject_receive, 3 },
    { "receive", subject_receive, 4 }, { "apply", subject_apply, 3 },
    { "apply", subject_apply, 4 },     { "seal", subject_seal, 0 },
    { "digest", subject_digest, 0 },   { "replay", subject_overlay, 3 },
    { "receive", subject_receive, 5 }, { "apply", subject_apply, 5 },
    { "receive", subject_receive, 6 }, { "apply-grow", subject_apply, 6 },
    { "seal", subject_seal, 0 },       { "close", subject_close, 0 },
};

static const struct subject_step thin_steps[] = {
    { "open", subject_open, 0 },
    { "retain", subject_retain, POINT(1) | POINT(3) | POINT(6) },
    { "fold", subject_fold, 0 },
    { "receive", subject_receive, 7 },
    { "apply", subject_apply, 7 },
    { "overlay-remove", subject_no_overlay, 0 },
    { "close", subject_close, 0 },
};

static const struct subject_step resync_steps[] = {
    { "open", subject_open, 0 },         { "resync", subject_sync, 8 },
    { "reset", subject_sync, 8 },        { "receive", subject_receive, 8 },
    { "apply-first", subject_apply, 8 }, { "receive", subject_receive, 9 },
    { "apply", subject_apply, 9 },       { "seal", subject_seal, 0 },
    { "close", subject_close, 0 },
};

static const struct subject_step thin_more_steps[] = {
    { "open", subject_open, 0 },
    { "retain", subject_retain, POINT(3) | POINT(7) | POINT(8) | POINT(9) },
    { "fold", subject_fold, 0 },
    { "digest", subject_digest, 0 },
    { "scrub", subject_scrub, 0 },
    { "receive", subject_receive, 10 },
    { "close", subject_close, 0 },
};

/* On the images that a VM had here; what is failed over is kept, and stood upon. */
static const struct subject_step home_steps[] = {
    { "create-on-originals", subject_create, MODEL_HOME },
    { "open", subject_open, 0 },
    { "mark-originals", subject_first, MODEL_BEFORE },
    { "sync-differences", subject_sync, HOME(2) },
    { "receive", subject_receive, HOME(2) },
    { "apply-first", subject_apply, HOME(2) },
    { "receive", subject_receive, HOME(3) },
    { "apply", subject_apply, HOME(3) },
    { "overlay-with-record", subject_failover, HOME(2) },
    { "guest", subject_guest, HOME(2) },
    { "close", subject_close, 0 },
};

static const struct subject_step kept_steps[] = {
    { "open", subject_open, 0 },
    { "keep", subject_keep, 0 },
    { "overlay-on-kept", subject_clone, HOME(2) },
    { "accept-originals", subject_accept, 0 },
    { "receive", subject_receive, HOME(4) },
    { "apply", subject_apply, HOME(4) },
    { "seal", subject_seal, 0 },
    { "retain", subject_retain, POINT(1) | POINT(4) },
    { "overlay-remove", subject_no_clone, 0 },
    { "kept-remove", subject_no_kept, 0 },
    { "fold-above-originals", subject_fold, 0 },
    { "retain-originals", subject_retain, POINT(4) },
    { "fold-above-originals", subject_fold, 0 },
    { "digest", subject_digest, 0 },
    { "scrub", subject_scrub, 0 },
    { "close", subject_close, 0 },
};

static const struct subject_step destroy_steps[] = {
    { "destroy", subject_destroy, 0 },
};

#define PART(name, after, destroys, steps)              \
    {                                                   \
        name, after, destroys, steps, N_ELEMENTS(steps) \
    }

static const struct scenario_part parts[] = {
    PART("sync", NULL, false, sync_steps),
    PART("points", "sync", false, points_steps),
    PART("thin", "points", false, thin_steps),
    PART("resync", "thin", false, resync_steps),
    PART("thin-more", "resync", false, thin_more_steps),
    PART("home", NULL, false, home_steps),
    PART("kept", "home", false, kept_steps),
    PART("destroy", "thin-more", true, destroy_steps),
    PART("destroy-home", "home", true, destroy_steps),
};

const struct scenario_part *
scenario_parts(size_t *ret_n)
{
    *ret_n = N_ELEMENTS(parts);
    return parts;
}

const struct scenario_part *
scenario_find(const char *name)
{
    for (size_t i = 0; name != NULL && i < N_ELEMENTS(parts); i++)
        if (strcmp(parts[i].name, name) == 0)
            return &parts[i];
    return NULL;
}

bool
scenario_run(const struct scenario_part *part, struct subject *s, struct error **err)
{
    for (size_t i = 0; i < part->n_steps; i++)
        if (!subject_run(s, &part->steps[i], err))
            return false;
    return true;
}

bool
scenario_run_to(const struct scenario_part *part, struct subject *s, struct error **err)
{
    const struct scenario_part *before = scenario_find(part->after);

    return (before == NULL || scenario_run_to(before, s, err)) &&
           scenario_run(part, s, err);
}
