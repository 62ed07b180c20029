#include "daemon/seed_capture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle_private.h"
#include "drivers/store/folder.h"
#include "drivers/store/pace.h"
#include "drivers/store/seed_writer.h"

#define WINDOW_BYTES                                                  \
    (16ull << 20) /* read at once; the slice's end is checked between \
                   */

struct work {
    const struct seed_capture *s;
    struct cycle c; /* of a replication that nobody else knows */
    int folder;     /* where the storage daemon works */
    struct seed_writer *writer;
    struct store_effort effort;
    struct pace pace;
    size_t disk; /* where the next slice begins */
    uint64_t offset;
};

/* --- where the storage daemon works ---------------------------------------------------
 */

/* STATE/seeds/UUID. */
static bool
open_folder(const struct seed_capture *s, int *ret, struct error **err)
{
    AUTOFD(state) = -1;
    AUTOFD(seeds) = -1;

    return folder_open(AT_FDCWD, s->op->daemon->config->state_folder, &state, err) &&
           folder_make(state, "seeds", err) && folder_open(state, "seeds", &seeds, err) &&
           folder_make(seeds, s->vm_uuid, err) &&
           folder_open(seeds, s->vm_uuid, ret, err);
}

static void
remove_folder(const struct seed_capture *s)
{
    AUTOFREE(char) *path = mem_printf("%s/seeds", s->op->daemon->config->state_folder);
    AUTOFD(seeds) = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (seeds >= 0)
        (void)folder_remove(seeds, s->vm_uuid, NULL);
}

/* --- content --------------------------------------------------------------------------
 */

static bool
sink_data(void *opaque, size_t disk, uint64_t offset, const void *data, size_t length,
          struct error **err)
{
    struct work *w = opaque;

    return pace_spend(&w->pace, length, err) &&
           seed_writer_data(w->writer, disk, offset, data, length, err);
}

/* New images are zero already. */
static bool
sink_nothing(void *opaque UNUSED, size_t disk UNUSED, uint64_t offset UNUSED,
             uint64_t length UNUSED, struct error **err UNUSED)
{
    return true;
}

static bool
sink_zero(void *opaque, size_t disk, uint64_t offset, uint64_t length, struct error **err)
{
    struct work *w = opaque;

    return seed_writer_zero(w->writer, disk, offset, length, err);
}

static void
show_progress(uint64_t done, uint64_t total, void *opaque)
{
    struct work *w = opaque;

    op_transfer(w->s->op, done, total);
}

static bool
check_room(const struct work *w, struct error **err)
{
    uint64_t used, free_bytes;
    char need[UNITS_TEXT_MAX], have[UNITS_TEXT_MAX];

    if (!folder_space(w->s->folder, &used, &free_bytes, err))
        return false;
    return free_bytes >= w->pace.total ||
           error_set(err, ERROR_NO_SPACE, "'%s' has %s free, but %s are to be written",
                     w->s->folder, units_format_size(free_bytes, have),
                     units_format_size(w->pace.total, need));
}

/* How much there is in all; once. What the guest writes meanwhile comes on top. */
static bool
measure(struct work *w, struct error **err)
{
    struct cycle *c = &w->c;

    if (w->pace.total > 0)
        return true;
    for (size_t i = 0; i < c->n_disks; i++) {
        uint64_t bytes;

        if (!c->driver->ops->measure(c->capture, i, 0, c->capacities[i], &bytes, err))
            return error_prefix(err, "disk '%s'", c->disks[i].target);
        w->pace.total += bytes;
    }
    return check_room(w, err);
}

static bool
read_range(struct work *w, size_t disk, uint64_t from, uint64_t to,
           const struct capture_sink *sink, struct error **err)
{
    return w->c.driver->ops->read(w->c.capture, disk, from, to, sink, err) ||
           error_prefix(err, "disk '%s'", w->c.disks[disk].target);
}

/* --- captures -------------------------------------------------------------------------
 */

/* base, name: "" is none. */
static bool
begin(struct work *w, const char *base, const char *name, struct error **err)
{
    struct cycle *c = &w->c;
    struct capture_request request;

    cycle_fill_request(c, base, name, &request);
    return c->driver->ops->begin(c->driver, &request, &c->capture, &c->time_ms, err) &&
           cycle_check_sizes(c, err);
}

static bool
end(struct work *w, struct error **err)
{
    return w->c.driver->ops->end(TAKE(w->c.capture), err);
}

static bool
is_behind(const struct work *w)
{
    return w->disk == w->c.n_disks;
}

/* Until the capture has been open long enough; until_ms 0: to the end. */
static bool
read_on(struct work *w, int64_t until_ms, struct error **err)
{
    const struct capture_sink sink = { .data = sink_data,
                                       .zero = sink_nothing,
                                       .opaque = w };

    while (!is_behind(w) && (until_ms == 0 || units_monotonic_ms() < until_ms)) {
        uint64_t capacity = w->c.capacities[w->disk];
        uint64_t to = MIN(capacity, w->offset + WINDOW_BYTES);

        if (!read_range(w, w->disk, w->offset, to, &sink, err))
            return false;
        w->offset = to;
        if (to == capacity) {
            w->disk++;
            w->offset = 0;
        }
    }
    return true;
}

static bool
slice(struct work *w, const char *name, struct error **err)
{
    int64_t slice_ms = w->c.daemon->config->slice_ms;

    return begin(w, "", name, err) && measure(w, err) &&
           read_on(w, units_monotonic_ms() + slice_ms, err) && end(w, err);
}

/* What was written after the first slice began, whenever its place was read. */
static bool
changes(struct work *w, struct error **err)
{
    const struct capture_sink sink = { .data = sink_data,
                                       .zero = sink_zero,
                                       .opaque = w };

    if (!begin(w, w->s->first, w->s->record, err))
        return false;
    for (size_t i = 0; i < w->c.n_disks; i++)
        if (!read_range(w, i, 0, w->c.capacities[i], &sink, err))
            return false;
    return end(w, err);
}

static bool
forget(struct work *w, const char *name, struct error **err)
{
    return cycle_forget(w->c.daemon, w->c.r, name, err);
}

static bool
capture_running(struct work *w, struct error **err)
{
    const char *name = w->s->first;

    if (!forget(w, w->s->first, err) || !forget(w, w->s->record, err))
        return false;
    for (; !is_behind(w); name = "")
        if (!slice(w, name, err))
            return false;
    return changes(w, err) && forget(w, w->s->first, err) &&
           (w->s->keeps_record || forget(w, w->s->record, err));
}

static bool
capture_off(struct work *w, struct error **err)
{
    return begin(w, "", "", err) && measure(w, err) && read_on(w, 0, err) && end(w, err);
}

/* --- the whole ------------------------------------------------------------------------
 */

static bool
look(struct work *w, const struct seed_capture *s, struct error **err)
{
    struct op *op = s->op;
    struct cycle *c = &w->c;

    *w = (struct work){ .s = s, .folder = -1 };
    *c = (struct cycle){ .daemon = op->daemon, .cancel = &op->cancel, .log = op->log };
    c->r = replication_new(SIDE_SOURCE, op->resource_id, s->vm_uuid, op->log.vm, "");
    w->effort =
        (struct store_effort){ .rate_bytes_s = op->daemon->config->upkeep_rate_bytes,
                               .cancel = &op->cancel,
                               .progress = show_progress,
                               .opaque = w };
    w->pace.effort = &w->effort;
    return cycle_look_at_domain(c, err) && open_folder(s, &w->folder, err) &&
           seed_writer_end_stale(w->folder, err);
}

static bool
open_writer(struct work *w, struct error **err)
{
    AUTOFREE(struct store_disk) *disks = mem_alloc(w->c.n_disks, sizeof *disks);
    const struct seed_writer_settings settings = { .folder = w->s->folder,
                                                   .work = w->folder,
                                                   .disks = disks,
                                                   .n_disks = w->c.n_disks,
                                                   .cancel = &w->s->op->cancel };

    for (size_t i = 0; i < w->c.n_disks; i++) {
        snprintf(disks[i].target, sizeof disks[i].target, "%s", w->c.disks[i].target);
        disks[i].capacity_bytes = w->c.capacities[i];
    }
    return seed_writer_open(&settings, &w->writer, err);
}

static void
close_work(struct work *w)
{
    struct error *e = NULL;

    if (w->c.capture != NULL && !w->c.capture->driver->ops->end(w->c.capture, &e))
        log_ignore(&w->c.log, "capture-not-ended", &e);
    seed_writer_close(w->writer);
    hv_domain_free(w->c.domain);
    free(w->c.disks);
    replication_unref(w->c.r);
    if (w->folder >= 0)
        close(w->folder);
}

static struct json_object *
describe(const struct work *w)
{
    struct json_object *o = json_object_new_object();
    struct json_object *disks = json_object_new_array();

    for (size_t i = 0; i < w->c.n_disks; i++) {
        struct json_object *disk = json_object_new_object();

        json_set_string(disk, "target", w->c.disks[i].target);
        json_set_u64(disk, "capacity", w->c.capacities[i]);
        json_set_bool(disk, "excluded", false);
        json_object_array_add(disks, disk);
    }
    json_set(o, "disks", disks);
    json_set_int(o, "time", w->c.time_ms);
    json_set_bool(o, "recorded", w->c.kind != CAPTURE_OFFLINE && w->s->keeps_record);
    json_set(o, "capture", json_object_get(w->c.r->capture));
    return o;
}

bool
seed_capture_run(const struct seed_capture *s, struct json_object **ret,
                 struct error **err)
{
    struct work w;
    bool ok = look(&w, s, err);

    if (ok)
        cycle_recover(w.c.daemon, w.c.r);
    ok =
        ok && open_writer(&w, err) &&
        (w.c.kind == CAPTURE_OFFLINE ? capture_off(&w, err) : capture_running(&w, err)) &&
        seed_writer_flush(w.writer, err);
    if (ok)
        *ret = describe(&w);
    close_work(&w);
    return ok;
}

/* A VM that is off, or is gone, has nothing of ours that runs. */
bool
seed_capture_clean(const struct seed_capture *s, struct error **err)
{
    struct work w;
    struct error *e = NULL;
    bool ok = look(&w, s, &e);

    if (!ok && error_is(e, ERROR_DOMAIN_NOT_FOUND)) {
        error_clear(&e);
    } else if (ok && w.c.kind != CAPTURE_OFFLINE) {
        cycle_recover(w.c.daemon, w.c.r);
        ok = forget(&w, s->first, &e) && forget(&w, s->record, &e);
    }
    close_work(&w);
    remove_folder(s);
    return e == NULL || error_propagate(err, e);
}
