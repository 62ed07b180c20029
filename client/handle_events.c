/* The events of virtdrd: a stream that never ends. */
#include "client/handlers.h"

#include <string.h>

#include "client/show.h"
#include "common/units.h"

/*
 * The stream does not say where the kept events end and waiting begins. Without
 * --follow the command ends when nothing has come for so long.
 */
#define QUIET_MS 1000

struct listener {
    struct session *session;
    struct cancel *until_quiet; /* NULL: follow */
};

static enum tone
severity_tone(const char *severity)
{
    if (strcmp(severity, "critical") == 0)
        return TONE_BAD;
    return strcmp(severity, "warning") == 0 ? TONE_WARN : TONE_PLAIN;
}

/* A task says in its own words where it is; it is not an event with a message. */
static void
show_task_event(struct writer *w, struct json_object *task)
{
    struct json_object *what = json_object_or_null(task, "workflowInfo");
    const char *type = json_string_or(task, "type", "task");
    char time[UNITS_TEXT_MAX];

    writer_line(w, TONE_PLAIN, "%s  %-8s  %s: task '%s' %s",
                show_time(task, "lastUpdated", time), "info",
                what != NULL ? json_string_or(what, "resourceName", type) : type, type,
                json_string_or(task, "state", ""));
}

static bool
show_event(const char *id, const char *event, struct json_object *data, void *opaque)
{
    struct listener *l = opaque;
    struct writer *w = l->session->out;
    const char *severity = json_string_or(data, "severity", "info");
    const char *vm = json_string_or(data, "vmName", NULL);
    char time[UNITS_TEXT_MAX];

    (void)id;
    if (event != NULL && strcmp(event, "task") == 0)
        show_task_event(w, data);
    else
        writer_line(
            w, severity_tone(severity), "%s  %-8s  %s%s%s", show_time(data, "time", time),
            severity, vm == NULL ? "" : vm, vm == NULL ? "" : ": ",
            json_string_or(data, "message", event == NULL ? SHOW_NOTHING : event));
    writer_item(w, data);
    if (l->until_quiet != NULL)
        cancel_set_timeout(l->until_quiet, QUIET_MS);
    return ferror(stdout) == 0;
}

HANDLER(handle_events)
{
    bool follow = invocation_has(inv, "follow");
    struct cancel quiet = { 0 };
    struct listener listener = { s, follow ? NULL : &quiet };

    if (!follow)
        cancel_set_timeout(&quiet, QUIET_MS);
    if (!session_follow(s, follow ? "/events" : "/events?since=0", show_event, &listener,
                        &quiet, err))
        return false;
    if (follow && ferror(stdout) == 0)
        return error_set(err, ERROR_CONNECT, "virtdrd ended the stream of events");
    return true;
}
