/* The commands about this host, and about virt-dr itself. */
#include "client/handlers.h"

#include <inttypes.h>

#include "client/help.h"
#include "client/show.h"
#include "common/units.h"

static void
show_hypervisor(struct writer *w, struct json_object *hypervisor)
{
    struct json_object_iterator it, end;

    if (hypervisor == NULL || json_object_object_length(hypervisor) == 0)
        return;
    writer_heading(w, "Hypervisor");
    it = json_object_iter_begin(hypervisor);
    end = json_object_iter_end(hypervisor);
    for (; !json_object_iter_equal(&it, &end); json_object_iter_next(&it)) {
        const char *text = json_object_get_string(json_object_iter_peek_value(&it));

        writer_field(w, json_object_iter_peek_name(&it), TONE_PLAIN, "%s",
                     text == NULL ? SHOW_NOTHING : text);
    }
}

static void
show_storages(struct writer *w, struct json_object *storages)
{
    static const char *const columns[] = { "STORAGE", "FREE", "USED", "PATH" };
    char buf[UNITS_TEXT_MAX];

    if (show_length(storages) == 0)
        return;
    writer_heading(w, "Storages");
    writer_table_start(w, columns, N_ELEMENTS(columns));
    for (size_t i = 0; i < show_length(storages); i++) {
        struct json_object *storage = show_item(storages, i);

        writer_cell(w, TONE_PLAIN, "%s", json_string_or(storage, "name", SHOW_NOTHING));
        writer_cell(w, TONE_PLAIN, "%s", show_size(storage, "freeBytes", buf));
        writer_cell(w, TONE_PLAIN, "%s", show_size(storage, "usedBytes", buf));
        writer_cell(w, TONE_PLAIN, "%s", json_string_or(storage, "path", SHOW_NOTHING));
    }
    writer_table_end(w);
}

static void
show_host(struct writer *w, struct json_object *host)
{
    struct json_object *scratch = json_object_or_null(host, "scratch");
    int64_t days = json_int_or(host, "certificateDaysLeft", 0);
    char buf[UNITS_TEXT_MAX];

    writer_heading(w, "Host");
    writer_field(w, "Name", TONE_PLAIN, "%s", json_string_or(host, "name", SHOW_NOTHING));
    writer_field(w, "Site", TONE_PLAIN, "%s", json_string_or(host, "site", SHOW_NOTHING));
    writer_field(w, "Id", TONE_PLAIN, "%s", json_string_or(host, "id", SHOW_NOTHING));
    writer_field(w, "virtdrd", TONE_PLAIN, "%s (protocol %" PRId64 ")",
                 json_string_or(host, "version", SHOW_NOTHING),
                 json_int_or(host, "protocolVersion", 0));
    writer_field(w, "Time", TONE_PLAIN, "%s", show_time(host, "time", buf));
    writer_field(w, "Fingerprint", TONE_PLAIN, "%s",
                 json_string_or(host, "fingerprint", SHOW_NOTHING));
    writer_field(w, "Certificate", days < 30 ? TONE_BAD : TONE_PLAIN,
                 "%" PRId64 " days left", days);
    writer_field(w, "Scratch", TONE_PLAIN, "%s (limit %s)",
                 json_string_or(scratch, "path", SHOW_NOTHING),
                 show_size(scratch, "limitBytes", buf));
    show_hypervisor(w, json_object_or_null(host, "hypervisor"));
    show_storages(w, show_array(host, "storages"));
}

HANDLER(handle_host_info)
{
    AUTOJSON *host = NULL;

    (void)inv;
    if (!session_get(s, "/host", &host, err))
        return false;
    writer_answer(s->out, host);
    show_host(s->out, host);
    return true;
}

HANDLER(handle_help)
{
    const char *name = invocation_text(inv, "COMMAND", NULL);
    const struct command *about;

    (void)s;
    if (name == NULL) {
        help_overview(stdout);
        return true;
    }
    about = command_find(name);
    if (about == NULL)
        return error_set(err, ERROR_USAGE, "there is no command '%s'", name);
    help_command(about, stdout);
    return true;
}

HANDLER(handle_version)
{
    AUTOJSON *version = json_object_new_object();

    (void)inv, (void)err;
    json_set_string(version, "name", PACKAGE_NAME);
    json_set_string(version, "version", PACKAGE_VERSION);
    writer_answer(s->out, version);
    writer_say(s->out, "%s %s", PACKAGE_NAME, PACKAGE_VERSION);
    writer_bare(s->out, PACKAGE_VERSION);
    return true;
}
