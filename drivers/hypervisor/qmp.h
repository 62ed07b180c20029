/*
 * Commands of QEMU's own monitor, through libvirt.
 *
 * libvirt marks a domain as tainted by it (custom-monitor), in its log and for
 * as long as the guest runs. Owns nothing. May block; any thread.
 */
#ifndef DRIVERS_HYPERVISOR_QMP_H
#define DRIVERS_HYPERVISOR_QMP_H

#include <json-c/json.h>
#include <libvirt/libvirt.h>

#include "common/error.h"

/*
 * arguments: taken over, NULL: none. *ret (ret may be NULL): what it returns, the
 * caller's reference. ERROR_INVALID_STATE (the domain has no process),
 * ERROR_HYPERVISOR for what QEMU refuses, in its words, and as libvirt_error().
 */
bool qmp_execute(virDomainPtr domain, const char *command, struct json_object *arguments,
                 struct json_object **ret, struct error **err);

/*
 * Hands QEMU a duplicate of a descriptor under a name, until the command closefd.
 * Without libvirt 8.2 it cannot be done: true, and nothing happens.
 */
bool qmp_give_fd(virDomainPtr domain, const char *name, int fd, struct error **err);

/* As above with one string as argument. */
bool qmp_execute_on(virDomainPtr domain, const char *command, const char *key,
                    const char *value, struct error **err);

#endif
