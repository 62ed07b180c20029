/* The state of emulated TPMs on this host; see drivers/hypervisor.h. */
#include "drivers/hypervisor/libvirt.h"
#include "drivers/hypervisor/libvirt_domain.h"
#include "drivers/hypervisor/libvirt_error.h"
#include "drivers/hypervisor/swtpm.h"

#define QEMU_CONF "/etc/libvirt/qemu.conf"

/* A TPM that is at work writes its own state over any other. */
static bool
check_off(virConnectPtr c, const char *uuid, struct error **err)
{
    AUTODOMAIN *d = virDomainLookupByUUIDString(c, uuid);

    if (d == NULL)
        return libvirt_error_last() == VIR_ERR_NO_DOMAIN ||
               libvirt_error(err, "look up domain '%s'", uuid);
    return virDomainIsActive(d) == 0 ||
           error_set(err, ERROR_INVALID_STATE,
                     "domain '%s' runs: the state of its TPM is in use",
                     virDomainGetName(d));
}

bool
libvirt_tpm_put(struct hypervisor *hv, const struct hv_tpm_state *state,
                struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    struct swtpm_owner owner;

    return c != NULL && check_off(c, state->uuid, err) &&
           swtpm_find_owner(QEMU_CONF, &owner, err) &&
           swtpm_put(SWTPM_ROOT, state, &owner, err);
}

bool
libvirt_tpm_drop(struct hypervisor *hv, const char *uuid, struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);

    return c != NULL && check_off(c, uuid, err) && swtpm_remove(SWTPM_ROOT, uuid, err);
}
