#include "drivers/hypervisor.h"

#include "drivers/hypervisor/domain_xml.h"

void
hv_domain_free(struct hv_domain *d)
{
    if (d == NULL)
        return;
    free(d->name);
    free(d->xml);
    free(d->nvram);
    free(d->tpm);
    free(d->tpm_version);
    domain_xml_disks_free(d->disks, d->n_disks);
    free(d);
}
