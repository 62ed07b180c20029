/*
 * What is left on a host of the time when the VM ran there, once it runs elsewhere and is
 * replicated here again: the images that the new replica stands on stay, all else in the
 * folders of earlier replicas goes. Which those are is in replication.formerly (folders).
 */
#ifndef DAEMON_OLD_FOLDERS_H
#define DAEMON_OLD_FOLDERS_H

#include "daemon/daemon.h"
#include "daemon/replication.h"

/* Removes what is due, once for each change of direction; called every second, by the
   upkeep of that replica: no layer of it is merged meanwhile. */
void old_folders_look(struct daemon *d, struct replication *r);

#endif
