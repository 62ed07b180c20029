/* Failing over and back. */
#include "client/handlers.h"

#include <inttypes.h>
#include <string.h>

#include "client/point_options.h"
#include "client/show.h"
#include "client/writer.h"
#include "common/units.h"

static void
show_failover(struct writer *w, struct json_object *result)
{
    struct json_object *point = json_object_or_null(result, "point");
    struct json_object *steps = show_array(result, "steps");
    struct json_object *report = show_array(result, "report");
    char buf[UNITS_TEXT_MAX];

    writer_heading(w, "Failover");
    writer_field(w, "VM", TONE_PLAIN, "%s",
                 json_string_or(result, "vmName", SHOW_NOTHING));
    writer_field(w, "Point", TONE_PLAIN, "%s", show_time(point, "timestamp", buf));
    writer_field(w, "Data lost", TONE_PLAIN, "%.1f s (the RPO that was reached)",
                 json_double_or(result, "rpoSeconds", 0));
    if (!json_bool_or(result, "running", true))
        writer_field(w, "Running", TONE_WARN, "no: defined only");
    writer_field(w, "Time to start", TONE_PLAIN, "%.1f s (RTO)",
                 json_double_or(result, "rtoSeconds", 0));
    writer_field(w, "Epoch", TONE_PLAIN, "%" PRId64, json_int_or(result, "epoch", 0));
    for (size_t i = 0; i < show_length(steps); i++) {
        struct json_object *step = show_item(steps, i);

        writer_field(w, json_string_or(step, "name", SHOW_NOTHING), TONE_PLAIN, "%s",
                     show_duration(step, "ms", buf));
    }
    if (show_length(report) > 0)
        writer_heading(w, "Report");
    for (size_t i = 0; i < show_length(report); i++)
        writer_say(w, "- %s", show_item_string(report, i));
}

/* "THERE=HERE" of the option's n-th value; the caller frees both. */
static bool
split(const struct invocation *inv, const char *option, size_t n, char *ret[2],
      struct error **err)
{
    const char *text = invocation_nth(inv, option, n);
    const char *equals = strrchr(text, '=');

    if (equals == NULL || equals == text || equals[1] == '\0')
        return error_set(err, ERROR_USAGE, "--%s is '%s', not two parts with '=' between",
                         option, text);
    ret[0] = mem_memdup(text, (size_t)(equals - text));
    ret[1] = mem_strdup(equals + 1);
    return true;
}

static bool
add_networks(const struct invocation *inv, struct json_object *body, struct error **err)
{
    struct json_object *map = NULL;

    for (size_t i = 0; invocation_nth(inv, "network", i) != NULL; i++) {
        char *parts[2];

        if (!split(inv, "network", i, parts, err))
            return false;
        if (map == NULL) {
            map = json_object_new_object();
            json_set(body, "networks", map);
        }
        json_set_string(map, parts[0], parts[1]);
        free(parts[0]);
        free(parts[1]);
    }
    return true;
}

static bool
add_addresses(const struct invocation *inv, struct json_object *body, struct error **err)
{
    struct json_object *list = NULL;

    for (size_t i = 0; invocation_nth(inv, "address", i) != NULL; i++) {
        struct json_object *o;
        char *parts[2];

        if (!split(inv, "address", i, parts, err))
            return false;
        if (list == NULL) {
            list = json_object_new_array();
            json_set(body, "addresses", list);
        }
        o = json_object_new_object();
        json_set_string(o, "mac", parts[0]);
        json_set_string(o, "ip", parts[1]);
        json_object_array_add(list, o);
        free(parts[0]);
        free(parts[1]);
    }
    return true;
}

static void
add_number(const struct invocation *inv, const char *option, struct json_object *body,
           const char *member)
{
    if (invocation_has(inv, option))
        json_set_int(body, member, invocation_number(inv, option, 0));
}

static void
add_end(const struct invocation *inv, struct json_object *body)
{
    add_number(inv, "auto-commit", body, "autoCommit");
    add_number(inv, "auto-undo", body, "autoUndo");
}

/* What both kinds of failover take. */
static bool
add_choices(const struct invocation *inv, struct json_object *body, struct error **err)
{
    if (invocation_has(inv, "shutdown"))
        json_set_string(body, "shutdown", invocation_text(inv, "shutdown", ""));
    add_number(inv, "timeout", body, "shutdownTimeout");
    add_end(inv, body);
    return add_networks(inv, body, err) && add_addresses(inv, body, err);
}

HANDLER(handle_failover)
{
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *done = NULL;

    if (invocation_has(inv, "force"))
        json_set_bool(body, "force", true);
    if (invocation_has(inv, "no-fence"))
        json_set_bool(body, "fence", false);
    if (invocation_has(inv, "define-only"))
        json_set_bool(body, "start", false);
    if (!add_choices(inv, body, err) || !point_options_add(inv, body, err) ||
        !show_started_on_vm(s, inv, (const char *const[]){ "POST", "/failover" }, body,
                            &done, err))
        return false;
    if (done != NULL)
        show_failover(s->out, json_object_or_null(done, "result"));
    return true;
}

HANDLER(handle_planned_failover)
{
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *done = NULL;

    if (invocation_has(inv, "no-reverse"))
        json_set_bool(body, "reverse", false);
    if (!add_choices(inv, body, err) ||
        !show_started_on_vm(s, inv, (const char *const[]){ "POST", "/planned-failover" },
                            body, &done, err))
        return false;
    if (done != NULL)
        show_failover(s->out, json_object_or_null(done, "result"));
    return true;
}

HANDLER(handle_failover_policy)
{
    const char *const path[] = { "/replications/", invocation_text(inv, "VM", ""),
                                 "/failover-policy" };
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *answer = NULL;
    struct json_object *policy;
    char buf[UNITS_TEXT_MAX];

    add_end(inv, body);
    if (json_object_object_length(body) + invocation_has(inv, "manual") != 1)
        return error_set(err, ERROR_USAGE,
                         "give one of --auto-commit, --auto-undo and --manual");
    if (!session_call_on(s, "PUT", path, body, &answer, err))
        return false;
    writer_answer(s->out, answer);
    policy = json_object_or_null(answer, "failoverPolicy");
    if (policy == NULL)
        writer_say(s->out, "the failover stays as it is until you commit or undo it");
    else
        writer_say(s->out, "%s at %s", json_string_or(policy, "action", ""),
                   show_time(policy, "at", buf));
    return true;
}

HANDLER(handle_abandon)
{
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *done = NULL;
    struct json_object *result;

    if (invocation_has(inv, "force"))
        json_set_bool(body, "force", true);
    if (!show_started_on_vm(s, inv, (const char *const[]){ "POST", "/abandon" }, body,
                            &done, err))
        return false;
    result = json_object_or_null(done, "result");
    if (done != NULL)
        writer_say(s->out, "'%s' is this host's again%s", invocation_text(inv, "VM", ""),
                   json_bool_or(result, "started", false) ? ", and runs" : "");
    return true;
}

HANDLER(handle_undo)
{
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *done = NULL;

    if (!show_started_on_vm(s, inv, (const char *const[]){ "POST", "/undo" }, body, &done,
                            err))
        return false;
    if (done != NULL)
        writer_say(s->out,
                   "the failover of '%s' is undone: its source may run it again, and "
                   "is replicated as soon as it answers",
                   invocation_text(inv, "VM", ""));
    return true;
}

HANDLER(handle_commit)
{
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *done = NULL;
    bool reverses;

    if (invocation_has(inv, "no-reverse"))
        json_set_bool(body, "reverse", false);
    if (!show_started_on_vm(s, inv, (const char *const[]){ "POST", "/commit" }, body,
                            &done, err))
        return false;
    reverses = json_bool_or(json_object_or_null(done, "result"), "reverses", false);
    if (done != NULL)
        writer_say(
            s->out,
            "the failover of '%s' is final; its disks become one image each in the "
            "background%s",
            invocation_text(inv, "VM", ""),
            reverses ? ", then it is replicated from here" : "");
    return true;
}
