/* Protecting a VM that somebody thinks better of. */
#include "tests/sim/pair.h"

#include <event2/thread.h>
#include <poll.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/tasks.h"

#define LOOK_MS 2

/* A cycle that the scheduler began as soon as there was something to replicate. */
struct cycle_at_work {
    struct world *w;
    struct replication *r;
    struct cancel cancel;
    _Atomic bool began;
};

static void
ask(struct world *w, const char *kind, struct json_object *data, char ret_id[40])
{
    AUTOFREE(char) *id = pair_start(w, true, kind, data);

    assert_non_null(id);
    snprintf(ret_id, 40, "%s", id);
}

static void
ended_as(struct world *w, const char *id, const char *state)
{
    AUTOJSON *task = NULL;

    pair_settle(w);
    task = pair_task(w, true, id);
    assert_string_equal(json_string_or(task, "state", ""), state);
}

static struct json_object *
wish(void)
{
    struct json_object *data = json_object_new_object();

    json_set_string(data, "domain", WORLD_VM);
    json_set_string(data, "peer", WORLD_TARGET);
    json_set(data, "excluded", json_object_new_array());
    return data;
}

/* The replication has just been recorded: the cycle begins, the operator cancels. */
static void
begin_and_cancel(struct fated *f, const struct state_write *writes, size_t n UNUSED)
{
    struct cycle_at_work *c = f->opaque;
    struct tasks *t = c->w->source.d.tasks;
    AUTOFREE(char) *id = NULL;
    AUTOJSON *task = NULL;

    if (c->began || strcmp(writes[0].kind, "seed") != 0)
        return;
    c->r = world_replication(&c->w->source);
    assert_true(replication_try_claim(c->r, &c->cancel));
    c->began = true;
    id = tasks_exclusive(t, WORLD_REPLICA);
    assert_true(tasks_cancel(t, id, &task, NULL));
}

static void
come_true(const _Atomic bool *what)
{
    int64_t until_ms = units_monotonic_ms() + WORLD_DEADLINE;

    while (!*what) {
        assert_true(units_monotonic_ms() < until_ms);
        poll(NULL, 0, LOOK_MS);
    }
}

static void
a_protect_that_is_cancelled_waits_for_the_cycle_that_has_begun(void **state)
{
    struct world *w = *state;
    struct cycle_at_work c = { .w = w };
    AUTOPTR(replication) *left = NULL;
    AUTOJSON *data = wish();
    char id[40];

    ask(w, "unprotect", NULL, id);
    ended_as(w, id, "SUCCEEDED");
    pair_tell(true, begin_and_cancel, &c);
    ask(w, "protect", data, id);
    come_true(&c.began);
    come_true(&c.cancel.requested); /* the cycle is told to stop */
    assert_true(replications_find(w->source.d.replications, WORLD_REPLICA, &left, NULL));
    replication_release(c.r);
    replication_unref(c.r);
    ended_as(w, id, "CANCELLED");
    replication_unref(TAKE(left));
    assert_false(replications_find(w->source.d.replications, WORLD_REPLICA, &left, NULL));
    assert_false(replications_find(w->target.d.replications, WORLD_REPLICA, &left, NULL));
    assert_int_equal(fake_capture_points(w->source.capture), 0);
    pair_tell(true, NULL, NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            a_protect_that_is_cancelled_waits_for_the_cycle_that_has_begun, pair_setup,
            pair_teardown),
    };

    log_init(LOG_LEVEL_ERROR);
    evthread_use_pthreads();
    return cmocka_run_group_tests_name("protect", tests, NULL, NULL);
}
