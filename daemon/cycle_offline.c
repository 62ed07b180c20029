/*
 * A VM that is off: its images are looked at before they are read. As long as
 * their generation is that of the newest point, only the point's time moves on.
 */
#include "daemon/cycle_private.h"
#include "drivers/capture/generation.h"

void
cycle_look_at_images(struct cycle *c)
{
    const char *paths[WIRE_MAX_DISKS];
    size_t n = 0;
    struct error *e = NULL;

    c->generation = 0;
    if (c->kind != CAPTURE_OFFLINE)
        return;
    for (size_t i = 0; i < c->domain->n_disks && n < WIRE_MAX_DISKS; i++)
        if (capture_is_chosen(&c->domain->disks[i], c->r->excluded))
            paths[n++] = c->domain->disks[i].path;
    if (!generation_of(paths, n, &c->generation, &e))
        log_ignore(&c->log, "generation-unknown", &e);
}

bool
cycle_is_unchanged(const struct cycle *c)
{
    return c->generation != 0 && c->generation == c->r->newest.generation;
}

bool
cycle_is_replaced(const struct cycle *c)
{
    return c->kind == CAPTURE_OFFLINE && c->r->newest.generation != 0 &&
           !cycle_is_unchanged(c) && !atomic_load(&c->r->has_run);
}
