/* What the files of the world share. */
#ifndef TESTS_SIM_WORLD_PRIVATE_H
#define TESTS_SIM_WORLD_PRIVATE_H

#include "tests/sim/world.h"

/* world_hypervisor.c: with the domains that it had when it was closed. */
void world_open_hypervisor(struct world_host *h);
void world_close_hypervisor(struct world_host *h);

#endif
