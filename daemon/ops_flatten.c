/*
 * flatten: a VM's disks that lie in a replica's folder become one image each while it
 * runs, and all else in the folder goes. In the background, begun by flatten.c.
 *
 * data: {vmId, folder, before}: before, folders of earlier failovers to this host, in
 * which images may be that the VM stands on. What there is to do is found out anew from
 * the domain and the headers of its images each time: the job of a disk outlives virtdrd,
 * and what QEMU or libvirtd took along with them is begun again. A chain that begins in
 * one of the folders and goes on outside of that stands on an original image, and is
 * written into it.
 */
#include <libgen.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/flatten.h"
#include "daemon/images_used.h"
#include "daemon/ops.h"
#include "daemon/scheduler.h"
#include "drivers/hypervisor.h"
#include "drivers/store/backing.h"

#define LOOK_MS 300
#define TRIES   3 /* of one disk: each time its job ended without having been done */
#define TURN_MS \
    4000 /* at most at work, half of the RPO, before cycles have their turn, */
#define PAUSE_MS 1000 /* and then so long, or until a cycle has ended */

/* One disk that has work. */
struct disk {
    char *target;
    char **chain; /* its images, the active one first */
    size_t n_chain;
    size_t n_inside; /* of them, in the active one's folder */
    uint64_t capacity_bytes;
};

struct work {
    struct op *op;
    struct hv_domain *domain;
    char **folders; /* real */
    size_t n_folders;
    struct disk *disks;
    size_t n;
    uint64_t before_bytes, total_bytes;
};

/* --- what there is to do -------------------------------------------------------------
 */

static void
work_end(struct work *w)
{
    for (size_t i = 0; i < w->n; i++) {
        free(w->disks[i].target);
        backing_chain_free(w->disks[i].chain, w->disks[i].n_chain);
    }
    free(w->disks);
    for (size_t i = 0; i < w->n_folders; i++)
        free(w->folders[i]);
    free(w->folders);
    hv_domain_free(w->domain);
    *w = (struct work){ .op = NULL };
}

static bool
is_inside(const char *folder, const char *path)
{
    AUTOFREE(char) *whole = realpath(path, NULL);
    size_t n = strlen(folder);

    return whole != NULL && strncmp(whole, folder, n) == 0 && whole[n] == '/';
}

/* NULL: the image is in none of them. */
static const char *
folder_with(const struct work *w, const char *path)
{
    for (size_t i = 0; i < w->n_folders; i++)
        if (is_inside(w->folders[i], path))
            return w->folders[i];
    return NULL;
}

/* The one that its images stand on, outside of their folder; NULL: none. */
static const char *
base_of(const struct disk *d)
{
    return d->n_inside < d->n_chain ? d->chain[d->n_inside] : NULL;
}

static bool
add_disk(struct work *w, const struct hv_disk *from, struct error **err)
{
    struct disk d = { .capacity_bytes = from->capacity_bytes };
    const char *folder = NULL;

    if (from->path != NULL && !from->removable)
        folder = folder_with(w, from->path);
    if (folder == NULL)
        return true;
    if (!backing_chain(from->path, &d.chain, &d.n_chain, err))
        return error_prefix(err, "disk '%s'", from->target);
    while (d.n_inside < d.n_chain && is_inside(folder, d.chain[d.n_inside]))
        d.n_inside++;
    d.target = mem_strdup(from->target);
    w->disks = mem_realloc(w->disks, w->n + 1, sizeof *w->disks);
    w->disks[w->n++] = d;
    return true;
}

/* One that is gone has nothing to do: an earlier run has removed the last of it. */
static void
add_folder(struct work *w, const char *path)
{
    char *whole = realpath(path, NULL);

    if (whole == NULL)
        return;
    w->folders = mem_realloc(w->folders, w->n_folders + 1, sizeof *w->folders);
    w->folders[w->n_folders++] = whole;
}

static void
add_folders(struct work *w, struct json_object *data)
{
    struct json_object *before = json_array_or_null(data, "before");

    add_folder(w, json_string_or(data, "folder", ""));
    for (size_t i = 0; before != NULL && i < json_object_array_length(before); i++)
        add_folder(w, json_object_get_string(json_object_array_get_idx(before, i)));
}

static bool
work_begin(struct op *op, struct work *ret, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    struct work w = { .op = op };
    bool ok = hv->ops->lookup(hv, json_string_or(op->data, "vmId", ""), &w.domain, err);

    add_folders(&w, op->data);
    for (size_t i = 0; ok && i < w.domain->n_disks; i++)
        ok = add_disk(&w, &w.domain->disks[i], err);
    if (ok)
        *ret = w;
    else
        work_end(&w);
    return ok;
}

static bool
is_done(const struct disk *d)
{
    return d->n_chain == 1;
}

static bool
check_running(const struct work *w, struct error **err)
{
    return w->domain->state != HV_STATE_OFF ||
           error_set(err, ERROR_INVALID_STATE,
                     "VM '%s' is off; its disks are made one image when it runs",
                     w->domain->name);
}

/* --- check-space ---------------------------------------------------------------------
 */

static uint64_t
allocated(const char *path)
{
    struct stat st;

    return stat(path, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
}

/* At most: what several images have of the same place counts for each. */
static uint64_t
needed_by(const struct disk *d)
{
    size_t first = base_of(d) != NULL ? 0 : 1; /* written down, or pulled up */
    uint64_t bytes = 0;

    for (size_t i = first; i < d->n_inside; i++)
        bytes += allocated(d->chain[i]);
    return d->capacity_bytes > 0 ? MIN(bytes, d->capacity_bytes) : bytes;
}

static uint64_t
reserve_at(const struct daemon *d, const char *folder)
{
    for (size_t i = 0; i < d->config->n_storages; i++) {
        const struct config_storage *s = &d->config->storages[i];
        size_t n = strlen(s->path);

        if (strncmp(folder, s->path, n) == 0 && (folder[n] == '/' || folder[n] == '\0'))
            return s->reserve_bytes;
    }
    return 0;
}

static bool
check_room(struct op *op, const char *image, uint64_t needed, struct error **err)
{
    AUTOFREE(char) *copy = mem_strdup(image);
    const char *folder = dirname(copy);
    char need[UNITS_TEXT_MAX], have[UNITS_TEXT_MAX];
    struct statvfs fs;
    struct stat st;
    uint64_t free_bytes;

    if (stat(image, &st) == 0 && S_ISBLK(st.st_mode)) /* has all that it will ever take */
        return true;
    if (statvfs(folder, &fs) < 0)
        return error_errno(err, ERROR_STORE, "look at '%s'", folder);
    needed += reserve_at(op->daemon, folder);
    free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    return free_bytes >= needed ||
           error_set(err, ERROR_NO_SPACE,
                     "'%s' has %s free, but %s are needed to make the disks one image, "
                     "the reserve included; it is tried again by itself",
                     folder, units_format_size(free_bytes, have),
                     units_format_size(needed, need));
}

/* Pulled up, all disks come to lie in the folder; each of the others is on its own. */
static bool
check_all_room(struct work *w, struct error **err)
{
    uint64_t inside = 0;
    size_t last = w->n;

    for (size_t i = 0; i < w->n; i++) {
        struct disk *d = &w->disks[i];
        const char *base = base_of(d);

        if (is_done(d))
            continue;
        if (base != NULL && !check_room(w->op, base, needed_by(d), err))
            return false;
        if (base != NULL)
            continue;
        inside += needed_by(d);
        last = i;
    }
    return last == w->n || check_room(w->op, w->disks[last].chain[0], inside, err);
}

static bool
check_space(struct op *op, struct error **err)
{
    struct work w;
    bool ok;

    if (!work_begin(op, &w, err))
        return false;
    ok = check_all_room(&w, err);
    work_end(&w);
    return ok;
}

/* --- flatten -------------------------------------------------------------------------
 */

/*
 * libvirt begins no backup of a disk that has a job. So where the VM is replicated from
 * here already, cycles and the job take turns: whoever works has the claim.
 */
struct turn {
    struct replication *r; /* NULL: nobody captures it */
    struct cancel stop;    /* somebody wants the claim */
    bool mine;
    int64_t since_ms, length_ms;
};

static void
turn_find(struct op *op, struct turn *ret)
{
    AUTOPTR(replication) *r = NULL;
    bool captured;

    *ret = (struct turn){ .r = NULL };
    ret->stop.above = &op->cancel;
    if (!replications_find(op->daemon->replications, op->resource_id, &r, NULL))
        return;
    pthread_mutex_lock(&r->lock);
    captured = r->side == SIDE_SOURCE && states_is_protecting(r->phase);
    ret->length_ms = MIN(r->rpo_ms / 2, TURN_MS);
    pthread_mutex_unlock(&r->lock);
    if (captured)
        ret->r = TAKE(r);
}

static bool
turn_take(struct turn *t, struct op *op, struct error **err)
{
    if (t->r == NULL || t->mine)
        return true;
    t->since_ms = units_monotonic_ms();
    t->mine = replication_claim_for(t->r, &t->stop, &op->cancel, err);
    return t->mine;
}

static void
turn_give(struct turn *t, struct op *op)
{
    if (!t->mine)
        return;
    t->mine = false;
    atomic_store(&t->stop.requested, false);
    replication_release(t->r);
    scheduler_wake(op->daemon->scheduler, t->r);
}

/* The direction may have changed since the job began. */
static bool
turn_join(struct turn *t, struct op *op, struct error **err)
{
    if (t->r == NULL)
        turn_find(op, t);
    return turn_take(t, op, err);
}

static bool
turn_is_over(struct turn *t)
{
    return t->mine && (units_monotonic_ms() - t->since_ms > t->length_ms ||
                       !cancel_check(&t->stop, NULL));
}

static void
turn_end(struct turn *t, struct op *op)
{
    turn_give(t, op);
    replication_unref(t->r);
}

static bool
rest(struct op *op, int ms, struct error **err)
{
    poll(NULL, 0, cancel_remaining_ms(&op->cancel, ms));
    return cancel_check(&op->cancel, err);
}

static struct hv_block_disk
block_disk(const struct work *w, const struct disk *d)
{
    return (struct hv_block_disk){ w->domain->uuid, d->target,
                                   w->op->daemon->config->upkeep_rate_bytes };
}

static void
show(const struct work *w, const struct disk *d, const struct hv_block_job *job)
{
    uint64_t size = d->capacity_bytes > 0 ? d->capacity_bytes : job->total;
    double part = job->total > 0 ? (double)job->done / (double)job->total : 0;
    uint64_t done = w->before_bytes + (uint64_t)((double)size * part);

    op_transfer(w->op, MIN(done, w->total_bytes), w->total_bytes);
}

static bool
try_begin(struct work *w, const struct disk *d, struct error **err)
{
    struct hypervisor *hv = w->op->daemon->hypervisor;
    struct hv_block_disk disk = block_disk(w, d);

    return base_of(d) != NULL ? hv->ops->begin_merge_down(hv, &disk, base_of(d), err)
                              : hv->ops->begin_flatten(hv, &disk, err);
}

/* Another job may be in the way: a cycle's backup, or an administrator's. */
static bool
begin_job(struct work *w, const struct disk *d, struct error **err)
{
    struct error *e = NULL;

    while (!try_begin(w, d, &e)) {
        if (!error_is(e, ERROR_IN_PROGRESS))
            return error_propagate(err, e);
        error_clear(&e);
        if (!rest(w->op, PAUSE_MS, err))
            return false;
    }
    return true;
}

/* What was pulled up stays; a merge has its way to the end, or it would never come to it.
 */
static bool
let_cycles_go(struct work *w, const struct disk *d, struct turn *t,
              const struct hv_block_job *job, struct error **err)
{
    struct hypervisor *hv = w->op->daemon->hypervisor;
    struct hv_block_disk disk = block_disk(w, d);

    if (job->kind != HV_BLOCK_JOB_FLATTEN || !turn_is_over(t))
        return true;
    if (!hv->ops->abort_block_job(hv, &disk, err))
        return false;
    turn_give(t, w->op);
    return rest(w->op, PAUSE_MS, err) && turn_take(t, w->op, err) && begin_job(w, d, err);
}

/* All was written once, and what the guest has written since keeps it from its end: with
   the limit it might never come to it. */
static bool
hurry_at_the_end(struct work *w, const struct hv_block_disk *disk,
                 const struct hv_block_job *job, uint64_t *first_bytes,
                 struct error **err)
{
    struct hypervisor *hv = w->op->daemon->hypervisor;

    if (job->kind != HV_BLOCK_JOB_MERGE_DOWN || disk->rate_bytes_s == 0)
        return true;
    if (*first_bytes == 0)
        *first_bytes = job->total;
    return *first_bytes == 0 || job->done < *first_bytes ||
           hv->ops->hurry_block_job(hv, disk, err);
}

/* Until the disk has no job any more. */
static bool
await_job(struct work *w, const struct disk *d, struct turn *t, struct error **err)
{
    struct hypervisor *hv = w->op->daemon->hypervisor;
    struct hv_block_disk disk = block_disk(w, d);
    struct hv_block_job job = { .kind = HV_BLOCK_JOB_NONE };
    uint64_t first_bytes = 0;

    do {
        if (!hv->ops->block_job(hv, &disk, &job, err))
            return false;
        if (job.ready)
            return hv->ops->finish_merge_down(hv, &disk, err);
        if (job.kind == HV_BLOCK_JOB_NONE)
            return true;
        show(w, d, &job);
        if (!hurry_at_the_end(w, &disk, &job, &first_bytes, err))
            return false;
        if (!rest(w->op, LOOK_MS, err) || !turn_join(t, w->op, err) ||
            !let_cycles_go(w, d, t, &job, err))
            return false;
    } while (true);
}

/* *ret_job: is there one already, of an earlier run? */
static bool
has_job(struct work *w, const struct disk *d, bool *ret_job, struct error **err)
{
    struct hypervisor *hv = w->op->daemon->hypervisor;
    struct hv_block_disk disk = block_disk(w, d);
    struct hv_block_job job = { .kind = HV_BLOCK_JOB_NONE };

    if (!hv->ops->block_job(hv, &disk, &job, err))
        return false;
    *ret_job = job.kind != HV_BLOCK_JOB_NONE;
    return true;
}

static bool
flush_disk(const struct work *w, const struct disk *d, struct error **err)
{
    struct hypervisor *hv = w->op->daemon->hypervisor;
    struct hv_block_disk disk = block_disk(w, d);

    return hv->ops->flush(hv, &disk, err);
}

/* One job; what has come of it is looked at anew. At once it is made sure that QEMU's
   death cannot take it along. */
static bool
work_on_disk(struct work *w, const struct disk *d, struct error **err)
{
    struct turn turn;
    bool busy = false, ok;

    turn_find(w->op, &turn);
    ok = turn_take(&turn, w->op, err) && has_job(w, d, &busy, err) &&
         (busy || begin_job(w, d, err)) && await_job(w, d, &turn, err) &&
         flush_disk(w, d, err);
    turn_end(&turn, w->op);
    return ok;
}

/* The first disk with work; NULL: none. Sums up all of them. */
static const struct disk *
next_disk(struct work *w)
{
    const struct disk *next = NULL;

    for (size_t i = 0; i < w->n; i++) {
        w->total_bytes += w->disks[i].capacity_bytes;
        if (is_done(&w->disks[i]))
            w->before_bytes += w->disks[i].capacity_bytes;
        else if (next == NULL)
            next = &w->disks[i];
    }
    return next;
}

/* *ret_more: there was something to do, and may be. */
static bool
work_once(struct op *op, char **last, unsigned *tries, bool *ret_more, struct error **err)
{
    const struct disk *d;
    struct work w;
    bool ok = true;

    if (!work_begin(op, &w, err))
        return false;
    d = next_disk(&w);
    *ret_more = d != NULL;
    if (d != NULL) {
        *tries = *last != NULL && strcmp(*last, d->target) == 0 ? *tries + 1 : 1;
        mem_setstr(last, d->target);
        ok = *tries <= TRIES ||
             error_set(err, ERROR_HYPERVISOR, "the job ended, but it is not one image");
        ok = ok && check_running(&w, err) && work_on_disk(&w, d, err);
        if (!ok)
            error_prefix(err, "disk '%s'", d->target);
    }
    work_end(&w);
    return ok;
}

static bool
flatten(struct op *op, struct error **err)
{
    AUTOFREE(char) *last = NULL;
    unsigned tries = 0;
    bool more = true;

    while (more)
        if (!work_once(op, &last, &tries, &more, err))
            return false;
    return true;
}

/* Cancelled, or failed: nothing goes on behind the operator's back. */
static bool
stop_jobs(struct op *op, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    struct work w;
    bool ok = true;

    if (!work_begin(op, &w, err))
        return false;
    for (size_t i = 0; ok && w.domain->state != HV_STATE_OFF && i < w.n; i++) {
        struct hv_block_disk disk = block_disk(&w, &w.disks[i]);
        struct hv_block_job job = { .kind = HV_BLOCK_JOB_NONE };

        ok = hv->ops->block_job(hv, &disk, &job, err) &&
             ((job.kind != HV_BLOCK_JOB_FLATTEN && job.kind != HV_BLOCK_JOB_MERGE_DOWN) ||
              hv->ops->abort_block_job(hv, &disk, err));
    }
    work_end(&w);
    return ok;
}

/* --- remove-rest ---------------------------------------------------------------------
 */

static bool
is_one_image(const struct work *w, struct error **err)
{
    for (size_t i = 0; i < w->n; i++)
        if (!is_done(&w->disks[i]))
            return error_set(err, ERROR_INVALID_STATE,
                             "disk '%s' of VM '%s' stands on '%s'", w->disks[i].target,
                             w->domain->name, w->disks[i].chain[1]);
    return true;
}

/* A job may have ended while nobody looked; and of a VM that is off nobody knows how its
   process ended. */
static bool
is_durable(const struct work *w, struct error **err)
{
    if (!check_running(w, err))
        return false;
    for (size_t i = 0; i < w->n; i++)
        if (!flush_disk(w, &w->disks[i], err))
            return error_prefix(err, "disk '%s'", w->disks[i].target);
    return true;
}

/* An earlier failover's images may be below the VM's own. */
static bool
remove_but_own(const struct work *w, struct error **err)
{
    struct images_used used = { .n = 0 };
    bool ok = images_used_by_domain(&used, w->domain, err);

    for (size_t i = 0; ok && i < w->n_folders; i++)
        ok = images_used_remove_others(&used, w->folders[i], err);
    images_used_clear(&used);
    return ok;
}

static bool
remove_rest(struct op *op, struct error **err)
{
    struct work w;
    bool ok;

    if (!work_begin(op, &w, err))
        return false;
    ok = is_one_image(&w, err) && is_durable(&w, err) && remove_but_own(&w, err);
    work_end(&w);
    return ok;
}

/* --- its end -------------------------------------------------------------------------
 */

static bool
forget(struct op *op, struct error **err)
{
    struct state_write write = { .kind = FLATTEN_KIND,
                                 .id = json_string_or(op->data, "vmId", "") };

    if (!op->daemon->state->ops->commit(op->daemon->state, &write, 1, err))
        return false;
    op->result = json_object_new_object();
    json_set_string(op->result, "vmName", op->log.vm);
    json_set_string(op->result, "folder", json_string_or(op->data, "folder", ""));
    return true;
}

/* So that it is not begun again at once. */
static void
note_failure(struct op *op, const struct error *failure)
{
    struct state *state = op->daemon->state;
    const char *vm = json_string_or(op->data, "vmId", "");
    AUTOPTR(error) *e = NULL;
    AUTOJSON *doc = NULL;
    struct state_write write = { .kind = FLATTEN_KIND, .id = vm };

    if (!state->ops->get(state, FLATTEN_KIND, vm, &doc, &e))
        return;

    /* A VM that went off, or a libvirtd, comes back and says so. */
    json_set_int(doc, "failed",
                 error_is(failure, ERROR_INVALID_STATE) ||
                         error_is(failure, ERROR_CONNECT)
                     ? 0
                     : units_now_ms());
    write.body = doc;
    if (!state->ops->commit(state, &write, 1, &e))
        log_ignore(&op->log, "flatten-failure-not-stored", &e);
    events_emit(op->daemon, EVENT_WARNING, &op->log, "flatten-failed",
                "the disks of VM '%s' could not be made one image: %s", op->log.vm,
                error_message(failure));
}

static void
ended(struct op *op, const struct error *failure)
{
    if (failure != NULL)
        note_failure(op, failure);
    else
        events_emit(op->daemon, EVENT_INFO, &op->log, "flattened",
                    "the disks of VM '%s' are one image each; what was left of its "
                    "replica is removed",
                    op->log.vm);
}

/* clang-format off */
static const struct op_step steps[] = {
    /* name              run          undo       timeout_s  commits */
    { "check-space",     check_space, NULL,      60,        false },
    { "flatten",         flatten,     stop_jobs, 0,         false },
    { "remove-rest",     remove_rest, NULL,      600,       false },
    { "forget",          forget,      NULL,      30,        false },
    { 0 },
};
/* clang-format on */

const struct op_kind op_flatten = { .name = "flatten",
                                    .company = OP_BESIDE,
                                    .result_type = "flatten",
                                    .steps = steps,
                                    .ended = ended };
