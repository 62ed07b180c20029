/* What a guest writes, by QEMU's own count; see drivers/hypervisor.h. */
#include "drivers/hypervisor/libvirt.h"
#include "drivers/hypervisor/libvirt_domain.h"
#include "drivers/hypervisor/libvirt_error.h"

#define STATS_MAX 16 /* that libvirt knows of; it has eight */

/* Not the statistics of a whole domain, for which libvirt asks for the sizes of all its
   images as well: QEMU may end by that while a backup begins (libvirt_domain.c). */
static bool
add_disk(virDomainPtr d, const char *target, struct hv_writes *sum, struct error **err)
{
    virTypedParameter params[STATS_MAX];
    long long requests = 0, time_ns = 0;
    int n = STATS_MAX;

    if (virDomainBlockStatsFlags(d, target, params, &n, 0) < 0)
        return libvirt_error(err, "ask what the guest writes to disk '%s'", target);
    virTypedParamsGetLLong(params, n, VIR_DOMAIN_BLOCK_STATS_WRITE_REQ, &requests);
    virTypedParamsGetLLong(params, n, VIR_DOMAIN_BLOCK_STATS_WRITE_TOTAL_TIMES, &time_ns);
    virTypedParamsClear(params, n);
    sum->requests += (uint64_t)requests;
    sum->time_ns += (uint64_t)time_ns;
    return true;
}

bool
libvirt_stats_writes(struct hypervisor *hv, const char *uuid, const char *const *targets,
                     size_t n, struct hv_writes *ret, struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = c == NULL ? NULL : libvirt_domain_by_uuid(c, uuid, err);
    struct hv_writes sum = { 0 };

    if (d == NULL)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!add_disk(d, targets[i], &sum, err))
            return false;
    *ret = sum;
    return true;
}
