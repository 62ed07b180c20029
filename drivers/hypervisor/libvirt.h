/*
 * The libvirt driver: one connection to this host's libvirtd.
 *
 * libvirt's event loop must have been registered (virEventRegisterImpl) before
 * libvirt_open(), and runs on the loop thread; events are given from there.
 * An internal thread makes the connection, and makes it again 0.5 to 10 s after
 * it was lost. libvirt_open() waits for the first attempt, so that the
 * connection is there when libvirtd is; where it is not, open succeeds all the
 * same and functions fail with ERROR_CONNECT until HV_EVENT_CONNECTED.
 *
 * close() may be called on the loop thread or when the loop has ended; no event
 * is given after it.
 */
#ifndef DRIVERS_HYPERVISOR_LIBVIRT_H
#define DRIVERS_HYPERVISOR_LIBVIRT_H

#include <libvirt/libvirt.h>

#include "drivers/hypervisor.h"

/* uri: "qemu:///system". fn may be NULL. ERROR_HYPERVISOR. */
bool libvirt_open(const char *uri, hv_event_fn fn, void *opaque, struct hypervisor **ret,
                  struct error **err);

/* A reference to the live connection (virConnectClose() it); NULL: ERROR_CONNECT. */
virConnectPtr libvirt_connection_ref(struct hypervisor *hv, struct error **err);

#endif
