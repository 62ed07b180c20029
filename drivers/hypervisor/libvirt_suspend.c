/* Guests that stand still for a while; see drivers/hypervisor.h. */
#include <sys/stat.h>

#include "drivers/hypervisor/libvirt.h"
#include "drivers/hypervisor/libvirt_domain.h"
#include "drivers/hypervisor/libvirt_error.h"

/* libvirt has no call for it, but writes this file when it starts the process. */
int64_t
libvirt_running_since_ms(const char *name)
{
    AUTOFREE(char) *path = mem_printf("/run/libvirt/qemu/%s.pid", name);
    struct stat st;

    if (stat(path, &st) < 0)
        return 0;
    return (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
}

static bool
bring_into(struct hypervisor *hv, const char *uuid, int wanted,
           int (*change)(virDomainPtr d), struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = c == NULL ? NULL : libvirt_domain_by_uuid(c, uuid, err);
    int state = VIR_DOMAIN_NOSTATE;
    const char *name;

    if (d == NULL)
        return false;
    name = virDomainGetName(d);
    if (virDomainGetState(d, &state, NULL, 0) < 0)
        return libvirt_error(err, "state of domain '%s'", name);
    if (state == wanted)
        return true;
    if (state == VIR_DOMAIN_SHUTOFF || state == VIR_DOMAIN_CRASHED)
        return error_set(err, ERROR_INVALID_STATE, "domain '%s' does not run", name);
    return change(d) == 0 || libvirt_error(err, "suspend or resume domain '%s'", name);
}

bool
libvirt_suspend(struct hypervisor *hv, const char *uuid, struct error **err)
{
    return bring_into(hv, uuid, VIR_DOMAIN_PAUSED, virDomainSuspend, err);
}

bool
libvirt_resume(struct hypervisor *hv, const char *uuid, struct error **err)
{
    return bring_into(hv, uuid, VIR_DOMAIN_RUNNING, virDomainResume, err);
}
