/* Application-consistent points: how often, and how it goes. */
#include <inttypes.h>
#include <string.h>

#include "client/consistency_options.h"
#include "client/handlers.h"
#include "client/show.h"
#include "common/units.h"

bool
consistency_options_body(const struct invocation *inv, const char *option,
                         struct json_object **ret, struct error **err)
{
    const char *text = invocation_text(inv, option, NULL);
    struct json_object *body;
    uint64_t cycles = 0;
    int64_t time_ms = 0;

    *ret = NULL;
    if (text == NULL)
        return true;
    if (text[strspn(text, "0123456789")] == '\0') {
        if (!units_parse_u64(text, 1, 1000000, &cycles, err))
            return error_prefix(err, "--%s", option);
    } else if (strcmp(text, "never") != 0 &&
               !units_parse_duration_ms(text, &time_ms, err)) {
        return error_prefix(err, "--%s is a number of cycles, a time, or 'never'",
                            option);
    }
    body = json_object_new_object();
    json_set_u64(body, "everyCycles", cycles);
    json_set_int(body, "everyTime", time_ms);
    *ret = body;
    return true;
}

const char *
consistency_options_text(struct json_object *consistency, char *buf)
{
    int64_t cycles = json_int_or(consistency, "everyCycles", 0);
    int64_t time_ms = json_int_or(consistency, "everyTime", 0);
    char time[UNITS_TEXT_MAX];

    if (cycles > 0)
        snprintf(buf, UNITS_TEXT_MAX, "one of %" PRId64 " cycles", cycles);
    else if (time_ms > 0)
        snprintf(buf, UNITS_TEXT_MAX, "every %s",
                 units_format_duration_ms(time_ms, time));
    else
        snprintf(buf, UNITS_TEXT_MAX, "never");
    return buf;
}

HANDLER(handle_consistency)
{
    const char *const path[] = { "/replications/", invocation_text(inv, "VM", ""),
                                 "/consistency" };
    AUTOJSON *body = NULL;
    AUTOJSON *answer = NULL;
    char buf[UNITS_TEXT_MAX];

    if (!consistency_options_body(inv, "every", &body, err) ||
        !session_call_on(s, body != NULL ? "PUT" : "GET", path, body, &answer, err))
        return false;
    writer_answer(s->out, answer);
    writer_heading(s->out, "Application-consistent points");
    writer_field(s->out, "Made", TONE_PLAIN, "%s", consistency_options_text(answer, buf));
    writer_field(s->out, "Last", TONE_PLAIN, "%s", show_time(answer, "lastTime", buf));
    if (json_int_or(answer, "failures", 0) == 0)
        return true;
    writer_field(s->out, "Failed", TONE_WARN, "%" PRId64 " times in a row: %s",
                 json_int_or(answer, "failures", 0),
                 json_string_or(answer, "reason", SHOW_NOTHING));
    writer_field(s->out, "Next try", TONE_PLAIN, "%s", show_time(answer, "nextTry", buf));
    return true;
}
