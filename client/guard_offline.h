/* The guard while virtdrd is down: libvirt's hook, which has its records, is asked. */
#ifndef CLIENT_GUARD_OFFLINE_H
#define CLIENT_GUARD_OFFLINE_H

#include <json-c/json.h>

#include "common/error.h"

/* Runs the hook's program with these (NULL at the end, argv[0] aside); its answer is an
   object. ERROR_CONFIG: the hook is not installed; ERROR_PERMISSION: only root may. */
bool
guard_offline(const char *const *arguments, struct json_object **ret, struct error **err);

#endif
