/* The new target's part: what its old images are, measured by the point of the fork. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "daemon/divergence.h"
#include "daemon/imprint.h"
#include "daemon/originals.h"
#include "drivers/capture/generation.h"

#define MOST_BYTES  (256ull << 20) /* of changes: they are read to find them */
#define MOST_PLACES 4096           /* that are told, of all disks */
#define MOST_FOUND  65536          /* before those near each other become one */
#define NEAR_BYTES  (64ull << 10)
#define FAR_BYTES   (1ull << 20)
#define TIMEOUT_MS  30000 /* the other host waits for the answer */

/* --- when it leaves the source's side --------------------------------------------- */

/* It comes from outside; names that are none of ours are no names. */
static struct json_object *
known_fork(struct json_object *fork)
{
    const char *const keys[] = { "point", "record" };
    struct json_object *o = json_object_new_object();

    for (size_t i = 0; i < N_ELEMENTS(keys); i++) {
        const char *name = json_string_or(fork, keys[i], "");

        if (strncmp(name, CAPTURE_NAME_PREFIX, strlen(CAPTURE_NAME_PREFIX)) != 0 ||
            strlen(name) > CAPTURE_NAME_MAX) {
            json_object_put(o);
            return NULL;
        }
        json_set_string(o, keys[i], name);
    }
    return o;
}

struct json_object *
divergence_leave(const struct replication *r, struct json_object *fork)
{
    struct json_object *o = json_object_new_object();
    struct json_object *disks = json_object_new_array();

    for (size_t i = 0; i < json_object_array_length(r->disks); i++) {
        struct json_object *disk = json_object_array_get_idx(r->disks, i), *copy;

        if (json_bool_or(disk, "excluded", true))
            continue;
        copy = json_object_new_object();
        json_set_string(copy, "target", json_string_or(disk, "target", ""));
        json_set_int(copy, "capacity", json_int_or(disk, "capacity", 0));
        json_set_int(copy, "generation", json_int_or(disk, "generation", 0));
        json_object_array_add(disks, copy);
    }
    json_set_string(o, "point", r->newest.name);
    json_set_string(o, "pending", r->pending.name);
    json_set_string(o, "record", replication_record(&r->newest));
    json_set_bool(o, "captured", r->newest.generation != 0); /* while it was off */
    json_set(o, "disks", disks);
    json_set(o, "fork", known_fork(fork));
    return o;
}

/* --- judging ---------------------------------------------------------------------- */

struct place {
    uint64_t offset, end;
};

struct judgement {
    struct daemon *daemon;
    struct replication *r;
    struct json_object *left; /* as divergence_leave() wrote it */
    struct hv_domain *domain;
    struct store_disk *disks;
    struct capture_disk captured[WIRE_MAX_DISKS];
    uint64_t now[WIRE_MAX_DISKS], then[WIRE_MAX_DISKS]; /* generations */
    size_t n;
    struct place *places[WIRE_MAX_DISKS];
    size_t n_places[WIRE_MAX_DISKS], n_found;
    uint64_t bytes;
};

static bool
is_point(const struct judgement *j, const char *key)
{
    const char *mine = json_string_or(j->left, key, "");
    struct json_object *fork = json_object_or_null(j->left, "fork");

    return mine[0] != '\0' && strcmp(mine, json_string_or(fork, "point", "")) == 0;
}

static struct json_object *
find_left(const struct judgement *j, const char *target)
{
    struct json_object *disks = json_array_or_null(j->left, "disks");

    for (size_t i = 0; disks != NULL && i < json_object_array_length(disks); i++) {
        struct json_object *disk = json_object_array_get_idx(disks, i);

        if (strcmp(json_string_or(disk, "target", ""), target) == 0)
            return disk;
    }
    return NULL;
}

static const char *
path_of(const struct judgement *j, const char *target)
{
    for (size_t i = 0; i < j->domain->n_disks; i++)
        if (strcmp(j->domain->disks[i].target, target) == 0)
            return j->domain->disks[i].path;
    return NULL;
}

/* Each disk of the replica is one that the VM had here, as long as it was. */
static bool
look_at_disk(struct judgement *j, size_t i, struct error **err)
{
    const struct store_disk *disk = &j->disks[i];
    struct json_object *left = find_left(j, disk->target);
    const char *path = path_of(j, disk->target);

    if (left == NULL || path == NULL)
        return error_set(err, ERROR_INVALID_STATE,
                         "disk '%s' was not replicated from there", disk->target);
    if ((uint64_t)json_int_or(left, "capacity", 0) != disk->capacity_bytes)
        return error_set(err, ERROR_INVALID_STATE, "disk '%s' was resized", disk->target);
    j->captured[i].target = disk->target;
    j->then[i] = (uint64_t)json_int_or(left, "generation", 0);
    return generation_of(&path, 1, &j->now[i], err);
}

static bool
look_at_disks(struct judgement *j, struct error **err)
{
    struct hypervisor *hv = j->daemon->hypervisor;
    struct store *store;

    if (!replica_store(j->daemon, j->r, &store, err) ||
        !store->ops->disks(store, &j->disks, &j->n, err) ||
        !hv->ops->lookup(hv, j->r->vm_uuid, &j->domain, err))
        return false;
    for (size_t i = 0; i < j->n; i++)
        if (!look_at_disk(j, i, err))
            return false;
    return true;
}

/* Captured while the VM was off, and as they were then: they are that point. */
static bool
are_the_point(const struct judgement *j)
{
    if (!is_point(j, "point") || !json_bool_or(j->left, "captured", false))
        return false;
    for (size_t i = 0; i < j->n; i++)
        if (j->then[i] == 0 || j->now[i] != j->then[i])
            return false;
    return true;
}

/* Nobody but the VM has written to them: what it left is known, and still there. */
static bool
check_untouched(const struct judgement *j, struct error **err)
{
    const char *folder = j->daemon->guard.records;
    struct imprint left = { .n = 0 }, changed = { .n = 0 };

    imprint_read(folder, j->r->vm_uuid, &left);
    imprint_changed(folder, j->r->vm_uuid, &changed);
    for (size_t i = 0; i < j->n; i++) {
        const char *target = j->disks[i].target;
        bool same = j->now[i] == imprint_of(&left, target) ||
                    (j->then[i] != 0 && j->now[i] == j->then[i]);

        if (!same || imprint_of(&changed, target) != 0)
            return error_set(err, ERROR_CHECKPOINT_LOST,
                             "the image of disk '%s' is not as the VM has left it, or "
                             "nobody knows how that was",
                             target);
    }
    return true;
}

/* --- where they were changed ------------------------------------------------------ */

static bool
add_place(struct judgement *j, size_t disk, uint64_t offset, uint64_t length,
          struct error **err)
{
    if (j->n_found++ == MOST_FOUND)
        return error_set(err, ERROR_CHECKPOINT_LOST,
                         "the VM has written in too many places there");
    j->places[disk] =
        mem_realloc(j->places[disk], j->n_places[disk] + 1, sizeof *j->places[disk]);
    j->places[disk][j->n_places[disk]++] = (struct place){ offset, offset + length };
    return true;
}

static bool
take_data(void *opaque, size_t disk, uint64_t offset, const void *data UNUSED,
          size_t length, struct error **err)
{
    struct judgement *j = opaque;

    j->bytes += length;
    if (j->bytes > MOST_BYTES)
        return error_set(err, ERROR_CHECKPOINT_LOST, "the VM has written too much there");
    return add_place(j, disk, offset, length, err);
}

static bool
take_zero(void *opaque, size_t disk, uint64_t offset, uint64_t length, struct error **err)
{
    return add_place(opaque, disk, offset, length, err);
}

/* By the VM's own record, since before the point. That is looked for in the images, which
   are opened read-only. */
static bool
read_record(struct judgement *j, struct error **err)
{
    struct capture_driver *offline = j->daemon->captures[CAPTURE_OFFLINE];
    const struct capture_sink sink = { .data = take_data,
                                       .zero = take_zero,
                                       .opaque = j };
    struct cancel patience = { 0 };
    const struct capture_request request = {
        .uuid = j->r->vm_uuid,
        .disks = j->captured,
        .n_disks = j->n,
        .base = json_string_or(j->left, "record", ""),
        .scratch_folder = j->daemon->config->scratch_folder,
        .scratch_limit_bytes = j->daemon->config->scratch_limit_bytes,
        .cancel = &patience,
    };
    struct capture *c;
    int64_t time_ms;
    bool ok = true;

    cancel_set_timeout(&patience, TIMEOUT_MS);
    if (request.base[0] == '\0')
        return error_set(err, ERROR_CHECKPOINT_LOST, "there is no record there");
    if (!offline->ops->begin(offline, &request, &c, &time_ms, err))
        return false;
    for (size_t i = 0; ok && i < j->n; i++)
        ok = offline->ops->read(c, i, 0, j->disks[i].capacity_bytes, &sink, err);
    return offline->ops->end(c, ok ? err : NULL) && ok;
}

static int
by_offset(const void *a, const void *b)
{
    uint64_t x = ((const struct place *)a)->offset, y = ((const struct place *)b)->offset;

    return (x > y) - (x < y);
}

/* A few bytes more that are equal do no harm. */
static size_t
join(struct place *places, size_t n, uint64_t near_bytes)
{
    size_t to = 0;

    for (size_t i = 1; i < n; i++)
        if (places[i].offset <= places[to].end + near_bytes)
            places[to].end = MAX(places[to].end, places[i].end);
        else
            places[++to] = places[i];
    return n > 0 ? to + 1 : 0;
}

static bool
join_all(struct judgement *j, struct error **err)
{
    size_t total;

    for (size_t i = 0; i < j->n; i++)
        if (j->n_places[i] > 0)
            qsort(j->places[i], j->n_places[i], sizeof *j->places[i], by_offset);
    for (uint64_t near = NEAR_BYTES; near <= FAR_BYTES; near *= 2) {
        total = 0;
        for (size_t i = 0; i < j->n; i++) {
            j->n_places[i] = join(j->places[i], j->n_places[i], near);
            total += j->n_places[i];
        }
        if (total <= MOST_PLACES)
            return true;
    }
    return error_set(err, ERROR_CHECKPOINT_LOST,
                     "the VM has written in too many places there");
}

static struct json_object *
extents_json(const struct judgement *j)
{
    struct json_object *o = json_object_new_object();

    for (size_t i = 0; i < j->n; i++) {
        struct json_object *list = json_object_new_array();

        for (size_t k = 0; k < j->n_places[i]; k++) {
            const struct place *p = &j->places[i][k];

            json_object_array_add(list, json_object_new_int64((int64_t)p->offset));
            json_object_array_add(list,
                                  json_object_new_int64((int64_t)(p->end - p->offset)));
        }
        json_set(o, j->disks[i].target, list);
    }
    return o;
}

/* --- the answer ------------------------------------------------------------------- */

static bool
judge(struct judgement *j, struct json_object *answer, struct error **err)
{
    struct json_object *fork = json_object_or_null(j->left, "fork");

    if (fork == NULL)
        return error_set(err, ERROR_CHECKPOINT_LOST,
                         "there is no record of what the VM has written since the "
                         "failover");
    if (!is_point(j, "point") && !is_point(j, "pending"))
        return error_set(err, ERROR_CHECKPOINT_LOST,
                         "the failover was not to the last point that the old source "
                         "has shipped");
    if (!look_at_disks(j, err))
        return false;
    json_set_bool(answer, "known", true);
    json_set_string(answer, "record", json_string_or(fork, "record", ""));
    if (are_the_point(j)) {
        json_set_string(answer, "reason",
                        "the old disks are the point that the VM forked from");
        return true;
    }
    if (!check_untouched(j, err) || !read_record(j, err) || !join_all(j, err))
        return false;
    json_set(answer, "extents", extents_json(j));
    json_set_u64(answer, "changed", j->bytes);
    json_set_string(answer, "reason",
                    "the VM was ended cleanly on its old host, which knows what it had "
                    "written there and not shipped");
    return true;
}

/* A late answer to an earlier question changes nothing of what is under way. Under
   r->lock. */
static bool
is_fresh(const struct replication *r, const char *record)
{
    return r->side == SIDE_TARGET && r->phase == PHASE_RESYNCING && !r->removed &&
           r->newest.sequence == ORIGINALS_SEQUENCE && r->newest.name[0] != '\0' &&
           (r->sync.name[0] == '\0' ||
            (record[0] != '\0' && strcmp(r->sync.name, record) == 0));
}

static bool
complete(struct judgement *j, const char *record, struct error **err)
{
    struct replication *r = j->r;
    struct replication_sync before = r->sync;
    bool ok;

    pthread_mutex_lock(&r->lock);
    ok = is_fresh(r, record) || error_set(err, ERROR_INVALID_STATE, "it has begun");
    if (ok) {
        r->sync = (struct replication_sync){ .started_ms = r->newest.time_ms,
                                             .complete = true };
        snprintf(r->sync.name, sizeof r->sync.name, "%s", record);
        ok = replication_store(j->daemon->replications, r, NULL, 0, err);
        if (!ok)
            r->sync = before;
    }
    pthread_mutex_unlock(&r->lock);
    return ok;
}

static void
clear(struct judgement *j)
{
    for (size_t i = 0; i < WIRE_MAX_DISKS; i++)
        free(j->places[i]);
    free(j->disks);
    hv_domain_free(j->domain);
    json_object_put(j->left);
}

struct json_object *
divergence_settle(struct daemon *d, struct replication *r)
{
    struct judgement j = { .daemon = d, .r = r };
    struct json_object *answer = json_object_new_object();
    struct log_ctx log = replication_log(r);
    struct error *e = NULL;
    bool fresh;

    pthread_mutex_lock(&r->lock);
    json_object_deep_copy(json_object_or_null(r->formerly, "left"), &j.left, NULL);
    fresh =
        is_fresh(r, json_string_or(json_object_or_null(j.left, "fork"), "record", ""));
    pthread_mutex_unlock(&r->lock);
    if (!fresh)
        json_set_string(answer, "reason",
                        "the target does not have all of the VM's old disks");
    else if (!judge(&j, answer, &e) ||
             !complete(&j, json_string_or(answer, "record", ""), &e)) {
        json_object_put(answer);
        answer = json_object_new_object();
        json_set_string(answer, "reason", error_message(e));
        error_free(e);
    }
    log_info(&log, "divergence", "%s: %s",
             json_bool_or(answer, "known", false) ? "only what is recorded is to come"
                                                  : "the old disks are compared",
             json_string_or(answer, "reason", ""));
    clear(&j);
    return answer;
}
