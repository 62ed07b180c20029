/*
 * The state of emulated TPMs (swtpm) where libvirt keeps it:
 * ROOT/UUID/tpm2/tpm2-00.permall, or ROOT/UUID/tpm1.2/tpm-00.permall.
 *
 * This file is all that outlives the guest's power; swtpm replaces it as a whole, by
 * rename, each time it changes. The others beside it (lock, volatile state) are of a
 * process that runs. Blocks on the disk; any thread. Errors are ERROR_HYPERVISOR.
 */
#ifndef DRIVERS_HYPERVISOR_SWTPM_H
#define DRIVERS_HYPERVISOR_SWTPM_H

#include <sys/types.h>

#include "drivers/hypervisor.h"
#include "drivers/hypervisor/domain_tpm.h"

#define SWTPM_ROOT "/var/lib/libvirt/swtpm"

/* The file of a domain's state, whether it exists or not. */
char *swtpm_file(const char *root, const char *uuid, const struct domain_tpm *tpm);

/* As whom libvirt runs the emulator; (uid_t)-1, (gid_t)-1: as us. */
struct swtpm_owner {
    uid_t user;
    gid_t group;
};

/*
 * swtpm_user and swtpm_group of this qemu.conf, or "tss", or root where there is no
 * such user. A file that is missing says nothing.
 */
bool swtpm_find_owner(const char *conf, struct swtpm_owner *ret, struct error **err);

/*
 * hypervisor_ops.put_tpm less the question whether the domain runs. Whole or not at
 * all, whatever happens; done again it does no harm.
 */
bool swtpm_put(const char *root, const struct hv_tpm_state *state,
               const struct swtpm_owner *owner, struct error **err);

/* The whole folder of a domain that is gone. True if there is none. */
bool swtpm_remove(const char *root, const char *uuid, struct error **err);

#endif
