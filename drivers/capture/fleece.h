/*
 * Fleecing: the disks of a running QEMU at one moment, held by jobs that copy
 * what the guest is about to overwrite into scratch images, and served from
 * there by QEMU's NBD server.
 *
 * Jobs, nodes and exports are called "virtdr-TARGET": that is how they are found
 * again, also by a process that did not make them. Nothing of another is
 * touched. Owns nothing. May block; any thread, one at a time for a domain.
 */
#ifndef DRIVERS_CAPTURE_FLEECE_H
#define DRIVERS_CAPTURE_FLEECE_H

#include <json-c/json.h>
#include <libvirt/libvirt.h>
#include <stdint.h>

#include "common/error.h"
#include "drivers/hypervisor/block_graph.h"

#define FLEECE_GRAIN 4096 /* bytes for each bit of our bitmaps */

struct fleece_disk {
    const char *target;
    struct block_node node;
    struct json_object *record; /* bitmaps to export, merged; NULL: whole */
};

struct fleece_settings {
    const char *folder; /* for the scratch images */
    const char *stem;   /* of their names */
    const char *socket;
    const char *name; /* of the bitmap that records from this moment on; NULL: none */
    const struct fleece_disk *disks;
    size_t n_disks;
};

/* The bitmap's name in each export, and the node of a disk; the caller frees them. */
char *fleece_bitmap(const char *target);
char *fleece_node(const char *target);

/* Is nobody else at work on the domain's disks? ERROR_JOB_BUSY. */
bool fleece_check_idle(virDomainPtr domain, struct error **err);

/*
 * All disks at one moment, not before *ret_time_ms. After a failure the
 * caller ends what was begun. ERROR_JOB_BUSY: QEMU's NBD server is in use.
 */
bool fleece_begin(virDomainPtr domain, const struct fleece_settings *settings,
                  int64_t *ret_time_ms, struct error **err);

/* Do the jobs of that many disks of ours run? If not, what was read is void. */
bool fleece_check(virDomainPtr domain, size_t n_disks, struct error **err);

/*
 * Leaves a duplicate of the n-th connection (from 0) to the exports with QEMU.
 *
 * QEMU 7.2 with the correction for CVE-2024-7409 aborts, and its guest with it, when
 * a client of a disk that has an I/O thread closes its connection: it must not close,
 * whatever becomes of this process, before its export is deleted.
 */
bool fleece_keep(virDomainPtr domain, unsigned n, int fd, struct error **err);

/* Has the domain I/O threads at all? Then connections have to be kept. */
bool fleece_needs_keeping(virDomainPtr domain, bool *ret, struct error **err);

/* Asks our jobs and exports to end, without waiting. */
bool fleece_abort(virDomainPtr domain, struct error **err);

/* Is there anything of ours? */
bool fleece_is_left(const struct block_graph *g, const char *socket);

/* The names of the nodes that fleece_begin() makes; the caller's. */
struct json_object *fleece_nodes(const struct fleece_settings *settings);

/*
 * Ends all that is ours; files stay. True if there is nothing. nodes: the names of our
 * nodes, all of them; NULL: QEMU is asked for them, which takes as long as all the rest.
 */
bool fleece_end(virDomainPtr domain, const char *socket, struct json_object *nodes,
                struct error **err);

#endif
