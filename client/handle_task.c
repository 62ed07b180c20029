/* The commands about tasks. */
#include "client/handlers.h"

#include <inttypes.h>

#include "client/show.h"
#include "client/wait.h"
#include "common/units.h"

static void
show_row(struct writer *w, struct json_object *task)
{
    struct json_object *about = json_object_or_null(task, "workflowInfo");
    struct json_object *error = json_object_or_null(task, "error");
    const char *state = json_string_or(task, "state", SHOW_NOTHING);
    int64_t start = json_int_or(task, "startTime", 0);
    int64_t end = json_int_or(task, "endTime", -1);
    char buf[UNITS_TEXT_MAX];

    writer_cell(w, TONE_PLAIN, "%s", json_string_or(task, "id", SHOW_NOTHING));
    writer_cell(w, TONE_PLAIN, "%s", json_string_or(task, "type", SHOW_NOTHING));
    writer_cell(w, TONE_PLAIN, "%s", json_string_or(about, "resourceName", SHOW_NOTHING));
    writer_cell(w, show_task_tone(state), "%s", state);
    writer_cell(w, TONE_PLAIN, "%.0f%%", json_double_or(task, "progress", 0));
    writer_cell(w, TONE_PLAIN, "%s", show_time(task, "startTime", buf));
    writer_cell(w, TONE_PLAIN, "%s",
                start > 0 && end >= start ? units_format_duration_ms(end - start, buf)
                                          : SHOW_NOTHING);
    writer_cell(w, TONE_PLAIN, "%s", json_string_or(error, "message", ""));
}

HANDLER(handle_task_list)
{
    static const char *const columns[] = {
        "TASK", "TYPE", "VM", "STATE", "PROGRESS", "STARTED", "TOOK", "NOTE",
    };
    AUTOFREE(char) *path = NULL;
    AUTOJSON *answer = NULL;
    struct json_object *items = NULL;

    path = invocation_has(inv, "limit")
               ? mem_printf("/tasks?limit=%" PRId64, invocation_number(inv, "limit", 0))
               : mem_strdup("/tasks");
    if (!session_get(s, path, &answer, err) || !session_items(answer, &items, err))
        return false;
    writer_answer(s->out, answer);
    writer_table_start(s->out, columns, N_ELEMENTS(columns));
    for (size_t i = 0; i < show_length(items); i++)
        show_row(s->out, show_item(items, i));
    writer_table_end(s->out);
    return true;
}

HANDLER(handle_task_info)
{
    const char *const path[] = { "/tasks/", invocation_text(inv, "TASK", ""), "" };
    AUTOJSON *task = NULL;

    if (!session_call_on(s, "GET", path, NULL, &task, err))
        return false;
    writer_answer(s->out, task);
    show_task(s->out, task);
    return true;
}

HANDLER(handle_task_wait)
{
    const char *id = invocation_text(inv, "TASK", "");
    AUTOJSON *task = NULL;

    if (!wait_task(s, id, &task, err))
        return false;
    writer_answer(s->out, task);
    if (!wait_verdict(task, err))
        return false;
    writer_say(s->out, "task %s has succeeded", id);
    return true;
}

HANDLER(handle_task_cancel)
{
    const char *id = invocation_text(inv, "TASK", "");
    AUTOJSON *task = NULL;

    if (!session_call_on(s, "DELETE", (const char *const[]){ "/tasks/", id, "" }, NULL,
                         &task, err))
        return false;
    writer_answer(s->out, task);
    writer_say(s->out, "task %s was asked to stop", id);
    return true;
}
