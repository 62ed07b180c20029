/* The first cycle of a VM that came from another host, with its replication. */
#include <string.h>

#include "daemon/cycle_private.h"
#include "daemon/handover.h"

/* Tried again, for it passes; what is lost is found lost when it is needed. */
static bool
is_passing(const struct error *e)
{
    return error_is(e, ERROR_JOB_BUSY) || error_is(e, ERROR_CONNECT) ||
           error_is(e, ERROR_TIMEOUT);
}

static bool
adopt(struct cycle *c, const char *name, struct error **err)
{
    struct error *e = NULL;

    if (name[0] == '\0' ||
        c->driver->ops->adopt(c->driver, c->r->vm_uuid, name, c->disks, c->n_disks, &e))
        return true;
    if (is_passing(e))
        return error_propagate(err, e);
    log_ignore(&c->log, "adopt-failed", &e);
    return true;
}

/* Also those that are to be forgotten: it takes a checkpoint to remove its bitmap. */
static bool
adopt_all(struct cycle *c, struct error **err)
{
    struct replication *r = c->r;

    for (size_t i = 0; i < json_object_array_length(r->stale); i++)
        if (!adopt(c, json_object_get_string(json_object_array_get_idx(r->stale, i)),
                   err))
            return false;
    return adopt(c, replication_record(&r->newest), err) &&
           adopt(c, r->pending.name, err) && adopt(c, r->sync.name, err);
}

bool
cycle_take_over(struct cycle *c, struct error **err)
{
    struct replication *r = c->r;
    bool ok;

    if (r->move.from[0] != '\0' && !handover_confirm(c->daemon, r, err))
        return false;
    if (!r->move.adopt || c->kind == CAPTURE_OFFLINE)
        return true;
    if (c->driver->ops->adopt != NULL && !adopt_all(c, err))
        return error_prefix(err, "take over what was recorded on the former host");
    pthread_mutex_lock(&r->lock);
    r->move.adopt = false;
    ok = replication_store(c->daemon->replications, r, NULL, 0, err);
    r->move.adopt = !ok;
    pthread_mutex_unlock(&r->lock);
    return ok;
}
