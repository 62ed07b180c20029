/*
 * A program of the operator, run to its end: with arguments in its environment, a limit
 * on its time, and what it says kept.
 *
 * It runs as this process's user, in a session of its own that is ended as a whole. So
 * only a file that nobody else can write is run. Any thread; blocks.
 */
#ifndef DRIVERS_SCRIPT_SCRIPT_H
#define DRIVERS_SCRIPT_SCRIPT_H

#include "common/cancel.h"
#include "common/error.h"

struct script {
    const char *path;               /* absolute */
    const char *const *environment; /* "NAME=value", ends with NULL; and PATH, LC_ALL */
    struct cancel *cancel;          /* its end is the script's; NULL: none */
};

/* ERROR_PERMISSION: missing, no program, or others than root and us may write it. */
bool script_check(const char *path, struct error **err);

/*
 * *ret_status is its exit status, or 128 and its signal; *ret_output the end of what it
 * wrote, in one piece and printable, the caller's to free. ERROR_TIMEOUT,
 * ERROR_CANCELLED.
 */
bool script_run(const struct script *script, int *ret_status, char **ret_output,
                struct error **err);

#endif
