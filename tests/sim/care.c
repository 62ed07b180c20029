#include "tests/sim/care.h"

#include <unistd.h>

#include "common/json.h"
#include "daemon/points.h"
#include "daemon/replica.h"
#include "tests/sim/files.h"

#define LOOKED_AT "clone-look"

struct notes {
    struct world_model now, shipped;
};

/* --- what was there -------------------------------------------------------------------
 */

void
care_note_idle(struct course *c)
{
    struct notes *notes = NEW(struct notes);

    world_model_take(c->world, &notes->shipped);
    world_model_take(c->world, &notes->now);
    c->noted = notes;
}

void
care_note(struct course *c)
{
    struct notes *notes = NEW(struct notes);

    world_model_take(c->world, &notes->shipped);
    world_guest_writes(c->world, 3);
    world_model_take(c->world, &notes->now);
    c->noted = notes;
}

const struct world_model *
care_now(const struct course *c)
{
    return &((const struct notes *)c->noted)->now;
}

const struct world_model *
care_shipped(const struct course *c)
{
    return &((const struct notes *)c->noted)->shipped;
}

void
care_forget(struct course *c)
{
    struct notes *notes = c->noted;

    world_model_free(&notes->now);
    world_model_free(&notes->shipped);
    free(notes);
}

/* --- before and behind ----------------------------------------------------------------
 */

void
care_do_plain(struct world *w, bool at_a, const char *kind)
{
    const struct tasks_request request = { .kind = kind,
                                           .resource_id = WORLD_REPLICA,
                                           .resource_name = "web01",
                                           .user = "test" };

    pair_do(w, at_a, &request);
}

/* --- points ---------------------------------------------------------------------------
 */

static struct point *
list_points(struct world *w, size_t *ret_n)
{
    AUTOPTR(replication) *r = world_replication(&w->target);
    struct points *points = NULL;
    struct error *err = NULL;

    assert_ok(replica_points(&w->target.d, r, &points, &err), err);
    return points_list(points, ret_n);
}

/* m NULL: any content. */
static void
look_at_point(struct world *w, uint64_t sequence, const struct world_model *m)
{
    AUTOPTR(replication) *r = world_replication(&w->target);
    const struct store_overlay wanted = { .id = LOOKED_AT, .seq = sequence };
    struct error *err = NULL;
    struct store *store;
    char **paths = NULL;
    size_t n = 0;

    assert_ok(replica_apply(&w->target.d, r, NULL, &err), err);
    replica_lock_tip(r);
    assert_ok(replica_store(&w->target.d, r, &store, &err), err);
    assert_ok(store->ops->overlay_create(store, &wanted, &paths, &n, &err), err);
    assert_int_equal(n, 1);
    if (m != NULL)
        world_check_image(w, paths[0], m, 0);
    assert_ok(store->ops->overlay_remove(store, LOOKED_AT, &err), err);
    replica_unlock_tip(r);
    free(paths[0]);
    free(paths);
}

void
care_check_point(struct world *w, uint64_t sequence, const struct world_model *m)
{
    look_at_point(w, sequence, m);
}

uint64_t
care_oldest_point(struct world *w)
{
    size_t n = 0;
    struct point *list = list_points(w, &n);
    uint64_t sequence;

    assert_true(n > 0);
    sequence = list[0].sequence;
    points_list_free(list, n);
    return sequence;
}

static void
check_points(struct world *w)
{
    size_t n = 0;
    struct point *list = list_points(w, &n);

    for (size_t i = 0; i < n; i++) {
        assert_false(list[i].damaged);
        look_at_point(w, list[i].sequence, NULL);
    }
    points_list_free(list, n);
}

/* --- protected or not -----------------------------------------------------------------
 */

static void
check_vm(struct world *w)
{
    struct hypervisor *hv = w->source.d.hypervisor;
    AUTOPTR(hv_domain) *domain = NULL;
    struct error *err = NULL;

    assert_ok(hv->ops->lookup(hv, WORLD_VM, &domain, &err), err);
    assert_int_equal(domain->state, HV_STATE_RUNNING);
    assert_false(pair_runs(w, false));
    assert_ok(guard_judge(&w->source.d.guard, WORLD_VM, &err), err);
}

static void
check_pair(struct world *w)
{
    AUTOPTR(replication) *a = world_replication(&w->source);
    AUTOPTR(replication) *b = world_replication(&w->target);
    struct error *err = NULL;

    check_vm(w);
    assert_int_equal(a->side, SIDE_SOURCE);
    assert_int_equal(b->side, SIDE_TARGET);
    assert_true(states_is_protecting(a->phase));
    assert_true(states_is_protecting(b->phase));
    assert_int_equal(a->epoch, b->epoch);
    assert_fails(guard_judge(&w->target.d.guard, WORLD_VM, &err), err, ERROR_GUARD);
}

void
care_is_protected(struct world *w)
{
    check_pair(w);
    check_points(w);
}

void
care_goes_on(struct world *w)
{
    check_pair(w);
    pair_goes_on(&w->source, &w->target);
    care_is_protected(w);
}

static void
has_no_replication(struct world_host *h)
{
    AUTOPTR(replication) *r = NULL;
    AUTOPTR(guard_record) *record = NULL;
    AUTOFREE(char) *folder = mem_printf("%s/storage/" WORLD_REPLICA, h->folder);

    assert_false(replications_find(h->d.replications, WORLD_REPLICA, &r, NULL));
    assert_false(guard_read(&h->d.guard, WORLD_VM, &record, NULL));
    assert_int_not_equal(access(folder, F_OK), 0);
}

void
care_is_unprotected(struct world *w)
{
    check_vm(w);
    has_no_replication(&w->source);
    has_no_replication(&w->target);
    assert_int_equal(fake_capture_points(w->source.capture), 0);
    assert_false(fake_capture_is_open(w->source.capture));
}
