/* The commands about replications that take time: each makes a task. */
#include "client/handlers.h"

#include <inttypes.h>
#include <string.h>

#include "client/consistency_options.h"
#include "client/retention_options.h"
#include "client/seed_options.h"
#include "client/show.h"
#include "client/wait.h"
#include "common/units.h"

static struct json_object *
protect_body(const struct invocation *inv)
{
    struct json_object *body = json_object_new_object();
    struct json_object *retention = retention_options_body(inv);
    struct json_object *excluded;
    const char *disk;

    json_set_string(body, "domain", invocation_text(inv, "DOMAIN", ""));
    json_set_string(body, "peer", invocation_text(inv, "to", ""));
    if (invocation_has(inv, "rpo"))
        json_set_int(body, "rpo", invocation_number(inv, "rpo", 0));
    if (invocation_has(inv, "storage"))
        json_set_string(body, "storage", invocation_text(inv, "storage", ""));
    if (invocation_has(inv, "bandwidth"))
        json_set_string(body, "bandwidth", invocation_text(inv, "bandwidth", ""));
    if (retention != NULL)
        json_set(body, "retention", retention);
    if (!invocation_has(inv, "exclude-disk"))
        return body;
    excluded = json_object_new_array();
    for (size_t i = 0; (disk = invocation_nth(inv, "exclude-disk", i)) != NULL; i++)
        json_append_string(excluded, disk);
    json_set(body, "excludedDisks", excluded);
    return body;
}

/* What a seed has spared the network. */
static void
show_seeded(struct writer *w, struct json_object *r)
{
    struct json_object *resync = json_object_or_null(r, "resync");
    char compared[UNITS_TEXT_MAX], sent[UNITS_TEXT_MAX], wire[UNITS_TEXT_MAX];

    if (resync != NULL && json_int_or(resync, "comparedBytes", 0) > 0)
        writer_say(
            w, "%s were compared with the seed, %s differed and were sent (%s in all)",
            show_size(resync, "comparedBytes", compared),
            show_size(resync, "sentBytes", sent), show_size(resync, "wireBytes", wire));
    else if (resync != NULL)
        writer_say(w, "only what has changed since the seed was exported was sent: %s",
                   show_size(json_object_or_null(r, "statistics"), "wireBytes", wire));
}

/* What the first sync came to; an "error" state becomes the command's error. */
static bool
first_sync_verdict(struct session *s, struct json_object *r, struct error **err)
{
    struct json_object *settings = json_object_or_null(r, "settings");
    struct json_object *peer = json_object_or_null(r, "peer");
    struct json_object *st = json_object_or_null(r, "statistics");
    struct json_object *error = json_object_or_null(r, "lastError");
    const char *state = json_string_or(r, "state", SHOW_NOTHING);
    const char *vm = json_string_or(r, "vmName", SHOW_NOTHING);
    char rpo[UNITS_TEXT_MAX], bytes[UNITS_TEXT_MAX], took[UNITS_TEXT_MAX];

    writer_answer(s->out, r);
    if (strcmp(state, "error") == 0) {
        if (error != NULL)
            json_to_error(error, err);
        else
            error_set(err, ERROR_INTERNAL, "virtdrd gave no reason");
        return error_prefix(err, "first sync of '%s'", vm);
    }
    if (strcmp(state, "replicating") == 0)
        writer_say(
            s->out, "'%s' is protected on '%s' with an RPO of %s; first sync: %s in %s",
            vm, json_string_or(peer, "name", SHOW_NOTHING),
            show_duration(settings, "rpo", rpo), show_size(st, "firstSyncBytes", bytes),
            show_duration(st, "firstSyncMs", took));
    else
        writer_say(s->out, "replication of '%s' is now: %s", vm, state);
    show_seeded(s->out, r);
    return true;
}

HANDLER(handle_protect)
{
    AUTOJSON *body = protect_body(inv);
    struct json_object *consistency, *seed;
    AUTOJSON *task = NULL;
    AUTOJSON *done = NULL;
    AUTOJSON *replication = NULL;
    const char *id;

    if (!consistency_options_body(inv, "consistent-every", &consistency, err))
        return false;
    if (consistency != NULL)
        json_set(body, "consistency", consistency);
    if (!seed_options_body(inv, &seed, err))
        return false;
    if (seed != NULL)
        json_set(body, "seed", seed);
    if (!session_call(s, "POST", "/replications", body, &task, err) ||
        !show_started(s, inv, task, true, &done, err))
        return false;
    if (done == NULL)
        return true;
    id = json_string_or(json_object_or_null(done, "workflowInfo"), "resourceId",
                        invocation_text(inv, "DOMAIN", ""));
    return wait_first_sync(s, id, &replication, err) &&
           first_sync_verdict(s, replication, err);
}

HANDLER(handle_unprotect)
{
    const char *rest = invocation_has(inv, "force") ? "?force=true" : "";
    AUTOJSON *done = NULL;

    if (!show_started_on_vm(s, inv, (const char *const[]){ "DELETE", rest }, NULL, &done,
                            err))
        return false;
    if (done != NULL)
        writer_say(s->out, "'%s' is no longer protected", invocation_text(inv, "VM", ""));
    return true;
}

HANDLER(handle_sync)
{
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *done = NULL;

    if (!show_started_on_vm(s, inv, (const char *const[]){ "POST", "/sync" }, body, &done,
                            err))
        return false;
    if (done != NULL)
        writer_say(s->out, "a new recovery point of '%s' is durable",
                   invocation_text(inv, "VM", ""));
    return true;
}

HANDLER(handle_resync)
{
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *done = NULL;
    struct json_object *result;
    char compared[UNITS_TEXT_MAX], sent[UNITS_TEXT_MAX];

    if (!show_started_on_vm(s, inv, (const char *const[]){ "POST", "/resync" }, body,
                            &done, err))
        return false;
    if (done == NULL)
        return true;
    result = json_object_or_null(done, "result");
    writer_say(s->out, "'%s' and its replica are in line: %s compared, %s sent",
               invocation_text(inv, "VM", ""),
               show_size(result, "comparedBytes", compared),
               show_size(result, "sentBytes", sent));
    return true;
}

/* Always waited for: the revert that comes next fails as long as a bitmap is there. */
HANDLER(handle_release_bitmaps)
{
    const char *vm = invocation_text(inv, "VM", "");
    const char *const path[] = { "/replications/", vm, "/release-bitmaps" };
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *task = NULL;
    AUTOJSON *done = NULL;
    char until[UNITS_TEXT_MAX];

    if (invocation_has(inv, "hold"))
        json_set_int(body, "hold", invocation_number(inv, "hold", 0));
    if (!session_call_on(s, "POST", path, body, &task, err) ||
        !show_waited(s, json_string_or(task, "id", ""), false, &done, err))
        return false;
    writer_say(s->out,
               "%" PRId64 " records of '%s' are removed; now: virsh snapshot-revert. "
               "Nothing is captured until that is done, or until %s, or: virt-dr resume "
               "%s; then the disks are compared with the replica",
               json_int_or(json_object_or_null(done, "result"), "released", 0), vm,
               show_time(json_object_or_null(done, "result"), "heldUntil", until), vm);
    return true;
}

static void
show_verify(struct writer *w, const char *vm, struct json_object *result)
{
    struct json_object *differences = show_array(result, "differences");
    char at[UNITS_TEXT_MAX], size[UNITS_TEXT_MAX];

    for (size_t i = 0; i < show_length(differences); i++) {
        struct json_object *o = show_item(differences, i);

        writer_field(w, json_string_or(o, "target", SHOW_NOTHING), TONE_BAD,
                     "%s at %" PRId64, show_size(o, "length", size),
                     json_int_or(o, "offset", 0));
    }
    if (show_length(differences) == 0)
        writer_say(w, "'%s' and its replica are the same: %s were compared", vm,
                   show_size(result, "comparedBytes", at));
    else
        writer_say(w, "'%s' and its replica differ: %s of %s; what differs is sent anew",
                   vm, show_size(result, "differentBytes", size),
                   show_size(result, "comparedBytes", at));
}

HANDLER(handle_verify)
{
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *done = NULL;

    if (!show_started_on_vm(s, inv, (const char *const[]){ "POST", "/verify" }, body,
                            &done, err))
        return false;
    if (done != NULL)
        show_verify(s->out, invocation_text(inv, "VM", ""),
                    json_object_or_null(done, "result"));
    return true;
}

static void
show_scrub(struct writer *w, const char *vm, struct json_object *result)
{
    struct json_object *damages = show_array(result, "damages");
    char buf[UNITS_TEXT_MAX];

    for (size_t i = 0; i < show_length(damages); i++)
        writer_field(w, json_string_or(show_item(damages, i), "file", SHOW_NOTHING),
                     TONE_BAD, "%s",
                     json_string_or(show_item(damages, i), "text", SHOW_NOTHING));
    writer_say(w, "%s of the replica of '%s' were checked: %s%s",
               show_size(result, "checkedBytes", buf), vm,
               show_length(damages) == 0 ? "all is whole" : "there is damage",
               json_bool_or(result, "resyncNeeded", false)
                   ? "; the source sends the disks anew"
                   : "");
}

HANDLER(handle_scrub)
{
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *done = NULL;

    if (!show_started_on_vm(s, inv, (const char *const[]){ "POST", "/scrub" }, body,
                            &done, err))
        return false;
    if (done != NULL)
        show_scrub(s->out, invocation_text(inv, "VM", ""),
                   json_object_or_null(done, "result"));
    return true;
}
