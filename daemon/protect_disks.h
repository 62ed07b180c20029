/* Which disks of a VM are replicated. Any thread. */
#ifndef DAEMON_PROTECT_DISKS_H
#define DAEMON_PROTECT_DISKS_H

#include <json-c/json.h>

#include "common/error.h"
#include "drivers/hypervisor_types.h"

/*
 * *ret_disks: [{target, capacity}] of all that are not excluded (names; NULL: none), the
 * caller's to put; *ret_needed: bytes that their images take now. ERROR_UNSUPPORTED_DISK
 * names each that cannot be replicated, not just the first.
 */
bool protect_disks_check(const struct hv_domain *domain, struct json_object *excluded,
                         struct json_object **ret_disks, uint64_t *ret_needed,
                         struct error **err);

#endif
