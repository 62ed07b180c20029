/* Figures that hold whatever else the machine does: the time that we ourselves compute.
 */
#ifndef TESTS_UNIT_FIGURE_H
#define TESTS_UNIT_FIGURE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/mem.h"

#define FIGURE_UNDER_VALGRIND 100 /* so many times slower, at most */
#define FIGURE_SANITIZED      10

static inline int64_t
figure_cpu_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* A limit in ms, larger where a tool slows us down. */
static inline int64_t
figure_limit_ms(int64_t ms)
{
    const char *preload = getenv("LD_PRELOAD");

    if (preload != NULL && strstr(preload, "vgpreload") != NULL)
        return ms * FIGURE_UNDER_VALGRIND;
#ifdef __SANITIZE_ADDRESS__
    return ms * FIGURE_SANITIZED;
#else
    return ms;
#endif
}

#endif
