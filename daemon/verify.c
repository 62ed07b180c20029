#include "daemon/verify.h"

#include "common/json.h"
#include "common/units.h"
#include "daemon/tasks.h"

static bool
is_due(const struct config *c, struct replication *r)
{
    int64_t last_ms;
    bool due;

    pthread_mutex_lock(&r->lock);
    last_ms = MAX(r->verify.started_ms, r->created_ms);
    due = c->verify_interval_ms > 0 && r->phase == PHASE_REPLICATING && !r->verifying &&
          units_now_ms() - last_ms >= c->verify_interval_ms;
    if (due) /* and not once more with the next cycle */
        r->verify.started_ms = units_now_ms();
    pthread_mutex_unlock(&r->lock);
    return due;
}

void
verify_start_if_due(struct daemon *d, struct replication *r)
{
    struct tasks_request request = { .kind = "verify",
                                     .resource_id = r->id,
                                     .resource_name = r->vm_name,
                                     .user = "schedule" };
    struct log_ctx log = replication_log(r);
    AUTOJSON *task = NULL;
    struct error *e = NULL;

    if (is_due(d->config, r) && !tasks_start(d->tasks, &request, &task, &e))
        log_ignore(&log, "verify-not-started", &e);
}

struct json_object *
verify_view(const struct replication *r)
{
    const struct replication_verify *v = &r->verify;
    struct json_object *o;

    if (v->ended_ms == 0)
        return NULL;
    o = json_object_new_object();
    json_set_string(o, "outcome", replication_verify_outcome(v));
    json_set_int(o, "time", v->ended_ms);
    json_set_u64(o, "comparedBytes", v->compared_bytes);
    json_set_u64(o, "differentBytes", v->different_bytes);
    json_set_u64(o, "differences", v->differences);
    return o;
}
