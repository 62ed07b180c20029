/*
 * libvirt's errors as ours: by code and domain, never by text (it is localised).
 *
 * libvirt keeps one last error per thread; these functions look at that of the
 * calling thread, right after a call that failed. Owns nothing. Any thread.
 */
#ifndef DRIVERS_HYPERVISOR_LIBVIRT_ERROR_H
#define DRIVERS_HYPERVISOR_LIBVIRT_ERROR_H

#include <libvirt/virterror.h>

#include "common/error.h"

/* Once, before the first call: libvirt prints nothing to stderr by itself. */
void libvirt_error_quiet(void);

/*
 * What a libvirt error is for us:
 * NO_DOMAIN: ERROR_DOMAIN_NOT_FOUND; HOOK_SCRIPT_FAILED: ERROR_GUARD;
 * DOM_EXIST: ERROR_EXISTS; OPERATION_TIMEOUT (the domain is locked by another
 * job): ERROR_JOB_BUSY; no or a broken connection: ERROR_CONNECT; a bitmap or
 * checkpoint that is gone: ERROR_CHECKPOINT_LOST; else ERROR_HYPERVISOR.
 */
enum error_code libvirt_error_code(const virError *e);

/*
 * Sets err from this thread's last libvirt error: "<format>: <libvirt's words>".
 * Every libvirt call forgets the error before it, also one among the arguments.
 */
bool libvirt_error(struct error **err, const char *format, ...) PRINTF(2, 3);

/* The VIR_ERR_ code of this thread's last libvirt error. */
int libvirt_error_last(void);

#endif
