#include "daemon/guard_source.h"

#include "daemon/peers.h"

bool
guard_source(struct daemon *d, const struct replication *r, struct error **err)
{
    struct peer_name peer;
    const struct config_peer *policy;
    struct guard_record record = { .vm = r->vm_name, .may_run = true, .epoch = r->epoch };

    if (!peers_find(d->peers, r->peer_id, &peer, err))
        return false;
    policy = config_peer(d->config, peer.name);
    record.unconfirmed = policy != NULL ? policy->unconfirmed : GUARD_HOLD;
    return guard_write(&d->guard, r->vm_uuid, &record, err) &&
           guard_confirm(&d->guard, r->vm_uuid, r->epoch, err);
}
