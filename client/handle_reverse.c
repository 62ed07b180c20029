/* The way back. */
#include "client/handlers.h"

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
            s->out, "'%s' is replicated from here to '%s' now; the sync has begun",
            invocation_text(inv, "VM", ""),
            json_string_or(json_object_or_null(done, "result"), "target", SHOW_NOTHING));
    return true;
}
