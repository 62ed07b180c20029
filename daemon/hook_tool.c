#include "daemon/hook_tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/guard_override.h"
#include "daemon/guard_status.h"

#define N_STATUS   2
#define N_OVERRIDE 7

static const struct guard_folders *const folders = &guard_system_folders;

/* virtdrd makes an event of it when it starts; until then the log has it. */
static void
note(const char *uuid, const char *word, const struct guard_override *o)
{
    openlog("virt-dr", LOG_PID, LOG_DAEMON);
    syslog(LOG_WARNING, "guard override '%s' of VM %s by '%s' while virtdrd is down: %s",
           word, uuid, o->by, o->reason);
    closelog();
}

static bool
override(char **argv, struct json_object **ret, struct error **err)
{
    const char *word = argv[3];
    struct guard_override o = { .allow = strcmp(word, "allow") == 0,
                                .by = argv[5],
                                .reason = argv[6] };
    char uuid[GUARD_UUID_TEXT];
    uint64_t until_ms;
    bool ok;

    if (!units_parse_u64(argv[4], 0, INT64_MAX, &until_ms, err) ||
        !guard_status_find(folders, argv[2], uuid, err))
        return false;
    o.until_ms = (int64_t)until_ms;
    if (strcmp(word, "end") == 0)
        ok = guard_override_end(folders, uuid, err);
    else if (o.allow || strcmp(word, "deny") == 0)
        ok = guard_override_set(folders, uuid, &o, err);
    else
        ok = error_set(err, ERROR_USAGE, "'%s' is not allow, deny or end", word);
    if (!ok)
        return false;
    note(uuid, word, &o);
    *ret = guard_status(folders, uuid);
    return true;
}

static int
answer(struct json_object *o, bool ok)
{
    puts(json_text(o));
    json_object_put(o);
    return ok && fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

bool
hook_tool(int argc, char **argv, int *ret_status)
{
    AUTOPTR(error) *e = NULL;
    struct json_object *o = NULL;

    if (argc == N_STATUS && strcmp(argv[1], "--guard-status") == 0) {
        *ret_status = answer(guard_status_all(folders, &guard_hook_system_files), true);
        return true;
    }
    if (argc != N_OVERRIDE || strcmp(argv[1], "--guard-override") != 0)
        return false;
    if (override(argv, &o, &e))
        *ret_status = answer(o, true);
    else
        *ret_status = answer(json_from_error(e), false);
    return true;
}
