#include "daemon/flatten.h"

#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/ops.h"
#include "daemon/tasks.h"
#include "daemon/workers.h"
#include "drivers/hypervisor.h"
#include "drivers/state.h"

#define PERIOD_S 30
#define RETRY_MS (10 * 60 * 1000) /* after a failure */
#define USER     "virtdrd"

struct flatten {
    struct daemon *daemon;
    struct event *timer;
    bool started, working;  /* loop thread */
    pthread_mutex_t begins; /* so that nobody begins one twice */
};

/* --- the document --------------------------------------------------------------------
 */

struct json_object *
flatten_document(const struct replication *r)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "vmId", r->vm_uuid);
    json_set_string(o, "vmName", r->vm_name);
    json_set_string(o, "folder", r->folder);
    json_set(o, "before", json_object_get(json_array_or_null(r->formerly, "folders")));
    json_set_string(o, "replication", r->id);
    json_set_int(o, "time", units_now_ms());
    return o;
}

/* *ret is NULL if there is none. */
static bool
load(struct daemon *d, const char *vm_uuid, struct json_object **ret, struct error **err)
{
    struct error *e = NULL;

    *ret = NULL;
    if (d->state->ops->get(d->state, FLATTEN_KIND, vm_uuid, ret, &e))
        return true;
    if (!error_is(e, ERROR_NOT_FOUND))
        return error_propagate(err, e);
    error_free(e);
    return true;
}

bool
flatten_is_pending(struct daemon *d, const char *vm_uuid, bool *ret, struct error **err)
{
    AUTOJSON *doc = NULL;

    if (!load(d, vm_uuid, &doc, err))
        return false;
    *ret = doc != NULL;
    return true;
}

/* --- beginning -----------------------------------------------------------------------
 */

static bool
is_under_way(struct daemon *d, const char *resource_id, bool *ret, struct error **err)
{
    AUTOJSON *list = NULL;

    if (!tasks_list(d->tasks, TASKS_KEPT, &list, err))
        return false;
    *ret = false;
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        struct json_object *task = json_object_array_get_idx(list, i);
        struct json_object *about = json_object_or_null(task, "workflowInfo");

        if (about != NULL &&
            strcmp(json_string_or(task, "type", ""), op_flatten.name) == 0 &&
            strcmp(json_string_or(task, "state", ""), "RUNNING") == 0 &&
            strcmp(json_string_or(about, "resourceId", ""), resource_id) == 0)
            *ret = true;
    }
    return true;
}

static bool
begin_alone(struct daemon *d, struct json_object *doc, const char *user,
            struct error **err)
{
    AUTOJSON *data = json_object_new_object();
    struct json_object *task = NULL;
    struct tasks_request request = {
        .kind = op_flatten.name,
        .resource_id = json_string_or(doc, "replication", ""),
        .resource_name = json_string_or(doc, "vmName", ""),
        .user = user,
        .data = data,
    };
    bool busy = false;

    if (!is_under_way(d, request.resource_id, &busy, err))
        return false;
    if (busy)
        return true;
    json_set_string(data, "vmId", json_string_or(doc, "vmId", ""));
    json_set_string(data, "folder", json_string_or(doc, "folder", ""));
    json_set(data, "before", json_object_get(json_array_or_null(doc, "before")));
    if (!tasks_start(d->tasks, &request, &task, err))
        return false;
    json_object_put(task);
    return true;
}

static bool
begin(struct daemon *d, struct json_object *doc, const char *user, struct error **err)
{
    bool ok;

    pthread_mutex_lock(&d->flatten->begins);
    ok = begin_alone(d, doc, user, err);
    pthread_mutex_unlock(&d->flatten->begins);
    return ok;
}

bool
flatten_begin(struct daemon *d, const char *vm_uuid, const char *user, struct error **err)
{
    AUTOJSON *doc = NULL;

    return load(d, vm_uuid, &doc, err) && (doc == NULL || begin(d, doc, user, err));
}

/* A VM that is off waits for its start; what has failed for a while. */
static bool
is_due(struct daemon *d, struct json_object *doc)
{
    AUTOPTR(hv_domain) *domain = NULL;
    int64_t failed_ms = json_int_or(doc, "failed", 0), now_ms = units_now_ms();

    if (failed_ms != 0 && now_ms >= failed_ms && now_ms - failed_ms < RETRY_MS)
        return false;
    return d->hypervisor->ops->lookup(d->hypervisor, json_string_or(doc, "vmId", ""),
                                      &domain, NULL) &&
           domain->state != HV_STATE_OFF;
}

bool
flatten_goes_on(struct daemon *d, const char *vm_uuid)
{
    AUTOJSON *doc = NULL;

    return load(d, vm_uuid, &doc, NULL) && doc != NULL && is_due(d, doc);
}

void
flatten_pass(struct daemon *d)
{
    AUTOJSON *docs = NULL;
    struct error *e = NULL;

    if (!d->state->ops->list(d->state, FLATTEN_KIND, "", &docs, &e)) {
        log_ignore(NULL, "flattens-unknown", &e);
        return;
    }
    for (size_t i = 0; i < json_object_array_length(docs); i++) {
        struct json_object *doc = json_object_array_get_idx(docs, i);
        struct log_ctx log = { .vm = json_string_or(doc, "vmName", "") };

        if (is_due(d, doc) && !begin(d, doc, USER, &e))
            log_ignore(&log, "flatten-not-begun", &e);
    }
}

/* --- when ----------------------------------------------------------------------------
 */

static void
run(void *opaque)
{
    struct flatten *f = opaque;

    flatten_pass(f->daemon);
}

static void
done(void *opaque)
{
    struct flatten *f = opaque;

    f->working = false;
}

void
flatten_wake(struct flatten *f)
{
    if (!f->started || f->working)
        return;
    f->working = true;
    workers_submit(f->daemon->steps, 0, run, done, f);
}

static void
tick(evutil_socket_t fd UNUSED, short what UNUSED, void *opaque)
{
    flatten_wake(opaque);
}

struct flatten *
flatten_new(struct daemon *d)
{
    struct flatten *f = NEW(struct flatten);

    f->daemon = d;
    pthread_mutex_init(&f->begins, NULL);
    f->timer = event_new(d->base, -1, EV_PERSIST, tick, f);
    if (f->timer == NULL)
        abort(); /* out of memory */
    return f;
}

void
flatten_start(struct flatten *f)
{
    const struct timeval period = { .tv_sec = PERIOD_S };

    event_add(f->timer, &period);
    f->started = true;
    flatten_wake(f);
}

void
flatten_stop(struct flatten *f)
{
    event_del(f->timer);
    f->started = false;
}

void
flatten_free(struct flatten *f)
{
    if (f == NULL)
        return;
    event_free(f->timer);
    pthread_mutex_destroy(&f->begins);
    free(f);
}
