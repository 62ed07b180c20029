/*
 * What a test failover needs of a hypervisor beside hypervisor.h: a domain that nobody
 * has to undefine, a network of its own, and eyes on the guest.
 *
 * A part of each driver's table; threads and errors are those of hypervisor.h. Whoever
 * calls has stored the UUIDs that it hands over before (I6): by those what was made is
 * found again, and nothing else is touched.
 */
#ifndef DRIVERS_HYPERVISOR_TESTBED_H
#define DRIVERS_HYPERVISOR_TESTBED_H

#include <stdint.h>

#include "common/error.h"

struct hypervisor;

/* A network of this host alone: no way out of it, addresses by DHCP, no names. */
struct hv_network {
    const char *name;
    const char *uuid;
    const char *bridge;       /* the device's name, at most 15 letters */
    const char *address;      /* of this host in it, IPv4 */
    unsigned prefix;          /* the subnet's length */
    const char *first, *last; /* what guests get */
};

struct hv_testbed_ops {
    /* Starts a domain that is gone once it is off. True as well if it runs already. */
    bool (*create)(struct hypervisor *hv, const char *xml, struct error **err);

    /* The same for a network. ERROR_EXISTS: its name is another's. */
    bool (*network_create)(struct hypervisor *hv, const struct hv_network *network,
                           struct error **err);

    /* True if there is none. */
    bool (*network_remove)(struct hypervisor *hv, const char *uuid, struct error **err);

    /* Is there an active network of that name? ERROR_NOT_FOUND if not. */
    bool (*network_check)(struct hypervisor *hv, const char *name, struct error **err);

    /*
     * An IPv4 address of the guest, by what it was leased, else as its agent says; the
     * caller frees. NULL: none is known (yet).
     */
    bool (*address)(struct hypervisor *hv, const char *uuid, char **ret,
                    struct error **err);

    /* The guest's agent answers within timeout_s. ERROR_AGENT, ERROR_TIMEOUT. */
    bool (*ping)(struct hypervisor *hv, const char *uuid, unsigned timeout_s,
                 struct error **err);

    /*
     * What the guest shows, written to fd, max_bytes at most; *ret_type is its media type
     * ("image/png"), the caller's to free. ERROR_NOT_FOUND: it has no display.
     */
    bool (*screenshot)(struct hypervisor *hv, const char *uuid, int fd,
                       uint64_t max_bytes, char **ret_type, struct error **err);

    /* What put_tpm() has put there for a domain that is gone. True if there is nothing.
     */
    bool (*drop_tpm)(struct hypervisor *hv, const char *uuid, struct error **err);
};

#endif
