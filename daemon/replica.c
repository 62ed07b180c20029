#include "daemon/replica.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/events.h"
#include "daemon/guard_sentence.h"
#include "daemon/peers.h"
#include "daemon/replica_private.h"
#include "daemon/seed.h"
#include "daemon/space.h"
#include "daemon/upkeep.h"
#include "daemon/workers.h"
#include "drivers/hypervisor.h"
#include "drivers/store/qcow2.h"

#define LAYERS_WAIT_NS 100000000L

/* --- the store -------------------------------------------------------------- */

struct replica *
replica_get(struct replication *r)
{
    pthread_mutex_lock(&r->lock);
    if (r->replica == NULL) {
        r->replica = NEW(struct replica);
        pthread_mutex_init(&r->replica->tip, NULL);
        pthread_mutex_init(&r->replica->open, NULL);
        pthread_mutex_init(&r->replica->keep, NULL);
        pthread_cond_init(&r->replica->layers_free, NULL);
    }
    pthread_mutex_unlock(&r->lock);
    return r->replica;
}

/* A journal that was made durable but whose point was not stored was never acked. */
static bool
drop_unrecorded(struct replication *r, struct store *store, struct error **err)
{
    AUTOFREE(uint64_t) *seqs = NULL;
    uint64_t newest;
    size_t n = 0;

    pthread_mutex_lock(&r->lock);
    newest = r->newest.sequence;
    pthread_mutex_unlock(&r->lock);
    if (!store->ops->journal_list(store, &seqs, &n, err))
        return false;
    for (size_t i = 0; i < n; i++)
        if (seqs[i] > newest && !store->ops->journal_drop(store, seqs[i], err))
            return false;
    return true;
}

static bool
is_removing(struct replication *r)
{
    bool removing;

    pthread_mutex_lock(&r->lock);
    removing = r->phase == PHASE_REMOVING || r->removed;
    pthread_mutex_unlock(&r->lock);
    return removing;
}

bool
replica_is_given_up(struct replication *r)
{
    bool failed_over;

    pthread_mutex_lock(&r->lock);
    failed_over = states_owns_vm(r->phase);
    pthread_mutex_unlock(&r->lock);
    return failed_over || is_removing(r);
}

/* What replica_remove() has closed stays so. Under `open`. */
static bool
open_store(struct replication *r, struct store **ret, struct error **err)
{
    struct store *store = NULL;

    if (is_removing(r))
        return error_set(err, ERROR_INVALID_STATE, "it is being removed");
    if (*ret != NULL)
        return true;
    if (!store_qcow2_ops.open(r->folder, &store, err))
        return false;
    if (!drop_unrecorded(r, store, err)) {
        store->ops->close(store);
        return false;
    }
    *ret = store;
    return true;
}

bool
replica_store(struct daemon *d UNUSED, struct replication *r, struct store **ret,
              struct error **err)
{
    struct replica *replica = replica_get(r);
    bool ok;

    pthread_mutex_lock(&replica->open);
    ok = open_store(r, &replica->store, err);
    if (ok)
        *ret = replica->store;
    pthread_mutex_unlock(&replica->open);
    return ok || error_prefix(err, "replica of VM '%s'", r->vm_name);
}

/* Those who read for hours are asked to stop. */
static void
take_layers(struct replication *r)
{
    struct replica *replica = replica_get(r);

    pthread_mutex_lock(&r->lock);
    while (replica->layers_taken) {
        if (replica->layers_user != NULL)
            cancel_request(replica->layers_user);
        pthread_cond_wait(&replica->layers_free, &r->lock);
    }
    replica->layers_taken = true;
    pthread_mutex_unlock(&r->lock);
}

void
replica_close(struct replication *r)
{
    struct replica *replica = replica_get(r);

    pthread_mutex_lock(&replica->tip);
    take_layers(r);
    pthread_mutex_lock(&replica->keep);
    pthread_mutex_lock(&replica->open);
    if (replica->store != NULL)
        replica->store->ops->close(TAKE(replica->store));
    pthread_mutex_unlock(&replica->open);
    pthread_mutex_unlock(&replica->keep);
    replica_unlock_layers(r);
    pthread_mutex_unlock(&replica->tip);
}

void
replica_free(struct replication *r)
{
    if (r->replica == NULL)
        return;
    replica_close(r);
    points_free(r->replica->points);
    pthread_mutex_destroy(&r->replica->open);
    pthread_mutex_destroy(&r->replica->tip);
    pthread_mutex_destroy(&r->replica->keep);
    pthread_cond_destroy(&r->replica->layers_free);
    free(r->replica->room_text);
    free(TAKE(r->replica));
}

void
replica_lock_tip(struct replication *r)
{
    pthread_mutex_lock(&replica_get(r)->tip);
}

void
replica_unlock_tip(struct replication *r)
{
    pthread_mutex_unlock(&replica_get(r)->tip);
}

bool
replica_try_layers(struct replication *r, struct cancel *cancel)
{
    struct replica *replica = replica_get(r);
    bool mine;

    pthread_mutex_lock(&r->lock);
    mine = !replica->layers_taken;
    if (mine) {
        replica->layers_taken = true;
        replica->layers_user = cancel;
    }
    pthread_mutex_unlock(&r->lock);
    return mine;
}

/* Waits for a moment at most: who waits may be cancelled. */
static void
await_layers(struct replication *r)
{
    struct replica *replica = replica_get(r);
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += LAYERS_WAIT_NS;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_mutex_lock(&r->lock);
    if (replica->layers_taken)
        pthread_cond_clockwait(&replica->layers_free, &r->lock, CLOCK_MONOTONIC, &until);
    pthread_mutex_unlock(&r->lock);
}

bool
replica_lock_layers(struct replication *r, struct cancel *cancel, struct error **err)
{
    while (!replica_try_layers(r, cancel)) {
        if (!cancel_check(cancel, err))
            return false;
        await_layers(r);
    }
    return true;
}

void
replica_unlock_layers(struct replication *r)
{
    struct replica *replica = replica_get(r);

    pthread_mutex_lock(&r->lock);
    replica->layers_taken = false;
    replica->layers_user = NULL;
    pthread_cond_broadcast(&replica->layers_free);
    pthread_mutex_unlock(&r->lock);
}

/* --- create and remove ------------------------------------------------------- */

static bool
choose_storage(struct daemon *d, const struct replica_request *request,
               const struct config_storage **ret, struct error **err)
{
    const struct config_storage *storage = config_storage(d->config, request->storage);
    struct peer_name peer;
    const struct config_peer *policy;

    if (!peers_find(d->peers, request->peer_id, &peer, err))
        return false;
    policy = config_peer(d->config, peer.name);
    if (policy != NULL && !policy->may_replicate)
        return error_set(
            err, ERROR_FORBIDDEN,
            "host '%s' does not take replicas from '%s' (may_replicate = no)",
            d->config->host_name, peer.name);
    if (storage == NULL)
        return error_set(
            err, ERROR_STORAGE_NOT_FOUND,
            "host '%s' has no storage '%s'; its virtdrd.conf needs a section "
            "[storage %s]",
            d->config->host_name, request->storage, request->storage);
    if (policy != NULL && policy->storage != NULL &&
        strcmp(policy->storage, storage->name) != 0)
        return error_set(err, ERROR_FORBIDDEN,
                         "host '%s' takes replicas from '%s' only into storage '%s'",
                         d->config->host_name, peer.name, policy->storage);
    *ret = storage;
    return true;
}

bool
replica_check_source(struct daemon *d, const char *peer_id, const char *storage,
                     struct error **err)
{
    const struct replica_request request = { .peer_id = peer_id, .storage = storage };
    const struct config_storage *chosen;

    return choose_storage(d, &request, &chosen, err);
}

/* Refused before the first byte: missing, not writable, too small. */
static bool
check_storage(const struct config_storage *storage, uint64_t needed_bytes,
              struct error **err)
{
    uint64_t used, free_bytes;
    char need[UNITS_TEXT_MAX], have[UNITS_TEXT_MAX];
    struct stat st;

    if (stat(storage->path, &st) < 0 || !S_ISDIR(st.st_mode))
        return error_set(err, ERROR_STORE,
                         "storage '%s': folder '%s' does not exist; make it or mount it",
                         storage->name, storage->path);
    if (access(storage->path, W_OK) < 0)
        return error_errno(err, ERROR_PERMISSION, "storage '%s': folder '%s'",
                           storage->name, storage->path);
    if (!store_qcow2_ops.space(storage->path, &used, &free_bytes, err))
        return error_prefix(err, "storage '%s'", storage->name);
    if (free_bytes < storage->reserve_bytes + needed_bytes)
        return error_set(
            err, ERROR_NO_SPACE,
            "storage '%s' ('%s') has %s free, but %s are needed for the disks "
            "and the reserve",
            storage->name, storage->path, units_format_size(free_bytes, have),
            units_format_size(storage->reserve_bytes + needed_bytes, need));
    return true;
}

bool
replica_check_room(struct daemon *d, const struct replica_request *request,
                   const struct config_storage **ret, struct error **err)
{
    return choose_storage(d, request, ret, err) &&
           check_storage(*ret, request->needed_bytes, err) &&
           space_check_quota(d, request->peer_id, request->needed_bytes, err);
}

bool
replica_forbid_start(struct daemon *d, const struct replication *r, struct error **err)
{
    return guard_refuse(d, r, r->phase, err);
}

/* A failover would define the VM over a domain that is somebody else's. */
static bool
check_no_conflict(struct daemon *d, const struct replica_request *request,
                  struct error **err)
{
    const char *const keys[] = { request->vm_uuid, request->vm_name };

    for (size_t i = 0; i < N_ELEMENTS(keys); i++) {
        AUTOPTR(hv_domain) *domain = NULL;
        struct error *e = NULL;

        if (d->hypervisor->ops->lookup(d->hypervisor, keys[i], &domain, &e))
            return error_set(err, ERROR_EXISTS,
                             "host '%s' has a domain '%s' (UUID %s) already; undefine or "
                             "rename it there first",
                             d->config->host_name, domain->name, domain->uuid);
        if (!error_is(e, ERROR_DOMAIN_NOT_FOUND))
            return error_propagate(err, e);
        error_free(e);
    }
    return true;
}

/* Whatever an earlier try has left in the folder goes. */
bool
replica_make_store(struct daemon *d, struct replication *r,
                   const struct replica_request *request, struct error **err)
{
    return (store_qcow2_ops.destroy(r->folder, err) &&
            store_qcow2_ops.create(r->folder, request->disks, request->n_disks, err) &&
            replica_forbid_start(d, r, err)) ||
           error_prefix(err, "make the replica in '%s'", r->folder);
}

/* The one that this very request made before; a source asks again after a lost answer. */
static struct replication *
find_made(struct daemon *d, const struct replica_request *request)
{
    AUTOPTR(replication) *r = NULL;

    if (!replications_find(d->replications, request->replication, &r, NULL) ||
        strcmp(r->peer_id, request->peer_id) != 0 || r->side != SIDE_TARGET)
        return NULL;
    return TAKE(r);
}

bool
replica_is_untouched(struct replication *r)
{
    bool untouched;

    pthread_mutex_lock(&r->lock);
    untouched = r->phase == PHASE_INITIAL_SYNC && r->sync.name[0] == '\0' &&
                r->newest.name[0] == '\0' && !r->seeding &&
                (r->seed == NULL || seed_is(r, "waiting")) &&
                (r->replica == NULL || r->replica->store == NULL);
    pthread_mutex_unlock(&r->lock);
    return untouched;
}

/* Opened once to see that it can be: nobody shall wait for the copy to hear it. */
static bool
check_seed(struct daemon *d, const struct replica_request *request, struct error **err)
{
    const struct seed_wanted wanted = { .peer_id = request->peer_id,
                                        .vm_uuid = request->vm_uuid,
                                        .vm_name = request->vm_name,
                                        .request = request->seed,
                                        .disks = request->disks,
                                        .n_disks = request->n_disks };
    AUTOPTR(seed) *s = NULL;

    return request->seed == NULL || seed_open(d, &wanted, &s, err);
}

bool
replica_create(struct daemon *d, const struct replica_request *request,
               struct error **err)
{
    const struct config_storage *storage = NULL;
    AUTOPTR(replication) *r = find_made(d, request);

    /* A crash may have come between the document and the folder: made again. */
    if (r != NULL)
        return (!replica_is_untouched(r) || replica_make_store(d, r, request, err)) &&
               seed_begin(d, r, request->user, err);
    if (!replica_check_room(d, request, &storage, err) ||
        !check_no_conflict(d, request, err) || !check_seed(d, request, err))
        return false;
    r = replication_new(SIDE_TARGET, request->replication, request->vm_uuid,
                        request->vm_name, request->peer_id);
    r->rpo_ms = request->rpo_ms;
    if (request->retention != NULL)
        r->retention = *request->retention;
    r->storage = mem_strdup(storage->name);
    r->folder = mem_printf("%s/%s", storage->path, request->replication);
    r->contact_ms = units_now_ms();
    r->epoch = MAX(request->epoch, r->epoch);
    mem_setstr(&r->home, request->home);
    r->seed = seed_new_state(request->seed);
    /* Stored first: what a crash leaves in the folder has an owner (I6). */
    if (!replications_add(d->replications, r, err))
        return false;
    if (replica_make_store(d, r, request, err) && seed_begin(d, r, request->user, err))
        return true;
    store_qcow2_ops.destroy(r->folder, NULL);
    replications_remove(d->replications, r, NULL);
    return false;
}

bool
replica_remove(struct daemon *d, struct replication *r, struct error **err)
{
    struct points *points;

    replica_close(r);
    return store_qcow2_ops.destroy(r->folder, err) &&
           replica_points(d, r, &points, err) && points_remove_all(points, err) &&
           guard_remove(&d->guard, r->vm_uuid, err) &&
           replications_remove(d->replications, r, err);
}

static bool
check_disk(const struct exchange_disk *disk, const struct store_disk *have, size_t n_have,
           struct error **err)
{
    char here[UNITS_TEXT_MAX], there[UNITS_TEXT_MAX];

    for (size_t i = 0; i < n_have; i++)
        if (strcmp(have[i].target, disk->target) == 0 &&
            disk->capacity_bytes < have[i].capacity_bytes)
            return error_set(err, ERROR_UNSUPPORTED_DISK,
                             "disk '%s' has %s, and the replica has a disk of that name "
                             "of %s: attach it under another name, or exclude it, or "
                             "unprotect the VM and protect it anew",
                             disk->target, units_format_size(disk->capacity_bytes, here),
                             units_format_size(have[i].capacity_bytes, there));
    return true;
}

bool
replica_check_disks(struct store *store, const struct exchange_begin *begin,
                    struct error **err)
{
    AUTOFREE(struct store_disk) *have = NULL;
    size_t n_have = 0;

    if (!store->ops->disks(store, &have, &n_have, err))
        return false;
    for (size_t i = 0; i < begin->n_disks; i++)
        if (!check_disk(&begin->disks[i], have, n_have, err))
            return false;
    return true;
}

/* --- points ------------------------------------------------------------------ */

bool
replica_points(struct daemon *d, struct replication *r, struct points **ret,
               struct error **err)
{
    struct replica *replica = replica_get(r);
    bool ok;

    pthread_mutex_lock(&replica->open);
    ok = replica->points != NULL || points_open(d->state, r->id, &replica->points, err);
    if (ok)
        *ret = replica->points;
    pthread_mutex_unlock(&replica->open);
    return ok || error_prefix(err, "recovery points of VM '%s'", r->vm_name);
}

/* Under `keep`. */
static void
let_go(struct replica *replica, const void *owner)
{
    for (size_t i = 0; i < replica->n_held; i++)
        if (replica->held[i].owner == owner) {
            replica->held[i] = replica->held[--replica->n_held];
            return;
        }
}

static bool
hold(struct replica *replica, const void *owner, uint64_t sequence, struct error **err)
{
    let_go(replica, owner);
    if (replica->n_held == REPLICA_MAX_HOLDS)
        return error_set(err, ERROR_IN_PROGRESS,
                         "%d operations use points of this VM already; try again when "
                         "one has ended (virt-dr task-list)",
                         REPLICA_MAX_HOLDS);
    replica->held[replica->n_held++] = (struct replica_hold){ owner, sequence };
    return true;
}

bool
replica_hold_point(struct daemon *d, struct replication *r, const void *owner,
                   const struct point_select *select, struct point *ret,
                   struct error **err)
{
    struct replica *replica = replica_get(r);
    struct points *points;
    const struct point *chosen;
    struct point *list;
    size_t n;
    bool ok;

    if (!replica_points(d, r, &points, err))
        return false;
    pthread_mutex_lock(&replica->keep);
    list = points_list(points, &n);
    ok = point_select(select, list, n, &chosen, err) &&
         hold(replica, owner, chosen->sequence, err);
    if (ok)
        point_copy(ret, chosen);
    points_list_free(list, n);
    pthread_mutex_unlock(&replica->keep);
    return ok || error_prefix(err, "VM '%s'", r->vm_name);
}

void
replica_release_point(struct replication *r, const void *owner)
{
    struct replica *replica = replica_get(r);

    pthread_mutex_lock(&replica->keep);
    let_go(replica, owner);
    pthread_mutex_unlock(&replica->keep);
}

/* --- apply ------------------------------------------------------------------- */

/*
 * A journal that cannot be read will not be readable later either: what it held is
 * fetched anew, and the points that need it are known as damaged.
 */
static void
give_up_journal(struct daemon *d, struct replication *r, uint64_t seq,
                const struct error *why)
{
    struct points *points;

    if (!error_is(why, ERROR_CHECKSUM) && !error_is(why, ERROR_POINT_NOT_FOUND))
        return;
    /* In this order: a point that came between would not be known as damaged. */
    replica_set_damaged(d, r, error_message(why));
    if (replica_points(d, r, &points, NULL))
        points_set_damaged(points, seq, UINT64_MAX, error_message(why), NULL);
}

/* Those that a stored point belongs to: one that is just being committed may still fail.
 */
static bool
apply_recorded(struct daemon *d, struct replication *r, struct store *store,
               struct cancel *cancel, struct error **err)
{
    struct points *points;
    uint64_t seq;

    if (!replica_points(d, r, &points, err))
        return false;
    while (points_next(points, store->ops->applied(store), &seq)) {
        struct error *e = NULL;

        if (!cancel_check(cancel, err))
            return false;
        if (!store->ops->apply(store, seq, cancel, &e)) {
            give_up_journal(d, r, seq, e);
            return error_propagate(err, e);
        }
        if (!upkeep_seal_if_due(d, r, store, seq, err))
            return false;
    }
    return true;
}

bool
replica_tip_is_broken(struct replication *r)
{
    bool broken;

    pthread_mutex_lock(&r->lock);
    broken = r->sync.name[0] != '\0' || r->damaged;
    pthread_mutex_unlock(&r->lock);
    return broken;
}

void
replica_set_damaged(struct daemon *d, struct replication *r, const char *why)
{
    struct log_ctx log = replication_log(r);
    struct error *e = NULL;
    bool news;

    pthread_mutex_lock(&r->lock);
    news = !r->damaged;
    r->damaged = true;
    if (!replication_store(d->replications, r, NULL, 0, &e))
        log_ignore(&log, "damage-not-stored", &e);
    pthread_mutex_unlock(&r->lock);
    if (news)
        events_emit(d, EVENT_CRITICAL, &log, "replica-damaged",
                    "the newest disks of VM '%s' are damaged here and will be sent anew: "
                    "%s",
                    r->vm_name, why);
}

bool
replica_apply(struct daemon *d, struct replication *r, struct cancel *cancel,
              struct error **err)
{
    struct store *store;
    bool ok;

    /* First the lock: replica_close() takes it too. What it closed for good stays so. */
    replica_lock_tip(r);
    ok = replica_is_given_up(r) ||
         (replica_store(d, r, &store, err) && apply_recorded(d, r, store, cancel, err));
    replica_unlock_tip(r);
    return ok || error_prefix(err, "apply the journal of VM '%s'", r->vm_name);
}

struct apply_job {
    struct daemon *daemon;
    struct replication *r;
};

static void
apply_job(void *opaque)
{
    struct apply_job *job = opaque;
    struct replication *r = job->r;
    struct replica *replica = replica_get(r);
    struct log_ctx log = replication_log(r);
    struct error *e = NULL;
    bool wanted;

    atomic_store(&replica->applying, false); /* what comes from now on wants a new job */
    pthread_mutex_lock(&r->lock);
    wanted = replication_allows(r, "receive", NULL) && !r->damaged;
    pthread_mutex_unlock(&r->lock);
    if (wanted && !replica_apply(job->daemon, r, NULL, &e))
        events_emit(job->daemon, EVENT_CRITICAL, &log, "apply-failed", "%s",
                    error_message(e));
    pthread_mutex_lock(&r->lock);
    replication_set_error(r, e);
    pthread_mutex_unlock(&r->lock);
}

/* Also for a job that was dropped at the daemon's end. */
static void
end_apply_job(void *opaque)
{
    struct apply_job *job = opaque;

    replication_unref(job->r);
    free(job);
}

void
replica_apply_later(struct daemon *d, struct replication *r)
{
    struct apply_job *job;

    if (atomic_exchange(&replica_get(r)->applying, true))
        return;
    job = NEW(struct apply_job);
    job->daemon = d;
    job->r = r;
    replication_ref(r);
    workers_submit(d->applies, 0, apply_job, end_apply_job, job);
}
