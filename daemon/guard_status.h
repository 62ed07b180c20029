/*
 * What the guard would answer now, and whether anybody asks it: read from the disk, by
 * virtdrd and, while that is down, by the hook's program.
 */
#ifndef DAEMON_GUARD_STATUS_H
#define DAEMON_GUARD_STATUS_H

#include <json-c/json.h>

#include "daemon/guard.h"
#include "daemon/guard_file.h"

/* Where libvirt looks for its hook, and where it notes that it runs. */
struct guard_hook_files {
    const char *hook;
    const char *pids[2]; /* of libvirtd, of virtqemud; one of them is there */
    const char *asked;   /* what the hook touches when libvirt asks it */
};

extern const struct guard_hook_files guard_hook_system_files;

/*
 * Does libvirt ask the hook? ERROR_CONFIG: it is not there, cannot be run, or libvirtd
 * was started before it was put there, and looks for hooks when it starts only. It does
 * if it has asked since it was started: then the hook was only replaced.
 */
bool guard_hook_check(const struct guard_hook_files *files, struct error **err);

/* libvirt asks: remembered for guard_hook_check(). */
void guard_hook_asked(const struct guard_hook_files *files);

/* {vmId, vmName, epoch, mayRun, incoming, confirmed, unconfirmed: "hold"|"start", answer:
   "start"|"refuse", why, override: {..., holds}, problem} */
struct json_object *guard_status(const struct guard_folders *f, const char *uuid);

/* {hook: {effective, problem}, items: [...]}, by name and UUID. */
struct json_object *
guard_status_all(const struct guard_folders *f, const struct guard_hook_files *files);

/* The UUID of the guarded VM of that name or UUID. ERROR_NOT_FOUND; ERROR_EXISTS: two
   have that name. */
bool guard_status_find(const struct guard_folders *f, const char *key,
                       char ret_uuid[GUARD_UUID_TEXT], struct error **err);

#endif
