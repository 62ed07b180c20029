/*
 * What a definition needs of the host that it is to run on, apart from the hypervisor:
 * files, devices, programs. Findings as hypervisor_ops.assess has them. Asks the host
 * only whether paths exist; changes nothing. Any thread.
 */
#ifndef DRIVERS_HYPERVISOR_DOMAIN_NEEDS_H
#define DRIVERS_HYPERVISOR_DOMAIN_NEEDS_H

#include <json-c/json.h>
#include <libxml/tree.h>
#include <stdint.h>

#include "common/mem.h"

/* One finding; fix is a sentence, or "" if all is well. */
void domain_needs_say(struct json_object *findings, const char *check, const char *state,
                      const char *fix, const char *format, ...) PRINTF(5, 6);

/* Checks "emulator", "firmware", "media", "devices", "tpm". */
void domain_needs_files(xmlNodePtr domain, struct json_object *findings);

/* 0: it does not say. Of <memory>, <memoryBacking><hugepages> (which may have no size,
   0 then with *ret_huge true). */
uint64_t domain_needs_memory_bytes(xmlNodePtr domain);
bool domain_needs_huge_pages(xmlNodePtr domain, uint64_t *ret_page_bytes);

#endif
