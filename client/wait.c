#include "client/wait.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "client/interrupt.h"
#include "client/human.h"
#include "common/units.h"

#define POLL_APART_MS 200  /* the rate of long polls that are answered at once */
#define LOOK_APART_MS 1000 /* the rate of looking where there is no long poll */

/* One thing that is followed. */
struct wait {
    struct session *session;
    struct progress *progress;
    int64_t asked_ms;    /* when the last question was sent */
    int64_t answered_ms; /* when the last answer came */
};

static void
wait_init(struct wait *w, struct session *s, struct progress *p)
{
    *w =
        (struct wait){ .session = s, .progress = p, .answered_ms = units_monotonic_ms() };
}

/* Holds the rate: questions are sent at least apart_ms after one another. */
static void
keep_apart(struct wait *w, int64_t apart_ms)
{
    int64_t early = w->asked_ms == 0 ? 0 : w->asked_ms + apart_ms - units_monotonic_ms();

    if (early > 0)
        poll(NULL, 0, (int)MIN(early, apart_ms));
    w->asked_ms = units_monotonic_ms();
}

/* *ret stays NULL while virtdrd is away and is given time to come back. */
static bool
ask(struct wait *w, const char *const path[3], struct json_object **ret,
    struct error **err)
{
    struct error *failure = NULL;
    int64_t now;

    if (session_call_on(w->session, "GET", path, NULL, ret, &failure)) {
        w->answered_ms = units_monotonic_ms();
        return true;
    }
    now = units_monotonic_ms();
    if (!error_is(failure, ERROR_CONNECT) || now - w->answered_ms > WAIT_AWAY_MS)
        return error_propagate(err, failure);
    error_free(failure);
    keep_apart(w, LOOK_APART_MS);
    return true;
}

static void
show_transfer(struct progress *p, struct progress_state *state, struct json_object *t)
{
    state->total_bytes = (uint64_t)MAX(json_int_or(t, "bytesToTransfer", 0), 0);
    state->done_bytes = (uint64_t)MAX(json_int_or(t, "bytesTransferred", 0), 0);
    state->rate = (uint64_t)MAX(json_int_or(t, "rate", 0), 0);
    state->left_ms = json_int_or(t, "remaining", -1);
    progress_show(p, state);
}

static void
show_task(struct progress *p, struct json_object *task)
{
    struct progress_state state = {
        .what = json_string_or(task, "step", json_string_or(task, "type", "task")),
        .percent = json_double_or(task, "progress", 0),
    };

    show_transfer(p, &state, json_object_or_null(task, "transfer"));
}

static bool
is_running(struct json_object *task)
{
    return strcmp(json_string_or(task, "state", "RUNNING"), "RUNNING") == 0;
}

bool
wait_task(struct session *s, const char *id, struct json_object **ret_task,
          struct error **err)
{
    AUTOFREE(char) *clean = human_clean(id);
    AUTOFREE(char) *sentence =
        mem_printf("task %s goes on; follow it with: virt-dr task-wait %s", clean, clean);
    AUTOPTR(interrupt) *interrupt = NULL;
    AUTOPTR(progress) *progress = progress_new(s->progress);
    const char *query = "?wait=0"; /* the first answer comes at once, to be shown */
    struct wait w;

    wait_init(&w, s, progress);
    if (!interrupt_new(sentence, &interrupt, err))
        return false;
    for (;;) {
        AUTOJSON *task = NULL;

        keep_apart(&w, POLL_APART_MS);
        if (!ask(&w, (const char *const[]){ "/tasks/", id, query }, &task, err))
            return error_prefix(err, "task '%s'", id);
        if (task == NULL)
            continue;
        query = "?wait=10";
        show_task(progress, task);
        if (!is_running(task)) {
            *ret_task = TAKE(task);
            return true;
        }
    }
}

static void
print_warnings(struct json_object *task)
{
    struct json_object *warnings = NULL;

    if (!json_object_object_get_ex(task, "warnings", &warnings) ||
        !json_object_is_type(warnings, json_type_array))
        return;
    for (size_t i = 0; i < json_object_array_length(warnings); i++) {
        const char *text = json_object_get_string(json_object_array_get_idx(warnings, i));
        AUTOFREE(char) *clean = human_clean(text == NULL ? "" : text);

        fprintf(stderr, "virt-dr: warning: %s\n", clean);
    }
}

bool
wait_verdict(struct json_object *task, struct error **err)
{
    const char *state = json_string_or(task, "state", "");
    const char *id = json_string_or(task, "id", "?");
    struct json_object *error = json_object_or_null(task, "error");

    print_warnings(task);
    if (strcmp(state, "SUCCEEDED") == 0)
        return true;
    if (error != NULL)
        json_to_error(error, err);
    else if (strcmp(state, "CANCELLED") == 0)
        error_set(err, ERROR_CANCELLED, "it was cancelled");
    else
        error_set(err, ERROR_INTERNAL, "it ended as '%s' without a reason", state);
    return error_prefix(err, "task '%s'", id);
}

static void
show_first_sync(struct progress *p, struct json_object *replication)
{
    struct json_object *source = json_object_or_null(replication, "sourceState");
    struct json_object *transfer = json_object_or_null(source, "progress");
    double total = json_double_or(transfer, "bytesToTransfer", 0);
    double done = json_double_or(transfer, "bytesTransferred", 0);
    struct progress_state state = {
        .what = "first sync",
        .percent = total > 0 ? done * 100 / total : 0,
    };

    show_transfer(p, &state, transfer);
}

/* A failed first sync is tried again by virtdrd; say each failure once. */
static void
tell_failure(struct json_object *replication, int64_t *told)
{
    struct json_object *error = json_object_or_null(replication, "lastError");
    int64_t when = json_int_or(replication, "lastErrorTime", 0);
    AUTOFREE(char) *clean = NULL;

    if (error == NULL || when == *told)
        return;
    *told = when;
    clean = human_clean(json_string_or(error, "message", "?"));
    fprintf(stderr, "%svirt-dr: warning: the first sync failed and is tried again: %s\n",
            isatty(STDERR_FILENO) == 1 ? "\n" : "", clean);
}

bool
wait_first_sync(struct session *s, const char *replication, struct json_object **ret,
                struct error **err)
{
    AUTOFREE(char) *clean = human_clean(replication);
    AUTOFREE(char) *sentence =
        mem_printf("the first sync goes on; look at it with: virt-dr info %s", clean);
    AUTOPTR(interrupt) *interrupt = NULL;
    AUTOPTR(progress) *progress = progress_new(s->progress);
    const char *const path[] = { "/replications/", replication, "" };
    int64_t told = 0;
    struct wait w;

    wait_init(&w, s, progress);
    if (!interrupt_new(sentence, &interrupt, err))
        return false;
    for (;;) {
        AUTOJSON *now = NULL;

        keep_apart(&w, LOOK_APART_MS);
        if (!ask(&w, path, &now, err))
            return error_prefix(err, "replication '%s'", replication);
        if (now == NULL)
            continue;
        if (strcmp(json_string_or(now, "state", ""), "initial-sync") != 0) {
            *ret = TAKE(now);
            return true;
        }
        tell_failure(now, &told);
        show_first_sync(progress, now);
    }
}
