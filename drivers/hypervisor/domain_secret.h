/*
 * The hypervisor's secrets that a definition needs: keys of encrypted disks and TPMs.
 *
 * A secret travels as an object {uuid, usageType, usageId, description, ephemeral,
 * value}, the value in hex; or {uuid, problem}, a sentence why it could not be read. It
 * comes from a peer: every member is checked before use. Nothing here asks the host, and
 * nothing logs a value. Any thread.
 */
#ifndef DRIVERS_HYPERVISOR_DOMAIN_SECRET_H
#define DRIVERS_HYPERVISOR_DOMAIN_SECRET_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

#define DOMAIN_SECRET_MAX_BYTES 65536 /* libvirt's own limit of a value */

/* A reference in a definition, by UUID or by usage; the other is NULL. */
struct domain_secret_ref {
    char *uuid;
    char *usage;
    bool is_disk; /* else a TPM */
};

/* Each once. ERROR_PROTOCOL: no definition, no UUID, or more than a VM can need. */
bool domain_secret_refs(const char *xml, struct domain_secret_ref **ret, size_t *ret_n,
                        struct error **err);
void domain_secret_refs_free(struct domain_secret_ref *refs, size_t n);

/* Is a disk encrypted? False as well for what is no definition. */
bool domain_secret_of_disk(const char *xml);

/* What the others say of a reference: its UUID or its usage. */
const char *domain_secret_name(const struct domain_secret_ref *ref);

/* The one of an array that this reference means; NULL: none. */
struct json_object *
domain_secret_find(struct json_object *secrets, const struct domain_secret_ref *ref);

/* Members of `secret` from libvirt's XML of it; the value is left out. */
bool domain_secret_read(const char *xml, struct json_object *secret, struct error **err);

void domain_secret_set_value(struct json_object *secret, const uint8_t *value, size_t n);

/* *ret_value is the caller's to wipe and free. ERROR_PROTOCOL. */
bool domain_secret_value(struct json_object *secret, uint8_t **ret_value, size_t *ret_n,
                         struct error **err);

/* libvirt's XML of a secret from a peer; NULL: ERROR_PROTOCOL. */
char *domain_secret_xml(struct json_object *secret, struct error **err);

#endif
