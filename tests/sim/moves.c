#include "tests/sim/moves.h"

#include "common/json.h"

#define GUEST_PATIENCE_MS 1000

/* Taken before it begins. */
struct notes {
    /* What the VM has to have at each place, if it ends there. */
    struct world_model at[2];
    struct world_model shipped; /* of home's last point */
};

void
move_wish(struct world *w UNUSED, struct tasks_request *request)
{
    json_set_string(request->data, "shutdown", "graceful");
    json_set_int(request->data, "timeout", GUEST_PATIENCE_MS);
}

/* --- what must hold -------------------------------------------------------------------
 */

static enum place
place_of(struct world *w)
{
    bool a = pair_runs(w, true), b = pair_runs(w, false);

    return a && b ? ON_BOTH : a ? AT_A : b ? AT_B : NOWHERE;
}

static struct world_host *
host_at(struct world *w, enum place place)
{
    return place == AT_A ? &w->source : &w->target;
}

/* The VM's host is a source that replicates, or a target that took it over. */
static void
check_roles(const struct replication *has, const struct replication *other)
{
    assert_int_equal(has->epoch, other->epoch);
    if (has->side == SIDE_SOURCE) {
        assert_true(states_is_protecting(has->phase));
        assert_int_equal(other->side, SIDE_TARGET);
        assert_true(states_is_protecting(other->phase));
    } else {
        assert_true(states_owns_vm(has->phase));
        assert_int_equal(other->side, SIDE_SOURCE);
        assert_int_equal(other->phase, PHASE_SUPERSEDED);
    }
}

static bool
is_the_same(const struct world_model *a, const struct world_model *b)
{
    for (size_t i = 0; i < a->n; i++)
        if (i >= b->n || a->capacity_bytes[i] != b->capacity_bytes[i] ||
            memcmp(a->bytes[i], b->bytes[i], a->capacity_bytes[i]) != 0)
            return false;
    return a->n == b->n;
}

/* lost: as it was when the last writes were lost; NULL: they must not be. */
static void
check_content(struct world_host *h, const struct world_model *m,
              const struct world_model *lost)
{
    struct world_model now;

    world_model_take_at(h, &now);
    if (!is_the_same(&now, m) && (lost == NULL || !is_the_same(&now, lost)))
        fail_msg("the VM's disks are not as they were");
    world_model_free(&now);
}

/* Nor is it suspended. */
static void
check_domain(struct world_host *h)
{
    struct hypervisor *hv = h->d.hypervisor;
    AUTOPTR(hv_domain) *domain = NULL;
    struct error *err = NULL;

    assert_ok(hv->ops->lookup(hv, WORLD_VM, &domain, &err), err);
    assert_int_equal(domain->state, HV_STATE_RUNNING);
}

static void
check_settled(struct world *w, enum place place, const struct world_model *m,
              const struct world_model *lost)
{
    struct world_host *has = host_at(w, place);
    struct world_host *other = host_at(w, place == AT_A ? AT_B : AT_A);
    AUTOPTR(replication) *r = world_replication(has);
    AUTOPTR(replication) *peer = world_replication(other);
    struct error *err = NULL;

    check_domain(has);
    check_roles(r, peer);
    assert_ok(guard_judge(&has->d.guard, WORLD_VM, &err), err);
    assert_fails(guard_judge(&other->d.guard, WORLD_VM, &err), err, ERROR_GUARD);
    check_content(has, m, lost);
    if (r->side == SIDE_SOURCE)
        pair_goes_on(has, other);
}

/* Its task says where the VM is; unless its host died before it was stored. */
static void
check_task(const struct course *c, enum place place)
{
    const struct story_move *move = &c->story->move;
    char state[16];

    course_state(c, state);
    if (state[0] == '\0')
        return;
    if (c->undisturbed)
        assert_string_equal(state, move->fails ? "FAILED" : "SUCCEEDED");
    if (strcmp(state, "SUCCEEDED") == 0 ? place != move->to
                                        : place != move->from && place != move->to)
        fail_msg("it is at %d, and its task has %s", (int)place, state);
}

/* --- a run ----------------------------------------------------------------------------
 */

void
move_note(struct course *c)
{
    const struct story_move *move = &c->story->move;
    struct notes *notes = NEW(struct notes);
    struct world *w = c->world;
    enum place where = move->from == ON_BOTH   ? move->to
                       : move->from == NOWHERE ? AT_A
                                               : move->from;

    world_model_take_at(host_at(w, AT_A), &notes->shipped);
    if (move->from != NOWHERE)
        world_guest_writes_at(host_at(w, where), 3);
    for (size_t i = 0; i < 2; i++) {
        enum place own = i == 0 ? AT_A : AT_B;

        world_model_take_at(host_at(w, move->throws_away ? own : where), &notes->at[i]);
    }
    if (move->upset != NULL)
        move->upset(w);
    c->noted = notes;
}

/* It has not begun, or could not go on: it is asked for anew. */
static void
end_split_brain(struct course *c)
{
    if (place_of(c->world) != ON_BOTH || c->story->move.from != ON_BOTH)
        return;
    free(TAKE(c->id));
    c->id = story_ask(c->story, c->world);
    pair_settle(c->world);
}

void
move_holds(struct course *c)
{
    const struct story_move *move = &c->story->move;
    struct notes *notes = c->noted;
    enum place place;
    /* To a source that sends its last changes a target that dies is a link that is cut.
     */
    bool may_lose = move->cut_means_loss && c->target_failed;

    end_split_brain(c);
    place = place_of(c->world);
    check_task(c, place);
    if (place != NOWHERE || move->from != NOWHERE)
        check_settled(c->world, place, &notes->at[place == AT_B],
                      may_lose ? &notes->shipped : NULL);
    for (size_t i = 0; i < 2; i++)
        world_model_free(&notes->at[i]);
    world_model_free(&notes->shipped);
    free(notes);
}
