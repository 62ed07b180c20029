/*
 * A VM that was moved: its replication goes to the new host, whichever of the three
 * virtdrd dies at whichever of its commits (I3, I5).
 *
 * Three hosts in one process. Real: databases, guards, the engine of the operations, all
 * of the hand-over. Not real: the hypervisors, and the network, which this file is: a
 * call to a peer is a function call, and fails when that one, or the caller, is dead. A
 * host dies before a commit, which is not made then, or behind it; it is opened again
 * from what it has stored, and the test goes on as its scheduler would.
 */
#include <event2/thread.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/net.h"

#include "common/json.h"
#include "common/units.h"
#include "daemon/contact.h"
#include "daemon/handover.h"
#include "daemon/ops.h"
#include "daemon/peers.h"
#include "daemon/scheduler.h"
#include "daemon/stream.h"
#include "daemon/tasks.h"
#include "drivers/capture/fake.h"
#include "drivers/hypervisor/fake.h"
#include "drivers/state/sqlite.h"
#include "tests/sim/files.h"

#define VM       "0b1c2d3e-0000-4000-8000-000000000001"
#define REPLICA  "0b1c2d3e-0000-4000-8000-0000000000ff"
#define POINT    "virt-dr-0b1c2d3e-0000-4000-8000-0000000000aa"
#define DEADLINE 20000
#define ROUNDS   20 /* in which all must have settled */

enum {
    A,
    B,
    C,
    N_HOSTS
};

enum fate {
    FATE_NONE,
    FATE_BEFORE,
    FATE_BEHIND
};

struct peers {
    struct host *host;
};

struct fated {
    struct state head;
    struct state *real;
    struct host *host;
};

struct host {
    struct daemon d;
    struct world *world;
    struct peers peers;
    struct fated state;
    struct config config;
    struct config_storage storage;
    struct net_loop loop;
    char folder[96];
    const char *name;
    enum fate fate;
    unsigned left; /* commits until that */
    bool dead;
    bool no_virtdrd; /* nobody answers there */
};

struct world {
    char folder[64];
    struct fake_world *fakes;
    struct host hosts[N_HOSTS];
    bool strangers; /* b and c are not paired */
};

static const char *const ids[N_HOSTS] = {
    "0b1c2d3e-0000-4000-8000-00000000000a",
    "0b1c2d3e-0000-4000-8000-00000000000b",
    "0b1c2d3e-0000-4000-8000-00000000000c",
};

static struct world *the_world; /* for peers_*(), which get no more than their caller */

/* --- a state that dies ------------------------------------------------------------ */

static bool
fated_get(struct state *s, const char *kind, const char *id, struct json_object **ret,
          struct error **err)
{
    struct state *real = ((struct fated *)s)->real;

    return real->ops->get(real, kind, id, ret, err);
}

static bool
fated_list(struct state *s, const char *kind, const char *prefix,
           struct json_object **ret, struct error **err)
{
    struct state *real = ((struct fated *)s)->real;

    return real->ops->list(real, kind, prefix, ret, err);
}

static bool
fated_commit(struct state *s, const struct state_write *writes, size_t n,
             struct error **err)
{
    struct fated *f = (struct fated *)s;
    struct host *h = f->host;
    bool now = h->fate != FATE_NONE && h->left > 0 && --h->left == 0;

    if (h->dead || (now && h->fate == FATE_BEFORE)) {
        h->dead = true;
        return error_set(err, ERROR_STATE, "host '%s' is dead", h->name);
    }
    h->dead = now;
    return f->real->ops->commit(f->real, writes, n, err);
}

static void
fated_close(struct state *s)
{
    struct state *real = ((struct fated *)s)->real;

    real->ops->close(real);
}

static const struct state_ops fated_ops = { .name = "fated",
                                            .close = fated_close,
                                            .get = fated_get,
                                            .list = fated_list,
                                            .commit = fated_commit };

/* --- the network: what peers.h promises --------------------------------------------- */

static struct host *
host_by(const char *key)
{
    for (size_t i = 0; i < N_HOSTS; i++)
        if (strcmp(ids[i], key) == 0 || strcmp(the_world->hosts[i].name, key) == 0)
            return &the_world->hosts[i];
    return NULL;
}

static bool
are_paired(const struct host *a, const struct host *b)
{
    return a != b && !(the_world->strangers && strcmp(a->name, "a") != 0 &&
                       strcmp(b->name, "a") != 0);
}

bool
peers_find(struct peers *p, const char *key, struct peer_name *ret, struct error **err)
{
    const struct host *h = host_by(key);

    if (h == NULL || !are_paired(p->host, h))
        return error_set(err, ERROR_PEER_NOT_FOUND, "no peer '%s'", key);
    *ret = (struct peer_name){ 0 };
    snprintf(ret->id, sizeof ret->id, "%s", h->d.host_id);
    snprintf(ret->name, sizeof ret->name, "%s", h->name);
    return true;
}

struct json_object *
peers_list(struct peers *p)
{
    struct json_object *list = json_object_new_array();

    for (size_t i = 0; i < N_HOSTS; i++) {
        struct json_object *o;

        if (!are_paired(p->host, &the_world->hosts[i]))
            continue;
        o = json_object_new_object();
        json_set_string(o, "id", ids[i]);
        json_set_string(o, "name", the_world->hosts[i].name);
        json_object_array_add(list, o);
    }
    return list;
}

static bool
reach(struct peers *p, const char *id, struct host **ret, struct error **err)
{
    struct host *h = host_by(id);

    *ret = h;
    return (!p->host->dead && !h->dead && !h->no_virtdrd && are_paired(p->host, h)) ||
           error_set(err, ERROR_CONNECT, "host '%s' does not answer", h->name);
}

/* The answer of one that dies meanwhile is not heard. */
static bool
answered(const struct host *h, bool ok, struct error *e, struct error **err)
{
    if (!h->dead)
        return ok || error_propagate(err, e);
    error_free(e);
    return error_set(err, ERROR_CONNECT, "host '%s' died", h->name);
}

bool
peers_connected(struct peers *p, const char *id, int64_t *ret_ms)
{
    struct host *h;

    if (ret_ms != NULL)
        *ret_ms = 0;
    return reach(p, id, &h, NULL);
}

void
peers_heard(struct peers *p UNUSED, const char *id UNUSED)
{
}

static struct replication *
replication_at(struct host *h)
{
    struct replication *r = NULL;

    return replications_find(h->d.replications, REPLICA, &r, NULL) ? r : NULL;
}

/* As api_handover.c and api_peers.c answer. */
bool
peers_probe(struct peers *p, const char *id, const char *path, struct json_object **ret,
            struct error **err)
{
    AUTOPTR(hv_domain) *domain = NULL;
    AUTOPTR(replication) *r = NULL;
    struct peer_name target;
    struct host *h;

    if (!reach(p, id, &h, err))
        return false;
    if (strstr(path, "/replications/") != NULL) {
        r = replication_at(h);
        return (r != NULL && strcmp(r->peer_id, p->host->d.host_id) == 0) ||
               error_set(err, ERROR_REPLICATION_NOT_FOUND, "not shared");
    }
    h->d.hypervisor->ops->lookup(h->d.hypervisor, VM, &domain, NULL);
    *ret = json_object_new_object();
    json_set_bool(*ret, "running", domain != NULL && domain->state != HV_STATE_OFF);
    json_set_bool(*ret, "knowsTarget",
                  strcmp(h->d.host_id, ids[B]) == 0 ||
                      peers_find(&h->peers, ids[B], &target, NULL));
    return true;
}

static bool
tell(struct host *h, const char *caller, struct json_object *body, struct error **err)
{
    AUTOPTR(replication) *r = replication_at(h);
    bool ok;

    if (!replication_claim(r, NULL, true, err))
        return false;
    ok = handover_set_source(&h->d, r, caller, json_string_or(body, "host", ""),
                             (uint64_t)json_int_or(body, "epoch", 0), err);
    replication_release(r);
    return ok;
}

bool
peers_call(struct peers *p, const char *id, const char *method, const char *path,
           struct json_object *body, struct json_object **ret UNUSED, struct error **err)
{
    AUTOJSON *copy = NULL;
    struct error *e = NULL;
    struct host *h;
    bool ok;

    if (!reach(p, id, &h, err))
        return false;
    json_object_deep_copy(body, &copy, NULL);
    if (strcmp(path, "/api/v1/peers/sources") == 0) {
        assert_string_equal(method, "POST");
        ok = handover_accept(&h->d, p->host->d.host_id, copy, &e);
    } else {
        assert_string_equal(path, "/api/v1/peers/replications/" REPLICA "/source");
        assert_string_equal(method, "PUT");
        ok = tell(h, p->host->d.host_id, copy, &e);
    }
    return answered(h, ok, e, err);
}

/* No cycle runs here. */
bool
peers_stream_take(struct peers *p UNUSED, const char *id UNUSED,
                  struct cancel *cancel UNUSED, bool fresh UNUSED,
                  struct stream **ret UNUSED, struct error **err)
{
    return error_set(err, ERROR_CONNECT, "there are no streams");
}

void
peers_stream_put(struct peers *p UNUSED, const char *id UNUSED, struct stream *stream)
{
    stream_free(stream);
}

/* --- hosts ---------------------------------------------------------------------------
 */

static void
open_host(struct host *h)
{
    static const struct op_kind *const kinds[] = { &op_handover, NULL };
    AUTOFREE(char) *path = mem_printf("%s/state.db", h->folder);
    struct tasks_settings settings = { .kinds = kinds, .site = "sim", .daemon = &h->d };
    struct error *err = NULL;

    h->dead = false;
    h->fate = FATE_NONE;
    h->d.base = event_base_new();
    h->d.config = &h->config;
    h->state.head.ops = &fated_ops;
    h->state.host = h;
    assert_ok(state_sqlite_open(path, &h->state.real, &err), err);
    h->d.state = &h->state.head;
    h->d.peers = &h->peers;
    assert_ok(replications_load(h->d.state, &h->d.replications, &err), err);
    h->d.scheduler = scheduler_new(&h->d); /* not started: tests say when */
    h->d.steps = workers_new(h->d.base, "step", 1);
    settings.state = h->d.state;
    settings.workers = h->d.steps;
    assert_ok(tasks_new(&settings, &h->d.tasks, &err), err);
    h->loop.base = h->d.base;
    net_loop_start(&h->loop);
    assert_ok(tasks_resume(h->d.tasks, &err), err);
}

static void
close_host(struct host *h)
{
    net_loop_stop(&h->loop);
    tasks_stop(h->d.tasks);
    workers_free(TAKE(h->d.steps));
    tasks_free(h->d.tasks);
    scheduler_free(h->d.scheduler);
    replications_free(h->d.replications);
    h->d.state->ops->close(h->d.state);
    event_base_free(h->d.base);
}

static void
make_host(struct world *w, size_t i)
{
    static const char *const names[] = { "a", "b", "c" };
    struct host *h = &w->hosts[i];
    AUTOFREE(char) *disks = NULL;
    struct error *err = NULL;

    h->world = w;
    h->name = names[i];
    h->peers.host = h;
    snprintf(h->folder, sizeof h->folder, "%s/%s", w->folder, h->name);
    assert_int_equal(mkdir(h->folder, 0700), 0);
    snprintf(h->d.host_id, sizeof h->d.host_id, "%s", ids[i]);
    h->config = (struct config){ .host_name = mem_strdup(h->name),
                                 .site = mem_strdup("sim"),
                                 .storages = &h->storage,
                                 .n_storages = 1 };
    h->storage = (struct config_storage){ .name = mem_strdup("default"),
                                          .path = mem_strdup(h->folder) };
    h->d.guard_records = mem_printf("%s/guard", h->folder);
    h->d.guard_confirmations = mem_printf("%s/confirmed", h->folder);
    h->d.guard.records = h->d.guard_records;
    h->d.guard.confirmations = h->d.guard_confirmations;
    h->d.hypervisor = fake_open(w->fakes, NULL, NULL);
    disks = mem_printf("%s/disks", h->folder);
    assert_ok(fake_capture_open(disks, &h->d.captures[CAPTURE_CHECKPOINT], &err), err);
    h->d.captures[CAPTURE_BITMAP] = h->d.captures[CAPTURE_CHECKPOINT];
    h->d.captures[CAPTURE_OFFLINE] = h->d.captures[CAPTURE_CHECKPOINT];
    open_host(h);
}

static void
remove_host(struct host *h)
{
    close_host(h);
    h->d.captures[CAPTURE_CHECKPOINT]->ops->close(h->d.captures[CAPTURE_CHECKPOINT]);
    h->d.hypervisor->ops->close(h->d.hypervisor);
    free(h->config.host_name);
    free(h->config.site);
    free(h->storage.name);
    free(h->storage.path);
    free(h->d.guard_records);
    free(h->d.guard_confirmations);
}

/* --- the VM
 * ------------------------------------------------------------------------------
 */

static void
define_at(struct host *h)
{
    struct error *err = NULL;

    assert_ok(fake_add(h->d.hypervisor,
                       "<domain type='kvm'><name>web01</name><uuid>" VM "</uuid>"
                       "<devices/></domain>",
                       &err),
              err);
}

static void
moves(struct world *w, size_t from, size_t to, bool undefine)
{
    struct hypervisor *old = w->hosts[from].d.hypervisor;

    fake_migrate_away(old, VM);
    if (undefine)
        old->ops->undefine(old, VM, NULL);
    define_at(&w->hosts[to]);
    fake_set_state(w->hosts[to].d.hypervisor, VM, HV_STATE_RUNNING);
}

static void
protect(struct world *w)
{
    struct host *a = &w->hosts[A], *b = &w->hosts[B];
    AUTOPTR(replication) *source =
        replication_new(SIDE_SOURCE, REPLICA, VM, "web01", ids[B]);
    AUTOPTR(replication) *target =
        replication_new(SIDE_TARGET, REPLICA, VM, "web01", ids[A]);
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
    define_at(a);
    fake_set_state(a->d.hypervisor, VM, HV_STATE_RUNNING);
}

static int
setup(void **state)
{
    struct world *w = NEW(struct world);

    snprintf(w->folder, sizeof w->folder, "/var/tmp/virt-dr-move-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    the_world = w;
    w->fakes = fake_world_new();
    for (size_t i = 0; i < N_HOSTS; i++)
        w->hosts[i].name = "";
    for (size_t i = 0; i < N_HOSTS; i++)
        make_host(w, i);
    protect(w);
    *state = w;
    return 0;
}

static int
teardown(void **state)
{
    struct world *w = *state;

    for (size_t i = 0; i < N_HOSTS; i++)
        remove_host(&w->hosts[i]);
    fake_world_free(w->fakes);
    files_remove(w->folder);
    free(w);
    return 0;
}

/* --- what a virtdrd does by itself
 * ------------------------------------------------------
 */

static void
await_tasks(struct host *h)
{
    int64_t until_ms = units_monotonic_ms() + DEADLINE;

    while (tasks_busy(h->d.tasks, REPLICA)) {
        assert_true(units_monotonic_ms() < until_ms);
        usleep(1000);
    }
}

/* What the target says to a query. */
static bool
is_admitted(struct host *h, const struct replication *r)
{
    AUTOPTR(replication) *target = replication_at(&the_world->hosts[B]);

    return !the_world->hosts[B].dead && strcmp(target->peer_id, h->d.host_id) == 0 &&
           target->epoch == r->epoch;
}

/* The beginning of a cycle. */
static void
cycle(struct host *h)
{
    AUTOPTR(replication) *r = replication_at(h);
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
contact(struct host *from, struct host *to)
{
    AUTOJSON *said = NULL;

    if (from->dead || to->dead)
        return;
    said = contact_say(&from->d, to->d.host_id);
    contact_hear(&to->d, from->d.host_id, said);
}

static void
live_on(struct world *w)
{
    for (size_t i = 0; i < N_HOSTS; i++) {
        struct host *h = &w->hosts[i];

        if (h->no_virtdrd || h->dead)
            continue;
        cycle(h);
        await_tasks(h);
        if (i != B && are_paired(h, &w->hosts[B])) {
            contact(h, &w->hosts[B]);
            contact(&w->hosts[B], h);
        }
    }
}

static void
boot(struct world *w)
{
    for (size_t i = 0; i < N_HOSTS; i++)
        if (w->hosts[i].dead) {
            close_host(&w->hosts[i]);
            open_host(&w->hosts[i]);
        }
}

/* --- what must be true
 * -------------------------------------------------------------------
 */

static bool
is_source(struct host *h)
{
    AUTOPTR(replication) *r = replication_at(h);

    return r != NULL && r->side == SIDE_SOURCE && states_is_protecting(r->phase) &&
           r->move.from[0] == '\0';
}

/* At each moment at most one host may send. */
static void
check_one(struct world *w)
{
    size_t n = 0;

    for (size_t i = 0; i < N_HOSTS; i++) {
        AUTOPTR(replication) *r = replication_at(&w->hosts[i]);

        n += i != B && r != NULL && states_is_protecting(r->phase) &&
             is_admitted(&w->hosts[i], r);
    }
    assert_true(n <= 1);
}

static bool
may_start(struct host *h)
{
    return guard_judge(&h->d.guard, VM, NULL);
}

static void
settle(struct world *w, size_t at)
{
    unsigned i = 0;

    do {
        boot(w);
        live_on(w);
        check_one(w);
    } while (++i < ROUNDS && !is_source(&w->hosts[at]));
    live_on(w); /* the others may hear of it later */
    live_on(w);
}

/* The new source has all that the old one knew, and nobody else sends or starts. */
static void
check_settled(struct world *w, size_t at, uint64_t epoch)
{
    AUTOPTR(replication) *r = replication_at(&w->hosts[at]);
    AUTOPTR(replication) *target = replication_at(&w->hosts[B]);

    assert_true(is_source(&w->hosts[at]));
    assert_int_equal(r->epoch, epoch);
    assert_int_equal(target->epoch, epoch);
    assert_string_equal(target->peer_id, ids[at]);
    assert_string_equal(r->newest.name, POINT);
    assert_int_equal(r->newest.sequence, 7);
    assert_int_equal(r->newest.generation, 0); /* of images that are not here */
    assert_int_equal(json_object_array_length(r->excluded), 1);
    assert_true(r->move.adopt);
    assert_true(may_start(&w->hosts[at]));
    for (size_t i = 0; i < N_HOSTS; i++) {
        AUTOPTR(replication) *other =
            i != at && i != B ? replication_at(&w->hosts[i]) : NULL;
        AUTOPTR(hv_domain) *left = NULL;
        struct hypervisor *hv = w->hosts[i].d.hypervisor;

        if (i == at || i == B)
            continue;
        hv->ops->lookup(hv, VM, &left, NULL);
        assert_true(other == NULL || other->phase == PHASE_MOVED);
        assert_true((other != NULL) == (left != NULL));
        assert_true(left == NULL || !may_start(&w->hosts[i]));
    }
}

/* --- the tests
 * ---------------------------------------------------------------------------
 */

static void
goes_with_the_vm(void **state)
{
    struct world *w = *state;

    moves(w, A, C, false);
    settle(w, C);
    check_settled(w, C, 2);
}

static void
comes_back(void **state)
{
    struct world *w = *state;

    moves(w, A, C, false);
    settle(w, C);
    moves(w, C, A, true);
    settle(w, A);
    check_settled(w, A, 3);
    assert_null(replication_at(&w->hosts[C])); /* nothing is left where it is unknown */
}

static const char *
trouble_of(struct host *h)
{
    AUTOPTR(replication) *r = replication_at(h);

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
assert_target_says(struct world *w, const char *part)
{
    AUTOPTR(replication) *r = replication_at(&w->hosts[B]);

    assert_non_null(r->source_says);
    assert_says(r->source_says, part);
}

static void
names_the_pair_that_is_missing(void **state)
{
    struct world *w = *state;

    w->strangers = true;
    moves(w, A, C, false);
    live_on(w);
    assert_says(trouble_of(&w->hosts[A]), "not paired with 'b'");
    assert_target_says(w, "not paired with 'b'");
    assert_null(replication_at(&w->hosts[C]));
    w->strangers = false;
    settle(w, C);
    check_settled(w, C, 2);
}

static void
says_that_virtdrd_is_missing(void **state)
{
    struct world *w = *state;

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
    struct world *w = *state;
    AUTOPTR(replication) *target = NULL;

    moves(w, A, B, false);
    live_on(w);
    assert_says(trouble_of(&w->hosts[A]), "the host that its replica is on");
    target = replication_at(&w->hosts[B]);
    assert_int_equal(target->epoch, 1);
    assert_string_equal(target->peer_id, ids[A]);
    fake_set_state(w->hosts[B].d.hypervisor, VM, HV_STATE_OFF);
}

static void
is_no_failure_of_a_vm_that_is_off(void **state)
{
    struct world *w = *state;

    fake_set_state(w->hosts[A].d.hypervisor, VM, HV_STATE_OFF);
    live_on(w);
    assert_string_equal(trouble_of(&w->hosts[A]), "");
    assert_true(is_source(&w->hosts[A]));
}

/* Only the source may name another one; a former one hears who it is. */
static void
refuses_who_is_not_the_source(void **state)
{
    struct world *w = *state;
    struct host *b = &w->hosts[B];
    AUTOPTR(replication) *r = replication_at(b);
    struct error *err = NULL;

    assert_fails(handover_set_source(&b->d, r, ids[C], ids[C], 2, &err), err,
                 ERROR_REPLICATION_NOT_FOUND);
    assert_fails(handover_set_source(&b->d, r, ids[A], ids[C], 3, &err), err,
                 ERROR_EPOCH);
    assert_fails(handover_set_source(&b->d, r, ids[A], ids[B], 2, &err), err,
                 ERROR_INVALID_STATE);
    assert_ok(handover_set_source(&b->d, r, ids[A], ids[C], 2, &err), err);
    assert_ok(handover_set_source(&b->d, r, ids[A], ids[C], 2, &err), err);
    assert_false(handover_set_source(&b->d, r, ids[A], ids[A], 3, &err));
    assert_says(error_message(err), "moved to host 'c' (epoch 2)");
    assert_int_equal(error_code(err), ERROR_EPOCH);
    error_clear(&err);
    r->phase = PHASE_FAILED_OVER;
    assert_fails(handover_set_source(&b->d, r, ids[C], ids[A], 3, &err), err,
                 ERROR_INVALID_STATE);
}

static struct json_object *
offer_with(struct world *w, const char *key, struct json_object *value)
{
    AUTOPTR(replication) *r = replication_at(&w->hosts[A]);
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
    struct world *w = *state;
    struct host *c = &w->hosts[C];
    struct error *err = NULL;

    moves(w, A, C, false);
    for (size_t i = 0; i < N_ELEMENTS(wrong); i++) {
        AUTOJSON *o = offer_with(w, wrong[i].key, json_tokener_parse(wrong[i].json));

        assert_fails(handover_accept(&c->d, ids[A], o, &err), err, ERROR_PROTOCOL);
        assert_null(replication_at(c));
    }
    fake_set_state(c->d.hypervisor, VM, HV_STATE_OFF);
    {
        AUTOJSON *o = offer_with(w, "epoch", json_object_new_int(2));

        assert_fails(handover_accept(&c->d, ids[A], o, &err), err, ERROR_INVALID_STATE);
    }
}

/* It goes on to a third host, or home, before the target has heard of the second. */
static void
an_offer_that_is_overtaken_comes_to_nothing(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *r = replication_at(&w->hosts[A]);
    AUTOJSON *offer = handover_offer(r);
    struct error *err = NULL;

    moves(w, A, C, false);
    assert_ok(handover_accept(&w->hosts[C].d, ids[A], offer, &err), err);
    moves(w, C, A, true);
    live_on(w);
    assert_true(is_source(&w->hosts[A]));
    assert_int_equal(r->epoch, 1);
    assert_null(replication_at(&w->hosts[C]));
    assert_true(may_start(&w->hosts[A]));
}

/* --- deaths
 * -------------------------------------------------------------------------------
 */

/* False: that host has not so many commits, it did not die. */
static bool
dies_at(size_t host, unsigned n, enum fate fate, bool undefine, bool back)
{
    void *state;
    struct world *w;
    bool died;

    setup(&state);
    w = state;
    w->hosts[host].fate = fate;
    w->hosts[host].left = n;
    moves(w, A, C, undefine);
    live_on(w);
    live_on(w);
    died = w->hosts[host].dead;
    check_one(w);
    if (died && back) { /* while it is dead the VM goes home */
        moves(w, C, A, undefine);
        settle(w, A);
        assert_true(is_source(&w->hosts[A]));
        assert_true(may_start(&w->hosts[A]));
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
        ALONE("also where the VM is not defined any more",
              outlives_any_death_without_a_definition),
        ALONE("also when the VM goes home before the dead one is back",
              outlives_any_death_and_a_return),
    };

    evthread_use_pthreads();
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
