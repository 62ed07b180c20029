/*
 * test-cleanup: the domain of a test failover, its network, its overlay go; what was
 * seen stays, with what the operator says of it.
 *
 * data: {replication, test: its id, why}; the resource is the test. From the first step
 * on the way is only forward: one that fails is begun again by itself, later.
 */
#include "common/json.h"
#include "common/units.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/ops.h"
#include "daemon/testrun_cleanup.h"

#define RETRY_FIRST_MS  10000
#define RETRY_MAX_SHIFT 8 /* three quarters of an hour */

static const char *
id_of(struct op *op)
{
    return json_string_or(op->data, "test", "");
}

static bool
begin(struct op *op, struct error **err)
{
    return testrun_cleanup_begin(op->daemon, id_of(op),
                                 json_string_or(op->data, "why", "the operator"), err);
}

/* One that is gone altogether was done by somebody else. */
static bool
with_document(struct op *op,
              bool (*fn)(struct daemon *d, struct json_object *doc, struct error **err),
              struct error **err)
{
    AUTOJSON *doc = NULL;

    return !testruns_get(op->daemon->testruns, id_of(op), &doc, NULL) ||
           fn(op->daemon, doc, err);
}

static bool
stop_domain(struct op *op, struct error **err)
{
    return with_document(op, testrun_cleanup_domain, err);
}

static bool
remove_network(struct op *op, struct error **err)
{
    return with_document(op, testrun_cleanup_network, err);
}

static bool
remove_files(struct op *op, struct error **err)
{
    return with_document(op, testrun_cleanup_files, err);
}

static bool
remove_overlay(struct op *op, struct error **err)
{
    return with_document(op, testrun_cleanup_overlay, err);
}

static bool
finish(struct op *op, struct error **err)
{
    return testruns_close(op->daemon->testruns, id_of(op), err);
}

static void
set_retry(struct json_object *doc, void *opaque UNUSED)
{
    int64_t tries = json_int_or(doc, "tries", 0);

    json_set_int(doc, "tries", tries + 1);
    json_set_int(doc, "nextTry",
                 units_now_ms() +
                     ((int64_t)RETRY_FIRST_MS << MIN(tries, RETRY_MAX_SHIFT)));
}

static void
ended(struct op *op, const struct error *failure)
{
    struct error *e = NULL;

    if (failure == NULL) {
        testruns_get(op->daemon->testruns, id_of(op), &op->result, NULL);
        events_emit(op->daemon, EVENT_INFO, &op->log, "test-cleaned-up",
                    "what test '%s' of VM '%s' had made is removed", id_of(op),
                    op->log.vm);
        return;
    }
    events_emit(op->daemon, EVENT_WARNING, &op->log, "test-cleanup-failed",
                "test '%s' of VM '%s' cannot be cleaned up; it is tried again: %s",
                id_of(op), op->log.vm, error_message(failure));
    if (!testruns_change(op->daemon->testruns, id_of(op), set_retry, NULL, &e))
        log_ignore(&op->log, "test-retry-unknown", &e);
}

/* clang-format off */
static const struct op_step steps[] = {
    /* name              run             undo  timeout_s  commits */
    { "begin",           begin,          NULL, 10,        true  },
    { "stop-domain",     stop_domain,    NULL, 120,       false },
    { "remove-network",  remove_network, NULL, 60,        false },
    { "remove-files",    remove_files,   NULL, 60,        false },
    { "remove-overlay",  remove_overlay, NULL, 600,       false },
    { "finish",          finish,         NULL, 30,        false },
    { 0 },
};
/* clang-format on */

const struct op_kind op_test_cleanup = { .name = "test-cleanup",
                                         .company = OP_ALONE,
                                         .result_type = "test",
                                         .steps = steps,
                                         .ended = ended };
