#include "daemon/resync.h"

#include <time.h>

#include "common/json.h"
#include "common/units.h"

static uint64_t
disks_bytes(const struct replication *r)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < json_object_array_length(r->disks); i++) {
        struct json_object *disk = json_object_array_get_idx(r->disks, i);

        if (!json_bool_or(disk, "excluded", false))
            bytes += (uint64_t)json_int_or(disk, "capacity", 0);
    }
    return bytes;
}

static bool
is_under_way(const struct replication *r)
{
    return r->resync.started_ms > r->resync.ended_ms;
}

/* Nothing of it has been taken by the target yet. */
static bool
has_not_begun(const struct replication *r)
{
    return r->phase == PHASE_RESYNCING && r->newest.name[0] == '\0' &&
           r->sync.target[0] == '\0' && r->sync.offset == 0 && !r->sync.complete;
}

int64_t
resync_waits_until_ms(const struct config *config, const struct replication *r,
                      int64_t now_ms)
{
    int64_t next_ms;

    if (r->resync.held_until_ms > now_ms)
        return r->resync.held_until_ms;
    if (!is_under_way(r) || !has_not_begun(r) || r->resync.at_once ||
        disks_bytes(r) < config->resync_window_above_bytes)
        return 0;
    next_ms = time_window_next_ms(&config->resync_window, now_ms);
    return next_ms > now_ms ? next_ms : 0;
}

char *
resync_wait_text(const struct replication *r, int64_t until_ms)
{
    time_t until_s = (time_t)(until_ms / 1000);
    struct tm tm;

    localtime_r(&until_s, &tm);
    if (until_ms == r->resync.held_until_ms)
        return mem_printf("nothing is captured until %02d:%02d, so that the VM can be "
                          "reverted to a snapshot; to go on now: virt-dr resume %s",
                          tm.tm_hour, tm.tm_min, r->vm_name);
    return mem_printf("the disks are not in line with the replica since %s; comparing "
                      "them waits for the window that begins at %02d:%02d; to start it "
                      "now: virt-dr resync %s",
                      r->resync.reason, tm.tm_hour, tm.tm_min, r->vm_name);
}

struct json_object *
resync_view(const struct config *config, const struct replication *r)
{
    int64_t waits_ms = resync_waits_until_ms(config, r, units_now_ms());
    struct json_object *o;

    if (r->resync.started_ms == 0)
        return NULL;
    o = json_object_new_object();
    json_set_string(o, "state",
                    waits_ms > 0      ? "waiting"
                    : is_under_way(r) ? "running"
                                      : "done");
    json_set_string(o, "reason", r->resync.reason);
    json_set_bool(o, "compare", r->resync.compare);
    json_set_bool(o, "byRecords", r->resync.records);
    json_set_int(o, "started", r->resync.started_ms);
    json_set(o, "ended",
             is_under_way(r) ? NULL : json_object_new_int64(r->resync.ended_ms));
    json_set(o, "waitsUntil", waits_ms > 0 ? json_object_new_int64(waits_ms) : NULL);
    json_set_u64(o, "comparedBytes", r->resync.looked_bytes);
    json_set_u64(o, "sentBytes", r->resync.sent_bytes);
    json_set_u64(o, "wireBytes", r->resync.wire_bytes);
    return o;
}
