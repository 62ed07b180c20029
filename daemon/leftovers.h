/*
 * What is recorded under our names in VMs that are not protected any more: the images
 * of a VM that was off when its protection ended keep checkpoints and bitmaps, which
 * can be removed only while it runs.
 *
 * Their names are documents; a timer on the loop, and each start of a VM, have a worker
 * try to remove them (I6).
 */
#ifndef DAEMON_LEFTOVERS_H
#define DAEMON_LEFTOVERS_H

#include "daemon/daemon.h"
#include "daemon/replication.h"

struct leftovers;

/* Loop thread, these; nothing is tried before leftovers_start(). */
struct leftovers *leftovers_new(struct daemon *d);
void leftovers_start(struct leftovers *l);
void leftovers_wake(struct leftovers *l); /* a VM has started */
void leftovers_stop(struct leftovers *l);
void leftovers_free(struct leftovers *l); /* after the workers have ended */

/* The names in r->stale are removed when the VM runs next. Any thread; r ends with it. */
bool leftovers_keep(struct daemon *d, struct replication *r, struct error **err);

/* Tries all that there are, once; a worker. */
void leftovers_pass(struct daemon *d);

#endif
