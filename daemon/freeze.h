/*
 * Guests whose file systems are frozen: for a bounded time, and thawed on every way
 * out (I7).
 *
 * A freeze is stored (document "freeze", the VM's UUID) before the guest hears of it. A
 * thread of its own thaws the guest: when freeze_end() is called, when the limit has
 * passed, or when the freeze failed in a way that leaves it in doubt. It tries until it
 * succeeds or the VM does not run any more, and only then removes the document. What a
 * killed virtdrd left frozen is thawed by freezes_start().
 *
 * Any thread; freeze_begin() blocks for the agent's answer.
 */
#ifndef DAEMON_FREEZE_H
#define DAEMON_FREEZE_H

#include "daemon/daemon.h"
#include "daemon/replication.h"

struct freezes;
struct freeze;

struct freezes *freezes_new(struct daemon *d);

/* Thaws what is stored; on a worker, before the first cycle. */
void freezes_start(struct freezes *f);

/* Waits for the threads, which try once more; what stays frozen is for the next start. */
void freezes_free(struct freezes *f);

/*
 * One at a time for a VM: ERROR_AGENT while it is still being thawed, or when the agent
 * is not there or refused. After any error nothing has to be ended.
 */
bool freeze_begin(struct freezes *f, const struct replication *r, int64_t limit_ms,
                  struct freeze **ret, struct error **err);

/* Lets the guest be thawed now, without waiting for it. False: it was thawed before. */
bool freeze_end(struct freeze *z);

#endif
