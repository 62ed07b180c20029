/*
 * A process that dies right after its n-th command to QEMU: itself, by
 * _exit(), so that nothing is tidied up.
 *
 * Links with -Wl,--wrap of both calls that send one.
 */
#ifndef TESTS_SYSTEM_BITMAP_KILLS_H
#define TESTS_SYSTEM_BITMAP_KILLS_H

#include <stdbool.h>

/* Is this process such a one? It then does its work here and does not return. */
void bitmap_kills_child(int argc, char **argv);

/*
 * Runs one: a capture since `base` under `name`, read and ended, after which `base`
 * is forgotten. False: it came to its end before it sent so many commands.
 */
bool bitmap_kills_run(unsigned at, const char *base, const char *name);

#endif
