/*
 * The store driver for a local folder: qcow2 layers and journal files.
 *
 *     layout.json            the commit record: disks, layers, marks, what is applied
 *     disks/vda.0000.raw     the base: a sparse file that the first sync fills
 *     disks/vda.0001.qcow2   layers on it, the last in layout.json is the tip
 *     disks/vda.0001.qcow2.sums  checksums of a sealed layer's blocks
 *     journal/000000000042   cycles as they came (common/wire.h), one for each point
 *     aux/000000000042.NAME  the blobs of the newest applied point and of the marks
 *     overlay/ID/            a point's writable images, its blobs, what it stands on
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
