/* The new source's part: it goes on from the record, or finds that it cannot. */
#include "daemon/divergence.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"

#define MAX_NUMBERS 16384 /* two for each place, of all disks */

void
divergence_name_record(const struct replication *r, uint64_t epoch,
                       char ret[CAPTURE_NAME_MAX + 1])
{
    snprintf(ret, CAPTURE_NAME_MAX + 1, CAPTURE_NAME_PREFIX "%s-%" PRIu64, r->id, epoch);
}

static const char *
record_of(const struct replication *r)
{
    return json_string_or(r->fork, "record", "");
}

struct json_object *
divergence_ask(const struct replication *r)
{
    struct json_object *o;

    if (record_of(r)[0] == '\0')
        return NULL;
    o = json_object_new_object();
    json_set_string(o, "point", json_string_or(r->fork, "point", ""));
    json_set_string(o, "record", record_of(r));
    return o;
}

/* --- the answer ------------------------------------------------------------------- */

static struct json_object *
find_disk(struct json_object *disks, const char *target)
{
    for (size_t i = 0; disks != NULL && i < json_object_array_length(disks); i++) {
        struct json_object *disk = json_object_array_get_idx(disks, i);

        if (strcmp(json_string_or(disk, "target", ""), target) == 0)
            return disk;
    }
    return NULL;
}

/* It comes from outside: places that the disk has, in ascending order. */
static bool
are_places(struct json_object *places, struct json_object *disk, size_t *n)
{
    int64_t capacity = json_int_or(disk, "capacity", 0), end = 0;

    if (disk == NULL || !json_object_is_type(places, json_type_array) ||
        json_object_array_length(places) % 2 != 0)
        return false;
    *n += json_object_array_length(places);
    for (size_t i = 0; *n <= MAX_NUMBERS && i < json_object_array_length(places);
         i += 2) {
        struct json_object *offset = json_object_array_get_idx(places, i),
                           *length = json_object_array_get_idx(places, i + 1);

        if (!json_object_is_type(offset, json_type_int) ||
            !json_object_is_type(length, json_type_int) ||
            json_object_get_int64(offset) < end ||
            json_object_get_int64(offset) >= capacity ||
            json_object_get_int64(length) <= 0 ||
            json_object_get_int64(length) > capacity - json_object_get_int64(offset))
            return false;
        end = json_object_get_int64(offset) + json_object_get_int64(length);
    }
    return *n <= MAX_NUMBERS;
}

static bool
makes_sense(const struct replication *r, struct json_object *answer,
            struct json_object *disks)
{
    struct json_object *extents = json_object_or_null(answer, "extents");
    size_t n = 0;

    if (record_of(r)[0] == '\0' ||
        strcmp(json_string_or(answer, "record", ""), record_of(r)) != 0)
        return false;
    if (extents == NULL)
        return true;
    json_object_object_foreach (extents, target, places)
        if (!are_places(places, find_disk(disks, target), &n))
            return false;
    return true;
}

/* As the fork had them: what came since has no record. */
static struct json_object *
known_disks(struct json_object *disks)
{
    struct json_object *array = json_object_new_array();

    for (size_t i = 0; disks != NULL && i < json_object_array_length(disks); i++) {
        struct json_object *disk = NULL;

        json_object_deep_copy(json_object_array_get_idx(disks, i), &disk, NULL);
        json_set_bool(disk, "excluded", false);
        json_object_array_add(array, disk);
    }
    return array;
}

static void
go_on_from_record(struct replication *n, struct json_object *answer,
                  struct json_object *disks)
{
    struct json_object *extents = json_object_or_null(answer, "extents");

    n->sync = (struct replication_sync){ .complete = true,
                                         .compare = true,
                                         .started_ms = n->resync.started_ms };
    snprintf(n->sync.name, sizeof n->sync.name, "%s", record_of(n));
    json_object_put(n->disks);
    n->disks = known_disks(disks);
    json_set(n->fork, "extents", json_object_get(extents));
    n->resync.records = true;
    snprintf(n->resync.reason, sizeof n->resync.reason,
             "the direction was reversed; only what is recorded is sent: %s",
             json_string_or(answer, "reason", ""));
}

static void
compare(struct replication *n, const char *why)
{
    char record[CAPTURE_NAME_MAX + 1];

    snprintf(record, sizeof record, "%s", record_of(n));
    n->sync = (struct replication_sync){ 0 };
    divergence_drop(n);
    if (record[0] != '\0')
        cycle_add_stale(n, record);
    snprintf(n->resync.reason, sizeof n->resync.reason,
             "the direction was reversed; the disks are compared: %s", why);
}

void
divergence_take(struct replication *n, struct json_object *answer,
                struct json_object *disks)
{
    bool known = json_bool_or(answer, "known", false);

    n->resync =
        (struct replication_resync){ .started_ms = units_now_ms(), .compare = true };
    if (known && makes_sense(n, answer, disks))
        go_on_from_record(n, answer, disks);
    else
        compare(n, known ? "the target's answer makes no sense"
                         : json_string_or(answer, "reason",
                                          "the target knows nothing of records"));
}

/* --- the delta -------------------------------------------------------------------- */

bool
divergence_is_next(const struct replication *r)
{
    return r->side == SIDE_SOURCE && r->phase == PHASE_INITIAL_SYNC &&
           r->sync.name[0] != '\0' && strcmp(r->sync.name, record_of(r)) == 0 &&
           (r->newest.name[0] == '\0' || strcmp(r->newest.name, r->sync.name) == 0);
}

void
divergence_drop(struct replication *r)
{
    if (r->fork == NULL)
        return;
    json_object_object_del(r->fork, "extents");
    json_object_object_del(r->fork, "record");
}

static bool
is_passing(const struct error *e)
{
    return error_is(e, ERROR_JOB_BUSY) || error_is(e, ERROR_CONNECT) ||
           error_is(e, ERROR_TIMEOUT) || error_is(e, ERROR_CANCELLED) ||
           error_is(e, ERROR_INVALID_STATE);
}

static bool
start_over(struct cycle *c, const char *why, struct error **err)
{
    struct replication *r = c->r;
    bool ok;

    pthread_mutex_lock(&r->lock);
    cycle_start_over(c->daemon, r, why);
    ok = replication_store(c->daemon->replications, r, NULL, 0, err);
    pthread_mutex_unlock(&r->lock);
    return ok;
}

/* libvirt has to know the record as a checkpoint, too, to have it deleted one day. */
static bool
look_at_record(struct cycle *c, uint64_t *ret_bytes, struct error **err)
{
    const struct capture_ops *ops = c->driver->ops;
    const char *record = c->r->sync.name;

    return (ops->adopt == NULL ||
            ops->adopt(c->driver, c->r->vm_uuid, record, c->disks, c->n_disks, err)) &&
           ops->changed(c->driver, c->r->vm_uuid, record, c->disks, c->n_disks, ret_bytes,
                        err);
}

/* A sync goes in slices, so that a broken link costs one of them; a delta goes at once.
   The record of a VM that is off cannot be counted, and is sent. */
bool
divergence_begin(struct cycle *c, struct error **err)
{
    uint64_t most = c->daemon->config->slice_bytes, bytes = 0;
    AUTOFREE(char) *why = NULL;
    char size[UNITS_TEXT_MAX];
    struct error *e = NULL;

    if (!divergence_is_next(c->r) || c->kind == CAPTURE_OFFLINE)
        return true;
    if (!look_at_record(c, &bytes, &e)) {
        if (is_passing(e))
            return error_propagate(err, e);
        why = mem_printf("the record since the failover is lost: %s", error_message(e));
        error_free(e);
        return start_over(c, why, err);
    }
    if (bytes <= most)
        return true;
    why = mem_printf("more than %s was written since the failover",
                     units_format_size(most, size));
    return start_over(c, why, err);
}

bool
divergence_read(struct cycle *c, size_t disk, const struct capture_sink *sink,
                struct error **err)
{
    struct json_object *extents =
        divergence_is_next(c->r) ? json_object_or_null(c->r->fork, "extents") : NULL;
    struct json_object *places = json_array_or_null(extents, c->disks[disk].target);

    for (size_t i = 0; places != NULL && i + 1 < json_object_array_length(places);
         i += 2) {
        uint64_t offset = json_object_get_uint64(json_object_array_get_idx(places, i));
        uint64_t length =
            json_object_get_uint64(json_object_array_get_idx(places, i + 1));

        if (!c->driver->ops->content(c->capture, disk, offset, offset + length, sink,
                                     err))
            return error_prefix(err, "what the target has written");
    }
    return true;
}
