/*
 * Fence agents: a command of the operator's that makes sure that a host, or a VM on it,
 * is off.
 *
 * It runs as a child with a session and an environment of its own, and is killed with all
 * of its process group when it takes too long or is cancelled. Owns nothing; any thread
 * that may block.
 */
#ifndef DRIVERS_FENCE_COMMAND_H
#define DRIVERS_FENCE_COMMAND_H

#include <stdint.h>

#include "common/cancel.h"
#include "common/error.h"

/* What its exit status says; any other is as 1. */
enum fence_status {
    FENCE_DONE = 0,
    FENCE_FAILED = 1,
    FENCE_IMPOSSIBLE = 2, /* it has no way to fence that host */
};

struct fence_command {
    const char *path;         /* absolute */
    char *const *environment; /* "NAME=value", ends with NULL */
    int64_t timeout_ms;
};

/*
 * True if it says that the host is fenced. ERROR_FENCE, with what it printed last, if it
 * says anything else, ends by a signal, takes too long or cannot be started;
 * ERROR_CANCELLED.
 */
bool fence_command_run(const struct fence_command *command, struct cancel *cancel,
                       struct error **err);

#endif
