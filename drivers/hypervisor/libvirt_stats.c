/* What a guest writes, by QEMU's own count; see drivers/hypervisor.h. */
#include <stdio.h>
#include <string.h>

#include "drivers/hypervisor/libvirt.h"
#include "drivers/hypervisor/libvirt_domain.h"
#include "drivers/hypervisor/libvirt_error.h"

#define FIELD_MAX 64

static bool
is_wanted(const char *name, const char *const *targets, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(name, targets[i]) == 0)
            return true;
    return false;
}

static uint64_t
number_of(virDomainStatsRecordPtr record, unsigned disk, const char *what)
{
    unsigned long long value = 0;
    char field[FIELD_MAX];

    snprintf(field, sizeof field, "block.%u.%s", disk, what);
    virTypedParamsGetULLong(record->params, record->nparams, field, &value);
    return value;
}

static struct hv_writes
sum_of(virDomainStatsRecordPtr record, const char *const *targets, size_t n)
{
    struct hv_writes sum = { 0 };
    unsigned count = 0;

    virTypedParamsGetUInt(record->params, record->nparams, "block.count", &count);
    for (unsigned i = 0; i < count; i++) {
        const char *name = NULL;
        char field[FIELD_MAX];

        snprintf(field, sizeof field, "block.%u.name", i);
        virTypedParamsGetString(record->params, record->nparams, field, &name);
        if (name == NULL || !is_wanted(name, targets, n))
            continue;
        sum.requests += number_of(record, i, "wr.reqs");
        sum.time_ns += number_of(record, i, "wr.times");
    }
    return sum;
}

bool
libvirt_stats_writes(struct hypervisor *hv, const char *uuid, const char *const *targets,
                     size_t n, struct hv_writes *ret, struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = c == NULL ? NULL : libvirt_domain_by_uuid(c, uuid, err);
    virDomainPtr domains[] = { d, NULL };
    virDomainStatsRecordPtr *records = NULL;

    if (d == NULL)
        return false;
    if (virDomainListGetStats(domains, VIR_DOMAIN_STATS_BLOCK, &records, 0) < 0)
        return libvirt_error(err, "ask what the guest writes");
    *ret = records[0] != NULL ? sum_of(records[0], targets, n) : (struct hv_writes){ 0 };
    virDomainStatsRecordListFree(records);
    return true;
}
