#include "client/show.h"

#include <inttypes.h>
#include <string.h>

#include "client/wait.h"
#include "common/units.h"

enum tone
show_health_tone(const char *health)
{
    if (strcmp(health, "green") == 0)
        return TONE_GOOD;
    if (strcmp(health, "yellow") == 0)
        return TONE_WARN;
    return strcmp(health, "red") == 0 ? TONE_BAD : TONE_PLAIN;
}

enum tone
show_task_tone(const char *state)
{
    if (strcmp(state, "SUCCEEDED") == 0)
        return TONE_GOOD;
    return strcmp(state, "FAILED") == 0 ? TONE_BAD : TONE_PLAIN;
}

static int64_t
readiness_level(struct json_object *replication)
{
    return json_int_or(json_object_or_null(replication, "readiness"), "level", -1);
}

enum tone
show_readiness_tone(struct json_object *replication)
{
    static const enum tone tones[] = { TONE_GOOD, TONE_WARN, TONE_BAD };
    int64_t level = readiness_level(replication);

    return level >= 0 && level <= 2 ? tones[level] : TONE_PLAIN;
}

const char *
show_readiness(struct json_object *replication)
{
    static const char *const words[] = { "yes", "warning", "NO" };
    int64_t level = readiness_level(replication);

    return level >= 0 && level <= 2 ? words[level] : SHOW_NOTHING;
}

const char *
show_time(struct json_object *o, const char *key, char *buf)
{
    int64_t ms = json_int_or(o, key, -1);

    return ms > 0 ? units_format_time_ms(ms, buf) : SHOW_NOTHING;
}

const char *
show_duration(struct json_object *o, const char *key, char *buf)
{
    int64_t ms = json_int_or(o, key, -1);

    return ms >= 0 ? units_format_duration_ms(ms, buf) : SHOW_NOTHING;
}

const char *
show_size(struct json_object *o, const char *key, char *buf)
{
    int64_t bytes = json_int_or(o, key, -1);

    return bytes >= 0 ? units_format_size((uint64_t)bytes, buf) : SHOW_NOTHING;
}

const char *
show_bandwidth_now(struct json_object *bandwidth, char *buf)
{
    const char *alone =
        json_bool_or(bandwidth, "cyclesOnly", false) ? ", cycles alone" : "";
    int64_t rate = json_int_or(bandwidth, "rate", 0);
    char size[UNITS_TEXT_MAX];

    if (rate > 0)
        snprintf(buf, UNITS_TEXT_MAX, "%.20s/s%s",
                 units_format_size((uint64_t)rate, size), alone);
    else
        snprintf(buf, UNITS_TEXT_MAX, "unlimited%s", alone);
    return buf;
}

struct json_object *
show_array(struct json_object *o, const char *key)
{
    struct json_object *array = NULL;

    if (!json_object_object_get_ex(o, key, &array) ||
        !json_object_is_type(array, json_type_array))
        return NULL;
    return array;
}

size_t
show_length(struct json_object *array)
{
    return array == NULL ? 0 : json_object_array_length(array);
}

struct json_object *
show_item(struct json_object *array, size_t i)
{
    struct json_object *item = json_object_array_get_idx(array, i);

    return json_object_is_type(item, json_type_object) ? item : NULL;
}

const char *
show_item_string(struct json_object *array, size_t i)
{
    struct json_object *item = json_object_array_get_idx(array, i);

    return json_object_is_type(item, json_type_string) ? json_object_get_string(item)
                                                       : SHOW_NOTHING;
}

static void
show_task_error(struct writer *w, struct json_object *task)
{
    struct json_object *error = json_object_or_null(task, "error");
    struct json_object *warnings = show_array(task, "warnings");

    if (error != NULL)
        writer_field(w, "Error", TONE_BAD, "%s (%s)",
                     json_string_or(error, "message", SHOW_NOTHING),
                     json_string_or(error, "code", SHOW_NOTHING));
    for (size_t i = 0; i < show_length(warnings); i++)
        writer_field(w, "Warning", TONE_WARN, "%s", show_item_string(warnings, i));
}

static void
show_task_steps(struct writer *w, struct json_object *task)
{
    static const char *const columns[] = { "STEP", "STATE" };
    struct json_object *steps = show_array(task, "steps");

    if (show_length(steps) == 0)
        return;
    writer_heading(w, "Steps");
    writer_table_start(w, columns, N_ELEMENTS(columns));
    for (size_t i = 0; i < show_length(steps); i++) {
        struct json_object *step = show_item(steps, i);

        writer_cell(w, TONE_PLAIN, "%s", json_string_or(step, "name", SHOW_NOTHING));
        writer_cell(w, TONE_PLAIN, "%s", json_string_or(step, "state", SHOW_NOTHING));
    }
    writer_table_end(w);
}

void
show_task(struct writer *w, struct json_object *task)
{
    struct json_object *about = json_object_or_null(task, "workflowInfo");
    const char *state = json_string_or(task, "state", SHOW_NOTHING);
    char buf[UNITS_TEXT_MAX];

    writer_heading(w, "Task");
    writer_field(w, "Id", TONE_PLAIN, "%s", json_string_or(task, "id", SHOW_NOTHING));
    writer_field(w, "Type", TONE_PLAIN, "%s", json_string_or(task, "type", SHOW_NOTHING));
    writer_field(w, "VM", TONE_PLAIN, "%s",
                 json_string_or(about, "resourceName", SHOW_NOTHING));
    writer_field(w, "State", show_task_tone(state), "%s", state);
    writer_field(w, "Progress", TONE_PLAIN, "%.0f%%",
                 json_double_or(task, "progress", 0));
    writer_field(w, "Step", TONE_PLAIN, "%s", json_string_or(task, "step", SHOW_NOTHING));
    writer_field(w, "Started", TONE_PLAIN, "%s", show_time(task, "startTime", buf));
    writer_field(w, "Ended", TONE_PLAIN, "%s", show_time(task, "endTime", buf));
    writer_field(w, "User", TONE_PLAIN, "%s", json_string_or(task, "user", SHOW_NOTHING));
    writer_field(w, "Site", TONE_PLAIN, "%s", json_string_or(task, "site", SHOW_NOTHING));
    show_task_error(w, task);
    show_task_steps(w, task);
}

bool
show_waited(struct session *s, const char *id, bool then_more,
            struct json_object **ret_done, struct error **err)
{
    AUTOJSON *done = NULL;
    bool succeeded;

    if (!wait_task(s, id, &done, err))
        return false;
    succeeded = wait_verdict(done, err);
    if (!succeeded || !then_more)
        writer_answer(s->out, done);
    if (succeeded)
        *ret_done = TAKE(done);
    return succeeded;
}

bool
show_started(struct session *s, const struct invocation *inv, struct json_object *task,
             bool then_more, struct json_object **ret_done, struct error **err)
{
    const char *id = NULL;

    if (!json_get_string(task, "id", &id, err))
        return error_prefix(err, "the answer of virtdrd");
    if (invocation_has(inv, "wait"))
        return show_waited(s, id, then_more, ret_done, err);
    writer_answer(s->out, task);
    writer_say(s->out, "task %s was started; follow it with: virt-dr task-wait %s", id,
               id);
    writer_bare(s->out, id);
    return true;
}

bool
show_started_on_vm(struct session *s, const struct invocation *inv,
                   const char *const call[2], struct json_object *body,
                   struct json_object **ret_done, struct error **err)
{
    const char *const path[] = { "/replications/", invocation_text(inv, "VM", ""),
                                 call[1] };
    AUTOJSON *task = NULL;

    return session_call_on(s, call[0], path, body, &task, err) &&
           show_started(s, inv, task, false, ret_done, err);
}
