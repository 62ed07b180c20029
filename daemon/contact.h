/*
 * What two hosts tell each other in a contact, and what follows from it.
 *
 *     {host{id, name, site}, time, replications: [{id, side, epoch, phase, running,
 * task}]}
 *
 * Both directions have the same form; task is the exclusive one that runs for it, if any.
 * Called on workers.
 */
#ifndef DAEMON_CONTACT_H
#define DAEMON_CONTACT_H

#include <json-c/json.h>

#include "daemon/daemon.h"
#include "daemon/replication.h"

/* What this host says to that peer; the caller's to put. */
struct json_object *contact_say(struct daemon *d, const char *peer_id);

/*
 * What that peer has said. A newer epoch there supersedes our side:
 * the guard refuses the VM here, then it is stored, then an alarm. The same epoch
 * confirms the guard, after which a VM with autostart that waited for it is started.
 * A newer one, or the one that superseded us, of what is a replica again: the failover
 * was undone there; stored first, then the guard allows the VM here.
 */
void contact_hear(struct daemon *d, const char *peer_id, struct json_object *said);

/* The other side has taken over: from a contact, a stream's answer, anywhere. */
void contact_superseded(struct daemon *d, struct replication *r, uint64_t epoch);

#endif
