#include "client/point_options.h"

#include <string.h>

#include "common/json.h"
#include "common/units.h"

/* Options and what the API calls them. */
static const struct {
    const char *option;
    const char *type;
} kinds[] = {
    { "point", "id" },
    { "at", "at" },
    { "before", "before" },
    { "interval", "interval" },
    { "consistent", "consistent" },
};

/* "10:00/15m" is the time and the interval's length. */
static bool
set_interval(struct json_object *point, const char *text, struct error **err)
{
    const char *slash = strchr(text, '/');
    AUTOFREE(char) *time = NULL;
    int64_t length_ms;

    if (slash == NULL) {
        json_set_string(point, "value", text);
        return true;
    }
    if (!units_parse_duration_ms(slash + 1, &length_ms, err))
        return error_prefix(err, "'interval'");
    time = mem_memdup(text, (size_t)(slash - text));
    json_set_string(point, "value", time);
    json_set_int(point, "length", length_ms);
    return true;
}

static bool
add_point(const struct invocation *inv, size_t kind, struct json_object *body,
          struct error **err)
{
    struct json_object *point = json_object_new_object();
    const char *text = invocation_text(inv, kinds[kind].option, "");

    json_set(body, "point", point);
    json_set_string(point, "type", kinds[kind].type);
    if (strcmp(kinds[kind].type, "interval") == 0)
        return set_interval(point, text, err);
    if (strcmp(kinds[kind].type, "consistent") != 0)
        json_set_string(point, "value", text);
    return true;
}

bool
point_options_add(const struct invocation *inv, struct json_object *body,
                  struct error **err)
{
    size_t given = N_ELEMENTS(kinds);

    for (size_t i = 0; i < N_ELEMENTS(kinds); i++) {
        if (!invocation_has(inv, kinds[i].option))
            continue;
        if (given < N_ELEMENTS(kinds))
            return error_set(err, ERROR_USAGE,
                             "--%s and --%s both choose a point; give one of them",
                             kinds[given].option, kinds[i].option);
        given = i;
    }
    return given == N_ELEMENTS(kinds) || add_point(inv, given, body, err);
}
