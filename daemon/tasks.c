#include "daemon/tasks.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/task_doc.h"
#include "daemon/tasks_private.h"

static const struct op_kind *
find_kind(struct tasks *t, const char *name)
{
    for (size_t i = 0; t->settings.kinds[i] != NULL; i++)
        if (strcmp(t->settings.kinds[i]->name, name) == 0)
            return t->settings.kinds[i];
    return NULL;
}

static struct task *
find(struct tasks *t, const char *id)
{
    for (struct task *task = t->all; task != NULL; task = task->next)
        if (strcmp(task->id, id) == 0)
            return task;
    return NULL;
}

static bool
go_together(enum op_company a, enum op_company b)
{
    return a != OP_ALONE && b != OP_ALONE && (a == OP_BESIDE || b == OP_BESIDE);
}

/* A task that a new one has to wait for. */
static struct task *
find_in_the_way(struct tasks *t, const char *resource_id, enum op_company company)
{
    for (struct task *task = t->all; task != NULL; task = task->next)
        if (task->running && strcmp(task->op.resource_id, resource_id) == 0 &&
            !go_together(task->op.kind->company, company))
            return task;
    return NULL;
}

static void
task_free(struct task *task)
{
    json_object_put(task->op.data);
    json_object_put(task->op.result);
    json_object_put(task->doc);
    free(task->id);
    free(task);
}

/* A deep copy without the private member, for the outside. */
static struct json_object *
shown(struct task *task)
{
    struct json_object *copy = NULL;

    json_object_deep_copy(task->doc, &copy, NULL);
    json_object_object_del(copy, "data");
    if (task->running) /* until its end is stored it has not ended */
        json_set_string(copy, "state", "RUNNING");
    return copy;
}

/* Makes the document durable as it is now. Called without the lock, by the worker. */
static bool
store(struct task *task, struct error **err)
{
    struct tasks *t = task->owner;
    AUTOJSON *copy = NULL;
    struct json_object *data = NULL;
    struct state_write write = { .kind = "task", .id = task->id };

    json_object_deep_copy(task->op.data, &data, NULL);
    pthread_mutex_lock(&t->lock);
    json_set(task->doc, "data", data);
    json_object_deep_copy(task->doc, &copy, NULL);
    pthread_mutex_unlock(&t->lock);
    write.body = copy;
    return t->settings.state->ops->commit(t->settings.state, &write, 1, err);
}

static void
mark_step(struct task *task, size_t i, const char *state)
{
    pthread_mutex_lock(&task->owner->lock);
    json_set_string(tasks_step(task, i), "state", state);
    json_set_string(task->doc, "step", task->op.kind->steps[i].name);
    tasks_touch(task);
    pthread_mutex_unlock(&task->owner->lock);
}

static size_t
count_steps(const struct op_kind *kind)
{
    size_t n = 0;

    while (kind->steps[n].name != NULL)
        n++;
    return n;
}

static bool
has_committed(struct task *task)
{
    for (size_t i = 0; task->op.kind->steps[i].name != NULL; i++)
        if (task->op.kind->steps[i].commits && tasks_step_is(task, i, "done"))
            return true;
    return false;
}

/*
 * A wish to cancel that came while the step that commits ran came too late: it may
 * not stop the steps behind it, which alone lead out again.
 */
static void
finish_step(struct task *task, size_t i, int64_t took_ms)
{
    struct tasks *t = task->owner;

    pthread_mutex_lock(&t->lock);
    json_set_int(tasks_step(task, i), "ms", took_ms);
    json_set_string(tasks_step(task, i), "state", "done");
    json_set_int(task->doc, "progress",
                 (int64_t)(100 * (i + 1) / count_steps(task->op.kind)));
    json_set(task->doc, "transfer", NULL);
    if (task->op.kind->steps[i].commits && !atomic_load(&t->stopping))
        atomic_store(&task->op.cancel.requested, false);
    tasks_touch(task);
    pthread_mutex_unlock(&t->lock);
}

static bool
run_step(struct task *task, size_t i, struct error **err)
{
    const struct op_step *step = &task->op.kind->steps[i];
    int64_t started_ms = units_monotonic_ms();
    bool ok;

    mark_step(task, i, "running");
    if (!store(task, err))
        return error_prefix(err, "store the step before it runs");
    task->op.log.step = step->name;
    cancel_set_timeout(&task->op.cancel, (int64_t)step->timeout_s * 1000);
    ok = step->run(&task->op, err);
    cancel_set_timeout(&task->op.cancel, 0);
    task->op.log.step = NULL;
    if (!ok)
        return error_prefix(err, "step '%s'", step->name);
    finish_step(task, i, units_monotonic_ms() - started_ms);
    return true;
}

/* Undoes step `last` and those before it. What fails is said and passed over. */
static void
undo_steps(struct task *task, size_t last)
{
    /* The operator's wish to stop, and the deadline, do not hold for undoing. */
    atomic_store(&task->op.cancel.requested, false);
    for (size_t i = last + 1; i-- > 0;) {
        const struct op_step *step = &task->op.kind->steps[i];
        AUTOPTR(error) *e = NULL;

        if (step->undo == NULL || tasks_step_is(task, i, "pending"))
            continue;
        cancel_set_timeout(&task->op.cancel, (int64_t)step->timeout_s * 1000);
        if (!step->undo(&task->op, &e)) {
            op_warn(&task->op, "undo of step '%s' failed: %s", step->name,
                    error_message(e));
            log_failure(&task->op.log, "undo-failed", e);
            continue;
        }
        mark_step(task, i, "undone");
    }
}

static void
end_task(struct task *task, struct error *failure)
{
    struct tasks *t = task->owner;
    const char *state = failure == NULL                      ? "SUCCEEDED"
                        : error_is(failure, ERROR_CANCELLED) ? "CANCELLED"
                                                             : "FAILED";
    AUTOPTR(error) *e = NULL;
    AUTOJSON *copy = NULL;

    if (task->op.kind->ended != NULL)
        task->op.kind->ended(&task->op, failure);
    pthread_mutex_lock(&t->lock);
    json_set_string(task->doc, "state", state);
    json_set_int(task->doc, "endTime", units_now_ms());
    json_set(task->doc, "error", failure == NULL ? NULL : json_from_error(failure));
    json_set(task->doc, "result",
             failure == NULL ? json_object_get(task->op.result) : NULL);
    if (failure == NULL)
        json_set_int(task->doc, "progress", 100);
    pthread_mutex_unlock(&t->lock);
    /* Stored before anybody can see it: what was said to be done stays done. */
    if (!store(task, &e))
        log_failure(&task->op.log, "task-store-failed", e);
    if (failure == NULL)
        log_info(&task->op.log, "task-succeeded", "%s of '%s' is done",
                 task->op.kind->name, task->op.log.vm);
    else
        log_failure(&task->op.log, "task-failed", failure);
    pthread_mutex_lock(&t->lock);
    task->running = false;
    tasks_touch(task);
    copy = shown(task);
    pthread_mutex_unlock(&t->lock);
    /* From here on it may be pruned at any time. */
    if (t->settings.changed != NULL)
        t->settings.changed(copy, t->settings.opaque);
}

/* The failure is stored first, so that a crash while undoing goes on undoing. */
static void
fail_task(struct task *task, size_t step, struct error *failure)
{
    AUTOPTR(error) *e = NULL;

    if (atomic_load(&task->owner->stopping))
        return; /* not ended: it goes on at the next start */
    mark_step(task, step, "failed");
    pthread_mutex_lock(&task->owner->lock);
    json_set(task->doc, "error", json_from_error(failure));
    pthread_mutex_unlock(&task->owner->lock);
    if (!store(task, &e))
        log_failure(&task->op.log, "task-store-failed", e);
    if (!has_committed(task))
        undo_steps(task, step);
    end_task(task, failure);
}

/* A task that the last crash met while it was being undone. */
static bool
failed_before(struct task *task, size_t *ret_step, struct error **ret_failure)
{
    struct json_object *e = json_object_or_null(task->doc, "error");

    if (e == NULL)
        return false;
    for (size_t i = 0; task->op.kind->steps[i].name != NULL; i++)
        if (tasks_step_is(task, i, "failed"))
            *ret_step = i;
    json_to_error(e, ret_failure);
    return true;
}

static void
run_task(void *opaque)
{
    struct task *task = opaque;
    AUTOPTR(error) *e = NULL;
    size_t failed_step = 0;

    log_info(&task->op.log, "task-started", "%s of '%s'", task->op.kind->name,
             task->op.log.vm);
    if (failed_before(task, &failed_step, &e)) {
        fail_task(task, failed_step, e);
        return;
    }
    for (size_t i = 0; task->op.kind->steps[i].name != NULL; i++) {
        if (tasks_step_is(task, i, "done"))
            continue;
        if (!has_committed(task) && !cancel_check(&task->op.cancel, &e)) {
            fail_task(task, i, e);
            return;
        }
        if (!run_step(task, i, &e)) {
            fail_task(task, i, e);
            return;
        }
    }
    end_task(task, NULL);
}

/* Takes doc over; links the task in. Under the lock. */
static struct task *
add(struct tasks *t, const struct op_kind *kind, struct json_object *doc)
{
    struct task *task = NEW(struct task);
    struct json_object *info = json_object_or_null(doc, "workflowInfo");
    struct json_object *data = json_object_or_null(doc, "data");

    task->owner = t;
    task->id = mem_strdup(json_string_or(doc, "id", ""));
    task->doc = doc;
    task->op.daemon = t->settings.daemon;
    task->op.kind = kind;
    task->op.task = task;
    task->op.data = data != NULL ? json_object_get(data) : json_object_new_object();
    task->op.resource_id = json_string_or(info, "resourceId", "");
    task->op.log.task = task->id;
    task->op.log.replication =
        json_string_or(task->op.data, "replication", task->op.resource_id);
    task->op.log.vm = json_string_or(info, "resourceName", "");
    task->next = t->all;
    t->all = task;
    t->n_all++;
    return task;
}

static struct workers *
workers_for(const struct task *task)
{
    const struct tasks_settings *settings = &task->owner->settings;

    return task->op.kind->company == OP_BESIDE && settings->background != NULL
               ? settings->background
               : settings->workers;
}

static void
submit(struct task *task)
{
    workers_submit(workers_for(task), 0, run_task, NULL, task);
}

/* Under the lock. */
static void
unlink_task(struct tasks *t, struct task *task)
{
    struct task **p = &t->all;

    while (*p != task)
        p = &(*p)->next;
    *p = task->next;
    t->n_all--;
}

static int64_t
started_ms(const struct task *task)
{
    return json_int_or(task->doc, "startTime", 0);
}

/* Forgets the oldest ended tasks above TASKS_KEPT. Under the lock. */
static void
prune(struct tasks *t)
{
    while (t->n_all > TASKS_KEPT) {
        struct task *gone = NULL;
        AUTOPTR(error) *e = NULL;

        for (struct task *task = t->all; task != NULL; task = task->next)
            if (!task->running && (gone == NULL || started_ms(task) < started_ms(gone)))
                gone = task;
        if (gone == NULL)
            return;
        unlink_task(t, gone);
        if (!t->settings.state->ops->commit(
                t->settings.state,
                &(struct state_write){ .kind = "task", .id = gone->id }, 1, &e))
            log_ignore(NULL, "task-prune-failed", &e);
        task_free(gone);
    }
}

bool
tasks_start(struct tasks *t, const struct tasks_request *request,
            struct json_object **ret, struct error **err)
{
    const struct op_kind *kind = find_kind(t, request->kind);
    struct task *other, *task;
    struct json_object *copy;

    assert(kind != NULL);
    pthread_mutex_lock(&t->lock);
    other = find_in_the_way(t, request->resource_id, kind->company);
    if (other != NULL) {
        error_set(err, ERROR_IN_PROGRESS,
                  "task %s (%s) of VM '%s' is running; wait for it, or cancel it with "
                  "'virt-dr task-cancel %s'",
                  other->id, other->op.kind->name, request->resource_name, other->id);
        pthread_mutex_unlock(&t->lock);
        return false;
    }
    prune(t);
    task = add(t, kind, task_doc_new(t->site, kind, request));
    task->running = true; /* holds the resource while it is stored */
    copy = shown(task);
    pthread_mutex_unlock(&t->lock);
    if (!store(task, err)) {
        pthread_mutex_lock(&t->lock);
        unlink_task(t, task);
        pthread_mutex_unlock(&t->lock);
        task_free(task);
        json_object_put(copy);
        return error_prefix(err, "store the new task");
    }
    if (t->settings.changed != NULL)
        t->settings.changed(copy, t->settings.opaque);
    submit(task);
    *ret = copy;
    return true;
}

bool
tasks_load(struct tasks *t, struct error **err)
{
    AUTOJSON *docs = NULL;

    if (t->loaded)
        return true;
    if (!t->settings.state->ops->list(t->settings.state, "task", "", &docs, err))
        return false;
    for (size_t i = 0; i < json_object_array_length(docs); i++) {
        struct json_object *doc = json_object_array_get_idx(docs, i);
        const struct op_kind *kind = find_kind(t, json_string_or(doc, "type", ""));
        struct task *task = kind == NULL ? NULL : add(t, kind, json_object_get(doc));

        if (task == NULL)
            log_warn(NULL, "task-unknown", "ignoring task '%s' of unknown type",
                     json_string_or(doc, "id", ""));
        else if (strcmp(json_string_or(doc, "state", ""), "RUNNING") == 0)
            task->running = task->waits = true;
    }
    t->loaded = true;
    return true;
}

bool
tasks_resume(struct tasks *t, struct error **err)
{
    if (!tasks_load(t, err))
        return false;
    pthread_mutex_lock(&t->lock);
    for (struct task *task = t->all; task != NULL; task = task->next) {
        if (!task->waits)
            continue;
        log_info(&task->op.log, "task-resumed", "%s of '%s' goes on at step '%s'",
                 task->op.kind->name, task->op.log.vm,
                 json_string_or(task->doc, "step", ""));
        task->waits = false;
        submit(task);
    }
    pthread_mutex_unlock(&t->lock);
    return true;
}

bool
tasks_get(struct tasks *t, const char *id, struct json_object **ret, struct error **err)
{
    struct task *task;

    pthread_mutex_lock(&t->lock);
    task = find(t, id);
    if (task != NULL)
        *ret = shown(task);
    pthread_mutex_unlock(&t->lock);
    if (task == NULL)
        return error_set(err, ERROR_TASK_NOT_FOUND, "there is no task '%s'", id);
    return true;
}

bool
tasks_wait(struct tasks *t, const char *id, int timeout_ms, struct json_object **ret,
           struct error **err)
{
    struct task *task;
    uint64_t version;
    int64_t until_ms = units_monotonic_ms() + timeout_ms;
    struct timespec until = { until_ms / 1000, until_ms % 1000 * 1000000 };

    pthread_mutex_lock(&t->lock);
    task = find(t, id);
    version = task != NULL ? task->version : 0;
    while (task != NULL && task->running && task->version == version &&
           !atomic_load(&t->stopping)) {
        if (pthread_cond_timedwait(&t->changed, &t->lock, &until) != 0)
            break;
        task = find(t, id); /* after every wait: it may have been pruned */
    }
    pthread_mutex_unlock(&t->lock);
    return tasks_get(t, id, ret, err);
}

/* Puts tasks in the order of their start, the newest first. */
static int
newer_first(const void *a, const void *b)
{
    const struct task *const *x = a, *const *y = b;
    int64_t left = json_int_or((*x)->doc, "startTime", 0);
    int64_t right = json_int_or((*y)->doc, "startTime", 0);

    return left < right ? 1 : left > right ? -1 : 0;
}

bool
tasks_list(struct tasks *t, size_t limit, struct json_object **ret,
           struct error **err UNUSED)
{
    struct json_object *array = json_object_new_array();
    AUTOFREE(struct task *) *sorted = NULL;
    size_t n = 0;

    pthread_mutex_lock(&t->lock);
    sorted = mem_alloc(t->n_all, sizeof *sorted);
    for (struct task *task = t->all; task != NULL; task = task->next)
        sorted[n++] = task;
    qsort(sorted, n, sizeof *sorted, newer_first);
    for (size_t i = 0; i < n && i < limit; i++)
        json_object_array_add(array, shown(sorted[i]));
    pthread_mutex_unlock(&t->lock);
    *ret = array;
    return true;
}

bool
tasks_cancel(struct tasks *t, const char *id, struct json_object **ret,
             struct error **err)
{
    struct task *task;
    bool ok = true;

    pthread_mutex_lock(&t->lock);
    task = find(t, id);
    if (task == NULL)
        ok = error_set(err, ERROR_TASK_NOT_FOUND, "there is no task '%s'", id);
    else if (!task->running)
        ok = error_set(err, ERROR_INVALID_STATE, "task '%s' has ended already (%s)", id,
                       json_string_or(task->doc, "state", ""));
    else if (has_committed(task))
        ok = error_set(err, ERROR_INVALID_STATE,
                       "task '%s' has passed the step after which it only goes forward; "
                       "wait for its end",
                       id);
    else {
        cancel_request(&task->op.cancel);
        *ret = shown(task);
    }
    pthread_mutex_unlock(&t->lock);
    return ok;
}

char *
tasks_exclusive(struct tasks *t, const char *resource_id)
{
    struct task *task;
    char *id = NULL;

    pthread_mutex_lock(&t->lock);
    task = find_in_the_way(t, resource_id, OP_EXCLUSIVE);
    if (task != NULL)
        id = mem_strdup(task->id);
    pthread_mutex_unlock(&t->lock);
    return id;
}

bool
tasks_knows(struct tasks *t, const char *kind)
{
    return find_kind(t, kind) != NULL;
}

bool
tasks_busy(struct tasks *t, const char *resource_id)
{
    bool busy;

    pthread_mutex_lock(&t->lock);
    busy = find_in_the_way(t, resource_id, OP_EXCLUSIVE) != NULL;
    pthread_mutex_unlock(&t->lock);
    return busy;
}

bool
tasks_new(const struct tasks_settings *settings, struct tasks **ret,
          struct error **err UNUSED)
{
    struct tasks *t = NEW(struct tasks);
    pthread_condattr_t attr;

    t->settings = *settings;
    t->site = mem_strdup(settings->site);
    pthread_mutex_init(&t->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&t->changed, &attr);
    pthread_condattr_destroy(&attr);
    *ret = t;
    return true;
}

void
tasks_stop(struct tasks *t)
{
    pthread_mutex_lock(&t->lock);
    atomic_store(&t->stopping, true);
    for (struct task *task = t->all; task != NULL; task = task->next)
        if (task->running)
            cancel_request(&task->op.cancel);
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

void
tasks_free(struct tasks *t)
{
    if (t == NULL)
        return;
    while (t->all != NULL) {
        struct task *next = t->all->next;

        task_free(t->all);
        t->all = next;
    }
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->lock);
    free(t->site);
    free(t);
}
