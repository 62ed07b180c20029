#include "tests/sim/pair.h"

#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/contact.h"
#include "daemon/cycle.h"
#include "daemon/exports.h"
#include "daemon/peers.h"
#include "daemon/tasks.h"
#include "tests/sim/files.h"
#include "tests/sim/pair_private.h"

#define LOOK_MS 4
#define CALM    3 /* rounds of contacts after which nobody has had anything to do */
#define TRIES   5 /* of a cycle: a lost record, or a stale connection, fails the first */

struct pair pair;

/* --- dying -------------------------------------------------------------------------- */

void
pair_step_of(const struct state_write *writes, size_t n, char ret_step[PAIR_STEP])
{
    ret_step[0] = '\0';
    for (size_t i = 0; i < n; i++)
        if (strcmp(writes[i].kind, "task") == 0 && writes[i].body != NULL)
            snprintf(ret_step, PAIR_STEP, "%s %s",
                     json_string_or(writes[i].body, "type", ""),
                     json_string_or(writes[i].body, "step", ""));
}

static bool
is_at_the_step(struct fated *f UNUSED, const struct state_write *writes, size_t n)
{
    char step[PAIR_STEP];

    pair_step_of(writes, n, step);
    return strcmp(step, pair.dies_at) == 0;
}

static void
die(struct fated *f, const struct state_write *writes, size_t n)
{
    struct world_host *h =
        (struct world_host *)((char *)f - offsetof(struct world_host, state));

    pair_step_of(writes, n, pair.died_at);
    pair.died = true;
    tasks_stop(h->d.tasks);
}

void
pair_let_die(bool source, enum fate fate, unsigned n)
{
    pair.died = false;
    fated_let(&pair.sides[source].host->state, fate, n);
}

void
pair_let_die_at(bool source, enum fate fate, const char *step)
{
    pair.died = false;
    pair.dies_at = step;
    fated_let_at(&pair.sides[source].host->state, fate, is_at_the_step);
}

bool
pair_has_died(char ret_step[PAIR_STEP])
{
    snprintf(ret_step, PAIR_STEP, "%s", pair.died_at);
    return pair.died;
}

void
pair_cut(bool cut)
{
    pair.cut = cut ? UINT_MAX : 0;
}

void
pair_cut_for(unsigned rounds)
{
    pair.cut = rounds;
}

void
pair_tell(bool source,
          void (*told)(struct fated *f, const struct state_write *writes, size_t n),
          void *opaque)
{
    struct fated *f = &pair.sides[source].host->state;

    f->opaque = opaque;
    f->told = told;
}

bool
pair_is_dead(const struct pair_side *s)
{
    return s->host->state.dead;
}

/* --- opening, closing ------------------------------------------------------------------
 */

/* What the guests would see of their disks, as far as libvirt would tell it. */
static void
set_capacities(void)
{
    struct capture_driver *capture = pair.sides[true].host->capture;
    const char *target;
    uint64_t capacity;

    for (size_t i = 0;
         capture != NULL && (target = fake_capture_disk(capture, i, &capacity)) != NULL;
         i++)
        for (size_t k = 0; k < N_ELEMENTS(pair.sides); k++)
            if (pair.sides[k].host->d.hypervisor != NULL)
                fake_set_capacity(pair.sides[k].host->d.hypervisor, target, capacity);
}

/* Its domain as it was when the world was kept. */
static void
bring_back(struct pair_side *s)
{
    struct hypervisor *hv = s->host->d.hypervisor;
    struct error *err = NULL;

    if (s->kept.xml == NULL)
        return;
    assert_ok(fake_add(hv, s->kept.xml, &err), err);
    fake_set_state(hv, WORLD_VM, s->kept.state);
    assert_ok(hv->ops->set_autostart(hv, WORLD_VM, s->kept.autostart, &err), err);
}

void
pair_open(struct pair_side *s)
{
    bool anew = pair.world->kept[s == &pair.sides[true]] == NULL;
    struct error *err = NULL;

    pthread_mutex_lock(&s->door);
    world_open_both(pair.world, s == &pair.sides[true]);
    if (anew)
        bring_back(s);
    s->host->state.dies = die;
    pair_make_mortal(s);
    assert_ok(tasks_load(s->host->d.tasks, &err), err);
    exports_start(s->host->d.exports);
    s->open = true;
    pthread_mutex_unlock(&s->door);
    assert_ok(tasks_resume(s->host->d.tasks, &err), err);
}

void
pair_close(struct pair_side *s)
{
    pthread_mutex_lock(&s->door);
    s->open = false;
    pthread_mutex_unlock(&s->door);
    tasks_stop(s->host->d.tasks);
    s->host->d.hypervisor->ops = s->hypervisor_real;
    world_close(s->host);
}

/* The VM's own images at its home: real ones, since a replica will stand on them. */
static void
make_images(struct world *w)
{
    AUTOFREE(char) *folder = mem_printf("%s/images", w->folder);
    AUTOFREE(char) *path = mem_printf("%s/vda.qcow2", folder);
    AUTOFREE(char) *booted = mem_printf("%s/a/booted", w->folder);

    run_program((const char *const[]){ "mkdir", folder, NULL });
    run_program((const char *const[]){ "qemu-img", "create", "-q", "-f", "qcow2", path,
                                       "256k", NULL });
    file_write(booted, path);
}

int
pair_setup(void **state)
{
    struct error *err = NULL;
    struct world *w = world_new();

    w->keeps_domains = true;
    pair = (struct pair){ .world = w };
    pair.sides[false] = (struct pair_side){ .host = &w->target, .id = WORLD_TARGET };
    pair.sides[true] = (struct pair_side){ .host = &w->source, .id = WORLD_SOURCE };
    for (size_t i = 0; i < N_ELEMENTS(pair.sides); i++) {
        pthread_mutex_init(&pair.sides[i].door, NULL);
        pair_open(&pair.sides[i]);
    }
    fake_capture_set_disk(w->source.capture, "vda", 256u << 10);
    make_images(w);
    world_plug(w);
    set_capacities();
    world_guest_writes(w, 20);
    world_protect(w);
    assert_ok(world_cycle(w, &err), err);
    *state = w;
    return 0;
}

int
pair_teardown(void **state)
{
    for (size_t i = 0; i < N_ELEMENTS(pair.sides); i++) {
        pair_close(&pair.sides[i]);
        pthread_mutex_destroy(&pair.sides[i].door);
        free(pair.sides[i].kept.xml);
    }
    world_free(*state);
    return 0;
}

/* --- kept and restored ---------------------------------------------------------------
 */

/* What the virtdrds and the guest have written. */
#define FILES "a b disks disks-b images"

static void
copy_files(const char *from, const char *to)
{
    AUTOFREE(char) *command = mem_printf(
        "cd '%s' && rm -rf " FILES " && cd '%s' && cp -a " FILES " '%s'", to, from, to);

    run_program((const char *const[]){ "sh", "-c", command, NULL });
}

static void
keep_domain(struct pair_side *s)
{
    struct hypervisor *hv = s->host->d.hypervisor;
    AUTOPTR(hv_domain) *domain = NULL;

    free(TAKE(s->kept.xml));
    if (!hv->ops->lookup(hv, WORLD_VM, &domain, NULL))
        return;
    s->kept.xml = TAKE(domain->xml);
    s->kept.state = domain->state;
    s->kept.autostart = domain->autostart;
}

static void
close_both(void)
{
    for (size_t i = 0; i < N_ELEMENTS(pair.sides); i++)
        pair_close(&pair.sides[i]);
}

static void
open_both(void)
{
    for (size_t i = 0; i < N_ELEMENTS(pair.sides); i++)
        pair_open(&pair.sides[i]);
    set_capacities();
}

void
pair_keep(void)
{
    AUTOFREE(char) *saved = mem_printf("%s/saved", pair.world->folder);

    for (size_t i = 0; i < N_ELEMENTS(pair.sides); i++)
        keep_domain(&pair.sides[i]);
    close_both();
    run_program((const char *const[]){ "mkdir", saved, NULL });
    copy_files(pair.world->folder, saved);
    open_both();
}

void
pair_restore(void)
{
    AUTOFREE(char) *saved = mem_printf("%s/saved", pair.world->folder);

    pair.cut = 0;
    close_both();
    for (size_t i = 0; i < N_ELEMENTS(pair.world->kept); i++) {
        struct hypervisor *hv = TAKE(pair.world->kept[i]);

        hv->ops->close(hv);
    }
    copy_files(saved, pair.world->folder);
    open_both();
}

/* --- tasks
 * ----------------------------------------------------------------------------------- */

char *
pair_ask(bool at_source, const struct tasks_request *request)
{
    struct daemon *d = &pair.sides[at_source].host->d;
    struct error *err = NULL;
    AUTOJSON *task = NULL;

    if (!tasks_start(d->tasks, request, &task, &err)) {
        if (!pair_is_dead(&pair.sides[at_source]))
            fail_msg("%s: %s", request->kind, error_message(err));
        error_free(err);
        return NULL;
    }
    return mem_strdup(json_string_or(task, "id", ""));
}

char *
pair_start(struct world *w UNUSED, bool at_source, const char *kind,
           struct json_object *data)
{
    const struct tasks_request request = { .kind = kind,
                                           .resource_id = WORLD_REPLICA,
                                           .resource_name = "web01",
                                           .user = "test",
                                           .data = data };

    return pair_ask(at_source, &request);
}

struct json_object *
pair_task(struct world *w UNUSED, bool at_source, const char *id)
{
    struct json_object *task = NULL;
    struct error *err = NULL;

    assert_ok(tasks_get(pair.sides[at_source].host->d.tasks, id, &task, &err), err);
    return task;
}

void
pair_do(struct world *w, bool at_a, const struct tasks_request *request)
{
    AUTOFREE(char) *id = pair_ask(at_a, request);
    AUTOJSON *task = NULL;

    pair_settle(w);
    task = pair_task(w, at_a, id);
    if (strcmp(json_string_or(task, "state", ""), "SUCCEEDED") != 0)
        fail_msg("%s: %s", request->kind, json_object_to_json_string(task));
}

bool
pair_runs(struct world *w UNUSED, bool at_source)
{
    struct hypervisor *hv = pair.sides[at_source].host->d.hypervisor;
    AUTOPTR(hv_domain) *domain = NULL;

    return hv->ops->lookup(hv, WORLD_VM, &domain, NULL) && domain->state != HV_STATE_OFF;
}

/* --- they go on ------------------------------------------------------------------------
 */

static void
revive(void)
{
    for (size_t i = 0; i < N_ELEMENTS(pair.sides); i++) {
        if (!pair_is_dead(&pair.sides[i]))
            continue;
        pair_close(&pair.sides[i]);
        pair_open(&pair.sides[i]);
        set_capacities();
    }
}

static bool
has_a_task(const struct pair_side *s)
{
    AUTOJSON *all = NULL;

    assert_true(tasks_list(s->host->d.tasks, TASKS_KEPT, &all, NULL));
    for (size_t i = 0; i < json_object_array_length(all); i++)
        if (strcmp(json_string_or(json_object_array_get_idx(all, i), "state", ""),
                   "RUNNING") == 0)
            return true;
    return false;
}

static bool
is_busy(void)
{
    for (size_t i = 0; i < N_ELEMENTS(pair.sides); i++)
        if (pair_is_dead(&pair.sides[i]) || has_a_task(&pair.sides[i]))
            return true;
    return false;
}

/* What the scheduler would do: a source that the target has no point of. True if there
   was something to do. */
static bool
synchronise(struct pair_side *s)
{
    AUTOPTR(replication) *r = NULL;
    struct cancel cancel = { 0 };
    bool more = false, due;

    if (pair_is_dead(s) ||
        !replications_find(s->host->d.replications, WORLD_REPLICA, &r, NULL))
        return false;
    pthread_mutex_lock(&r->lock);
    due = r->side == SIDE_SOURCE && !r->removed && r->resync.held_until_ms == 0 &&
          (r->phase == PHASE_INITIAL_SYNC || r->phase == PHASE_RESYNCING);
    r->looked_for_ms = 0; /* much time has passed */
    pthread_mutex_unlock(&r->lock);
    if (!due || pair.cut || !replication_try_claim(r, &cancel))
        return due && !pair.cut;
    if (!cycle_run(&s->host->d, r, &cancel, &more, NULL))
        r->agreed = false;
    replication_release(r);
    return true;
}

/* What `from` says reaches `to`, as in a contact. */
static void
tell(struct pair_side *from, struct pair_side *to)
{
    AUTOJSON *said = NULL;

    if (pair_is_dead(from) || pair_is_dead(to) || pair.cut)
        return;
    said = contact_say(&from->host->d, to->id);
    if (!pair_is_dead(from))
        contact_hear(&to->host->d, from->id, said);
}

/* Is anybody at work? */
static bool
one_round(void)
{
    bool busy = pair.cut > 0 && pair.cut < UINT_MAX;

    if (busy)
        pair.cut--;
    revive();
    tell(&pair.sides[false], &pair.sides[true]);
    tell(&pair.sides[true], &pair.sides[false]);
    for (size_t i = 0; i < N_ELEMENTS(pair.sides); i++)
        busy = synchronise(&pair.sides[i]) || busy;
    busy = is_busy() || busy;
    if (busy)
        __real_poll(NULL, 0, LOOK_MS);
    return busy;
}

void
pair_settle(struct world *w UNUSED)
{
    int64_t deadline_ms = units_monotonic_ms() + WORLD_DEADLINE;

    for (unsigned calm = 0; calm < CALM;) {
        assert_true(units_monotonic_ms() < deadline_ms);
        calm = one_round() ? 0 : calm + 1;
    }
}

/* --- the two ends ----------------------------------------------------------------------
 */

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

void
pair_goes_on(struct world_host *from, struct world_host *to)
{
    struct error *err = NULL;
    struct world_model m;

    world_guest_writes_at(from, 3);
    for (unsigned i = 0; i < TRIES; i++) {
        error_clear(&err);
        if (world_cycle_from(from, &err))
            break;
    }
    assert_ok(err == NULL, err);
    world_model_take_at(from, &m);
    world_check_tip_at(to, &m);
    world_model_free(&m);
}

void
pair_is_back(struct world *w)
{
    AUTOPTR(replication) *a = world_replication(&w->source);
    AUTOPTR(replication) *b = world_replication(&w->target);
    struct error *err = NULL;

    assert_true(pair_runs(w, true));
    assert_false(pair_runs(w, false));
    assert_int_equal(a->phase, PHASE_REPLICATING);
    assert_int_equal(b->phase, PHASE_REPLICATING);
    assert_int_equal(a->epoch, b->epoch);
    assert_ok(guard_judge(&w->source.d.guard, WORLD_VM, &err), err);
    assert_fails(guard_judge(&w->target.d.guard, WORLD_VM, &err), err, ERROR_GUARD);
    pair_goes_on(&w->source, &w->target);
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
