/* The commands about peers. */
#include "client/handlers.h"

#include <inttypes.h>
#include <string.h>

#include "client/show.h"
#include "common/units.h"

HANDLER(handle_peer_invite)
{
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *answer = NULL;
    const char *token = NULL;
    char expires[UNITS_TEXT_MAX];

    if (invocation_has(inv, "expires"))
        json_set_int(body, "expiresIn", invocation_number(inv, "expires", 0));
    if (!session_call(s, "POST", "/invites", body, &answer, err) ||
        !json_get_string(answer, "token", &token, err))
        return false;
    writer_answer(s->out, answer);
    writer_bare(s->out, token);
    if (s->quiet)
        return true;
    writer_field(s->out, "Token", TONE_PLAIN, "%s", token);
    writer_field(s->out, "Expires", TONE_PLAIN, "%s",
                 show_time(answer, "expires", expires));
    writer_field(s->out, "Fingerprint", TONE_PLAIN, "%s",
                 json_string_or(answer, "fingerprint", SHOW_NOTHING));
    writer_say(s->out, "Use it once, on the other host: virt-dr peer-join TOKEN");
    return true;
}

HANDLER(handle_peer_join)
{
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *peer = NULL;

    json_set_string(body, "token", invocation_text(inv, "TOKEN", ""));
    if (!session_call(s, "POST", "/peers", body, &peer, err))
        return false;
    writer_answer(s->out, peer);
    writer_say(s->out, "paired with '%s' (site %s, %s)",
               json_string_or(peer, "name", SHOW_NOTHING),
               json_string_or(peer, "site", SHOW_NOTHING),
               json_string_or(peer, "address", SHOW_NOTHING));
    writer_bare(s->out, json_string_or(peer, "name", SHOW_NOTHING));
    return true;
}

static enum tone
state_tone(const char *state)
{
    if (strcmp(state, "connected") == 0)
        return TONE_GOOD;
    return strcmp(state, "unknown") == 0 ? TONE_WARN : TONE_BAD;
}

static void
show_peer(struct writer *w, struct json_object *peer)
{
    struct json_object *error = json_object_or_null(peer, "error");
    const char *state = json_string_or(peer, "state", SHOW_NOTHING);
    char time[UNITS_TEXT_MAX];

    writer_cell(w, TONE_PLAIN, "%s", json_string_or(peer, "name", SHOW_NOTHING));
    writer_cell(w, TONE_PLAIN, "%s", json_string_or(peer, "site", SHOW_NOTHING));
    writer_cell(w, TONE_PLAIN, "%s", json_string_or(peer, "address", SHOW_NOTHING));
    writer_cell(w, state_tone(state), "%s", state);
    writer_cell(w, TONE_PLAIN, "%s", show_time(peer, "lastContact", time));
    writer_cell(w, TONE_PLAIN, "%" PRId64 " ms", json_int_or(peer, "clockSkew", 0));
    writer_cell(w, TONE_PLAIN, "%s", json_string_or(error, "message", ""));
}

HANDLER(handle_peer_list)
{
    static const char *const columns[] = {
        "NAME", "SITE", "ADDRESS", "STATE", "LAST CONTACT", "SKEW", "NOTE",
    };
    AUTOJSON *answer = NULL;
    struct json_object *items = NULL;

    (void)inv;
    if (!session_get(s, "/peers", &answer, err) || !session_items(answer, &items, err))
        return false;
    writer_answer(s->out, answer);
    writer_table_start(s->out, columns, N_ELEMENTS(columns));
    for (size_t i = 0; i < show_length(items); i++)
        show_peer(s->out, show_item(items, i));
    writer_table_end(s->out);
    return true;
}

HANDLER(handle_peer_remove)
{
    const char *peer = invocation_text(inv, "PEER", "");
    AUTOJSON *answer = NULL;

    if (!session_call_on(s, "DELETE", (const char *const[]){ "/peers/", peer, "" }, NULL,
                         &answer, err))
        return false;
    writer_answer(s->out, answer);
    writer_say(s->out, "peer '%s' was removed", peer);
    return true;
}
