/* Resyncs: when they begin, and that they send only what differs from the replica (I8).
 */
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/comparison.h"
#include "daemon/cycle_private.h"
#include "daemon/events.h"
#include "daemon/resync.h"

void
cycle_add_stale(struct replication *r, const char *name)
{
    if (name[0] != '\0')
        json_append_string(r->stale, name);
}

/* The bitmaps are of no use any more: begin anew; points at the target stay. */
void
cycle_start_over(struct daemon *d, struct replication *r, const char *why)
{
    struct log_ctx log = replication_log(r);

    cycle_add_stale(r, r->newest.name);
    cycle_add_stale(r, r->pending.name);
    if (strcmp(r->sync.name, r->newest.name) != 0)
        cycle_add_stale(r, r->sync.name);
    r->newest.name[0] = '\0';
    r->pending.name[0] = '\0';
    r->sync = (struct replication_sync){ 0 };
    r->resync = (struct replication_resync){ .started_ms = units_now_ms() };
    snprintf(r->resync.reason, sizeof r->resync.reason, "%s", why);
    if (r->phase == PHASE_REPLICATING)
        r->phase = PHASE_RESYNCING;
    events_emit(
        d, EVENT_WARNING, &log, "resync",
        "the disks are synchronised anew, what differs is sent: %s; earlier points "
        "stay usable",
        why);
}

bool
cycle_waits(struct cycle *c)
{
    int64_t until_ms;

    pthread_mutex_lock(&c->r->lock);
    until_ms = resync_waits_until_ms(c->daemon->config, c->r, units_now_ms());
    pthread_mutex_unlock(&c->r->lock);
    return until_ms > 0;
}

bool
cycle_compare(struct cycle *c, size_t disk, uint64_t from, uint64_t to,
              const struct capture_sink *sink, struct error **err)
{
    const struct comparison_settings settings = {
        .stream = c->stream,
        .capture = c->capture,
        .read = c->capture->driver->ops->read,
        .disk = disk,
        .sink = sink,
        .n_frames = &c->n_frames,
        .looked = &c->looked_bytes,
        .progress = &c->r->progress_done,
    };

    return comparison_run(&settings, from, MIN(to, c->capacities[disk]), err);
}
