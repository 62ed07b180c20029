#include "tests/sim/pair.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/api_private.h"
#include "daemon/contact.h"
#include "daemon/ops.h"
#include "daemon/peers.h"
#include "daemon/tasks.h"

#define LOOK_MS 10

static const struct op_kind *const source_kinds[] = { &op_prepare, &op_abandon, NULL };

/* One of the two: what is asked of the other host goes through here. */
struct side {
    struct world_host *host;
    const char *id;
    pthread_mutex_t door; /* held while it answers, and while it is opened or closed */
    bool open;
    _Atomic bool dead;
    const struct state_ops *real_state;
    struct state_ops state_ops;
    struct hypervisor_ops hypervisor_ops;
    const struct hypervisor_ops *hypervisor_real;
};

static struct {
    struct world *world;
    struct side sides[2]; /* target, source */
    struct pair_death *death;
    pthread_mutex_t lock;
    _Atomic bool cut;
} pair = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* --- dying -------------------------------------------------------------------------- */

/* True if it is this commit at which it dies. */
static bool
is_its_hour(const struct side *s)
{
    bool now;

    pthread_mutex_lock(&pair.lock);
    now = pair.death != NULL && s == &pair.sides[pair.death->of_source] &&
          pair.death->left > 0 && --pair.death->left == 0;
    if (now)
        pair.death->died = true;
    pthread_mutex_unlock(&pair.lock);
    return now;
}

static bool
mortal_commit(struct state *state, const struct state_write *writes, size_t n,
              struct error **err)
{
    struct world_host *h =
        (struct world_host *)((char *)state - offsetof(struct world_host, state));
    struct side *s = &pair.sides[h->is_source];
    bool now = !s->dead && is_its_hour(s);

    if (now && pair.death->fate == PAIR_DIES_BEHIND)
        s->real_state->commit(state, writes, n, NULL);
    if (now) {
        s->dead = true;
        tasks_stop(h->d.tasks);
    }
    return s->dead ? error_set(err, ERROR_STATE, "this virtdrd is dead")
                   : s->real_state->commit(state, writes, n, err);
}

static struct side *
side_by(struct hypervisor *hv)
{
    return &pair.sides[hv == pair.world->source.d.hypervisor];
}

static bool
lives(struct hypervisor *hv, struct error **err)
{
    return !side_by(hv)->dead || error_set(err, ERROR_CONNECT, "this virtdrd is dead");
}

static bool
mortal_start(struct hypervisor *hv, const char *uuid, struct error **err)
{
    struct side *s = side_by(hv);

    /* As libvirt's hook does. */
    return lives(hv, err) && guard_judge(&s->host->d.guard, uuid, err) &&
           s->hypervisor_real->start(hv, uuid, err);
}

static bool
mortal_destroy(struct hypervisor *hv, const char *uuid, struct error **err)
{
    return lives(hv, err) && side_by(hv)->hypervisor_real->destroy(hv, uuid, err);
}

static bool
mortal_shutdown(struct hypervisor *hv, const char *uuid, enum hv_shutdown how,
                struct error **err)
{
    return lives(hv, err) && side_by(hv)->hypervisor_real->shutdown(hv, uuid, how, err);
}

static bool
mortal_define(struct hypervisor *hv, const char *xml, struct error **err)
{
    return lives(hv, err) && side_by(hv)->hypervisor_real->define(hv, xml, err);
}

static bool
mortal_undefine(struct hypervisor *hv, const char *uuid, struct error **err)
{
    return lives(hv, err) && side_by(hv)->hypervisor_real->undefine(hv, uuid, err);
}

/* --- opening, closing ------------------------------------------------------------------
 */

static void
open_source_tasks(struct world_host *h)
{
    struct tasks_settings settings = {
        .kinds = source_kinds, .site = "sim", .daemon = &h->d, .state = h->d.state
    };
    struct error *err = NULL;

    h->d.steps = workers_new(h->d.base, "step", 2);
    settings.workers = h->d.steps;
    assert_ok(tasks_new(&settings, &h->d.tasks, &err), err);
    h->loop.base = h->d.base;
    net_loop_start(&h->loop);
}

static void
make_mortal(struct side *s)
{
    struct world_host *h = s->host;

    s->real_state = h->state.head.ops;
    s->state_ops = *s->real_state;
    s->state_ops.commit = mortal_commit;
    h->state.head.ops = &s->state_ops;
    s->hypervisor_real = h->d.hypervisor->ops;
    s->hypervisor_ops = *s->hypervisor_real;
    s->hypervisor_ops.start = mortal_start;
    s->hypervisor_ops.destroy = mortal_destroy;
    s->hypervisor_ops.shutdown = mortal_shutdown;
    s->hypervisor_ops.define = mortal_define;
    s->hypervisor_ops.undefine = mortal_undefine;
    h->d.hypervisor->ops = &s->hypervisor_ops;
}

static void
open_side(struct side *s)
{
    struct error *err = NULL;

    pthread_mutex_lock(&s->door);
    if (s == &pair.sides[true]) {
        world_open_source(pair.world);
        open_source_tasks(s->host);
    } else {
        world_open_target(pair.world);
    }
    make_mortal(s);
    s->dead = false;
    assert_ok(tasks_load(s->host->d.tasks, &err), err);
    s->open = true;
    pthread_mutex_unlock(&s->door);
    assert_ok(tasks_resume(s->host->d.tasks, &err), err);
}

static void
close_side(struct side *s)
{
    pthread_mutex_lock(&s->door);
    s->open = false;
    pthread_mutex_unlock(&s->door);
    if (s == &pair.sides[true]) {
        net_loop_stop(&s->host->loop);
        tasks_stop(s->host->d.tasks);
        workers_free(TAKE(s->host->d.steps));
        tasks_free(TAKE(s->host->d.tasks));
    }
    s->host->d.hypervisor->ops = s->hypervisor_real;
    if (s == &pair.sides[true])
        world_close_source(pair.world);
    else
        world_close_target(pair.world);
}

int
pair_setup(void **state)
{
    struct error *err = NULL;
    struct world *w = world_new();

    w->keeps_domains = true;
    pair.world = w;
    pair.death = NULL;
    pair.cut = false;
    for (size_t i = 0; i < N_ELEMENTS(pair.sides); i++) {
        pair.sides[i].host = i == 0 ? &w->target : &w->source;
        pair.sides[i].id = i == 0 ? WORLD_TARGET : WORLD_SOURCE;
        pthread_mutex_init(&pair.sides[i].door, NULL);
        open_side(&pair.sides[i]);
    }
    fake_capture_set_disk(w->source.capture, "vda", 256u << 10);
    world_plug(w);
    world_guest_writes(w, 20);
    world_protect(w);
    assert_ok(world_cycle(w, &err), err);
    *state = w;
    return 0;
}

int
pair_teardown(void **state)
{
    pair.death = NULL;
    for (size_t i = 0; i < N_ELEMENTS(pair.sides); i++) {
        close_side(&pair.sides[i]);
        pthread_mutex_destroy(&pair.sides[i].door);
    }
    world_free(*state);
    return 0;
}

void
pair_let_die(struct pair_death *death)
{
    pthread_mutex_lock(&pair.lock);
    pair.death = death;
    pthread_mutex_unlock(&pair.lock);
}

void
pair_cut(bool cut)
{
    pair.cut = cut;
}

/* --- the network
 * ------------------------------------------------------------------------- */

bool
__wrap_peers_call(struct peers *p, const char *id, const char *method, const char *path,
                  struct json_object *body, struct json_object **ret, struct error **err);
bool __wrap_peers_probe(struct peers *p, const char *id, const char *path,
                        struct json_object **ret, struct error **err);

static rest_handler_fn
handler_of(const char *method, const char *path)
{
    if (strstr(path, "/peers/domains/") != NULL)
        return api_peer_domain;
    if (strcmp(method, "GET") == 0)
        return api_replica_show;
    return strstr(path, "/prepare") != NULL ? api_replica_prepare : api_replica_release;
}

static bool
answer(struct side *from, struct side *to, const char *method, const char *path,
       struct json_object *body, struct json_object **ret, struct error **err)
{
    struct rest_request request = { .body = body, .opaque = &to->host->d };
    AUTOJSON *query = json_object_new_object();
    bool ok;

    request.query = query;
    request.params[0] = strstr(path, "/domains/") != NULL ? WORLD_VM : WORLD_REPLICA;
    snprintf(request.caller.peer_id, sizeof request.caller.peer_id, "%s", from->id);
    ok = handler_of(method, path)(&request, err);
    if (ok && ret != NULL)
        *ret = TAKE(request.reply);
    json_object_put(request.reply);
    return ok;
}

bool
__wrap_peers_call(struct peers *p, const char *id, const char *method, const char *path,
                  struct json_object *body, struct json_object **ret, struct error **err)
{
    struct side *from = &pair.sides[p == pair.world->source.d.peers];
    struct side *to = &pair.sides[from == &pair.sides[0]];
    struct json_object *reply = NULL;
    AUTOJSON *copy = NULL;
    struct error *e = NULL;
    bool ok;

    assert_string_equal(id, to->id);
    json_object_deep_copy(body, &copy, NULL);
    pthread_mutex_lock(&to->door);
    ok = to->open && !to->dead && !from->dead && !pair.cut &&
         answer(from, to, method, path, copy, &reply, &e);
    if (!to->open || to->dead || from->dead || pair.cut) { /* nobody hears the answer */
        json_object_put(TAKE(reply));
        error_clear(&e);
        ok = error_set(&e, ERROR_CONNECT, "the other host does not answer");
    }
    pthread_mutex_unlock(&to->door);
    if (ret != NULL)
        *ret = TAKE(reply);
    json_object_put(reply);
    return ok || error_propagate(err, e);
}

bool
__wrap_peers_probe(struct peers *p, const char *id, const char *path,
                   struct json_object **ret, struct error **err)
{
    return __wrap_peers_call(p, id, "GET", path, NULL, ret, err);
}

/* What `from` says reaches `to`, as in a contact. */
static void
tell(struct side *from, struct side *to)
{
    AUTOJSON *said = NULL;

    if (from->dead || to->dead || pair.cut)
        return;
    said = contact_say(&from->host->d, to->id);
    if (!from->dead)
        contact_hear(&to->host->d, from->id, said);
}

/* --- tasks
 * ----------------------------------------------------------------------------------- */

char *
pair_start(struct world *w UNUSED, bool at_source, const char *kind,
           struct json_object *data)
{
    struct daemon *d = &pair.sides[at_source].host->d;
    struct tasks_request request = { .kind = kind,
                                     .resource_id = WORLD_REPLICA,
                                     .resource_name = "web01",
                                     .user = "test",
                                     .data = data };
    struct error *err = NULL;
    AUTOJSON *task = NULL;

    if (!tasks_start(d->tasks, &request, &task, &err)) {
        assert_true(pair.sides[at_source].dead);
        error_free(err);
        return NULL;
    }
    return mem_strdup(json_string_or(task, "id", ""));
}

struct json_object *
pair_task(struct world *w UNUSED, bool at_source, const char *id)
{
    struct json_object *task = NULL;
    struct error *err = NULL;

    assert_ok(tasks_get(pair.sides[at_source].host->d.tasks, id, &task, &err), err);
    return task;
}

bool
pair_runs(struct world *w UNUSED, bool at_source)
{
    struct hypervisor *hv = pair.sides[at_source].host->d.hypervisor;
    AUTOPTR(hv_domain) *domain = NULL;

    return hv->ops->lookup(hv, WORLD_VM, &domain, NULL) && domain->state != HV_STATE_OFF;
}

static void
revive(void)
{
    for (size_t i = 0; i < N_ELEMENTS(pair.sides); i++) {
        if (!pair.sides[i].dead)
            continue;
        close_side(&pair.sides[i]);
        open_side(&pair.sides[i]);
    }
}

static bool
is_busy(void)
{
    for (size_t i = 0; i < N_ELEMENTS(pair.sides); i++)
        if (pair.sides[i].dead || tasks_busy(pair.sides[i].host->d.tasks, WORLD_REPLICA))
            return true;
    return false;
}

/* Two rounds of contacts after which nobody has anything to do. */
void
pair_settle(struct world *w UNUSED)
{
    int64_t deadline_ms = units_monotonic_ms() + WORLD_DEADLINE;

    for (unsigned calm = 0; calm < 3;) {
        assert_true(units_monotonic_ms() < deadline_ms);
        revive();
        tell(&pair.sides[false], &pair.sides[true]);
        tell(&pair.sides[true], &pair.sides[false]);
        calm = is_busy() ? 0 : calm + 1;
        if (calm == 0)
            poll(NULL, 0, LOOK_MS);
    }
}

/* --- the two ends ----------------------------------------------------------------------
 */

/* It runs at the target with all that the guest has ever written. */
void
pair_has_moved(struct world *w, const struct world_model *m)
{
    AUTOPTR(replication) *a = world_replication(&w->source);
    AUTOPTR(replication) *b = world_replication(&w->target);
    struct error *err = NULL;

    assert_true(pair_runs(w, false));
    assert_false(pair_runs(w, true));
    assert_int_equal(b->phase, PHASE_FAILED_OVER);
    assert_int_equal(a->phase, PHASE_SUPERSEDED);
    assert_int_equal(a->epoch, b->epoch);
    assert_fails(guard_judge(&w->source.d.guard, WORLD_VM, &err), err, ERROR_GUARD);
    world_check_overlay(w, b->epoch, m);
}

/* It runs at the source, is replicated, and the target has nothing left of it. */
void
pair_is_back(struct world *w)
{
    AUTOPTR(replication) *a = world_replication(&w->source);
    AUTOPTR(replication) *b = world_replication(&w->target);
    struct error *err = NULL;
    struct world_model m;

    pair_let_die(NULL);
    assert_true(pair_runs(w, true));
    assert_false(pair_runs(w, false));
    assert_int_equal(a->phase, PHASE_REPLICATING);
    assert_int_equal(b->phase, PHASE_REPLICATING);
    assert_int_equal(a->epoch, b->epoch);
    assert_ok(guard_judge(&w->source.d.guard, WORLD_VM, &err), err);
    assert_fails(guard_judge(&w->target.d.guard, WORLD_VM, &err), err, ERROR_GUARD);
    world_guest_writes(w, 3);
    assert_ok(world_recover(w, 3, &err), err);
    world_model_take(w, &m);
    world_check_tip(w, &m);
    world_model_free(&m);
}

void
pair_task_is(struct world *w, const char *id, const char *state, enum error_code code)
{
    AUTOJSON *task = pair_task(w, false, id);
    AUTOPTR(error) *e = NULL;

    assert_string_equal(json_string_or(task, "state", ""), state);
    if (code == 0)
        return;
    json_to_error(json_object_or_null(task, "error"), &e);
    assert_true(error_is(e, code));
}

/* --- deaths ----------------------------------------------------------------------------
 */

/* One scenario with one death; false once there are no more commits to die at. */

static bool
dies(pair_scenario_fn run, struct pair_death *death)
{
    void *state;

    death->died = false;
    pair_setup(&state);
    pair_let_die(death);
    run(state);
    pair_let_die(NULL);
    pair_teardown(&state);
    return death->died;
}

/* The steps are counted by their tables: it is stored before each, and at the end. */
void
pair_at_each_commit(pair_scenario_fn run, bool of_source, enum pair_fate fate,
                    size_t steps)
{
    struct pair_death death = { .of_source = of_source, .fate = fate };
    unsigned n = 0;

    do {
        death.left = ++n;
    } while (dies(run, &death));
    assert_true(n > steps + 1);
}

/* A target that dies while it takes a delta fails it; id NULL: it died of the asking. */
bool
pair_came_back(struct world *w, const char *id)
{
    if (pair_runs(w, false))
        return false;
    if (id != NULL)
        pair_task_is(w, id, "FAILED", 0);
    pair_is_back(w);
    return true;
}
