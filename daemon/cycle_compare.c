/* A resync that sends only what differs from the replica (I8). */
#include "common/units.h"
#include "daemon/comparison.h"
#include "daemon/cycle_private.h"

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
