/* Which VMs may start on this host, why not, and an operator's word against that. */
#include <inttypes.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/guard_offline.h"
#include "client/handlers.h"
#include "client/show.h"
#include "common/units.h"

/* --- status ------------------------------------------------------------------------- */

static void
show_hook(struct writer *w, struct json_object *answer, bool offline)
{
    struct json_object *hook = json_object_or_null(answer, "hook");
    bool effective = json_bool_or(hook, "effective", false);

    writer_heading(w, "Guard");
    writer_field(w, "Asked by libvirt", effective ? TONE_GOOD : TONE_BAD, "%s",
                 effective ? "yes"
                           : json_string_or(hook, "problem", "it cannot be told"));
    if (offline)
        writer_field(w, "virtdrd", TONE_WARN, "does not run: as the hook answers itself");
}

static const char *
confirmed_word(struct json_object *o)
{
    if (!json_bool_or(o, "mayRun", false))
        return SHOW_NOTHING;
    if (json_bool_or(o, "confirmed", false))
        return "yes";
    return strcmp(json_string_or(o, "unconfirmed", ""), "start") == 0 ? "not needed"
                                                                      : "no";
}

static void
show_row(struct writer *w, struct json_object *o)
{
    struct json_object *override = json_object_or_null(o, "override");
    const char *answer = json_string_or(o, "answer", SHOW_NOTHING);
    bool starts = strcmp(answer, "start") == 0;

    writer_cell(w, TONE_PLAIN, "%s",
                json_string_or(o, "vmName", json_string_or(o, "vmId", SHOW_NOTHING)));
    writer_cell(w, starts ? TONE_GOOD : TONE_WARN, "%s", starts ? "may start" : answer);
    writer_cell(w, TONE_PLAIN, "%" PRId64, json_int_or(o, "epoch", 0));
    writer_cell(w, TONE_PLAIN, "%s", confirmed_word(o));
    writer_cell(w, TONE_PLAIN, "%s", json_string_or(o, "unconfirmed", SHOW_NOTHING));
    writer_cell(w, TONE_PLAIN, "%s", json_string_or(o, "state", SHOW_NOTHING));
    writer_cell(w, override != NULL ? TONE_BAD : TONE_PLAIN, "%s",
                override == NULL                          ? SHOW_NOTHING
                : !json_bool_or(override, "holds", false) ? "ended"
                : json_bool_or(override, "allow", false)  ? "allow"
                                                          : "deny");
    writer_cell(w, TONE_PLAIN, "%s", json_string_or(o, "why", ""));
}

static void
show_override(struct writer *w, struct json_object *o)
{
    struct json_object *override = json_object_or_null(o, "override");
    char since[UNITS_TEXT_MAX], until[UNITS_TEXT_MAX];

    if (override == NULL)
        return;
    writer_heading(w, "Override");
    writer_field(w, "VM", TONE_PLAIN, "%s", json_string_or(o, "vmName", SHOW_NOTHING));
    writer_field(w, "Says", TONE_BAD, "%s%s",
                 json_bool_or(override, "allow", false) ? "allow" : "deny",
                 json_bool_or(override, "holds", false) ? "" : " (holds no more)");
    writer_field(w, "By", TONE_PLAIN, "%s", json_string_or(override, "by", SHOW_NOTHING));
    writer_field(w, "Why", TONE_PLAIN, "%s",
                 json_string_or(override, "reason", SHOW_NOTHING));
    writer_field(w, "Since", TONE_PLAIN, "%s", show_time(override, "since", since));
    writer_field(w, "Until", TONE_PLAIN, "%s",
                 json_int_or(override, "until", 0) > 0
                     ? show_time(override, "until", until)
                     : "it is ended");
}

static bool
is_meant(struct json_object *o, const char *key)
{
    return key == NULL || strcmp(json_string_or(o, "vmName", ""), key) == 0 ||
           strcasecmp(json_string_or(o, "vmId", ""), key) == 0;
}

static bool
keep_meant(struct json_object *answer, const char *key, struct error **err)
{
    struct json_object *items = show_array(answer, "items");
    struct json_object *kept = json_object_new_array();

    for (size_t i = 0; i < show_length(items); i++)
        if (is_meant(show_item(items, i), key))
            json_object_array_add(kept, json_object_get(show_item(items, i)));
    json_set(answer, "items", kept);
    return key == NULL || show_length(kept) > 0 ||
           error_set(err, ERROR_NOT_FOUND,
                     "the guard has no record of '%s': it is not protected here, and "
                     "nothing keeps it from starting",
                     key);
}

static void
show_status(struct writer *w, struct json_object *answer, bool offline)
{
    static const char *const columns[] = { "NAME", "NOW",   "EPOCH",    "CONFIRMED",
                                           "ELSE", "STATE", "OVERRIDE", "WHY" };
    struct json_object *items = show_array(answer, "items");

    show_hook(w, answer, offline);
    writer_table_start(w, columns, N_ELEMENTS(columns));
    for (size_t i = 0; i < show_length(items); i++)
        show_row(w, show_item(items, i));
    writer_table_end(w);
    for (size_t i = 0; i < show_length(items); i++)
        show_override(w, show_item(items, i));
}

/* True: nobody listens at the socket of this host, so the disk is asked. */
static bool
is_down(struct session *s, struct error **e)
{
    if (!error_is(*e, ERROR_CONNECT) ||
        strncmp(s->settings.address, "unix://", strlen("unix://")) != 0)
        return false;
    error_clear(e);
    return true;
}

static bool
status(struct session *s, const struct invocation *inv, struct error **err)
{
    static const char *const arguments[] = { "--guard-status", NULL };
    struct error *e = NULL;
    AUTOJSON *answer = NULL;
    bool offline = false;

    if (!session_get(s, "/guard", &answer, &e)) {
        offline = is_down(s, &e);
        if (!offline)
            return error_propagate(err, e);
        if (!guard_offline(arguments, &answer, err))
            return false;
    }
    if (!keep_meant(answer, invocation_text(inv, "DOMAIN", NULL), err))
        return false;
    writer_answer(s->out, answer);
    show_status(s->out, answer, offline);
    return true;
}

/* --- override ----------------------------------------------------------------------- */

/* "allow", "deny", "end". */
static bool
word_of(const struct invocation *inv, const char **ret, struct error **err)
{
    static const char *const words[] = { "allow", "deny", "end" };
    size_t n = 0;

    for (size_t i = 0; i < N_ELEMENTS(words); i++) {
        if (!invocation_has(inv, words[i]))
            continue;
        *ret = words[i];
        n++;
    }
    if (n != 1 || invocation_text(inv, "DOMAIN", NULL) == NULL)
        return error_set(err, ERROR_USAGE,
                         "an override takes DOMAIN and one of --allow, --deny, --end");
    if (strcmp(*ret, "end") != 0 && invocation_text(inv, "reason", NULL) == NULL)
        return error_set(err, ERROR_USAGE, "--%s needs --reason TEXT", *ret);
    return true;
}

/* Who it is behind sudo, for the record. */
static const char *
user_name(void)
{
    const char *sudo = getenv("SUDO_USER");
    const struct passwd *who = getpwuid(getuid());

    if (sudo != NULL && sudo[0] != '\0')
        return sudo;
    return who != NULL ? who->pw_name : "root";
}

static bool
override_offline(const struct invocation *inv, const char *word, struct json_object **ret,
                 struct error **err)
{
    int64_t for_ms = invocation_number(inv, "for", 0);
    AUTOFREE(char) *until =
        mem_printf("%" PRId64, for_ms > 0 ? units_now_ms() + for_ms : 0);
    const char *const arguments[] = {
        "--guard-override", invocation_text(inv, "DOMAIN", ""),      word, until,
        user_name(),        invocation_text(inv, "reason", "ended"), NULL
    };

    return guard_offline(arguments, ret, err);
}

static bool
override_call(struct session *s, const struct invocation *inv, const char *word,
              struct json_object **ret, struct error **err)
{
    const char *const path[] = { "/guard/", invocation_text(inv, "DOMAIN", ""), "" };
    bool ends = strcmp(word, "end") == 0;
    AUTOJSON *body = ends ? NULL : json_object_new_object();

    if (!ends) {
        json_set_bool(body, "allow", strcmp(word, "allow") == 0);
        json_set_string(body, "reason", invocation_text(inv, "reason", ""));
        json_set_int(body, "for", invocation_number(inv, "for", 0));
        json_set_string(body, "by", user_name());
    }
    return session_call_on(s, ends ? "DELETE" : "PUT", path, body, ret, err);
}

static bool
override(struct session *s, const struct invocation *inv, struct error **err)
{
    AUTOJSON *answer = NULL;
    struct error *e = NULL;
    const char *word = NULL;

    if (!word_of(inv, &word, err))
        return false;
    if (!override_call(s, inv, word, &answer, &e)) {
        if (!is_down(s, &e))
            return error_propagate(err, e);
        if (!override_offline(inv, word, &answer, err))
            return false;
    }
    writer_answer(s->out, answer);
    show_override(s->out, answer);
    writer_say(s->out, "libvirt may%s start '%s' on this host now",
               strcmp(json_string_or(answer, "answer", ""), "start") == 0 ? "" : " not",
               json_string_or(answer, "vmName", json_string_or(answer, "vmId", "")));
    return true;
}

HANDLER(handle_guard)
{
    const char *action = invocation_text(inv, "ACTION", "");

    if (strcmp(action, "status") == 0)
        return status(s, inv, err);
    if (strcmp(action, "override") == 0)
        return override(s, inv, err);
    return error_set(err, ERROR_USAGE, "'%s' is not status or override", action);
}
