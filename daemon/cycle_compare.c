/* Resyncs: when they begin, and that they send only what differs (I8). */
#include "common/units.h"
#include "daemon/comparison.h"
#include "daemon/cycle_private.h"
#include "daemon/resync.h"

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
