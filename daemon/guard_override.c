#include "daemon/guard_override.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/guard_file.h"

void
guard_override_free(struct guard_override *o)
{
    if (o == NULL)
        return;
    free(o->by);
    free(o->reason);
    free(o);
}

static bool
name_of(const char *uuid, char **ret, struct error **err)
{
    char lower[GUARD_UUID_TEXT];

    if (!guard_file_uuid(uuid, lower, err))
        return false;
    *ret = mem_printf("%s.override", lower);
    return true;
}

struct json_object *
guard_override_json(const struct guard_override *o)
{
    struct json_object *json = json_object_new_object();

    json_set_bool(json, "allow", o->allow);
    json_set_u64(json, "epoch", o->epoch);
    json_set_string(json, "by", o->by);
    json_set_string(json, "reason", o->reason);
    json_set_int(json, "since", o->since_ms);
    json_set_int(json, "until", o->until_ms);
    return json;
}

static bool
parse(const char *text, struct guard_override **ret, struct error **err)
{
    AUTOPTR(guard_override) *o = NEW(struct guard_override);
    AUTOJSON *json = NULL;
    const char *by, *reason;

    if (!json_parse(text, strlen(text), &json, err) ||
        !json_get_bool(json, "allow", &o->allow, err) ||
        !json_get_u64(json, "epoch", UINT64_MAX, &o->epoch, err) ||
        !json_get_string(json, "by", &by, err) ||
        !json_get_string(json, "reason", &reason, err) ||
        !json_get_int(json, "since", 0, INT64_MAX, &o->since_ms, err) ||
        !json_get_int(json, "until", 0, INT64_MAX, &o->until_ms, err))
        return false;
    o->by = mem_strdup(by);
    o->reason = mem_strdup(reason);
    *ret = TAKE(o);
    return true;
}

/* The reason is shown on one line, and by libvirt in a message. */
static bool
check_reason(const char *reason, struct error **err)
{
    size_t n = strlen(reason);
    bool any = false;

    for (size_t i = 0; i < n; i++) {
        if (iscntrl((unsigned char)reason[i]))
            return error_set(err, ERROR_USAGE, "the reason has to be one line");
        any = any || !isspace((unsigned char)reason[i]);
    }
    if (any && n <= GUARD_REASON_MAX)
        return true;
    return error_set(err, ERROR_USAGE, "an override needs a reason of 1 to %d bytes",
                     GUARD_REASON_MAX);
}

/* Of a record that cannot be understood the epoch is unknown: 0. */
static bool
epoch_now(const struct guard_folders *f, const char *uuid, uint64_t *ret,
          struct error **err)
{
    AUTOPTR(guard_record) *record = NULL;
    struct error *e = NULL;

    *ret = 0;
    if (guard_read(f, uuid, &record, &e)) {
        *ret = record->epoch;
        return true;
    }
    if (!error_is(e, ERROR_GUARD))
        return error_propagate(err, e);
    error_free(e);
    return true;
}

bool
guard_override_set(const struct guard_folders *f, const char *uuid,
                   const struct guard_override *o, struct error **err)
{
    struct guard_override whole = *o;
    AUTOFREE(char) *name = NULL;
    AUTOJSON *json = NULL;

    if (!check_reason(o->reason, err) || !name_of(uuid, &name, err) ||
        !epoch_now(f, uuid, &whole.epoch, err))
        return false;
    whole.since_ms = units_now_ms();
    if (whole.until_ms != 0 && whole.until_ms <= whole.since_ms)
        return error_set(err, ERROR_USAGE, "the override would have ended already");
    json = guard_override_json(&whole);
    return guard_file_write(f->records, name, json_text(json), err);
}

bool
guard_override_read(const struct guard_folders *f, const char *uuid,
                    struct guard_override **ret, struct error **err)
{
    AUTOFREE(char) *name = NULL;
    AUTOFREE(char) *path = NULL;
    AUTOFREE(char) *text = NULL;
    struct error *e = NULL;

    if (!name_of(uuid, &name, err))
        return false;
    path = mem_printf("%s/%s", f->records, name);
    if (!guard_file_read(path, &text)) {
        if (errno == ENOENT)
            return error_set(err, ERROR_NOT_FOUND, "there is no override '%s'", path);
        return error_errno(err, ERROR_GUARD, "read '%s'", path);
    }
    if (parse(text, ret, &e))
        return true;
    error_set(err, ERROR_GUARD, "override '%s' cannot be understood: %s", path,
              error_message(e));
    error_free(e);
    return false;
}

bool
guard_override_end(const struct guard_folders *f, const char *uuid, struct error **err)
{
    AUTOFREE(char) *name = NULL;

    return name_of(uuid, &name, err) && guard_file_remove(f->records, name, err);
}

bool
guard_override_holds(const struct guard_override *o, uint64_t epoch, int64_t now_ms)
{
    if (o->until_ms != 0 && now_ms >= o->until_ms)
        return false;
    return !o->allow || o->epoch == 0 || epoch <= o->epoch;
}
