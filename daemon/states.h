/*
 * The state table of a replication: phases, what may be done in which, on which side,
 * and what the other side makes of it when it is told. Everything that has to know asks
 * here; docs/ARCHITECTURE.md shows the same table, as daemon/print-states prints it.
 *
 * A phase is stored before anything that it stands for is done. Each side has its own;
 * after lost messages they agree by contact (contact.h): the higher epoch owns the VM.
 * Plain functions of their arguments; any thread.
 */
#ifndef DAEMON_STATES_H
#define DAEMON_STATES_H

#include <stdbool.h>
#include <stdio.h>

enum replication_side {
    SIDE_SOURCE,
    SIDE_TARGET,
};

/* Stored by name. The first three are those in which points come in. */
enum replication_phase {
    PHASE_INITIAL_SYNC, /* no recovery point yet */
    PHASE_REPLICATING,
    PHASE_RESYNCING,    /* the old points stay usable */
    PHASE_PREPARED,     /* source: shut down and locked for a planned failover */
    PHASE_FAILING_OVER, /* target: the epoch is raised, the VM does not run here yet */
    PHASE_FAILED_OVER,  /* target: the VM is this host's now */
    PHASE_COMMITTED,    /* target: the same, and for good: its points are gone */
    PHASE_UNDOING,      /* target: a failover is being thrown away */
    PHASE_REVERSING,    /* source: was the target; the other side is to become it */
    PHASE_RESOLVING,    /* target: a split brain ends, it puts its data aside */
    PHASE_SUPERSEDED,   /* source: the other side has taken over */
    PHASE_MOVED,        /* source: the VM and its replication are another host's */
    PHASE_REMOVING,     /* being unprotected */
};
#define N_PHASES (PHASE_REMOVING + 1)

const char *states_name(enum replication_phase phase);

/* False for a name that is none: of a newer version, or damaged. */
bool states_from_name(const char *name, enum replication_phase *ret);

/* Points come in: initial-sync, replicating, resyncing. */
bool states_is_protecting(enum replication_phase phase);

/* A target whose VM is this host's: failed-over, committed. */
bool states_owns_vm(enum replication_phase phase);

enum states_answer {
    STATES_ALLOWED,
    STATES_NOT_NOW,    /* not in this phase */
    STATES_OTHER_SIDE, /* never on this side */
};

enum states_answer states_allow(enum replication_side side, enum replication_phase phase,
                                const char *operation);

/* What an operator may do, "pause, resume"; "" if nothing. The caller's to free. */
char *states_list(enum replication_side side, enum replication_phase phase);

/* As the documentation shows it. */
void states_print(FILE *out);

#endif
