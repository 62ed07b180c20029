/*
 * A VM that was moved: its replication goes to the new host, whichever of the three
 * virtdrd dies at whichever of its commits (I3, I5).
 *
 * Three hosts in one process. Real: databases, guards, the engine of the operations, all
 * of the hand-over (hosts.h). A host dies before a commit, or behind it; it is opened
 * again from what it has stored, and the test goes on as its scheduler would.
 */
#include "tests/sim/hosts.h"

#include <event2/thread.h>
#include <stdio.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/handover.h"
#include "daemon/ops.h"

#define VM      HOSTS_VM
#define REPLICA HOSTS_REPLICA
#define POINT   "virt-dr-0b1c2d3e-0000-4000-8000-0000000000aa"
#define ROUNDS  20 /* in which all must have settled */

static struct hosts *the_world;

/* --- what the hosts answer ------------------------------------------------------ */

/* As api_handover.c and api_peers.c answer. */
bool
hosts_probed(struct host *h, const char *caller, const char *path,
             struct json_object **ret, struct error **err)
{
    AUTOPTR(hv_domain) *domain = NULL;
    AUTOPTR(replication) *r = NULL;
    struct peer_name target;

    if (strstr(path, "/replications/") != NULL) {
        r = host_replication(h);
        return (r != NULL && strcmp(r->peer_id, caller) == 0) ||
               error_set(err, ERROR_REPLICATION_NOT_FOUND, "not shared");
    }
    h->d.hypervisor->ops->lookup(h->d.hypervisor, VM, &domain, NULL);
    *ret = json_object_new_object();
    json_set_bool(*ret, "running", domain != NULL && domain->state != HV_STATE_OFF);
    json_set_bool(*ret, "knowsTarget",
                  strcmp(h->d.host_id, hosts_ids[B]) == 0 ||
                      peers_find(&h->peers, hosts_ids[B], &target, NULL));
    return true;
}

static bool
tell(struct host *h, const char *caller, struct json_object *body, struct error **err)
{
    AUTOPTR(replication) *r = host_replication(h);
    bool ok;

    if (!replication_claim(r, NULL, true, err))
        return false;
    ok = handover_set_source(&h->d, r, caller, json_string_or(body, "host", ""),
                             (uint64_t)json_int_or(body, "epoch", 0), err);
    replication_release(r);
    return ok;
}

bool
hosts_called(struct host *h, const struct hosts_call *call,
             struct json_object **ret UNUSED, struct error **err)
{
    if (strcmp(call->path, "/api/v1/peers/sources") == 0) {
        assert_string_equal(call->method, "POST");
        return handover_accept(&h->d, call->caller, call->body, err);
    }
    assert_string_equal(call->path, "/api/v1/peers/replications/" REPLICA "/source");
    assert_string_equal(call->method, "PUT");
    return tell(h, call->caller, call->body, err);
}

/* --- the VM
 * ------------------------------------------------------------------------------
 */

static void
moves(struct hosts *w, size_t from, size_t to, bool undefine)
{
    struct hypervisor *old = w->hosts[from].d.hypervisor;

    fake_migrate_away(old, VM);
    if (undefine)
        old->ops->undefine(old, VM, NULL);
    host_define(&w->hosts[to]);
    fake_set_state(w->hosts[to].d.hypervisor, VM, HV_STATE_RUNNING);
}

static void
protect(struct hosts *w)
{
    struct host *a = &w->hosts[A], *b = &w->hosts[B];
    AUTOPTR(replication) *source =
        replication_new(SIDE_SOURCE, REPLICA, VM, "web01", hosts_ids[B]);
    AUTOPTR(replication) *target =
        replication_new(SIDE_TARGET, REPLICA, VM, "web01", hosts_ids[A]);
    struct guard_record record = { .vm = source->vm_name, .may_run = true, .epoch = 1 };
    struct error *err = NULL;

    source->phase = target->phase = PHASE_REPLICATING;
    source->newest.sequence = target->newest.sequence = 7;
    snprintf(source->newest.name, sizeof source->newest.name, "%s", POINT);
    snprintf(target->newest.name, sizeof target->newest.name, "%s", POINT);
    source->newest.generation = 4711;
    source->storage = mem_strdup("default");
    target->storage = mem_strdup("default");
    target->folder = mem_strdup(b->folder);
    json_append_string(source->excluded, "vdc");
    assert_ok(replications_add(a->d.replications, source, &err), err);
    assert_ok(replications_add(b->d.replications, target, &err), err);
    assert_ok(guard_write(&a->d.guard, VM, &record, &err), err);
    assert_ok(guard_confirm(&a->d.guard, VM, 1, &err), err);
    host_define(a);
    fake_set_state(a->d.hypervisor, VM, HV_STATE_RUNNING);
}

static int
setup(void **state)
{
    static const struct op_kind *const kinds[] = { &op_handover, NULL };

    the_world = hosts_new(kinds);
    protect(the_world);
    *state = the_world;
    return 0;
}

static int
teardown(void **state)
{
    hosts_free(*state);
    return 0;
}

/* --- what a virtdrd does by itself
 * ------------------------------------------------------
 */

/* What the target says to a query. */
static bool
is_admitted(struct host *h, const struct replication *r)
{
    AUTOPTR(replication) *target = host_replication(&the_world->hosts[B]);

    return !host_is_dead(&the_world->hosts[B]) &&
           strcmp(target->peer_id, h->d.host_id) == 0 && target->epoch == r->epoch;
}

/* The beginning of a cycle. */
static void
cycle(struct host *h)
{
    AUTOPTR(replication) *r = host_replication(h);
    AUTOPTR(hv_domain) *domain = NULL;
    struct cancel cancel = { 0 };
    struct error *e = NULL;

    if (r == NULL || r->side != SIDE_SOURCE || !states_is_protecting(r->phase))
        return;
    if (!replication_try_claim(r, &cancel))
        return;
    h->d.hypervisor->ops->lookup(h->d.hypervisor, VM, &domain, NULL);
    if (handover_look(&h->d, r, domain, &e) && r->move.from[0] != '\0' &&
        is_admitted(h, r))
        handover_confirm(&h->d, r, &e);
    pthread_mutex_lock(&r->lock);
    replication_set_error(r, e);
    pthread_mutex_unlock(&r->lock);
    replication_release(r);
}

static void
live_on(struct hosts *w)
{
    for (size_t i = 0; i < N_HOSTS; i++) {
        struct host *h = &w->hosts[i];

        if (h->no_virtdrd || host_is_dead(h))
            continue;
        cycle(h);
        host_await(h);
        if (i != B && hosts_are_paired(h, &w->hosts[B])) {
            host_contact(h, &w->hosts[B]);
            host_contact(&w->hosts[B], h);
        }
    }
}

/* --- what must be true
 * -------------------------------------------------------------------
 */

static bool
is_source(struct host *h)
{
    AUTOPTR(replication) *r = host_replication(h);

    return r != NULL && r->side == SIDE_SOURCE && states_is_protecting(r->phase) &&
           r->move.from[0] == '\0';
}

/* At each moment at most one host may send. */
static void
check_one(struct hosts *w)
{
    size_t n = 0;

    for (size_t i = 0; i < N_HOSTS; i++) {
        AUTOPTR(replication) *r = host_replication(&w->hosts[i]);

        n += i != B && r != NULL && states_is_protecting(r->phase) &&
             is_admitted(&w->hosts[i], r);
    }
    assert_true(n <= 1);
}

static void
settle(struct hosts *w, size_t at)
{
    unsigned i = 0;

    do {
        hosts_boot(w);
        live_on(w);
        check_one(w);
    } while (++i < ROUNDS && !is_source(&w->hosts[at]));
    live_on(w); /* the others may hear of it later */
    live_on(w);
}

/* The new source has all that the old one knew, and nobody else sends or starts. */
static void
check_settled(struct hosts *w, size_t at, uint64_t epoch)
{
    AUTOPTR(replication) *r = host_replication(&w->hosts[at]);
    AUTOPTR(replication) *target = host_replication(&w->hosts[B]);

    assert_true(is_source(&w->hosts[at]));
    assert_int_equal(r->epoch, epoch);
    assert_int_equal(target->epoch, epoch);
    assert_string_equal(target->peer_id, hosts_ids[at]);
    assert_string_equal(r->newest.name, POINT);
    assert_int_equal(r->newest.sequence, 7);
    assert_int_equal(r->newest.generation, 0); /* of images that are not here */
    assert_int_equal(json_object_array_length(r->excluded), 1);
    assert_true(r->move.adopt);
    assert_true(host_may_start(&w->hosts[at]));
    for (size_t i = 0; i < N_HOSTS; i++) {
        AUTOPTR(replication) *other =
            i != at && i != B ? host_replication(&w->hosts[i]) : NULL;
        AUTOPTR(hv_domain) *left = NULL;
        struct hypervisor *hv = w->hosts[i].d.hypervisor;

        if (i == at || i == B)
            continue;
        hv->ops->lookup(hv, VM, &left, NULL);
        assert_true(other == NULL || other->phase == PHASE_MOVED);
        assert_true((other != NULL) == (left != NULL));
        assert_true(left == NULL || !host_may_start(&w->hosts[i]));
    }
}

/* --- the tests
 * ---------------------------------------------------------------------------
 */

static void
goes_with_the_vm(void **state)
{
    struct hosts *w = *state;

    moves(w, A, C, false);
    settle(w, C);
    check_settled(w, C, 2);
}

static void
comes_back(void **state)
{
    struct hosts *w = *state;

    moves(w, A, C, false);
    settle(w, C);
    moves(w, C, A, true);
    settle(w, A);
    check_settled(w, A, 3);
    assert_null(host_replication(&w->hosts[C])); /* nothing is left where it is unknown */
}

static const char *
trouble_of(struct host *h)
{
    AUTOPTR(replication) *r = host_replication(h);

    return r->error != NULL ? error_message(r->error) : "";
}

static void
assert_says(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("'%s' does not say '%s'", text, part);
}

/* The target tells its own administrator what the source has said. */
static void
assert_target_says(struct hosts *w, const char *part)
{
    AUTOPTR(replication) *r = host_replication(&w->hosts[B]);

    assert_non_null(r->source_says);
    assert_says(r->source_says, part);
}

static void
names_the_pair_that_is_missing(void **state)
{
    struct hosts *w = *state;

    w->strangers = true;
    moves(w, A, C, false);
    live_on(w);
    assert_says(trouble_of(&w->hosts[A]), "not paired with 'b'");
    assert_target_says(w, "not paired with 'b'");
    assert_null(host_replication(&w->hosts[C]));
    w->strangers = false;
    settle(w, C);
    check_settled(w, C, 2);
}

static void
says_that_virtdrd_is_missing(void **state)
{
    struct hosts *w = *state;

    w->hosts[C].no_virtdrd = true;
    moves(w, A, C, true);
    live_on(w);
    assert_says(trouble_of(&w->hosts[A]), "no answer from: 'c'");
    assert_target_says(w, "start virtdrd where it runs");
    w->hosts[C].no_virtdrd = false;
    settle(w, C);
    check_settled(w, C, 2);
}

static void
leaves_alone_what_runs_on_the_target(void **state)
{
    struct hosts *w = *state;
    AUTOPTR(replication) *target = NULL;

    moves(w, A, B, false);
    live_on(w);
    assert_says(trouble_of(&w->hosts[A]), "the host that its replica is on");
    target = host_replication(&w->hosts[B]);
    assert_int_equal(target->epoch, 1);
    assert_string_equal(target->peer_id, hosts_ids[A]);
    fake_set_state(w->hosts[B].d.hypervisor, VM, HV_STATE_OFF);
}

static void
is_no_failure_of_a_vm_that_is_off(void **state)
{
    struct hosts *w = *state;

    fake_set_state(w->hosts[A].d.hypervisor, VM, HV_STATE_OFF);
    live_on(w);
    assert_string_equal(trouble_of(&w->hosts[A]), "");
    assert_true(is_source(&w->hosts[A]));
}

/* Only the source may name another one; a former one hears who it is. */
static void
refuses_who_is_not_the_source(void **state)
{
    struct hosts *w = *state;
    struct host *b = &w->hosts[B];
    AUTOPTR(replication) *r = host_replication(b);
    struct error *err = NULL;

    assert_fails(handover_set_source(&b->d, r, hosts_ids[C], hosts_ids[C], 2, &err), err,
                 ERROR_REPLICATION_NOT_FOUND);
    assert_fails(handover_set_source(&b->d, r, hosts_ids[A], hosts_ids[C], 3, &err), err,
                 ERROR_EPOCH);
    assert_fails(handover_set_source(&b->d, r, hosts_ids[A], hosts_ids[B], 2, &err), err,
                 ERROR_INVALID_STATE);
    assert_ok(handover_set_source(&b->d, r, hosts_ids[A], hosts_ids[C], 2, &err), err);
    assert_ok(handover_set_source(&b->d, r, hosts_ids[A], hosts_ids[C], 2, &err), err);
    assert_false(handover_set_source(&b->d, r, hosts_ids[A], hosts_ids[A], 3, &err));
    assert_says(error_message(err), "moved to host 'c' (epoch 2)");
    assert_int_equal(error_code(err), ERROR_EPOCH);
    error_clear(&err);
    r->phase = PHASE_FAILED_OVER;
    assert_fails(handover_set_source(&b->d, r, hosts_ids[C], hosts_ids[A], 3, &err), err,
                 ERROR_INVALID_STATE);
}

static struct json_object *
offer_with(struct hosts *w, const char *key, struct json_object *value)
{
    AUTOPTR(replication) *r = host_replication(&w->hosts[A]);
    struct json_object *o = handover_offer(r);

    json_set(o, key, value);
    return o;
}

/* What is offered comes from another host: names that are not ours are not taken (I6). */
static void
takes_no_offer_that_is_not_right(void **state)
{
    static const struct {
        const char *key, *json;
    } wrong[] = {
        { "stale", "[\"somebodys\"]" },
        { "stale", "[1]" },
        { "stale", "{}" },
        { "newest", "{\"name\": \"virt-dr-/../x\"}" },
        { "sync", "{\"name\": \"backup-1\"}" },
        { "excluded", "[{}]" },
        { "disks", "[7]" },
        { "side", "\"target\"" },
        { "phase", "\"failed-over\"" },
        { "id", "\"../../x\"" },
        { "peer", "\"b\"" },
        { "rpo", "1" },
        { "epoch", "1" },
    };
    struct hosts *w = *state;
    struct host *c = &w->hosts[C];
    struct error *err = NULL;

    moves(w, A, C, false);
    for (size_t i = 0; i < N_ELEMENTS(wrong); i++) {
        AUTOJSON *o = offer_with(w, wrong[i].key, json_tokener_parse(wrong[i].json));

        assert_fails(handover_accept(&c->d, hosts_ids[A], o, &err), err, ERROR_PROTOCOL);
        assert_null(host_replication(c));
    }
    fake_set_state(c->d.hypervisor, VM, HV_STATE_OFF);
    {
        AUTOJSON *o = offer_with(w, "epoch", json_object_new_int(2));

        assert_fails(handover_accept(&c->d, hosts_ids[A], o, &err), err,
                     ERROR_INVALID_STATE);
    }
}

/* It goes on to a third host, or home, before the target has heard of the second. */
static void
an_offer_that_is_overtaken_comes_to_nothing(void **state)
{
    struct hosts *w = *state;
    AUTOPTR(replication) *r = host_replication(&w->hosts[A]);
    AUTOJSON *offer = handover_offer(r);
    struct error *err = NULL;

    moves(w, A, C, false);
    assert_ok(handover_accept(&w->hosts[C].d, hosts_ids[A], offer, &err), err);
    moves(w, C, A, true);
    live_on(w);
    assert_true(is_source(&w->hosts[A]));
    assert_int_equal(r->epoch, 1);
    assert_null(host_replication(&w->hosts[C]));
    assert_true(host_may_start(&w->hosts[A]));
}

/* --- deaths
 * -------------------------------------------------------------------------------
 */

/* False: that host has not so many commits, it did not die. */
static bool
dies_at(size_t host, unsigned n, enum fate fate, bool undefine, bool back)
{
    void *state;
    struct hosts *w;
    bool died;

    setup(&state);
    w = state;
    fated_let(&w->hosts[host].state, fate, n);
    moves(w, A, C, undefine);
    live_on(w);
    live_on(w);
    died = host_is_dead(&w->hosts[host]);
    check_one(w);
    if (died && back) { /* while it is dead the VM goes home */
        moves(w, C, A, undefine);
        settle(w, A);
        assert_true(is_source(&w->hosts[A]));
        assert_true(host_may_start(&w->hosts[A]));
        check_one(w);
    } else {
        settle(w, C);
        check_settled(w, C, 2);
    }
    teardown(&state);
    return died;
}

static void
any_death(bool undefine, bool back)
{
    for (size_t host = 0; host < N_HOSTS; host++)
        for (enum fate fate = FATE_BEFORE; fate <= FATE_BEHIND; fate++) {
            unsigned n = 1;

            while (dies_at(host, n, fate, undefine, back))
                n++;
            assert_true(n > 1);
        }
}

static void
outlives_any_death(void **state UNUSED)
{
    any_death(false, false);
}

static void
outlives_any_death_without_a_definition(void **state UNUSED)
{
    any_death(true, false);
}

static void
outlives_any_death_and_a_return(void **state UNUSED)
{
    any_death(false, true);
}

/* --- each step of the table
 * -------------------------------------------------------------
 */

enum disturbance {
    DIES_BEFORE,
    DIES_BEHIND,
    LOSES_THE_LINK,
    IS_CANCELLED,
    IS_ASKED_AGAIN,
    N_DISTURBANCES
};

/* At the first commit that stores the task at that step. */
struct moment {
    enum disturbance what;
    const char *step;
    bool came;
};

/* The id of the task, if it is now. */
static const char *
it_is_now(struct moment *m, const struct state_write *writes, size_t n)
{
    for (size_t i = 0; i < n && !m->came; i++)
        if (strcmp(writes[i].kind, "task") == 0 && writes[i].body != NULL &&
            strcmp(json_string_or(writes[i].body, "step", ""), m->step) == 0) {
            m->came = true;
            return writes[i].id;
        }
    return NULL;
}

static bool
counts(struct fated *f, const struct state_write *writes, size_t n)
{
    return it_is_now(f->opaque, writes, n) != NULL;
}

static void
is_refused_beside(struct tasks *t, const char *id)
{
    const struct tasks_request request = { .kind = op_handover.name,
                                           .resource_id = REPLICA,
                                           .resource_name = "web01",
                                           .user = "test" };
    AUTOJSON *task = NULL;
    AUTOPTR(error) *e = NULL;

    assert_false(tasks_start(t, &request, &task, &e));
    assert_int_equal(error_code(e), ERROR_IN_PROGRESS);
    assert_non_null(strstr(error_message(e), id));
}

static void
disturb(struct fated *f, const struct state_write *writes, size_t n)
{
    struct moment *m = f->opaque;
    const char *id = it_is_now(m, writes, n);
    struct tasks *t = the_world->hosts[A].d.tasks;
    AUTOJSON *task = NULL;

    if (id == NULL)
        return;
    if (m->what == LOSES_THE_LINK)
        the_world->cut = true;
    else if (m->what == IS_CANCELLED) /* behind the step that commits: in vain */
        (void)tasks_cancel(t, id, &task, NULL);
    else
        is_refused_beside(t, id);
}

static void
is_disturbed(enum disturbance what, const char *step)
{
    struct moment m = { .what = what, .step = step };
    struct fated *f;
    void *state;

    setup(&state);
    f = &the_world->hosts[A].state;
    f->opaque = &m;
    if (what == DIES_BEFORE || what == DIES_BEHIND)
        fated_let_at(f, what == DIES_BEFORE ? FATE_BEFORE : FATE_BEHIND, counts);
    else
        f->told = disturb;
    moves(the_world, A, C, false);
    live_on(the_world);
    live_on(the_world);
    check_one(the_world);
    assert_true(m.came);
    f->told = NULL;
    the_world->cut = false;
    settle(the_world, C);
    check_settled(the_world, C, 2);
    teardown(&state);
}

static void
outlives_anything_at_any_step(void **state UNUSED)
{
    for (size_t i = 0; op_handover.steps[i].name != NULL; i++)
        for (enum disturbance what = DIES_BEFORE; what < N_DISTURBANCES; what++)
            is_disturbed(what, op_handover.steps[i].name);
}

int
main(void)
{
#define IN_WORLD(name, f)              \
    {                                  \
        name, f, setup, teardown, NULL \
    }
#define ALONE(name, f)            \
    {                             \
        name, f, NULL, NULL, NULL \
    }
    const struct CMUnitTest tests[] = {
        IN_WORLD("a replication goes with its VM to another host", goes_with_the_vm),
        IN_WORLD("it comes back with it, and leaves nothing behind", comes_back),
        IN_WORLD("hosts that have to be paired are named, on source and target",
                 names_the_pair_that_is_missing),
        IN_WORLD("a host without virtdrd is named, on source and target",
                 says_that_virtdrd_is_missing),
        IN_WORLD("a VM that runs on the target itself is not replicated",
                 leaves_alone_what_runs_on_the_target),
        IN_WORLD("a VM that is simply off stays where it is",
                 is_no_failure_of_a_vm_that_is_off),
        IN_WORLD("the target hears of a new source from the present one alone",
                 refuses_who_is_not_the_source),
        IN_WORLD("an offer with anything wrong in it is not taken",
                 takes_no_offer_that_is_not_right),
        IN_WORLD("an offer that is overtaken comes to nothing",
                 an_offer_that_is_overtaken_comes_to_nothing),
        ALONE("a death of any host at any commit is outlived", outlives_any_death),
        ALONE("so are a death, a link that is cut, a cancel, another one, at each step",
              outlives_anything_at_any_step),
        ALONE("also where the VM is not defined any more",
              outlives_any_death_without_a_definition),
        ALONE("also when the VM goes home before the dead one is back",
              outlives_any_death_and_a_return),
    };

    evthread_use_pthreads();
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
