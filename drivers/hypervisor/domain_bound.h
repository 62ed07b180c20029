/*
 * What in a definition is bound to the host that it came from, as sentences.
 *
 * Changes nothing in the definition; asks the host only whether paths exist.
 * Any thread.
 */
#ifndef DRIVERS_HYPERVISOR_DOMAIN_BOUND_H
#define DRIVERS_HYPERVISOR_DOMAIN_BOUND_H

#include <json-c/json.h>
#include <libxml/tree.h>
#include <stdbool.h>

#include "common/mem.h"

/* Appends a sentence for each thing in <domain> that may not fit this host. */
void domain_bound_report(xmlNodePtr domain, struct json_object *report);

/* Appends a formatted sentence. */
void domain_bound_say(struct json_object *report, const char *format, ...) PRINTF(2, 3);

bool domain_bound_path_exists(const char *path);

#endif
