/* A guest agent that is small: it answers on the channel org.qemu.guest_agent.0, if there is one.
 *
 * Owns one thread. "Frozen" means that no block is being written and none will be until the thaw.
 * It knows guest-sync, guest-sync-delimited, guest-ping, guest-info, guest-fsfreeze-status,
 * -freeze, -freeze-list and -thaw, guest-get-time, guest-shutdown; anything else is
 * CommandNotFound. It never runs anything. */

#ifndef LAB_AGENT_H
#define LAB_AGENT_H

#include <pthread.h>

/* `writing` is what the writer holds while it writes a block; it is held while frozen. */
void agent_start(pthread_mutex_t *writing);

#endif
