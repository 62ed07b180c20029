/*
 * --seed of protect: what the replica begins with, on the peer's host.
 *
 * "/media/usb/web", a folder that export-seed wrote, or
 * "vda=/images/web.qcow2,vdb=raw:...", an image for each disk; the latter may be given
 * more than once.
 */
#ifndef CLIENT_SEED_OPTIONS_H
#define CLIENT_SEED_OPTIONS_H

#include <json-c/json.h>

#include "client/invocation.h"

/* *ret is NULL if it was not given, else the caller's. ERROR_USAGE. */
bool seed_options_body(const struct invocation *inv, struct json_object **ret,
                       struct error **err);

#endif
