#include "daemon/leftovers.h"

#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle.h"
#include "daemon/workers.h"
#include "drivers/hypervisor.h"
#include "drivers/state.h"

#define DOCUMENT   "leftover"
#define PERIOD_S   30
#define LONGEST_MS (INT64_C(90) * 24 * 3600 * 1000) /* for a VM that is not found */

struct leftovers {
    struct daemon *daemon;
    struct event *timer;
    bool started, working; /* loop thread */
};

/* --- the document --------------------------------------------------------------------
 */

static bool
has_name(struct json_object *names, const char *name)
{
    for (size_t i = 0; i < json_object_array_length(names); i++)
        if (strcmp(json_object_get_string(json_object_array_get_idx(names, i)), name) ==
            0)
            return true;
    return false;
}

/* What an earlier protection of the same VM left is still in it. */
static bool
earlier_names(struct daemon *d, const char *vm_uuid, struct json_object **ret,
              struct error **err)
{
    struct json_object *array = NULL;
    AUTOJSON *doc = NULL;
    struct error *e = NULL;

    if (!d->state->ops->get(d->state, DOCUMENT, vm_uuid, &doc, &e) &&
        !error_is(e, ERROR_NOT_FOUND))
        return error_propagate(err, e);
    error_free(e);
    if (doc != NULL)
        array = json_object_get(json_array_or_null(doc, "names"));
    *ret = array != NULL ? array : json_object_new_array();
    return true;
}

static bool
store(struct daemon *d, const char *vm_uuid, struct json_object *doc, struct error **err)
{
    struct state_write write = { .kind = DOCUMENT, .id = vm_uuid, .body = doc };

    return d->state->ops->commit(d->state, &write, 1, err);
}

bool
leftovers_keep(struct daemon *d, struct replication *r, struct error **err)
{
    AUTOJSON *doc = json_object_new_object();
    struct json_object *names = NULL;

    if (!earlier_names(d, r->vm_uuid, &names, err))
        return false;
    json_set(doc, "names", names);
    json_set_string(doc, "vmId", r->vm_uuid);
    json_set_int(doc, "time", units_now_ms());
    pthread_mutex_lock(&r->lock);
    json_set_string(doc, "vmName", r->vm_name);
    json_set_bool(doc, "usedBitmaps", json_bool_or(r->capture, "usedBitmaps", false));
    for (size_t i = 0; i < json_object_array_length(r->stale); i++) {
        const char *name = json_object_get_string(json_object_array_get_idx(r->stale, i));

        if (!has_name(names, name))
            json_append_string(names, name);
    }
    pthread_mutex_unlock(&r->lock);
    return store(d, r->vm_uuid, doc, err);
}

/* --- removing -------------------------------------------------------------------------
 */

/* Those that could not be removed; the caller's. */
static struct json_object *
remove_names(struct daemon *d, struct json_object *doc, const struct log_ctx *log)
{
    const char *vm_uuid = json_string_or(doc, "vmId", "");
    bool bitmaps = json_bool_or(doc, "usedBitmaps", false);
    struct json_object *names = json_array_or_null(doc, "names");
    struct json_object *left = json_object_new_array();

    for (size_t i = 0; names != NULL && i < json_object_array_length(names); i++) {
        const char *name = json_object_get_string(json_object_array_get_idx(names, i));
        struct error *e = NULL;

        if (cycle_forget_name(d, vm_uuid, bitmaps, name, &e))
            continue;
        log_ignore(log, "leftover-stays", &e);
        json_append_string(left, name);
    }
    return left;
}

/* A VM that is off has to wait; one that is not there may be defined again. */
static bool
can_be_removed(struct daemon *d, struct json_object *doc, bool *ret_is_gone)
{
    const char *vm_uuid = json_string_or(doc, "vmId", "");
    AUTOPTR(hv_domain) *domain = NULL;
    AUTOPTR(error) *e = NULL;

    *ret_is_gone = false;
    if (d->hypervisor->ops->lookup(d->hypervisor, vm_uuid, &domain, &e))
        return domain->state != HV_STATE_OFF;
    *ret_is_gone = error_is(e, ERROR_DOMAIN_NOT_FOUND) &&
                   units_now_ms() - json_int_or(doc, "time", 0) > LONGEST_MS;
    return false;
}

static void
work_off(struct daemon *d, struct json_object *doc)
{
    struct log_ctx log = { .vm = json_string_or(doc, "vmName", "") };
    const char *vm_uuid = json_string_or(doc, "vmId", "");
    struct json_object *left;
    bool is_gone, is_done;
    struct error *e = NULL;

    if (!can_be_removed(d, doc, &is_gone) && !is_gone)
        return;
    left = is_gone ? json_object_new_array() : remove_names(d, doc, &log);
    is_done = json_object_array_length(left) == 0;
    json_set(doc, "names", left);
    if (!store(d, vm_uuid, is_done ? NULL : doc, &e))
        log_ignore(&log, "leftover-document-stays", &e);
    else if (is_done && !is_gone)
        log_info(&log, "leftovers-removed",
                 "what the protection of VM '%s' had left in its images is removed",
                 log.vm);
}

void
leftovers_pass(struct daemon *d)
{
    AUTOJSON *docs = NULL;
    struct error *e = NULL;

    if (!d->state->ops->list(d->state, DOCUMENT, "", &docs, &e)) {
        log_ignore(NULL, "leftovers-unknown", &e);
        return;
    }
    for (size_t i = 0; i < json_object_array_length(docs); i++)
        work_off(d, json_object_array_get_idx(docs, i));
}

/* --- when ------------------------------------------------------------------------------
 */

static void
run(void *opaque)
{
    struct leftovers *l = opaque;

    leftovers_pass(l->daemon);
}

static void
done(void *opaque)
{
    struct leftovers *l = opaque;

    l->working = false;
}

void
leftovers_wake(struct leftovers *l)
{
    if (!l->started || l->working)
        return;
    l->working = true;
    workers_submit(l->daemon->steps, 0, run, done, l);
}

static void
tick(evutil_socket_t fd UNUSED, short what UNUSED, void *opaque)
{
    leftovers_wake(opaque);
}

struct leftovers *
leftovers_new(struct daemon *d)
{
    struct leftovers *l = NEW(struct leftovers);

    l->daemon = d;
    l->timer = event_new(d->base, -1, EV_PERSIST, tick, l);
    if (l->timer == NULL)
        abort(); /* out of memory */
    return l;
}

void
leftovers_start(struct leftovers *l)
{
    const struct timeval period = { .tv_sec = PERIOD_S };

    event_add(l->timer, &period);
    l->started = true;
    leftovers_wake(l);
}

void
leftovers_stop(struct leftovers *l)
{
    event_del(l->timer);
    l->started = false;
}

void
leftovers_free(struct leftovers *l)
{
    if (l == NULL)
        return;
    event_free(l->timer);
    free(l);
}
