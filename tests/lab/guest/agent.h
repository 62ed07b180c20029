/* A small guest agent: it answers on the channel org.qemu.guest_agent.0, if there is one.
 *
 * Owns one thread. "Frozen" means that no block is being written, and none will be until
 * the thaw, and that the guest's file system (files.h) is frozen. It knows guest-ping,
 * guest-sync, guest-info, guest-get-time, guest-shutdown and guest-fsfreeze- status,
 * -freeze, -freeze-list, -thaw; anything else is CommandNotFound. It never runs anything.
 */

#ifndef LAB_AGENT_H
#define LAB_AGENT_H

#include <pthread.h>

/* What goes wrong on purpose. */
enum agent_fault {
    AGENT_GOOD,
    AGENT_FREEZE_HANGS, /* freezes, and never answers anything again */
    AGENT_FREEZE_FAILS, /* answers with an error, does not freeze */
    AGENT_THAW_FAILS, /* the first thaw after each freeze is an error, the second works */
    AGENT_FREEZE_LATE, /* freezes at once, and answers 12 s later */
    AGENT_FREEZE_SLOW, /* freezes only after 6 s, and answers then */
    AGENT_SILENT,      /* takes the freeze, does not do it, and never answers it */
    AGENT_DIES, /* is gone for 3 s once it has frozen, as if it was started again */
};

struct agent_settings {
    enum agent_fault fault;
    pthread_mutex_t
        *writing; /* the writer holds it for each block, the agent while frozen */
    void (*shutdown)(void); /* called for guest-shutdown */
};

/* `settings` is copied. */
void agent_start(const struct agent_settings *settings);

#endif
