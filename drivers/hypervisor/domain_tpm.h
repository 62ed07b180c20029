/*
 * What a definition says of its TPM.
 *
 * Reads texts only; nothing here asks the host. Any thread.
 */
#ifndef DRIVERS_HYPERVISOR_DOMAIN_TPM_H
#define DRIVERS_HYPERVISOR_DOMAIN_TPM_H

#include <libxml/tree.h>

#include "common/error.h"

/* An emulated TPM, whose state is a file of this host. */
struct domain_tpm {
    char *version; /* "1.2", "2.0" */
    char *folder;  /* the definition's own place of the state... */
    char *file;    /* ...or file; both NULL: where libvirt keeps it */
};

void domain_tpm_free(struct domain_tpm *t);
DEFINE_AUTOPTR(domain_tpm);

/*
 * *ret is NULL if the domain has no TPM, or one that is not emulated for it alone
 * (passed through, or run by somebody else). ERROR_PROTOCOL for what is no definition,
 * or has an emulated TPM of a version that nobody knows.
 */
bool domain_tpm_read(const char *xml, struct domain_tpm **ret, struct error **err);

/* The state is kept where this host's libvirt keeps it: takes the place out of <domain>.
 */
void domain_tpm_adapt(xmlNodePtr domain);

#endif
