#include "daemon/guard_sentence.h"

#include "daemon/peers.h"

static char *
of_replica(const struct guard_subject *s)
{
    return mem_printf(
        "it is the VM of host '%s', and what is here is its replica. If that "
        "host is lost: virt-dr failover %s. To look at the replica: virt-dr "
        "clone %s --name NAME",
        s->peer, s->vm, s->vm);
}

static char *
of_undoing(const struct guard_subject *s)
{
    return mem_printf("its failover to this host is being undone. If that stopped half "
                      "way: virt-dr undo %s; then start it on host '%s'",
                      s->vm, s->peer);
}

static char *
of_resolving(const struct guard_subject *s)
{
    return mem_printf("host '%s' keeps it, and what it has written here is being put "
                      "aside. If that stopped half way: virt-dr resolve %s --keep %s",
                      s->peer, s->vm, s->peer);
}

static char *
of_superseded(const struct guard_subject *s)
{
    return mem_printf(
        "it was failed over to host '%s' (epoch %llu), and this copy is old. "
        "Start it there. To have it back here, on '%s': virt-dr undo %s "
        "gives up what it has written there, virt-dr reverse %s brings "
        "that along",
        s->peer, (unsigned long long)s->epoch, s->peer, s->vm, s->vm);
}

static char *
of_prepared(const struct guard_subject *s)
{
    return mem_printf(
        "it is shut down here for a failover to host '%s', which starts it. To keep it "
        "here, cancel that on '%s': virt-dr task-list, virt-dr task-cancel TASK. If that "
        "came to nothing: virt-dr abandon %s",
        s->peer, s->peer, s->vm);
}

static char *
of_moved(const struct guard_subject *s)
{
    return mem_printf(
        "it was moved to another host, which replicates it now (epoch %llu); "
        "this copy is old. If that host is given up: virt-dr unprotect %s",
        (unsigned long long)s->epoch, s->vm);
}

static char *
of_removing(const struct guard_subject *s)
{
    return mem_printf(
        "its protection is being removed. If that stopped half way: virt-dr "
        "unprotect %s",
        s->vm);
}

char *
guard_sentence(const struct guard_subject *s)
{
    switch (s->phase) {
    case PHASE_INITIAL_SYNC:
    case PHASE_REPLICATING:
    case PHASE_RESYNCING:
        return of_replica(s);
    case PHASE_PREPARED:
        return of_prepared(s);
    case PHASE_FAILING_OVER:
    case PHASE_FAILED_OVER:
    case PHASE_COMMITTED:
    case PHASE_UNDOING:
        return of_undoing(s);
    case PHASE_RESOLVING:
        return of_resolving(s);
    case PHASE_SUPERSEDED:
        return of_superseded(s);
    case PHASE_REVERSING: /* it runs here */
        break;
    case PHASE_MOVED:
        return of_moved(s);
    case PHASE_REMOVING:
        return of_removing(s);
    }
    return mem_strdup("");
}

bool
guard_refuse(struct daemon *d, const struct replication *r, enum replication_phase phase,
             struct error **err)
{
    struct peer_name peer = { .name = "(unknown)" };
    struct guard_subject subject = {
        .side = r->side, .phase = phase, .vm = r->vm_name, .epoch = r->epoch
    };
    AUTOFREE(char) *message = NULL;
    struct guard_record record = { .vm = r->vm_name,
                                   .may_run = false,
                                   .epoch = r->epoch };

    peers_find(d->peers, r->peer_id, &peer, NULL);
    subject.peer = peer.name;
    message = guard_sentence(&subject);
    record.message = message;
    return guard_write(&d->guard, r->vm_uuid, &record, err);
}
