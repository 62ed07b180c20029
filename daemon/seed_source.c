#include "daemon/seed_source.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/peers.h"
#include "daemon/tasks.h"

#define KIND   "seed"
#define ASK_MS 500
#define PATIENT_MS \
    (15ll * 60 * 1000) /* with a target that does not answer: it may boot */

/* --- waiting --------------------------------------------------------------------------
 */

static bool
ask(struct op *op, struct json_object **ret, struct error **err)
{
    AUTOFREE(char) *path = mem_printf("/api/v1/peers/replications/%s", op->resource_id);

    return peers_call(op->daemon->peers, json_string_or(op->data, "peer", ""), "GET",
                      path, NULL, ret, err);
}

static void
take_findings(struct op *op, struct json_object *seed)
{
    struct json_object *warnings = json_array_or_null(seed, "warnings");

    json_set_string(op->data, "seedRecord", json_string_or(seed, "record", ""));
    for (size_t i = 0; warnings != NULL && i < json_object_array_length(warnings); i++)
        op_warn(op, "%s", json_object_get_string(json_object_array_get_idx(warnings, i)));
}

/* *ret_done: there is nothing more to wait for. */
static bool
look(struct op *op, struct json_object *answer, bool *ret_done, struct error **err)
{
    struct json_object *seed = json_object_or_null(answer, "seed");
    const char *state = json_string_or(seed, "state", "");

    if (strcmp(state, "failed") == 0)
        return json_to_error(json_object_or_null(seed, "error"), err) ||
               error_prefix(err, "the target could not import the seed");
    if (seed == NULL)
        return error_set(err, ERROR_VERSION,
                         "the target knows nothing of seeds; upgrade its virt-dr");
    *ret_done = strcmp(state, "done") == 0;
    if (*ret_done)
        take_findings(op, seed);
    else
        op_transfer(op, (uint64_t)json_int_or(seed, "done", 0),
                    (uint64_t)json_int_or(seed, "total", 0));
    return true;
}

static bool
is_passing(const struct error *e)
{
    return error_is(e, ERROR_CONNECT) || error_is(e, ERROR_TIMEOUT);
}

bool
seed_source_await(struct op *op, struct error **err)
{
    int64_t heard_ms = units_monotonic_ms();
    bool done = false;

    while (!done) {
        AUTOJSON *answer = NULL;
        struct error *e = NULL;

        if (!cancel_check(&op->cancel, err))
            return false;
        if (ask(op, &answer, &e)) {
            heard_ms = units_monotonic_ms();
            if (!look(op, answer, &done, err))
                return false;
        } else if (!is_passing(e) || units_monotonic_ms() - heard_ms > PATIENT_MS) {
            return error_propagate(err, e);
        }
        error_free(e);
        if (!done)
            poll(NULL, 0, cancel_remaining_ms(&op->cancel, ASK_MS));
    }
    return true;
}

/* --- the record -----------------------------------------------------------------------
 */

bool
seed_source_find(struct daemon *d, const char *vm_uuid, struct json_object **ret,
                 struct error **err)
{
    struct error *e = NULL;

    *ret = NULL;
    if (d->state->ops->get(d->state, KIND, vm_uuid, ret, &e))
        return true;
    if (!error_is(e, ERROR_NOT_FOUND))
        return error_propagate(err, e);
    error_free(e);
    return true;
}

bool
seed_source_keep(struct daemon *d, const char *vm_uuid, struct json_object *doc,
                 struct error **err)
{
    const struct state_write write = { .kind = KIND, .id = vm_uuid, .body = doc };

    return d->state->ops->commit(d->state, &write, 1, err);
}

bool
seed_source_drop(struct daemon *d, const char *vm_uuid, struct error **err)
{
    return seed_source_keep(d, vm_uuid, NULL, err);
}

/* As if all slices of a sync of that name had come: what follows is its delta. */
static void
go_on_from(struct replication *r, struct json_object *doc)
{
    r->sync = (struct replication_sync){ .complete = true,
                                         .compare = true,
                                         .started_ms = units_now_ms() };
    snprintf(r->sync.name, sizeof r->sync.name, "%s", json_string_or(doc, "record", ""));
    json_object_put(r->disks);
    r->disks = json_object_get(json_array_or_null(doc, "disks"));
    r->resync =
        (struct replication_resync){ .started_ms = units_now_ms(), .compare = true };
    snprintf(
        r->resync.reason, sizeof r->resync.reason,
        "the replica began with a seed, and what has changed since it was exported is "
        "recorded: only that is sent");
}

bool
seed_source_adopt(struct daemon *d, struct replication *r, const char *record,
                  struct error **err)
{
    AUTOJSON *doc = NULL;
    const char *name;

    if (!seed_source_find(d, r->vm_uuid, &doc, err))
        return false;
    name = json_string_or(doc, "record", "");
    if (name[0] == '\0')
        return true;
    r->capture = json_object_get(json_object_or_null(doc, "capture"));
    if (strcmp(name, record) == 0)
        go_on_from(r, doc);
    else
        json_append_string(r->stale, name);
    return true;
}
