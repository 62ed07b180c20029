/* A split brain: what each host has, and which one keeps the VM. */
#include <inttypes.h>

#include "client/handlers.h"
#include "client/show.h"
#include "common/units.h"

static const char *
runs_word(struct json_object *side)
{
    if (!json_bool_or(side, "running", false))
        return "no";
    return json_bool_or(side, "suspended", false) ? "suspended" : "yes";
}

static void
show_side(struct writer *w, struct json_object *side)
{
    char since[UNITS_TEXT_MAX], point[UNITS_TEXT_MAX];

    writer_heading(w, json_string_or(side, "host", SHOW_NOTHING));
    writer_field(w, "Site", TONE_PLAIN, "%s", json_string_or(side, "site", SHOW_NOTHING));
    writer_field(w, "Side", TONE_PLAIN, "%s", json_string_or(side, "side", SHOW_NOTHING));
    writer_field(w, "State", TONE_PLAIN, "%s",
                 json_string_or(side, "state", SHOW_NOTHING));
    writer_field(w, "Runs", TONE_PLAIN, "%s", runs_word(side));
    writer_field(w, "Since", TONE_PLAIN, "%s", show_time(side, "since", since));
    writer_field(w, "Epoch", TONE_PLAIN, "%" PRId64 "%s", json_int_or(side, "epoch", 0),
                 json_bool_or(side, "ownsEpoch", false) ? ", which is this host's" : "");
    writer_field(w, "Newest point", TONE_PLAIN, "%s",
                 show_time(side, "newestPoint", point));
    writer_field(w, "If it is not kept", TONE_WARN, "%s",
                 json_string_or(side, "loses", SHOW_NOTHING));
}

static bool
show(struct session *s, const char *vm, struct error **err)
{
    const char *const path[] = { "/replications/", vm, "/resolve" };
    AUTOJSON *answer = NULL;
    struct json_object *sides;

    if (!session_call_on(s, "GET", path, NULL, &answer, err))
        return false;
    writer_answer(s->out, answer);
    sides = show_array(answer, "sides");
    for (size_t i = 0; i < show_length(sides); i++)
        show_side(s->out, show_item(sides, i));
    if (json_string_or(answer, "problem", NULL) != NULL)
        writer_say(s->out, "the other host cannot be asked: %s",
                   json_string_or(answer, "problem", ""));
    else if (json_bool_or(answer, "isSplitBrain", false))
        writer_say(s->out, "both hosts run '%s'; choose: virt-dr resolve %s --keep HOST",
                   vm, vm);
    else
        writer_say(s->out, "there is no split brain of '%s'", vm);
    return true;
}

HANDLER(handle_resolve)
{
    const char *vm = invocation_text(inv, "VM", "");
    const char *const path[] = { "/replications/", vm, "/resolve" };
    const char *kept;
    AUTOJSON *body = NULL;
    AUTOJSON *task = NULL;
    AUTOJSON *done = NULL;

    if (!invocation_has(inv, "keep"))
        return show(s, vm, err);
    body = json_object_new_object();
    json_set_string(body, "keep", invocation_text(inv, "keep", ""));
    if (!session_call_on(s, "POST", path, body, &task, err) ||
        !show_started(s, inv, task, false, &done, err))
        return false;
    if (done == NULL)
        return true;
    kept = json_string_or(json_object_or_null(done, "result"), "kept", NULL);
    if (kept != NULL)
        writer_say(s->out,
                   "'%s' is kept on '%s'; what the other host's VM has written is its "
                   "recovery point '%s', to export or clone there",
                   vm, invocation_text(inv, "keep", ""), kept);
    else
        writer_say(s->out,
                   "'%s' is kept on '%s'; the other host's VM was stopped, and its disks "
                   "are locked as they are",
                   vm, invocation_text(inv, "keep", ""));
    return true;
}
