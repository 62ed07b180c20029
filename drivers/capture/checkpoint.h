/*
 * The checkpoint capture: libvirt checkpoints and pull-mode backup jobs.
 *
 * For running (or paused) domains with qcow2 disks (version 3). All disks are
 * taken at one point in time; changes are known in grains of 64 KiB. Names of
 * points are names of checkpoints. Sockets and scratch files in the scratch
 * folder are called after the domain's UUID and the disk: a domain has one
 * job at a time.
 *
 * Besides the errors of drivers/capture.h: ERROR_UNSUPPORTED_DISK (a disk that
 * cannot have a checkpoint), ERROR_CONFIG (the scratch folder's path is too
 * long for a socket), ERROR_USAGE (a malformed name or target).
 */
#ifndef DRIVERS_CAPTURE_CHECKPOINT_H
#define DRIVERS_CAPTURE_CHECKPOINT_H

#include "drivers/capture.h"

/* libvirt_hv is that of libvirt_open() and outlives the driver. */
bool capture_checkpoint_open(struct hypervisor *libvirt_hv, struct capture_driver **ret,
                             struct error **err);

#endif
