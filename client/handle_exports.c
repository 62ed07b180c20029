/* The commands that use a recovery point without a failover: exports and clones. */
#include "client/handlers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "client/point_options.h"
#include "client/show.h"
#include "common/units.h"

/* --- certificates --------------------------------------------------------------------
 */

static bool
write_file(int folder, const char *name, const char *text, struct error **err)
{
    AUTOFREE(char) *aside = mem_printf("%s.new", name);
    size_t n = strlen(text);
    bool ok;

    (void)unlinkat(folder, aside, 0); /* its mode would stay */

    AUTOFD(fd) =
        openat(folder, aside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    ok = fd >= 0;
    while (ok && n > 0) {
        ssize_t done = write(fd, text, n);

        ok = done >= 0;
        text += ok ? done : 0;
        n -= ok ? (size_t)done : 0;
    }
    if (!ok || renameat(folder, aside, folder, name) < 0)
        return error_errno(err, ERROR_PERMISSION, "write '%s'", name);
    return true;
}

/* The names are ours, not virtdrd's: it could send any. */
static bool
write_files(const char *folder, struct json_object *files, struct error **err)
{
    static const char *const names[] = { "ca-cert.pem", "client-cert.pem",
                                         "client-key.pem" };
    AUTOFD(fd) = -1;

    if (mkdir(folder, 0700) < 0 && errno != EEXIST)
        return error_errno(err, ERROR_PERMISSION, "make folder '%s'", folder);
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, ERROR_PERMISSION, "open folder '%s'", folder);
    for (size_t i = 0; i < N_ELEMENTS(names); i++) {
        const char *text;

        if (!json_get_string(files, names[i], &text, err) ||
            !write_file(fd, names[i], text, err))
            return error_prefix(err, "credentials in '%s'", folder);
    }
    return true;
}

/* *ret_folder is the absolute path, the caller's to free; NULL without --credentials. */
static bool
fetch_credentials(struct session *s, const struct invocation *inv, const char *name,
                  char **ret_folder, struct error **err)
{
    const char *folder = invocation_text(inv, "credentials", NULL);
    const char *const path[] = { "/exports/", name, "/credentials" };
    AUTOJSON *files = NULL;

    if (folder == NULL)
        return true;
    if (!session_call_on(s, "GET", path, NULL, &files, err) ||
        !write_files(folder, files, err))
        return false;
    *ret_folder = realpath(folder, NULL);
    return true;
}

/* --- export ----------------------------------------------------------------------------
 */

static bool
export_body(const struct invocation *inv, struct json_object *body, struct error **err)
{
    if (invocation_has(inv, "credentials") &&
        !(invocation_has(inv, "listen") && invocation_has(inv, "wait")))
        return error_set(err, ERROR_USAGE,
                         "--credentials needs --listen, which makes them, and --wait");
    if (invocation_has(inv, "listen"))
        json_set_string(body, "listen", invocation_text(inv, "listen", ""));
    if (invocation_has(inv, "name"))
        json_set_string(body, "name", invocation_text(inv, "name", ""));
    return point_options_add(inv, body, err);
}

/* With the folder that the certificates are in here, not on that host. */
static void
show_uri(struct writer *w, struct json_object *disk, const char *credentials)
{
    const char *uri = json_string_or(disk, "uri", SHOW_NOTHING);
    const char *target = json_string_or(disk, "target", SHOW_NOTHING);

    if (credentials == NULL)
        writer_field(w, target, TONE_PLAIN, "%s", uri);
    else
        writer_field(w, target, TONE_PLAIN, "%.*s?tls-certificates=%s",
                     (int)strcspn(uri, "?"), uri, credentials);
}

static void
show_export(struct writer *w, struct json_object *export, const char *credentials)
{
    struct json_object *disks = show_array(export, "disks");
    struct json_object *point = json_object_or_null(export, "point");
    char buf[UNITS_TEXT_MAX];

    writer_heading(w, "Export");
    writer_field(w, "Name", TONE_PLAIN, "%s",
                 json_string_or(export, "name", SHOW_NOTHING));
    writer_field(w, "VM", TONE_PLAIN, "%s",
                 json_string_or(export, "vmName", SHOW_NOTHING));
    writer_field(w, "Point", TONE_PLAIN, "%s", show_time(point, "timestamp", buf));
    for (size_t i = 0; i < show_length(disks); i++)
        show_uri(w, show_item(disks, i), credentials);
    if (json_string_or(export, "credentials", NULL) == NULL)
        return;
    writer_field(w, "Certificates", TONE_PLAIN, "%s",
                 credentials != NULL ? credentials
                                     : json_string_or(export, "credentials", ""));
    writer_field(w, "Valid until", TONE_PLAIN, "%s",
                 show_time(export, "credentialsExpire", buf));
}

/* POST /replications/VM<rest>, then its task. */
static bool
start(struct session *s, const struct invocation *inv, const char *rest,
      struct json_object *body, struct json_object **ret_done, struct error **err)
{
    const char *const path[] = { "/replications/", invocation_text(inv, "VM", ""), rest };
    AUTOJSON *task = NULL;

    return session_call_on(s, "POST", path, body, &task, err) &&
           show_started(s, inv, task, false, ret_done, err);
}

HANDLER(handle_export)
{
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *done = NULL;
    AUTOFREE(char) *credentials = NULL;
    struct json_object *export;

    if (!export_body(inv, body, err) || !start(s, inv, "/exports", body, &done, err))
        return false;
    if (done == NULL)
        return true;
    export = json_object_or_null(done, "result");
    if (!fetch_credentials(s, inv, json_string_or(export, "name", ""), &credentials, err))
        return false;
    show_export(s->out, export, credentials);
    writer_bare(s->out, json_string_or(export, "name", ""));
    return true;
}

static void
show_row(struct writer *w, struct json_object *export)
{
    struct json_object *point = json_object_or_null(export, "point");
    struct json_object *error = json_object_or_null(export, "error");
    struct json_object *first = show_item(show_array(export, "disks"), 0);
    const char *state = json_string_or(export, "state", SHOW_NOTHING);
    char buf[UNITS_TEXT_MAX];

    writer_cell(w, TONE_PLAIN, "%s", json_string_or(export, "name", SHOW_NOTHING));
    writer_cell(w, TONE_PLAIN, "%s", json_string_or(export, "vmName", SHOW_NOTHING));
    writer_cell(w, TONE_PLAIN, "%s", show_time(point, "timestamp", buf));
    writer_cell(w,
                strcmp(state, "serving") == 0  ? TONE_GOOD
                : strcmp(state, "failed") == 0 ? TONE_BAD
                                               : TONE_WARN,
                "%s", state);
    writer_cell(w, TONE_PLAIN, "%zu", show_length(show_array(export, "disks")));
    writer_cell(w, TONE_PLAIN, "%s", json_string_or(first, "uri", SHOW_NOTHING));
    writer_cell(w, TONE_PLAIN, "%s", json_string_or(error, "message", ""));
}

HANDLER(handle_export_list)
{
    static const char *const columns[] = { "EXPORT", "VM",  "POINT", "STATE",
                                           "DISKS",  "URI", "NOTE" };
    const char *vm = invocation_text(inv, "VM", NULL);
    const char *const of_vm[] = { "/exports?vm=", vm, "" };
    AUTOJSON *answer = NULL;
    struct json_object *items = NULL;

    if (!(vm == NULL ? session_get(s, "/exports", &answer, err)
                     : session_call_on(s, "GET", of_vm, NULL, &answer, err)) ||
        !session_items(answer, &items, err))
        return false;
    writer_answer(s->out, answer);
    writer_table_start(s->out, columns, N_ELEMENTS(columns));
    for (size_t i = 0; i < show_length(items); i++)
        show_row(s->out, show_item(items, i));
    writer_table_end(s->out);
    return true;
}

HANDLER(handle_unexport)
{
    const char *const path[] = { "/exports/", invocation_text(inv, "EXPORT", ""), "" };
    AUTOJSON *answer = NULL;

    if (!session_call_on(s, "DELETE", path, NULL, &answer, err))
        return false;
    writer_answer(s->out, answer);
    writer_say(s->out, "export '%s' has ended", json_string_or(answer, "name", path[1]));
    return true;
}

/* --- clone
 * ------------------------------------------------------------------------------- */

static void
show_clone(struct writer *w, struct json_object *clone)
{
    struct json_object *disks = show_array(clone, "disks");
    struct json_object *report = show_array(clone, "report");
    struct json_object *point = json_object_or_null(clone, "point");
    char buf[UNITS_TEXT_MAX];

    writer_heading(w, "Clone");
    writer_field(w, "Name", TONE_PLAIN, "%s",
                 json_string_or(clone, "name", SHOW_NOTHING));
    writer_field(w, "UUID", TONE_PLAIN, "%s",
                 json_string_or(clone, "uuid", SHOW_NOTHING));
    writer_field(w, "Clone of", TONE_PLAIN, "%s",
                 json_string_or(clone, "vmName", SHOW_NOTHING));
    writer_field(w, "Point", TONE_PLAIN, "%s", show_time(point, "timestamp", buf));
    for (size_t i = 0; i < show_length(disks); i++) {
        struct json_object *disk = show_item(disks, i);

        writer_field(w, json_string_or(disk, "target", SHOW_NOTHING), TONE_PLAIN, "%s",
                     json_string_or(disk, "path", SHOW_NOTHING));
    }
    if (show_length(report) > 0)
        writer_heading(w, "Report");
    for (size_t i = 0; i < show_length(report); i++)
        writer_say(w, "- %s", show_item_string(report, i));
}

HANDLER(handle_clone)
{
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *done = NULL;

    json_set_string(body, "name", invocation_text(inv, "name", ""));
    if (invocation_has(inv, "storage"))
        json_set_string(body, "storage", invocation_text(inv, "storage", ""));
    if (!point_options_add(inv, body, err) || !start(s, inv, "/clone", body, &done, err))
        return false;
    if (done != NULL)
        show_clone(s->out, json_object_or_null(done, "result"));
    return true;
}
