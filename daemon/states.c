#include "daemon/states.h"

#include <string.h>

#include "common/mem.h"

#define IN(phase)  (1u << (phase))
#define PROTECTING (IN(PHASE_INITIAL_SYNC) | IN(PHASE_REPLICATING) | IN(PHASE_RESYNCING))
#define USABLE     (IN(PHASE_REPLICATING) | IN(PHASE_RESYNCING))

static const struct {
    const char *name;
    const char *means;
    const char *told; /* what the other side makes of it */
} phases[N_PHASES] = {
    /* clang-format off */
    [PHASE_INITIAL_SYNC] = { "initial-sync", "no recovery point yet",
        "a target's newer epoch: the failover was undone, the VM is the source's" },
    [PHASE_REPLICATING] = { "replicating", "points come in", "the same" },
    [PHASE_RESYNCING] = { "resyncing", "the record of changes was lost, the disks are "
        "compared; older points stay usable", "the same" },
    [PHASE_PREPARED] = { "prepared", "source: shut down and locked for a planned failover",
        "the target may take it" },
    [PHASE_FAILING_OVER] = { "failing-over", "target: the epoch is raised, the VM does not "
        "run here yet", "superseded" },
    [PHASE_FAILED_OVER] = { "failed-over", "target: the VM is this host's; may be undone",
        "superseded" },
    [PHASE_COMMITTED] = { "committed", "target: the VM is this host's for good",
        "superseded" },
    [PHASE_UNDOING] = { "undoing", "target: the failover is thrown away; nobody may run "
        "the VM", "superseded" },
    [PHASE_REVERSING] = { "reversing", "source: the VM is this host's, the other one is "
        "being made its target", "superseded" },
    [PHASE_RESOLVING] = { "resolving", "target: a split brain ends with the source's VM; "
        "what was written here is put aside", "superseded" },
    [PHASE_SUPERSEDED] = { "superseded", "source: the other side has taken over",
        "nothing" },
    [PHASE_MOVED] = { "moved", "source: the VM is another host's, its replication too",
        "nothing" },
    [PHASE_REMOVING] = { "removing", "it is being unprotected", "nothing" },
    /* clang-format on */
};

static const struct {
    const char *operation;
    enum replication_side side;
    unsigned phases;
    bool internal; /* of the daemons, nothing that an operator asks for */
} allowed[] = {
    { "sync", SIDE_SOURCE, PROTECTING, false },
    { "resync", SIDE_SOURCE, USABLE, false },
    { "verify", SIDE_SOURCE, IN(PHASE_REPLICATING), false },
    { "release-bitmaps", SIDE_SOURCE, PROTECTING, false },
    { "pause", SIDE_SOURCE, PROTECTING, false },
    { "resume", SIDE_SOURCE, PROTECTING, false },
    { "consistency", SIDE_SOURCE, PROTECTING, false },
    { "bandwidth", SIDE_SOURCE, PROTECTING, false },
    { "prepare", SIDE_SOURCE, PROTECTING | IN(PHASE_PREPARED), true },
    { "abandon", SIDE_SOURCE, IN(PHASE_PREPARED), false },
    { "unprotect", SIDE_SOURCE,
      PROTECTING | IN(PHASE_SUPERSEDED) | IN(PHASE_REMOVING) | IN(PHASE_MOVED) |
          IN(PHASE_REVERSING),
      false },
    { "reverse", SIDE_SOURCE, IN(PHASE_REVERSING), false },
    { "failback", SIDE_SOURCE, IN(PHASE_SUPERSEDED), false },
    { "resolve", SIDE_SOURCE, PROTECTING | IN(PHASE_SUPERSEDED), false },
    { "resolve", SIDE_TARGET,
      PROTECTING | IN(PHASE_FAILING_OVER) | IN(PHASE_FAILED_OVER) | IN(PHASE_RESOLVING),
      false },
    { "receive", SIDE_TARGET, PROTECTING, true },
    { "scrub", SIDE_TARGET, PROTECTING, false },
    { "export", SIDE_TARGET, USABLE, false },
    { "clone", SIDE_TARGET, USABLE, false },
    { "test-failover", SIDE_TARGET, USABLE, false },
    { "failover", SIDE_TARGET, USABLE | IN(PHASE_FAILING_OVER), false },
    { "planned-failover", SIDE_TARGET, IN(PHASE_REPLICATING), false },
    { "failover-policy", SIDE_TARGET, IN(PHASE_FAILED_OVER), false },
    { "undo", SIDE_TARGET,
      IN(PHASE_FAILING_OVER) | IN(PHASE_FAILED_OVER) | IN(PHASE_UNDOING), false },
    { "failback", SIDE_TARGET, PROTECTING, false },
    { "reverse", SIDE_TARGET, IN(PHASE_FAILED_OVER) | IN(PHASE_COMMITTED), false },
    { "unprotect", SIDE_TARGET,
      PROTECTING | IN(PHASE_FAILING_OVER) | IN(PHASE_FAILED_OVER) | IN(PHASE_COMMITTED) |
          IN(PHASE_UNDOING) | IN(PHASE_RESOLVING) | IN(PHASE_REMOVING),
      false },
};

const char *
states_name(enum replication_phase phase)
{
    return phases[phase].name;
}

bool
states_from_name(const char *name, enum replication_phase *ret)
{
    for (size_t i = 0; i < N_PHASES; i++) {
        if (strcmp(phases[i].name, name) != 0)
            continue;
        *ret = (enum replication_phase)i;
        return true;
    }
    return false;
}

bool
states_is_protecting(enum replication_phase phase)
{
    return (PROTECTING & IN(phase)) != 0;
}

enum states_answer
states_allow(enum replication_side side, enum replication_phase phase,
             const char *operation)
{
    enum states_answer answer = STATES_OTHER_SIDE;

    for (size_t i = 0; i < N_ELEMENTS(allowed); i++) {
        if (strcmp(allowed[i].operation, operation) != 0 || allowed[i].side != side)
            continue;
        if ((allowed[i].phases & IN(phase)) != 0)
            return STATES_ALLOWED;
        answer = STATES_NOT_NOW;
    }
    return answer;
}

char *
states_list(enum replication_side side, enum replication_phase phase)
{
    char *list = mem_strdup("");

    for (size_t i = 0; i < N_ELEMENTS(allowed); i++) {
        char *longer;

        if (allowed[i].internal || allowed[i].side != side ||
            (allowed[i].phases & IN(phase)) == 0)
            continue;
        longer =
            mem_printf("%s%s%s", list, *list != '\0' ? ", " : "", allowed[i].operation);
        free(list);
        list = longer;
    }
    return list;
}

void
states_print(FILE *out)
{
    fprintf(out, "| phase | means | source may | target may | the other side hears |\n"
                 "|---|---|---|---|---|\n");
    for (size_t i = 0; i < N_PHASES; i++) {
        AUTOFREE(char) *source = states_list(SIDE_SOURCE, (enum replication_phase)i);
        AUTOFREE(char) *target = states_list(SIDE_TARGET, (enum replication_phase)i);

        fprintf(out, "| `%s` | %s | %s | %s | %s |\n", phases[i].name, phases[i].means,
                *source != '\0' ? source : "-", *target != '\0' ? target : "-",
                phases[i].told);
    }
}
