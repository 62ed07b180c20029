/* The target's side of a compare: hashes of what the replica's tip shows. */
#include "common/block_hash.h"
#include "daemon/originals.h"
#include "daemon/replica_serve.h"
#include "daemon/seed.h"

#define MAX_HASHES (WIRE_MAX_FINE * (BLOCK_HASH_COARSE / BLOCK_HASH_FINE))

/* One question: a window of coarse blocks, or a list of blocks to be seen finely. */
struct question {
    struct store_hashing what;
    struct store_range ranges[WIRE_MAX_FINE];
};

/*
 * A first sync that goes on has a name here; one that must not be trusted, or has not
 * begun, has none, and only a seed to compare with.
 */
bool
replica_comparable(const struct replication *r)
{
    return !r->damaged && (r->phase != PHASE_INITIAL_SYNC || r->sync.name[0] != '\0' ||
                           seed_is(r, "done"));
}

static bool
add_range(struct question *q, const struct exchange_disk *disk, uint64_t offset,
          uint64_t length, struct error **err)
{
    if (offset % BLOCK_HASH_COARSE != 0 || offset >= disk->capacity_bytes)
        return error_set(err, ERROR_PROTOCOL, "WANT: disk '%s' has no block at %llu",
                         disk->target, (unsigned long long)offset);
    q->ranges[q->what.n_ranges++] =
        (struct store_range){ offset, MIN(length, disk->capacity_bytes - offset) };
    return true;
}

static bool
read_question(const struct incoming *in, const struct wire_frame *want,
              const void *payload, struct question *ret, struct error **err)
{
    const struct exchange_disk *disk;

    if (want->disk >= in->begin.n_disks)
        return error_set(err, ERROR_PROTOCOL, "WANT for disk %u of %zu", want->disk,
                         in->begin.n_disks);
    disk = &in->begin.disks[want->disk];
    *ret = (struct question){ .what = { .target = disk->target,
                                        .ranges = ret->ranges,
                                        .block_bytes = BLOCK_HASH_COARSE } };
    if ((want->flags & WIRE_FINE) == 0)
        return add_range(ret, disk, want->offset, want->length, err);
    ret->what.block_bytes = BLOCK_HASH_FINE;
    for (size_t i = 0; i < want->length / sizeof(uint64_t); i++)
        if (!add_range(ret, disk, wire_get_offset(payload, i), BLOCK_HASH_COARSE, err))
            return false;
    return true;
}

bool
replica_answer(struct incoming *in, const struct wire_frame *want, const void *payload,
               struct error **err)
{
    struct wire_frame answer = { .type = WIRE_HASHES,
                                 .flags = want->flags & WIRE_FINE,
                                 .disk = want->disk,
                                 .offset = want->offset };
    uint8_t hashes[MAX_HASHES * BLOCK_HASH_BYTES];
    struct question q;

    if (!read_question(in, want, payload, &q, err))
        return false;
    for (size_t i = 0; i < q.what.n_ranges; i++)
        answer.length +=
            block_hash_count(q.ranges[i].length, q.what.block_bytes) * BLOCK_HASH_BYTES;
    return in->store->ops->hashes(in->store, &q.what, hashes, err) &&
           stream_send_frame(in->stream, &answer, hashes, err);
}

static bool
take_nothing(struct incoming *in UNUSED, const struct wire_frame *f,
             const void *payload UNUSED, struct error **err)
{
    return f->type == WIRE_END ||
           error_set(err, ERROR_PROTOCOL, "%s frame in an exchange that changes nothing",
                     wire_type_name(f->type));
}

/* The tip stands still at the newest point: no other exchange runs beside this one. */
static bool
tip_is_newest(struct incoming *in, struct error **err)
{
    uint64_t newest;

    pthread_mutex_lock(&in->r->lock);
    newest = in->r->newest.sequence;
    pthread_mutex_unlock(&in->r->lock);
    return in->store->ops->applied(in->store) == newest ||
           error_set(err, ERROR_STORE, "the newest point is not applied yet");
}

bool
replica_verify(struct incoming *in, struct error **err)
{
    struct exchange_end end;
    bool ok;

    if (!replica_store(in->daemon, in->r, &in->store, err) ||
        !replica_apply(in->daemon, in->r, &in->cancel, err))
        return false;
    replica_lock_tip(in->r);
    ok = tip_is_newest(in, err) && replica_send_ready(in, err) &&
         replica_receive(in, take_nothing, &end, err) && replica_check_end(in, &end, err);
    replica_unlock_tip(in->r);
    return ok && replica_send_ack(in, err);
}

bool
replica_check_ground(struct incoming *in, struct error **err)
{
    bool changed;

    bool grounds; /* what comes is a sync's, or makes it whole */

    pthread_mutex_lock(&in->r->lock);
    grounds = in->begin.kind == EXCHANGE_QUERY || in->begin.kind == EXCHANGE_SLICE ||
              (in->begin.kind == EXCHANGE_DELTA && in->r->sync.complete);
    pthread_mutex_unlock(&in->r->lock);
    if (!grounds)
        return true;
    return originals_check(in->daemon, in->r, &changed, err) &&
           (!changed || in->begin.kind == EXCHANGE_QUERY ||
            error_set(err, ERROR_WRONG_BASE,
                      "an image that the replica stands on was changed meanwhile"));
}
