/*
 * The definition of a VM that comes home.
 *
 * Its home has one of its own; on the other host it was defined as fits that host, and
 * has been changed there by the operator since. What the operator has changed is changed
 * at home too, and all the rest stays as it is at home. Plain functions; any thread.
 */
#ifndef DRIVERS_HYPERVISOR_DOMAIN_MERGE_H
#define DRIVERS_HYPERVISOR_DOMAIN_MERGE_H

#include <stdbool.h>

#include "common/error.h"

/*
 * home: the home's own; then: as the other host had it when the VM came there; now: as it
 * has it now. Element by element; disks are the same if their target is, interfaces if
 * their MAC address is. Where disks and variables lie is never taken from the other host.
 * ERROR_PROTOCOL for what is no definition.
 */
bool domain_merge(const char *home, const char *then, const char *now, char **ret,
                  struct error **err);

#endif
