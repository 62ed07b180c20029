/*
 * Makes a definition one of a VM of its own, beside the one that it came from.
 *
 * Another name and UUID, new MAC addresses; what both would claim for themselves
 * (sockets, device names, identities of ports) goes, and libvirt makes it anew.
 * Any thread.
 */
#ifndef DRIVERS_HYPERVISOR_DOMAIN_CLONE_H
#define DRIVERS_HYPERVISOR_DOMAIN_CLONE_H

#include <json-c/json.h>
#include <libxml/tree.h>

#include "common/error.h"

/* Sentences for what was changed, or is shared still, go to report. */
bool domain_clone(xmlNodePtr domain, const char *name, const char *uuid,
                  struct json_object *report, struct error **err);

/* With the MAC addresses of the other: where the two never meet. */
void domain_clone_apart(xmlNodePtr domain, const char *name, const char *uuid,
                        struct json_object *report);

#endif
