#include "tests/sim/replicated.h"

#include "daemon/replica.h"

int
replicated_setup(void **state)
{
    struct world *w = world_new();
    struct error *err = NULL;

    world_open_target(w);
    world_open_source(w);
    fake_capture_set_disk(w->source.capture, "vda", 1u << 20);
    fake_capture_set_disk(w->source.capture, "vdb", 512u << 10);
    world_plug(w);
    world_guest_writes(w, 100);
    world_protect(w);
    assert_ok(world_cycle(w, &err), err);
    *state = w;
    return 0;
}

int
replicated_teardown(void **state)
{
    world_free(*state);
    return 0;
}

size_t
count_overlays(struct world *w)
{
    AUTOPTR(replication) *r = world_replication(&w->target);
    struct error *err = NULL;
    struct store *store;
    char **ids = NULL;
    size_t n = 0;

    assert_ok(replica_store(&w->target.d, r, &store, &err), err);
    assert_ok(store->ops->overlays(store, &ids, &n, &err), err);
    for (size_t i = 0; i < n; i++)
        free(ids[i]);
    free(ids);
    return n;
}

size_t
count_steps(const struct op_kind *kind)
{
    size_t n = 0;

    while (kind->steps[n].name != NULL)
        n++;
    return n;
}

/* How many commits there were. */
static unsigned
kill_at_each(struct world *w, const char *what, enum fate fate,
             const struct world_model *m,
             void (*check)(struct world *w, const struct world_model *m))
{
    bool killed = true;
    unsigned n;

    for (n = 1; killed; n++) {
        killed = world_child(w, what, fate, n);
        if (killed)
            assert_false(world_child(w, what, FATE_NONE, 0));
        world_open_target(w);
        check(w, m);
        world_close_target(w);
        world_restore_target(w);
    }
    return n;
}

void
killed_at_each_commit(struct world *w, const char *what, size_t n_steps,
                      const struct world_model *m,
                      void (*check)(struct world *w, const struct world_model *m))
{
    world_close_source(w);
    world_close_target(w);
    world_save_target(w);
    assert_true(kill_at_each(w, what, FATE_BEFORE, m, check) > n_steps);
    assert_true(kill_at_each(w, what, FATE_BEHIND, m, check) > n_steps);
    world_open_target(w);
    world_open_source(w);
}

void
replicated_killed_at_each_commit(struct world *w, const char *what, size_t n_steps,
                                 void (*check)(struct world *w,
                                               const struct world_model *m))
{
    struct error *err = NULL;
    struct world_model m;

    world_model_take(w, &m);
    assert_ok(world_failover(w, &err), err);
    killed_at_each_commit(w, what, n_steps, &m, check);
    world_model_free(&m);
}
