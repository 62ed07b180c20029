#include "client/retention_options.h"

#include "client/session.h"

struct json_object *
retention_options_body(const struct invocation *inv)
{
    struct json_object *body;

    if (!invocation_has(inv, "window") && !invocation_has(inv, "max-size") &&
        !invocation_has(inv, "rules"))
        return NULL;
    body = json_object_new_object();
    if (invocation_has(inv, "window"))
        json_set_int(body, "window", invocation_number(inv, "window", 0));
    if (invocation_has(inv, "max-size"))
        json_set_int(body, "maxBytes", invocation_number(inv, "max-size", 0));
    if (invocation_has(inv, "rules"))
        json_set_string(body, "rules", invocation_text(inv, "rules", ""));
    return body;
}

char *
retention_options_query(const struct invocation *inv)
{
    static const struct {
        const char *option;
        const char *name;
    } parts[] = {
        { "window", "window" },
        { "max-size", "maxSize" },
        { "rules", "rules" },
    };
    char *query = mem_strdup("");

    for (size_t i = 0; i < N_ELEMENTS(parts); i++) {
        AUTOFREE(char) *before = query;
        AUTOFREE(char) *value = session_encode(invocation_text(inv, parts[i].option, ""));

        query = invocation_has(inv, parts[i].option)
                    ? mem_printf("%s&%s=%s", before, parts[i].name, value)
                    : TAKE(before);
    }
    return query;
}
