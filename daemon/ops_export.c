/*
 * export: a recovery point is served read-only by NBD.
 *
 * data: {replication, point: the choice, overlay, name, transport "unix" or
 * "tls", listen HOST:PORT, user}; the resource is the export. Findings: those of
 * point_overlay.h, document.
 */
#include "common/json.h"
#include "common/units.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/exports.h"
#include "daemon/ops.h"
#include "daemon/point_overlay.h"

static bool
choose_point(struct op *op, struct error **err)
{
    return exports_check_name(op->daemon->exports, json_string_or(op->data, "name", ""),
                              err) &&
           point_overlay_choose(op, err);
}

static struct json_object *
document(struct op *op)
{
    static const char *const copied[] = { "name", "replication", "transport", "user" };
    struct json_object *doc = json_object_new_object();
    struct json_object *disks = NULL;

    json_set_string(doc, "id", json_string_or(op->data, "overlay", ""));
    for (size_t i = 0; i < N_ELEMENTS(copied); i++)
        json_set_string(doc, copied[i], json_string_or(op->data, copied[i], NULL));
    json_set_string(doc, "vmName", op->log.vm);
    json_set_string(doc, "address", json_string_or(op->data, "listen", NULL));
    json_set(doc, "point", json_object_get(json_object_or_null(op->data, "chosen")));
    json_object_deep_copy(json_array_or_null(op->data, "disks"), &disks, NULL);
    json_set(doc, "disks", disks);
    json_set_int(doc, "createdTime", units_now_ms());
    return doc;
}

static bool
prepare(struct op *op, struct error **err)
{
    AUTOJSON *doc = document(op);

    if (!exports_prepare(op->daemon->exports, doc, err))
        return false;
    json_set(op->data, "document", TAKE(doc));
    return true;
}

static bool
discard(struct op *op, struct error **err)
{
    return exports_discard(op->daemon->exports, json_string_or(op->data, "overlay", ""),
                           err);
}

static bool
serve(struct op *op, struct error **err)
{
    AUTOJSON *doc = NULL;

    /* Its own: what the task has goes on being changed. */
    json_object_deep_copy(json_object_or_null(op->data, "document"), &doc, NULL);
    return exports_add(op->daemon->exports, doc, &op->result, err);
}

/* A crash may have come between its document and the end of the step. */
static bool
unserve(struct op *op, struct error **err)
{
    struct error *e = NULL;

    if (exports_remove(op->daemon->exports, json_string_or(op->data, "overlay", ""), &e))
        return true;
    if (!error_is(e, ERROR_NOT_FOUND))
        return error_propagate(err, e);
    error_free(e);
    return true;
}

static void
ended(struct op *op, const struct error *failure)
{
    point_overlay_release(op);
    if (failure == NULL)
        events_emit(op->daemon, EVENT_INFO, &op->log, "exported",
                    "a point of VM '%s' is served as export '%s'", op->log.vm,
                    json_string_or(op->data, "name", ""));
}

/* clang-format off */
static const struct op_step steps[] = {
    /* name            run                  undo                  timeout_s  commits */
    { "choose-point",  choose_point,        NULL,                 10,        false },
    { "make-overlay",  point_overlay_make,  point_overlay_remove, 3600,      false },
    { "prepare",       prepare,             discard,              30,        false },
    { "serve",         serve,               unserve,              60,        true  },
    { 0 },
};
/* clang-format on */

const struct op_kind op_export = { .name = "export",
                                   .company = OP_BESIDE,
                                   .result_type = "export",
                                   .steps = steps,
                                   .ended = ended };
