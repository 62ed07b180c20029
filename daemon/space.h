/*
 * The space that replicas take: of one VM, of a peer, in a storage.
 *
 * Used is what journals and layers take on disk, as their stores say; a replica
 * whose store is not open counts as it was last seen. Any thread; blocks for
 * a statvfs().
 */
#ifndef DAEMON_SPACE_H
#define DAEMON_SPACE_H

#include <json-c/json.h>

#include "daemon/daemon.h"
#include "daemon/replication.h"

struct space {
    uint64_t used_bytes;    /* by this replica... */
    uint64_t journal_bytes; /* ...of which journals */
    uint64_t free_bytes;    /* on the storage's file system */
    uint64_t reserve_bytes; /* shall stay free */
    uint64_t quota_bytes;   /* of the peer; 0: none */
    uint64_t peer_bytes;    /* what all of its replicas take */
    uint64_t spare_bytes;   /* of the reserve, or the quota, that there is beyond it when
                               there is enough again */
    /* This replica's share of what is too much: */
    uint64_t excess_bytes;  /* 0: all is well */
    uint64_t lacking_bytes; /* until there is enough again; 0: there is */
};

/* The other half of the reserve is for applying what was acknowledged, and for failing
   over: nothing more may come in. Nor when a quota is exceeded by half of it. */
static inline bool
space_is_out(const struct space *s)
{
    return s->free_bytes < s->reserve_bytes / 2 ||
           (s->quota_bytes > 0 && s->peer_bytes / 3 > s->quota_bytes / 2);
}

/* Takes down what the replica's store says, for the sums of others. */
bool space_look(struct daemon *d, struct replication *r, struct space *ret,
                struct error **err);

/* Would `more` bytes of that peer go beyond its quota? ERROR_NO_SPACE. */
bool space_check_quota(struct daemon *d, const char *peer_id, uint64_t more,
                       struct error **err);

/* Each storage: name, path, capacityBytes, freeBytes, reserveBytes, usedBytes (by
   replicas); error instead of the first two if it cannot be looked at. */
struct json_object *space_storages(struct daemon *d);

#endif
