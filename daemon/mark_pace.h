/*
 * When the target makes a mark of a replica. Pure.
 *
 * Marks make a replay short, and each is a layer: a chain of layers costs time and memory
 * too, and has an end (LAYOUT_MAX_LAYERS). So the more marks there are, the farther apart
 * the next ones are, until the points that need them are gone.
 */
#ifndef DAEMON_MARK_PACE_H
#define DAEMON_MARK_PACE_H

#include "daemon/config.h"
#include "drivers/store_types.h"

struct mark_pace {
    const struct config *config;
    const struct store_status *status;
    int64_t since_mark_ms; /* from the newest mark's point to the one in question */
    bool begins_slot;      /* of a retention rule: it will be wanted for long */
};

bool mark_pace_is_due(const struct mark_pace *p);

#endif
