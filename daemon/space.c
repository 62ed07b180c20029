#include "daemon/space.h"

#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/peers.h"
#include "daemon/replica_private.h"

#define SPARE_PART 16 /* of the limit */

/* What the replicas of a storage, and those of a peer, take together. */
struct sums {
    uint64_t storage_journals;
    uint64_t peer_journals;
    uint64_t peer_used;
};

static bool
same_storage(const struct replication *a, const struct replication *b)
{
    return a->storage != NULL && b->storage != NULL &&
           strcmp(a->storage, b->storage) == 0;
}

static struct sums
sum_up(struct daemon *d, const struct replication *r, const char *peer_id)
{
    AUTOFREE(struct replication *) *all = NULL;
    size_t n = replications_all(d->replications, &all);
    struct sums sums = { 0 };

    for (size_t i = 0; i < n; i++) {
        struct replication *other = all[i];

        if (other->side == SIDE_TARGET) {
            struct replica *replica = replica_get(other);
            uint64_t journals = atomic_load(&replica->journal_bytes);

            if (r != NULL && same_storage(r, other))
                sums.storage_journals += journals;
            if (strcmp(other->peer_id, peer_id) == 0) {
                sums.peer_journals += journals;
                sums.peer_used += atomic_load(&replica->used_bytes);
            }
        }
        replication_unref(other);
    }
    return sums;
}

static uint64_t
quota_of(struct daemon *d, const char *peer_id)
{
    struct peer_name peer;
    const struct config_peer *policy;

    if (!peers_find(d->peers, peer_id, &peer, NULL))
        return 0;
    policy = config_peer(d->config, peer.name);
    return policy != NULL ? policy->quota_bytes : 0;
}

static bool
look_at_disk(const char *path, uint64_t *ret_capacity, uint64_t *ret_free,
             struct error **err)
{
    struct statvfs fs;

    if (statvfs(path, &fs) < 0)
        return error_errno(err, ERROR_STORE, "look at the file system of '%s'", path);
    *ret_capacity = (uint64_t)fs.f_blocks * fs.f_frsize;
    *ret_free = (uint64_t)fs.f_bavail * fs.f_frsize;
    return true;
}

static bool
look_at_store(struct daemon *d, struct replication *r, struct space *ret,
              struct error **err)
{
    struct replica *replica = replica_get(r);
    struct store_status status;
    struct store *store;
    bool ok = true;

    pthread_mutex_lock(&replica->keep); /* the store stays open */
    if (!replica_is_given_up(r)) {
        ok = replica_store(d, r, &store, err) && store->ops->status(store, &status, err);
        if (ok) {
            atomic_store(&replica->journal_bytes, status.journal_bytes);
            atomic_store(&replica->used_bytes, status.journal_bytes + status.layer_bytes);
        }
    }
    pthread_mutex_unlock(&replica->keep);
    ret->journal_bytes = atomic_load(&replica->journal_bytes);
    ret->used_bytes = atomic_load(&replica->used_bytes);
    return ok;
}

/* Each replica gives of its journals in proportion to what they take. */
static uint64_t
share(uint64_t excess, uint64_t mine, uint64_t all)
{
    if (excess == 0 || all == 0)
        return excess;
    return MAX((uint64_t)((double)excess * (double)mine / (double)all), 1);
}

/* Its share of what is too much, if so much more has to be free. */
static uint64_t
share_of_excess(const struct space *s, const struct sums *sums, uint64_t spare)
{
    uint64_t wanted_free = s->reserve_bytes > 0 ? s->reserve_bytes + spare : 0;
    uint64_t may_take = s->quota_bytes > 0 ? s->quota_bytes - spare : UINT64_MAX;
    uint64_t lacking = wanted_free > s->free_bytes ? wanted_free - s->free_bytes : 0;
    uint64_t over = s->peer_bytes > may_take ? s->peer_bytes - may_take : 0;

    return MAX(share(lacking, s->journal_bytes, sums->storage_journals),
               share(over, s->journal_bytes, sums->peer_journals));
}

/* The smaller one of the two limits says; without one there is always enough. */
static uint64_t
spare_of(const struct space *s)
{
    uint64_t limit = s->reserve_bytes;

    if (s->quota_bytes > 0 && (limit == 0 || s->quota_bytes < limit))
        limit = s->quota_bytes;
    return limit / SPARE_PART;
}

bool
space_look(struct daemon *d, struct replication *r, struct space *ret, struct error **err)
{
    const struct config_storage *storage = config_storage(d->config, r->storage);
    struct space s = { .reserve_bytes = storage != NULL ? storage->reserve_bytes : 0,
                       .quota_bytes = quota_of(d, r->peer_id) };
    struct sums sums;
    uint64_t capacity;

    if (!look_at_disk(r->folder, &capacity, &s.free_bytes, err) ||
        !look_at_store(d, r, &s, err))
        return false;
    sums = sum_up(d, r, r->peer_id);
    s.peer_bytes = sums.peer_used;
    s.spare_bytes = spare_of(&s);
    s.excess_bytes = share_of_excess(&s, &sums, 0);
    s.lacking_bytes = share_of_excess(&s, &sums, s.spare_bytes);
    *ret = s;
    return true;
}

bool
space_check_quota(struct daemon *d, const char *peer_id, uint64_t more,
                  struct error **err)
{
    uint64_t quota = quota_of(d, peer_id);
    struct sums sums = sum_up(d, NULL, peer_id);
    char have[UNITS_TEXT_MAX], wanted[UNITS_TEXT_MAX], may[UNITS_TEXT_MAX];

    if (quota == 0 || sums.peer_used + more <= quota)
        return true;
    return error_set(err, ERROR_NO_SPACE,
                     "the replicas of that host take %s here and this one needs %s; its "
                     "quota is %s (quota in the section [peer] of virtdrd.conf here)",
                     units_format_size(sums.peer_used, have),
                     units_format_size(more, wanted), units_format_size(quota, may));
}

/* --- for the API ------------------------------------------------------------------ */

static uint64_t
used_in(struct daemon *d, const char *storage)
{
    AUTOFREE(struct replication *) *all = NULL;
    size_t n = replications_all(d->replications, &all);
    uint64_t used = 0;

    for (size_t i = 0; i < n; i++) {
        if (all[i]->side == SIDE_TARGET && all[i]->storage != NULL &&
            strcmp(all[i]->storage, storage) == 0)
            used += atomic_load(&replica_get(all[i])->used_bytes);
        replication_unref(all[i]);
    }
    return used;
}

static struct json_object *
storage_json(struct daemon *d, const struct config_storage *storage)
{
    struct json_object *o = json_object_new_object();
    uint64_t capacity = 0, free_bytes = 0;
    AUTOPTR(error) *e = NULL;

    json_set_string(o, "name", storage->name);
    json_set_string(o, "path", storage->path);
    json_set_u64(o, "reserveBytes", storage->reserve_bytes);
    json_set_u64(o, "usedBytes", used_in(d, storage->name));
    if (look_at_disk(storage->path, &capacity, &free_bytes, &e)) {
        json_set_u64(o, "capacityBytes", capacity);
        json_set_u64(o, "freeBytes", free_bytes);
    } else {
        json_set(o, "error", json_from_error(e));
    }
    return o;
}

struct json_object *
space_storages(struct daemon *d)
{
    struct json_object *items = json_object_new_array();

    for (size_t i = 0; i < d->config->n_storages; i++)
        json_object_array_add(items, storage_json(d, &d->config->storages[i]));
    return items;
}
