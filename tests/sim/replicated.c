#include "tests/sim/replicated.h"

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
count_steps(const struct op_kind *kind)
{
    size_t n = 0;

    while (kind->steps[n].name != NULL)
        n++;
    return n;
}
