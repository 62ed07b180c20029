/* How much of the link a VM's replication may take. */
#include "client/handlers.h"
#include "client/show.h"
#include "common/units.h"

HANDLER(handle_bandwidth)
{
    const char *const path[] = { "/replications/", invocation_text(inv, "VM", ""),
                                 "/bandwidth" };
    const char *limit = invocation_text(inv, "limit", NULL);
    AUTOJSON *body = NULL;
    AUTOJSON *answer = NULL;
    char buf[UNITS_TEXT_MAX];

    if (limit != NULL) {
        body = json_object_new_object();
        json_set_string(body, "limit", limit);
    }
    if (!session_call_on(s, body != NULL ? "PUT" : "GET", path, body, &answer, err))
        return false;
    writer_answer(s->out, answer);
    writer_heading(s->out, "Bandwidth");
    writer_field(s->out, "Limit", TONE_PLAIN, "%s",
                 json_string_or(answer, "limit", "unlimited"));
    writer_field(s->out, "Of the peer", TONE_PLAIN, "%s",
                 json_string_or(answer, "peerLimit", "unlimited"));
    writer_field(s->out, "Now", TONE_PLAIN, "%s", show_bandwidth_now(answer, buf));
    return true;
}
