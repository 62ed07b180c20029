/* The commands about recovery points: which there are, which stay, their names. */
#include "client/handlers.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/retention_options.h"
#include "client/show.h"
#include "common/units.h"

/* METHOD /replications/VM<rest>. */
static bool
call_vm(struct session *s, const struct invocation *inv, const char *const call[2],
        struct json_object *body, struct json_object **ret, struct error **err)
{
    const char *const path[] = { "/replications/", invocation_text(inv, "VM", ""),
                                 call[1] };

    return session_call_on(s, call[0], path, body, ret, err);
}

/* --- the list ----------------------------------------------------------------- */

/* Local time, as --at takes it; "-" if there is none. */
static const char *
show_local(struct json_object *o, const char *key, char *buf)
{
    int64_t ms = json_int_or(o, key, -1);
    time_t s = (time_t)(ms / 1000);
    struct tm tm;
    size_t used;

    if (ms <= 0 || localtime_r(&s, &tm) == NULL)
        return SHOW_NOTHING;
    used = strftime(buf, UNITS_TEXT_MAX, "%Y-%m-%d %H:%M:%S", &tm);
    snprintf(buf + used, UNITS_TEXT_MAX - used, ".%03d", (int)(ms % 1000));
    return buf;
}

/* "a, b"; the caller frees. */
static char *
join(struct json_object *array)
{
    char *text = mem_strdup("");

    for (size_t i = 0; i < show_length(array); i++) {
        char *longer =
            mem_printf("%s%s%s", text, i > 0 ? ", " : "", show_item_string(array, i));

        free(text);
        text = longer;
    }
    return text;
}

static void
show_point(struct writer *w, struct json_object *point)
{
    const char *state = json_string_or(point, "state", SHOW_NOTHING);
    const char *kind = json_string_or(point, "consistency", SHOW_NOTHING);
    AUTOFREE(char) *tags = join(show_array(point, "tags"));
    char buf[UNITS_TEXT_MAX];

    writer_cell(w, TONE_PLAIN, "%s", json_string_or(point, "id", SHOW_NOTHING));
    writer_cell(w, TONE_PLAIN, "%s", show_local(point, "timestamp", buf));
    writer_cell(w, TONE_PLAIN, "%" PRId64, json_int_or(point, "sequenceNumber", 0));
    writer_cell(w, TONE_PLAIN, "%s", show_size(point, "transferBytes", buf));
    writer_cell(w, TONE_PLAIN, "%s", strcmp(kind, "application") == 0 ? "app" : kind);
    writer_cell(w, TONE_PLAIN, "%s", json_string_or(point, "keptBy", "(goes)"));
    writer_cell(w, TONE_PLAIN, "%s", show_local(point, "expires", buf));
    writer_cell(w, TONE_PLAIN, "%s", tags);
    writer_cell(w, strcmp(state, "damaged") == 0 ? TONE_BAD : TONE_PLAIN, "%s", state);
}

static void
show_points(struct writer *w, struct json_object *items)
{
    static const char *const columns[] = {
        "POINT", "TIME", "NUMBER", "SIZE", "KIND", "KEPT BY", "EXPIRES", "TAGS", "STATE",
    };

    writer_table_start(w, columns, N_ELEMENTS(columns));
    for (size_t i = show_length(items); i > 0; i--)
        show_point(w, show_item(items, i - 1));
    writer_table_end(w);
}

/* A row of the plan: the window if there is no name. */
static void
show_part(struct writer *w, struct json_object *part)
{
    char buf[UNITS_TEXT_MAX];
    const char *name = json_string_or(part, "name", NULL);

    writer_cell(w, TONE_PLAIN, "%s", name != NULL ? name : "window");
    writer_cell(w, TONE_PLAIN, "%s",
                show_duration(part, name != NULL ? "distance" : "window", buf));
    if (name != NULL)
        writer_cell(w, TONE_PLAIN, "%" PRId64, json_int_or(part, "numberOfInstances", 0));
    else
        writer_cell(w, TONE_PLAIN, "all");
    writer_cell(w, TONE_PLAIN, "%" PRId64, json_int_or(part, "have", 0));
    writer_cell(w, TONE_PLAIN, "%s", show_local(part, "from", buf));
    writer_cell(w, TONE_PLAIN, "%s", show_local(part, "oldest", buf));
}

static void
show_plan(struct writer *w, struct json_object *plan)
{
    static const char *const columns[] = {
        "RULE", "DISTANCE", "INSTANCES", "HAVE NOW", "REACHES BACK TO", "OLDEST KEPT",
    };
    struct json_object *window = json_object_or_null(plan, "window");
    struct json_object *rules = show_array(plan, "rules");
    char bytes[UNITS_TEXT_MAX], max[UNITS_TEXT_MAX], gone[UNITS_TEXT_MAX];
    bool is_limited = json_int_or(window, "maxBytes", 0) > 0;

    writer_table_start(w, columns, N_ELEMENTS(columns));
    show_part(w, window);
    for (size_t i = 0; i < show_length(rules); i++)
        show_part(w, show_item(rules, i));
    writer_table_end(w);
    writer_say(w, "the window has %s%s%s; %" PRId64 " points stay, %" PRId64 " go (%s)",
               show_size(window, "bytes", bytes), is_limited ? " of at most " : "",
               is_limited ? show_size(window, "maxBytes", max) : "",
               json_int_or(plan, "kept", 0), json_int_or(plan, "dropped", 0),
               show_size(plan, "droppedBytes", gone));
}

HANDLER(handle_points)
{
    AUTOFREE(char) *retention = retention_options_query(inv);
    AUTOFREE(char) *limit =
        invocation_has(inv, "limit")
            ? mem_printf("&limit=%" PRId64, invocation_number(inv, "limit", 0))
            : mem_strdup("");
    AUTOFREE(char) *query = mem_printf(
        "%s%s%s", invocation_has(inv, "plan") ? "&plan=true" : "", limit, retention);
    AUTOFREE(char) *rest = mem_printf("/points%s%s", query[0] != '\0' ? "?" : "",
                                      query[0] != '\0' ? query + 1 : "");
    AUTOJSON *answer = NULL;
    struct json_object *items = NULL, *plan;

    if (!call_vm(s, inv, (const char *const[]){ "GET", rest }, NULL, &answer, err) ||
        !session_items(answer, &items, err))
        return false;
    writer_answer(s->out, answer);
    show_points(s->out, items);
    plan = json_object_or_null(answer, "plan");
    if (plan != NULL)
        show_plan(s->out, plan);
    return true;
}

/* --- one point ------------------------------------------------------------------ */

/* METHOD /replications/VM/points/POINT<rest>, then the sentence. */
static bool
change_point(struct session *s, const struct invocation *inv, const char *const call[2],
             struct json_object *body, struct error **err)
{
    AUTOFREE(char) *point = session_encode(invocation_text(inv, "POINT", ""));
    AUTOFREE(char) *rest = mem_printf("/points/%s%s", point, call[1]);
    AUTOFREE(char) *tags = NULL;
    AUTOJSON *answer = NULL;
    char buf[UNITS_TEXT_MAX];

    if (!call_vm(s, inv, (const char *const[]){ call[0], rest }, body, &answer, err))
        return false;
    writer_answer(s->out, answer);
    tags = join(show_array(answer, "tags"));
    writer_say(s->out, "recovery point '%s' of %s is now: %s; tags: %s",
               json_string_or(answer, "id", SHOW_NOTHING),
               show_local(answer, "timestamp", buf),
               json_bool_or(answer, "isPinned", false) ? "pinned" : "not pinned",
               tags[0] != '\0' ? tags : "none");
    return true;
}

HANDLER(handle_pin)
{
    AUTOJSON *body = json_object_new_object();

    if (invocation_has(inv, "tag"))
        json_set_string(body, "tag", invocation_text(inv, "tag", ""));
    return change_point(s, inv, (const char *const[]){ "POST", "/pin" }, body, err);
}

HANDLER(handle_unpin)
{
    AUTOJSON *body = json_object_new_object();

    return change_point(s, inv, (const char *const[]){ "POST", "/unpin" }, body, err);
}

HANDLER(handle_tag)
{
    AUTOJSON *body = json_object_new_object();

    json_set_string(body, "tag", invocation_text(inv, "TAG", ""));
    return change_point(s, inv, (const char *const[]){ "POST", "/tags" }, body, err);
}

HANDLER(handle_untag)
{
    AUTOFREE(char) *tag = session_encode(invocation_text(inv, "TAG", ""));
    AUTOFREE(char) *rest = mem_printf("/tags/%s", tag);
    AUTOJSON *answer = NULL;

    if (!call_vm(s, inv, (const char *const[]){ "DELETE", rest }, NULL, &answer, err))
        return false;
    writer_answer(s->out, answer);
    writer_say(s->out, "no recovery point has the tag '%s' any more",
               invocation_text(inv, "TAG", ""));
    return true;
}

/* --- how long they stay ------------------------------------------------------------ */

/* "hourly:24 daily:7"; the caller frees. */
static char *
join_rules(struct json_object *rules)
{
    char *text = mem_strdup(show_length(rules) == 0 ? "none" : "");

    for (size_t i = 0; i < show_length(rules); i++) {
        struct json_object *rule = show_item(rules, i);
        char *longer = mem_printf("%s%s%s:%" PRId64, text, i > 0 ? " " : "",
                                  json_string_or(rule, "name", SHOW_NOTHING),
                                  json_int_or(rule, "numberOfInstances", 0));

        free(text);
        text = longer;
    }
    return text;
}

HANDLER(handle_retention)
{
    AUTOJSON *body = retention_options_body(inv);
    AUTOJSON *answer = NULL;
    AUTOFREE(char) *rules = NULL;
    const char *const call[] = { body != NULL ? "PUT" : "GET", "/retention" };
    char buf[UNITS_TEXT_MAX];

    if (!call_vm(s, inv, call, body, &answer, err))
        return false;
    writer_answer(s->out, answer);
    rules = join_rules(show_array(answer, "rules"));
    writer_heading(s->out, "Retention");
    writer_field(s->out, "Window", TONE_PLAIN, "%s",
                 show_duration(answer, "window", buf));
    writer_field(s->out, "Max size", TONE_PLAIN, "%s",
                 json_int_or(answer, "maxBytes", 0) > 0
                     ? show_size(answer, "maxBytes", buf)
                     : "no limit");
    writer_field(s->out, "Rules", TONE_PLAIN, "%s", rules);
    return true;
}
