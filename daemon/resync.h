/*
 * Whether a resync may begin now: those of big disks wait for the window of [resync].
 * Source side; under r->lock, by any thread.
 */
#ifndef DAEMON_RESYNC_H
#define DAEMON_RESYNC_H

#include "daemon/config.h"
#include "daemon/replication.h"

/*
 * When the resync that is due may begin, wall clock; 0: nothing waits. It waits for a
 * window, or, as a first sync may, for a revert to a snapshot.
 */
int64_t resync_waits_until_ms(const struct config *config, const struct replication *r,
                              int64_t now_ms);

/* As the API shows it; NULL if there never was one. */
struct json_object *resync_view(const struct config *config, const struct replication *r);

/* A sentence for a resync that waits; the caller frees. */
char *resync_wait_text(const struct replication *r, int64_t until_ms);

#endif
