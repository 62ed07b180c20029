/*
 * What belongs to a point beside its disks, and where it goes at a failover.
 *
 * A point's blobs by name: the definition (domain.xml), facts that are not in it
 * (vm.json), the UEFI variables (nvram), the state of an emulated TPM (tpm2, tpm1.2), the
 * libvirt secrets that disks and TPM need (secrets: {secrets: [...]}). A blob without
 * content is as good as none: it vanished while it was captured. The store may hand out
 * one of an earlier point, which the VM had then: what its definition does not ask for is
 * not used. Steps of operations call this, on worker threads.
 */
#ifndef DAEMON_AUXILIARY_H
#define DAEMON_AUXILIARY_H

#include "daemon/op.h"

#define AUXILIARY_XML     "domain.xml"
#define AUXILIARY_FACTS   "vm.json"
#define AUXILIARY_NVRAM   "nvram"
#define AUXILIARY_SECRETS "secrets"

/* The name of the blob of a TPM of this version; NULL: there is no such version. */
const char *auxiliary_tpm_blob(const char *version);

/* ERROR_POINT_NOT_FOUND if the point has none. */
typedef bool (*auxiliary_read_fn)(struct op *op, const char *name, char **ret_data,
                                  size_t *ret_length, struct error **err);

struct auxiliary {
    const char *uuid;    /* of the domain that is to have it */
    const char *xml;     /* its definition */
    const char *folder;  /* there the file `mark` exists... */
    const char *mark;    /* ...once the domain may have used its TPM */
    const char *kept_as; /* see hv_tpm_state */
    auxiliary_read_fn read;
};

/*
 * Puts the TPM's state in place, unless that was done before: since then the guest may
 * have changed it. Says in the operation's "report" what the guest will miss.
 */
bool auxiliary_put_tpm(struct op *op, const struct auxiliary *a, struct error **err);

/* The VM's secrets, where this host lacks them; the report says what will be missing. */
bool auxiliary_put_secrets(struct op *op, const struct auxiliary *a, struct error **err);

#endif
