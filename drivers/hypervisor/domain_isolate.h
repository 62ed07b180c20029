/*
 * Makes a definition one that can run beside everything else and harm nothing: all
 * network interfaces in one network, no device of this host, no path of this host but
 * the disks, limited memory.
 *
 * What a failover would keep and is no danger (CPU model, pinning, firmware) stays, so
 * that a test shows what a failover would. Any thread.
 */
#ifndef DRIVERS_HYPERVISOR_DOMAIN_ISOLATE_H
#define DRIVERS_HYPERVISOR_DOMAIN_ISOLATE_H

#include <json-c/json.h>
#include <libxml/tree.h>

#include "common/error.h"
#include "drivers/hypervisor_types.h"

/* Sentences for what was changed go to report. */
void domain_isolate(xmlNodePtr domain, const struct hv_isolation *how,
                    struct json_object *report);

/* What the guest of this definition takes. ERROR_PROTOCOL. */
bool domain_isolate_memory(const char *xml, uint64_t *ret_bytes, struct error **err);

/* Has it any network interface? */
bool domain_isolate_needs_network(const char *xml, bool *ret, struct error **err);

/* Has the guest of this definition anything to be seen on? */
bool domain_isolate_has_display(const char *xml, bool *ret, struct error **err);

#endif
