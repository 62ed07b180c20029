/*
 * Split brain: both hosts run the VM.
 *
 * Each contact says whether the VM has a process here (contact.h). When both have one
 * each side raises a critical alarm at once, which stays in its health until one of them
 * has ended. With [guard] split_brain = suspend the side that does not own the epoch
 * suspends its VM, which loses nothing: a guest that stands still writes nowhere and
 * answers nobody. `resolve` ends it (ops_resolve.c).
 *
 * That it was us who suspended it is noted in RUN/guard/UUID.suspended, which is gone
 * with the VM's process after a reboot. Called on workers, without r->lock.
 */
#ifndef DAEMON_SPLIT_BRAIN_H
#define DAEMON_SPLIT_BRAIN_H

#include "daemon/daemon.h"
#include "daemon/replication.h"

/*
 * Does the VM have a process here? Asks the hypervisor where that may differ from what
 * cycles have seen; a target's replica only after libvirt has told of a start.
 */
bool split_brain_look(struct daemon *d, struct replication *r);

/* The other side has said whether the VM runs there. */
void split_brain_meet(struct daemon *d, struct replication *r, bool runs_there);

/* The VM is this host's: if a split brain has suspended it, it goes on. */
void split_brain_release(struct daemon *d, struct replication *r);

/* For the health; NULL: none. Under r->lock. The caller frees. */
char *split_brain_text(const struct replication *r);

/* Suspends it, unless it stands still or is off. */
bool split_brain_suspend(struct daemon *d, struct replication *r, struct error **err);

#endif
