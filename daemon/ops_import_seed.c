/*
 * import-seed: what a peer's new replica begins with is put into it, on the target. The
 * peer waits for it, and then has the disks compared. No arguments: replication.seed has
 * them. After a crash of the daemon it begins again; what is there is thrown away.
 */
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/ops.h"
#include "daemon/replica.h"
#include "daemon/seed.h"

struct import {
    struct op *op;
    struct replication *r;
    struct store *store;
    struct seed *seed;
    uint64_t before_bytes, total_bytes; /* of the disks before this one; of all */
};

/* --- progress -------------------------------------------------------------------------
 */

static void
tell(uint64_t done, uint64_t total UNUSED, void *opaque)
{
    struct import *m = opaque;
    uint64_t all = MIN(m->before_bytes + done, m->total_bytes);

    pthread_mutex_lock(&m->r->lock);
    json_set_u64(m->r->seed, "done", all);
    json_set_u64(m->r->seed, "total", m->total_bytes);
    pthread_mutex_unlock(&m->r->lock);
    op_transfer(m->op, all, m->total_bytes);
}

/* Media are read twice: once for their hashes. */
static uint64_t
work_of(const struct seed_part *part)
{
    return part->image.stored_bytes + (part->media != NULL ? part->media->file_bytes : 0);
}

/* --- the disks ------------------------------------------------------------------------
 */

/* Before anything of it is believed; what was read then is not in doubt. */
static bool
check_hash(struct import *m, const struct seed_part *part,
           const struct store_effort *effort, struct error **err)
{
    struct pace pace = { .effort = effort };

    if (part->media == NULL)
        return true;
    pace.total = part->media->file_bytes;
    if (!seed_media_check(part->image.fds[0], part->media, &pace, err))
        return false;
    m->before_bytes += part->media->file_bytes;
    return true;
}

static bool
take_part(struct import *m, const struct seed_part *part, struct error **err)
{
    const struct store_effort effort = { .rate_bytes_s =
                                             m->op->daemon->config->upkeep_rate_bytes,
                                         .cancel = &m->op->cancel,
                                         .progress = tell,
                                         .opaque = m };

    if (!check_hash(m, part, &effort, err) ||
        !m->store->ops->adopt(m->store, part->target, &part->image, &effort, err))
        return error_prefix(err, "the seed of disk '%s'", part->target);
    m->before_bytes += part->image.stored_bytes;
    return true;
}

static bool
check_room(struct import *m, struct error **err)
{
    const struct config_storage *storage =
        config_storage(m->op->daemon->config, m->r->storage);
    uint64_t used, free_bytes, needed = 0;
    char need[UNITS_TEXT_MAX], have[UNITS_TEXT_MAX];

    for (size_t i = 0; i < m->seed->n; i++)
        needed += m->seed->parts[i].image.stored_bytes;
    if (storage == NULL)
        return error_set(err, ERROR_STORAGE_NOT_FOUND, "this host has no storage '%s'",
                         m->r->storage);
    if (!m->store->ops->space(storage->path, &used, &free_bytes, err))
        return false;
    return free_bytes >= needed + storage->reserve_bytes ||
           error_set(err, ERROR_NO_SPACE,
                     "storage '%s' has %s free, but %s are needed for the seed and the "
                     "reserve",
                     storage->name, units_format_size(free_bytes, have),
                     units_format_size(needed + storage->reserve_bytes, need));
}

static bool
take_parts(struct import *m, struct error **err)
{
    AUTOFREE(struct store_disk) *disks = NULL;
    struct seed_wanted wanted = { .peer_id = m->r->peer_id,
                                  .vm_uuid = m->r->vm_uuid,
                                  .vm_name = m->r->vm_name,
                                  .request = json_object_or_null(m->r->seed, "request") };
    bool ok;

    if (!replica_store(m->op->daemon, m->r, &m->store, err) ||
        !m->store->ops->disks(m->store, &disks, &wanted.n_disks, err))
        return false;
    wanted.disks = disks;
    ok = seed_open(m->op->daemon, &wanted, &m->seed, err) && check_room(m, err);
    for (size_t i = 0; ok && i < m->seed->n; i++)
        m->total_bytes += work_of(&m->seed->parts[i]);
    for (size_t i = 0; ok && i < m->seed->n; i++)
        ok = take_part(m, &m->seed->parts[i], err);
    return ok;
}

/* --- the whole ------------------------------------------------------------------------
 */

/* Under r->lock. A sync that has begun has its own content in the disks. */
static bool
enter(struct import *m, struct error **err)
{
    struct replication *r = m->r;

    if (r->phase != PHASE_INITIAL_SYNC || r->sync.name[0] != '\0' ||
        r->newest.name[0] != '\0')
        return error_set(err, ERROR_INVALID_STATE,
                         "the first sync of VM '%s' has begun: it is too late for a seed",
                         r->vm_name);
    r->seeding = true;
    seed_set(r, "importing");
    return replication_store(m->op->daemon->replications, r, NULL, 0, err);
}

/* From here on the source may compare, or go on from the point that the seed is of. */
static bool
settle(struct import *m, struct error **err)
{
    struct replication *r = m->r;
    struct replication_sync none = { 0 };
    bool ok;

    pthread_mutex_lock(&r->lock);
    seed_set(r, "done");
    json_set_string(r->seed, "record", m->seed->record);
    json_set(r->seed, "warnings", json_object_get(m->seed->warnings));
    if (m->seed->record[0] != '\0') {
        r->sync = none;
        r->sync.started_ms = units_now_ms();
        r->sync.complete = true;
        snprintf(r->sync.name, sizeof r->sync.name, "%s", m->seed->record);
    }
    ok = replication_store(m->op->daemon->replications, r, NULL, 0, err);
    if (!ok) {
        r->sync = none;
        seed_set(r, "importing");
    }
    pthread_mutex_unlock(&r->lock);
    return ok;
}

static bool
import_claimed(struct import *m, struct error **err)
{
    bool ok, done;

    pthread_mutex_lock(&m->r->lock);
    done = seed_is(m->r, "done");
    ok = done || enter(m, err);
    pthread_mutex_unlock(&m->r->lock);
    if (done || !ok) /* done: in a run before the crash, or by another task */
        return ok;
    ok = take_parts(m, err) && settle(m, err);
    seed_free(m->seed);
    return ok;
}

static bool
import(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    struct import m = { .op = op };
    bool ok;

    if (!replications_find(op->daemon->replications, op->resource_id, &r, err) ||
        !replication_claim(r, &op->cancel, false, err))
        return false;
    m.r = r;
    ok = import_claimed(&m, err);
    replication_release(r);
    op->result = json_object_new_object();
    json_set_u64(op->result, "importedBytes", m.before_bytes);
    return ok;
}

/* The source hears it when it asks next. */
static void
ended(struct op *op, const struct error *failure)
{
    struct daemon *d = op->daemon;
    AUTOPTR(replication) *r = NULL;
    struct error *e = NULL;

    if (!replications_find(d->replications, op->resource_id, &r, NULL))
        return;
    pthread_mutex_lock(&r->lock);
    r->seeding = false;
    if (failure != NULL && !seed_is(r, "done")) {
        seed_set(r, "failed");
        json_set(r->seed, "error", json_from_error(failure));
        if (!replication_store(d->replications, r, NULL, 0, &e))
            log_ignore(&op->log, "seed-not-stored", &e);
    }
    pthread_mutex_unlock(&r->lock);
    if (failure == NULL)
        events_emit(d, EVENT_INFO, &op->log, "seed-imported",
                    "the replica of VM '%s' begins with a seed: what differs will be "
                    "sent",
                    op->log.vm);
}

/* clang-format off */
static const struct op_step steps[] = {
    /* name      run     undo  timeout_s  commits */
    { "import",  import, NULL, 0,         false },
    { 0 },
};
/* clang-format on */

const struct op_kind op_import_seed = { .name = "import-seed",
                                        .company = OP_BESIDE,
                                        .result_type = "seed",
                                        .steps = steps,
                                        .ended = ended };
