/*
 * VMs that were failed over for good: their disks become one image each while they run,
 * and what is left of their replica goes.
 *
 * Which they are is a document (kind "flatten", id = the VM's UUID): {vmId, vmName,
 * folder, before, replication, time, failed}; before: folders of earlier failovers to
 * this host, which the VM's images may stand on. It needs nothing of the replication,
 * which may have changed its direction meanwhile. A timer on the loop, and each start of
 * a VM, have a worker begin the operation (ops_flatten.c) that is not under way, for VMs
 * that run.
 */
#ifndef DAEMON_FLATTEN_H
#define DAEMON_FLATTEN_H

#include "daemon/daemon.h"
#include "daemon/replication.h"

#define FLATTEN_KIND "flatten"

struct flatten;

/* Loop thread, these; nothing is begun before flatten_start(). */
struct flatten *flatten_new(struct daemon *d);
void flatten_start(struct flatten *f);
void flatten_wake(struct flatten *f); /* a VM has started */
void flatten_stop(struct flatten *f);
void flatten_free(struct flatten *f); /* after the workers have ended */

/* The document for a target whose VM is in its folder, to be stored under FLATTEN_KIND
   and its VM's UUID; the caller's to put. Under r->lock. Any thread, this and what
   follows. */
struct json_object *flatten_document(const struct replication *r);

/* Is there one for that VM? */
bool
flatten_is_pending(struct daemon *d, const char *vm_uuid, bool *ret, struct error **err);

/* Is there one that is under way, or is begun by itself now? */
bool flatten_goes_on(struct daemon *d, const char *vm_uuid);

/* Begins it for that VM if there is one and it is not under way. */
bool flatten_begin(struct daemon *d, const char *vm_uuid, const char *user,
                   struct error **err);

/* One pass over all: begins what can be. */
void flatten_pass(struct daemon *d);

#endif
