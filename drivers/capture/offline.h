/*
 * The capture of a domain that is off: its images, read by a process of ours.
 *
 * One qemu-storage-daemon per capture opens them read-only and without locks, so
 * that nothing keeps the domain from being started; then the capture is void, as
 * it is when an image changed meanwhile (generation.h): end() fails. No point is
 * made: what was recorded since `base` while the domain ran is in bitmaps that
 * its qcow2 images hold, and stays there. Images are never written to.
 *
 * Besides the errors of drivers/capture.h: ERROR_INVALID_STATE (the domain runs),
 * ERROR_UNSUPPORTED_DISK, ERROR_CONFIG (the scratch folder's path is too long for
 * a socket), ERROR_USAGE, ERROR_STORE (the process or an image).
 */
#ifndef DRIVERS_CAPTURE_OFFLINE_H
#define DRIVERS_CAPTURE_OFFLINE_H

#include "drivers/capture.h"

/* libvirt_hv is that of libvirt_open() and outlives the driver. */
bool capture_offline_open(struct hypervisor *libvirt_hv, struct capture_driver **ret,
                          struct error **err);

#endif
