/*
 * A replica that stands on the VM's own images on this host: those of the time when the
 * VM ran here, before the direction was reversed.
 *
 * They are read and never written to. What they hold is the replica's first point,
 * pinned, "unreplicated-TIME": what this host had written and not shipped is only there.
 * So the first sync compares, and only what differs travels. A disk whose image cannot be
 * opened begins empty, and all of it is sent. Any worker thread.
 */
#ifndef DAEMON_ORIGINALS_H
#define DAEMON_ORIGINALS_H

#include "daemon/daemon.h"
#include "daemon/op.h"
#include "daemon/replica.h"

#define ORIGINALS_SEQUENCE 1 /* of the point that the images are */

/* Does the domain that is defined here have an image for each of them? */
bool originals_cover(struct daemon *d, const char *vm_uuid,
                     const struct replica_request *request);

/*
 * Makes the store of a replica that is stored already, in place of what an earlier try
 * has left, on the images of the domain that is defined here. Nobody uses the store.
 */
bool originals_make(struct daemon *d, struct replication *r,
                    const struct replica_request *request, struct error **err);

/*
 * Are they what they were? If somebody wrote to one, all points are void: they are
 * dropped, and the disks are to be compared anew; if one is gone or was cut, the store is
 * made anew without it. Both durable, and told; *ret_changed then, the source has to ask
 * what is here. Whoever calls has claimed r and uses nothing of the store.
 */
bool originals_check(struct daemon *d, struct replication *r, bool *ret_changed,
                     struct error **err);

/* Warns of points that are in doubt; changes nothing. */
void originals_warn(struct op *op, struct replication *r);

#endif
