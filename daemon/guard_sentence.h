/*
 * What the guard says to whoever starts a VM on the wrong side: why not, and which
 * command is right; a sentence for each phase in which a VM must not start.
 */
#ifndef DAEMON_GUARD_SENTENCE_H
#define DAEMON_GUARD_SENTENCE_H

#include "daemon/daemon.h"
#include "daemon/replication.h"

struct guard_subject {
    enum replication_side side;
    enum replication_phase phase;
    const char *vm;
    const char *peer; /* the other host's name */
    uint64_t epoch;
};

/* A plain function; the caller frees. */
char *guard_sentence(const struct guard_subject *s);

/* Writes the record: the VM does not start here, because of that phase, which may not be
   stored yet. Durable. Under r->lock. */
bool guard_refuse(struct daemon *d, const struct replication *r,
                  enum replication_phase phase, struct error **err);

#endif
