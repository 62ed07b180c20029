#include "daemon/guard_source.h"

#include "daemon/peers.h"

enum guard_policy
guard_source_policy(struct daemon *d, const char *peer_id)
{
    const struct config_peer *policy = NULL;
    struct peer_name peer;

    if (peers_find(d->peers, peer_id, &peer, NULL))
        policy = config_peer(d->config, peer.name);
    return policy != NULL ? policy->unconfirmed : GUARD_HOLD;
}

bool
guard_source(struct daemon *d, const struct replication *r, struct error **err)
{
    struct guard_record record = { .vm = r->vm_name,
                                   .may_run = true,
                                   .epoch = r->epoch,
                                   .unconfirmed = guard_source_policy(d, r->peer_id) };

    return guard_write(&d->guard, r->vm_uuid, &record, err) &&
           guard_confirm(&d->guard, r->vm_uuid, r->epoch, err);
}

bool
guard_source_follow(struct daemon *d, struct replication *r, struct error **err)
{
    enum guard_policy wanted = guard_source_policy(d, r->peer_id);
    AUTOPTR(guard_record) *record = NULL;
    bool ok = true;

    pthread_mutex_lock(&r->lock);
    if (r->side == SIDE_SOURCE && states_is_protecting(r->phase) &&
        guard_read(&d->guard, r->vm_uuid, &record, NULL) && record->may_run &&
        record->epoch == r->epoch && record->unconfirmed != wanted) {
        record->unconfirmed = wanted;
        ok = guard_write(&d->guard, r->vm_uuid, record, err);
    }
    pthread_mutex_unlock(&r->lock);
    return ok;
}
