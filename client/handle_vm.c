/* The commands about replications: looking at them, and switches. */
#include "client/handlers.h"

#include "client/show.h"
#include "common/units.h"

static void
show_row(struct writer *w, struct json_object *r)
{
    struct json_object *settings = json_object_or_null(r, "settings");
    struct json_object *peer = json_object_or_null(r, "peer");
    const char *health = json_string_or(r, "overallHealth", SHOW_NOTHING);
    struct json_object *reasons = show_array(r, "healthReasons");
    bool is_late = json_int_or(r, "currentRpoViolation", 0) > 0;
    char age[UNITS_TEXT_MAX], rpo[UNITS_TEXT_MAX], point[UNITS_TEXT_MAX];

    writer_cell(w, TONE_PLAIN, "%s", json_string_or(r, "vmName", SHOW_NOTHING));
    writer_cell(w, TONE_PLAIN, "%s", json_string_or(r, "side", SHOW_NOTHING));
    writer_cell(w, TONE_PLAIN, "%s", json_string_or(peer, "name", SHOW_NOTHING));
    writer_cell(w, TONE_PLAIN, "%s", json_string_or(r, "state", SHOW_NOTHING));
    writer_cell(w, show_health_tone(health), "%s", health);
    writer_cell(w, show_readiness_tone(r), "%s", show_readiness(r));
    writer_cell(w, is_late ? TONE_BAD : TONE_PLAIN, "%s / %s",
                show_duration(r, "rpoAge", age), show_duration(settings, "rpo", rpo));
    writer_cell(w, TONE_PLAIN, "%s",
                show_time(json_object_or_null(r, "latestInstance"), "timestamp", point));
    writer_cell(w, TONE_PLAIN, "%s",
                show_length(reasons) == 0 ? "" : show_item_string(reasons, 0));
}

HANDLER(handle_list)
{
    static const char *const columns[] = {
        "NAME", "SIDE", "PEER", "STATE", "HEALTH", "READY", "RPO", "LAST POINT", "NOTE",
    };
    AUTOJSON *answer = NULL;
    struct json_object *items = NULL;

    (void)inv;
    if (!session_get(s, "/replications", &answer, err) ||
        !session_items(answer, &items, err))
        return false;
    writer_answer(s->out, answer);
    writer_table_start(s->out, columns, N_ELEMENTS(columns));
    for (size_t i = 0; i < show_length(items); i++)
        show_row(s->out, show_item(items, i));
    writer_table_end(s->out);
    return true;
}

/* Calls METHOD /replications/VM<rest>. */
static bool
call_vm(struct session *s, const struct invocation *inv, const char *method,
        const char *rest, struct json_object **ret, struct error **err)
{
    const char *const path[] = { "/replications/", invocation_text(inv, "VM", ""), rest };

    return session_call_on(s, method, path, NULL, ret, err);
}

HANDLER(handle_info)
{
    AUTOJSON *answer = NULL;

    if (!call_vm(s, inv, "GET", "", &answer, err))
        return false;
    writer_answer(s->out, answer);
    show_replication(s->out, answer);
    return true;
}

static bool
switch_vm(struct session *s, const struct invocation *inv, const char *rest,
          struct error **err)
{
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *answer = NULL;
    const char *const path[] = { "/replications/", invocation_text(inv, "VM", ""), rest };

    if (!session_call_on(s, "POST", path, body, &answer, err))
        return false;
    writer_answer(s->out, answer);
    writer_say(s->out, "replication of '%s' is now: %s",
               json_string_or(answer, "vmName", path[1]),
               json_string_or(answer, "state", SHOW_NOTHING));
    return true;
}

HANDLER(handle_pause)
{
    return switch_vm(s, inv, "/pause", err);
}

HANDLER(handle_resume)
{
    return switch_vm(s, inv, "/resume", err);
}
