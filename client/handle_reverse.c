/* The way back. */
#include "client/handlers.h"

#include "client/point_options.h"
#include "client/show.h"
#include "client/writer.h"

HANDLER(handle_reverse)
{
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *done = NULL;

    if (invocation_has(inv, "to"))
        json_set_string(body, "to", invocation_text(inv, "to", ""));
    if (invocation_has(inv, "storage"))
        json_set_string(body, "storage", invocation_text(inv, "storage", ""));
    if (!show_started_on_vm(s, inv, (const char *const[]){ "POST", "/reverse" }, body,
                            &done, err))
        return false;
    if (done != NULL)
        writer_say(
            s->out, "'%s' is replicated from here to '%s' now; the sync has begun (%s)",
            invocation_text(inv, "VM", ""),
            json_string_or(json_object_or_null(done, "result"), "target", SHOW_NOTHING),
            json_string_or(json_object_or_null(done, "result"), "reason", SHOW_NOTHING));
    return true;
}

HANDLER(handle_failback)
{
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *done = NULL;
    struct json_object *result;
    double dropped;

    if (invocation_has(inv, "shutdown"))
        json_set_string(body, "shutdown", invocation_text(inv, "shutdown", ""));
    if (invocation_has(inv, "timeout"))
        json_set_int(body, "shutdownTimeout", invocation_number(inv, "timeout", 0));
    if (invocation_has(inv, "auto-commit"))
        json_set_int(body, "autoCommit", invocation_number(inv, "auto-commit", 0));
    if (invocation_has(inv, "auto-undo"))
        json_set_int(body, "autoUndo", invocation_number(inv, "auto-undo", 0));
    if (!point_options_add(inv, body, err) ||
        !show_started_on_vm(s, inv, (const char *const[]){ "POST", "/failback" }, body,
                            &done, err))
        return false;
    if (done == NULL)
        return true;
    result = json_object_or_null(done, "result");
    dropped = json_double_or(result, "droppedSeconds", 0);
    writer_say(s->out, "'%s' runs at home again", invocation_text(inv, "VM", ""));
    if (dropped > 0)
        writer_say(s->out, "dropped, as it is newer than the point: %.1f s", dropped);
    return true;
}

HANDLER(handle_undo_failback)
{
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *done = NULL;

    if (!show_started_on_vm(s, inv, (const char *const[]){ "POST", "/undo" }, body, &done,
                            err))
        return false;
    if (done != NULL)
        writer_say(s->out,
                   "the failback of '%s' is undone: the other host starts it again, and "
                   "replicates it as soon as it answers",
                   invocation_text(inv, "VM", ""));
    return true;
}
