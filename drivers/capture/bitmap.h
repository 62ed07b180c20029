/*
 * The bitmap capture: dirty bitmaps and fleecing by QEMU's own monitor.
 *
 * For running (or paused) domains with disks of any format that QEMU writes by
 * itself: raw files and block devices, qcow2 of either version. All disks are
 * taken at one point in time; changes are known in grains of 4 KiB. Names of
 * points are names of bitmaps. A qcow2 image of version 3 keeps its bitmaps when
 * the guest is shut down; elsewhere they end with QEMU's process, and
 * ERROR_CHECKPOINT_LOST tells of it. libvirt marks the domain as tainted
 * (custom-monitor).
 *
 * Continues the records of checkpoints (checkpoint.h), which are bitmaps of the
 * same names; forget() leaves libvirt's description of such a checkpoint behind.
 *
 * Besides the errors of drivers/capture.h: ERROR_UNSUPPORTED_DISK, ERROR_CONFIG
 * (the scratch folder's path is too long for a socket), ERROR_USAGE.
 */
#ifndef DRIVERS_CAPTURE_BITMAP_H
#define DRIVERS_CAPTURE_BITMAP_H

#include "drivers/capture.h"

/* libvirt_hv is that of libvirt_open() and outlives the driver. */
bool capture_bitmap_open(struct hypervisor *libvirt_hv, struct capture_driver **ret,
                         struct error **err);

#endif
