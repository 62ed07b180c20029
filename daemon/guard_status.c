#include "daemon/guard_status.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/guard_override.h"

/* libvirt's, whatever prefix we were built with. */
const struct guard_hook_files guard_hook_system_files = {
    .hook = "/etc/libvirt/hooks/qemu.d/virt-dr",
    .pids = { "/run/libvirtd.pid", "/run/virtqemud.pid" },
    .asked = "/run/virt-dr/guard/.asked",
};

/* --- the hook ---------------------------------------------------------------------- */

static bool
is_before(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec != b->tv_sec ? a->tv_sec < b->tv_sec : a->tv_nsec < b->tv_nsec;
}

void
guard_hook_asked(const struct guard_hook_files *files)
{
    AUTOFD(fd) = open(files->asked, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd >= 0)
        (void)futimens(fd, NULL);
}

/* A file of a process that has ended says nothing. */
static bool
is_alive(const char *pid_file)
{
    AUTOFREE(char) *text = NULL;
    uint64_t pid;

    if (!guard_file_read(pid_file, &text))
        return false;
    text[strcspn(text, "\n")] = '\0';
    return units_parse_u64(text, 1, INT32_MAX, &pid, NULL) &&
           (kill((pid_t)pid, 0) == 0 || errno == EPERM);
}

/* Has this libvirtd been there since before the hook, and never asked it? */
static bool
may_not_know(const struct guard_hook_files *files, const char *pid_file,
             const struct stat *hook)
{
    struct stat pid, asked;

    if (!is_alive(pid_file) || stat(pid_file, &pid) < 0 ||
        !is_before(&pid.st_mtim, &hook->st_ctim))
        return false;
    return files->asked == NULL || stat(files->asked, &asked) < 0 ||
           is_before(&asked.st_mtim, &pid.st_mtim);
}

bool
guard_hook_check(const struct guard_hook_files *files, struct error **err)
{
    struct stat hook;

    if (stat(files->hook, &hook) < 0)
        return error_set(err, ERROR_CONFIG,
                         "libvirt's hook '%s' is not there, so nothing keeps a VM from "
                         "running twice; install it (make install-qemu-hook, or the "
                         "package again) and restart libvirtd",
                         files->hook);
    if (access(files->hook, X_OK) < 0)
        return error_set(err, ERROR_CONFIG,
                         "libvirt's hook '%s' cannot be run, so nothing keeps a VM from "
                         "running twice: chmod 0755 '%s'",
                         files->hook, files->hook);
    for (size_t i = 0; i < N_ELEMENTS(files->pids); i++)
        if (may_not_know(files, files->pids[i], &hook))
            return error_set(err, ERROR_CONFIG,
                             "libvirtd has run since before its hook '%s' was installed, "
                             "and may not ask it; restart libvirtd (running VMs go on)",
                             files->hook);
    return true;
}

/* --- records ----------------------------------------------------------------------- */

static void
show_record(const struct guard_folders *f, const char *uuid, const struct guard_record *r,
            struct json_object *o)
{
    json_set_string(o, "vmName", r->vm);
    json_set_u64(o, "epoch", r->epoch);
    json_set_bool(o, "mayRun", r->may_run);
    json_set_bool(o, "incoming", r->incoming);
    json_set_bool(o, "confirmed", r->may_run && guard_is_confirmed(f, uuid, r->epoch));
    json_set_string(o, "unconfirmed", r->unconfirmed == GUARD_START ? "start" : "hold");
}

static void
show_override(const struct guard_folders *f, const char *uuid, uint64_t epoch,
              struct json_object *o)
{
    AUTOPTR(guard_override) * override = NULL;
    struct json_object *json;

    if (!guard_override_read(f, uuid, &override, NULL))
        return;
    json = guard_override_json(override);
    json_set_bool(json, "holds", guard_override_holds(override, epoch, units_now_ms()));
    json_set(o, "override", json);
}

struct json_object *
guard_status(const struct guard_folders *f, const char *uuid)
{
    struct json_object *o = json_object_new_object();
    AUTOPTR(guard_record) *record = NULL;
    AUTOPTR(error) *problem = NULL;
    AUTOPTR(error) *why = NULL;
    bool ok;

    json_set_string(o, "vmId", uuid);
    if (guard_read(f, uuid, &record, &problem))
        show_record(f, uuid, record, o);
    else
        json_set_string(o, "problem", error_message(problem));
    show_override(f, uuid, record != NULL ? record->epoch : 0, o);
    ok = guard_judge(f, uuid, &why);
    json_set_string(o, "answer", ok ? "start" : "refuse");
    json_set_string(o, "why", ok ? "" : error_message(why));
    return o;
}

static int
by_name(const void *a, const void *b)
{
    struct json_object *x = *(struct json_object *const *)a;
    struct json_object *y = *(struct json_object *const *)b;
    int order = strcmp(json_string_or(x, "vmName", ""), json_string_or(y, "vmName", ""));

    return order != 0
               ? order
               : strcmp(json_string_or(x, "vmId", ""), json_string_or(y, "vmId", ""));
}

static bool
add_all(const struct guard_folders *f, struct json_object *items, struct error **err)
{
    DIR *dir = opendir(f->records);
    struct dirent *entry;
    char uuid[GUARD_UUID_TEXT];

    if (dir == NULL)
        return errno == ENOENT ||
               error_errno(err, ERROR_STATE, "open folder '%s'", f->records);
    while ((entry = readdir(dir)) != NULL)
        if (guard_file_uuid(entry->d_name, uuid, NULL))
            json_object_array_add(items, guard_status(f, uuid));
    closedir(dir);
    json_object_array_sort(items, by_name);
    return true;
}

struct json_object *
guard_status_all(const struct guard_folders *f, const struct guard_hook_files *files)
{
    struct json_object *o = json_object_new_object();
    struct json_object *hook = json_object_new_object();
    struct json_object *items = json_object_new_array();
    AUTOPTR(error) *problem = NULL;
    AUTOPTR(error) *unread = NULL;
    bool effective = guard_hook_check(files, &problem) && guard_is_effective(f, &problem);

    if (!add_all(f, items, &unread))
        json_set_string(o, "problem", error_message(unread));
    json_set_bool(hook, "effective", effective);
    json_set_string(hook, "problem", effective ? NULL : error_message(problem));
    json_set(o, "hook", hook);
    json_set(o, "items", items);
    return o;
}

bool
guard_status_find(const struct guard_folders *f, const char *key,
                  char ret_uuid[GUARD_UUID_TEXT], struct error **err)
{
    AUTOJSON *items = json_object_new_array();
    const char *found = NULL;

    if (guard_file_uuid(key, ret_uuid, NULL))
        return true;
    if (!add_all(f, items, err))
        return false;
    for (size_t i = 0; i < json_object_array_length(items); i++) {
        struct json_object *o = json_object_array_get_idx(items, i);

        if (strcmp(json_string_or(o, "vmName", ""), key) != 0)
            continue;
        if (found != NULL)
            return error_set(err, ERROR_EXISTS,
                             "two guarded VMs are called '%s'; say the UUID", key);
        found = json_string_or(o, "vmId", "");
    }
    if (found == NULL)
        return error_set(err, ERROR_NOT_FOUND, "no guarded VM is called '%s'", key);
    memcpy(ret_uuid, found, GUARD_UUID_TEXT);
    return true;
}
