/* Tests that have expired, and what a crash or a failure has left of others. */
#include <stdatomic.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/tasks.h"
#include "daemon/testrun_cleanup.h"
#include "daemon/testruns_private.h"
#include "daemon/workers.h"
#include "drivers/hypervisor.h"

#define PERIOD_S      1
#define CANCEL_WAIT_S 120

/* Its task has not ended: what is missing, that one does. */
static bool
is_at_work(struct daemon *d, struct json_object *doc)
{
    AUTOJSON *task = NULL;

    return tasks_get(d->tasks, json_string_or(doc, "task", ""), &task, NULL) &&
           strcmp(json_string_or(task, "state", ""), "RUNNING") == 0;
}

/* Why it has to go now; NULL: it has not. Cheap, under the lock, on the loop. */
static const char *
due(struct json_object *doc, int64_t now_ms)
{
    const char *state = json_string_or(doc, "state", "");
    int64_t expires_ms = json_int_or(doc, "expires", 0);

    if (strcmp(state, "running") == 0)
        return expires_ms > 0 && expires_ms <= now_ms ? "its time is over" : NULL;
    if (strcmp(state, "starting") == 0 || strcmp(state, "cleaning-up") == 0)
        return json_int_or(doc, "nextTry", 0) <= now_ms ? "it was left half done" : NULL;
    return NULL;
}

static void
start_cleanup(struct daemon *d, struct json_object *doc, const char *why)
{
    AUTOJSON *data = json_object_new_object();
    AUTOJSON *task = NULL;
    struct tasks_request request = { .kind = "test-cleanup",
                                     .resource_id = json_string_or(doc, "id", ""),
                                     .resource_name = json_string_or(doc, "vmName", ""),
                                     .resource_type = "test",
                                     .user = "virtdrd",
                                     .data = data };
    struct error *e = NULL;

    json_set_string(data, "replication", json_string_or(doc, "replication", ""));
    json_set_string(data, "test", request.resource_id);
    json_set_string(data, "why", why);
    if (!tasks_start(d->tasks, &request, &task, &e)) {
        if (!error_is(e, ERROR_IN_PROGRESS)) /* somebody ends it already */
            log_ignore(NULL, "test-cleanup-waits", &e);
        error_free(e);
    }
}

/* One that runs no more, by itself or because the host did not. */
static bool
has_lost_guest(struct daemon *d, struct json_object *doc)
{
    struct hypervisor *hv = d->hypervisor;
    AUTOPTR(hv_domain) *domain = NULL;
    struct error *e = NULL;
    bool lost;

    if (strcmp(json_string_or(doc, "state", ""), "running") != 0)
        return false;
    lost = !hv->ops->lookup(
               hv, json_string_or(json_object_or_null(doc, "domain"), "uuid", ""),
               &domain, &e) &&
           error_is(e, ERROR_DOMAIN_NOT_FOUND);
    error_free(e);
    return lost;
}

static void
look(void *opaque)
{
    struct testruns *t = opaque;
    AUTOJSON *items = testruns_list(t, NULL);
    bool for_guests = atomic_exchange(&t->look_for_guests, false);
    int64_t now_ms = units_now_ms();

    for (size_t i = 0; i < json_object_array_length(items); i++) {
        struct json_object *doc = json_object_array_get_idx(items, i);
        const char *why = due(doc, now_ms);

        if (why == NULL && for_guests && has_lost_guest(t->daemon, doc))
            why = "its guest has ended";
        if (why != NULL && !is_at_work(t->daemon, doc))
            start_cleanup(t->daemon, doc, why);
        else if (for_guests && is_at_work(t->daemon, doc))
            atomic_store(&t->look_for_guests, true); /* once its task is done */
    }
}

static void
looked(void *opaque)
{
    struct testruns *t = opaque;

    t->working = false;
}

static void
tick(evutil_socket_t fd UNUSED, short what UNUSED, void *opaque)
{
    struct testruns *t = opaque;
    int64_t now_ms = units_now_ms();
    bool any = atomic_load(&t->look_for_guests);

    if (!t->started || t->working)
        return;
    pthread_mutex_lock(&t->lock);
    for (struct testrun *r = t->all; r != NULL && !any; r = r->next)
        any = due(r->doc, now_ms) != NULL;
    pthread_mutex_unlock(&t->lock);
    if (!any)
        return;
    t->working = true;
    workers_submit(t->daemon->steps, 0, look, looked, t);
}

void
testruns_start(struct testruns *t)
{
    const struct timeval period = { .tv_sec = PERIOD_S };

    atomic_store(&t->look_for_guests, true);
    t->timer = event_new(t->daemon->base, -1, EV_PERSIST, tick, t);
    t->started = true; /* before the loop looks */
    event_add(t->timer, &period);
}

void
testruns_wake(struct testruns *t)
{
    atomic_store(&t->look_for_guests, true);
}

void
testruns_stop(struct testruns *t)
{
    if (t->timer != NULL)
        event_del(t->timer);
    t->started = false;
}

/* --- at the end of a replication
 * ----------------------------------------------------------
 */

/* Asks its task to stop, and waits until it has. */
static bool
stop_task(struct daemon *d, struct json_object *doc, struct error **err)
{
    const char *id = json_string_or(doc, "task", "");
    int64_t until_ms = units_monotonic_ms() + CANCEL_WAIT_S * 1000;
    AUTOJSON *asked = NULL;

    tasks_cancel(d->tasks, id, &asked, NULL); /* it may have ended by itself */
    while (is_at_work(d, doc)) {
        AUTOJSON *task = NULL;

        if (units_monotonic_ms() > until_ms)
            return error_set(err, ERROR_TIMEOUT,
                             "test '%s' does not end; see virt-dr task-info %s",
                             json_string_or(doc, "id", ""), id);
        tasks_wait(d->tasks, id, 1000, &task, NULL);
    }
    return true;
}

bool
testruns_remove_all(struct testruns *t, const char *replication, struct error **err)
{
    AUTOJSON *items = testruns_list(t, replication);

    for (size_t i = 0; i < json_object_array_length(items); i++) {
        struct json_object *doc = json_object_array_get_idx(items, i);
        const char *id = json_string_or(doc, "id", "");

        if (strcmp(json_string_or(doc, "state", ""), "ended") != 0 &&
            (!stop_task(t->daemon, doc, err) ||
             !testrun_clean_up(t->daemon, id, "the VM was unprotected", err)))
            return error_prefix(err, "end test '%s'", id);
        if (!testruns_forget(t, id, err))
            return false;
    }
    return true;
}
