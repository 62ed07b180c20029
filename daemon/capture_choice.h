/*
 * Which driver captures a VM, and why: one driver for all of its disks, for one
 * cycle, since they are taken at one moment. Owns nothing. Any thread.
 */
#ifndef DAEMON_CAPTURE_CHOICE_H
#define DAEMON_CAPTURE_CHOICE_H

#include <json-c/json.h>

#include "drivers/hypervisor.h"

enum capture_kind {
    CAPTURE_CHECKPOINT,
    CAPTURE_BITMAP,
    CAPTURE_OFFLINE,
    CAPTURE_N_KINDS,
};

/* What the operator wants for disks that can have both, or what is left. */
enum capture_wish {
    CAPTURE_WISH_CHECKPOINT,
    CAPTURE_WISH_BITMAP,
    CAPTURE_WISH_NO_JOB, /* libvirt can begin none on this domain, as long as it runs */
};

/* excluded: an array of targets that are not replicated; NULL: none. */
enum capture_kind capture_choice(const struct hv_domain *domain,
                                 struct json_object *excluded, enum capture_wish wish);

/* Why, for the VM and for one of its disks; the caller's. */
char *capture_choice_reason(const struct hv_domain *domain, struct json_object *excluded,
                            enum capture_wish wish);
char *capture_choice_disk_reason(enum capture_kind kind, const struct hv_disk *disk);

const char *capture_kind_name(enum capture_kind kind);

/* Is that disk replicated at all? */
bool capture_is_chosen(const struct hv_disk *disk, struct json_object *excluded);

#endif
