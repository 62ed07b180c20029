/* The command that writes a VM's disks to a medium for their first sync elsewhere. */
#include "client/handlers.h"

#include "client/show.h"
#include "common/units.h"

static void
show_exported(struct writer *w, struct json_object *result)
{
    char size[UNITS_TEXT_MAX], when[UNITS_TEXT_MAX];

    writer_say(w,
               "the disks of '%s' as of %s are in '%s' (%s); bring it to the other host",
               json_string_or(result, "vmName", SHOW_NOTHING),
               show_time(result, "timestamp", when),
               json_string_or(result, "folder", SHOW_NOTHING),
               show_size(result, "writtenBytes", size));
    writer_say(w, "then: virt-dr protect %s --to PEER --seed FOLDER-THERE",
               json_string_or(result, "vmName", SHOW_NOTHING));
    if (json_bool_or(result, "recorded", false))
        writer_say(w, "until then it is recorded what changes: only that will be sent");
}

HANDLER(handle_export_seed)
{
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *task = NULL;
    AUTOJSON *done = NULL;

    json_set_string(body, "domain", invocation_text(inv, "DOMAIN", ""));
    json_set_string(body, "folder", invocation_text(inv, "FOLDER", ""));
    if (invocation_has(inv, "no-record"))
        json_set_bool(body, "record", false);
    if (!session_call(s, "POST", "/seeds", body, &task, err) ||
        !show_started(s, inv, task, false, &done, err))
        return false;
    if (done != NULL)
        show_exported(s->out, json_object_or_null(done, "result"));
    return true;
}
