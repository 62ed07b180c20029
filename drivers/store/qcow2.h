/*
 * The store driver for a local folder: qcow2 layers and journal files.
 *
 *     layout.json            the commit record: disks, layers, what is applied
 *     disks/vda.0000.raw     the base: a sparse file that the first sync fills
 *     disks/vda.0001.qcow2   layers on it, the highest number is the tip
 *     journal/000000000042   cycles as they came (common/wire.h)
 *     aux/000000000042.NAME  the blobs of the newest applied point
 *     overlay/ID/vda.qcow2   writable images on sealed layers
 *     lock, nbd.sock         who has it open; its storage daemon's socket
 *
 * It owns the folder and one qemu-storage-daemon for each open store, which is
 * started when something is first written to the tip.
 */
#ifndef DRIVERS_STORE_QCOW2_H
#define DRIVERS_STORE_QCOW2_H

#include "drivers/store.h"

extern const struct store_ops store_qcow2_ops;

/* The storage daemon's process, 0 if there is none. For tests. */
int store_qcow2_pid(struct store *s);

#endif
