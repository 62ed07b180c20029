/* What the files of the pair share. */
#ifndef TESTS_SIM_PAIR_PRIVATE_H
#define TESTS_SIM_PAIR_PRIVATE_H

#include <poll.h>
#include <pthread.h>

#include "tests/sim/pair.h"

/* One of the two: what is asked of the other host goes through here. */
struct pair_side {
    struct world_host *host;
    const char *id;
    pthread_mutex_t door; /* held while it answers, and while it is opened or closed */
    bool open;
    struct hypervisor_ops hypervisor_ops;
    struct hv_testbed_ops testbed_ops;
    const struct hypervisor_ops *hypervisor_real;
    struct {
        char *xml; /* NULL: the VM was not defined here */
        enum hv_state state;
        bool autostart;
    } kept;
};

struct pair {
    struct world *world;
    struct pair_side sides[2]; /* target, source */
    _Atomic unsigned cut;      /* rounds of contacts until it heals */
    _Atomic bool died;
    char died_at[PAIR_STEP];
    const char *dies_at; /* the step that one of them is to die at */
};

extern struct pair pair;

bool pair_is_dead(const struct pair_side *s);
void pair_open(struct pair_side *s);
void pair_close(struct pair_side *s);

/* pair_world.c: its hypervisor does nothing for a dead virtdrd, and a VM that starts
   finds what is in its images. */
void pair_make_mortal(struct pair_side *s);

/* The real one; where nothing but time is waited for, pair_world.c makes it short. */
int __real_poll(struct pollfd *fds, nfds_t n, int timeout_ms);

#endif
