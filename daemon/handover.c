/* The old source's part: the VM has left, and its replication follows it. */
#include "daemon/handover.h"

#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle.h"
#include "daemon/events.h"
#include "daemon/imprint.h"
#include "daemon/peers.h"
#include "daemon/tasks.h"

#define LOOK_MS 10000 /* between two questions about a VM that is simply off */

/* --- who runs it ---------------------------------------------------------------- */

/* What the peers say. */
struct sighting {
    char id[ID_TEXT]; /* of the host that runs it; "": none of those that answered */
    char name[64];
    bool knows_target; /* it is paired with the target, or is the target */
    char *silent;      /* names of those that did not answer; "" */
    char *asked;       /* of those that do not run it */
};

static void
add_name(char **list, const char *name)
{
    char *longer = mem_printf("%s%s'%s'", *list, **list != '\0' ? ", " : "", name);

    free(*list);
    *list = longer;
}

static void
ask(struct daemon *d, const struct replication *r, struct json_object *peer,
    struct sighting *s)
{
    const char *id = json_string_or(peer, "id", "");
    const char *name = json_string_or(peer, "name", "");
    AUTOFREE(char) *path =
        mem_printf("/api/v1/peers/domains/%s?target=%s", r->vm_uuid, r->peer_id);
    AUTOJSON *answer = NULL;

    if (id[0] == '\0' || !peers_probe(d->peers, id, path, &answer, NULL)) {
        add_name(&s->silent, name);
        return;
    }
    if (!json_bool_or(answer, "running", false)) {
        add_name(&s->asked, name);
        return;
    }
    snprintf(s->id, sizeof s->id, "%s", id);
    snprintf(s->name, sizeof s->name, "%s", name);
    s->knows_target = json_bool_or(answer, "knowsTarget", false);
}

static void
ask_all(struct daemon *d, struct replication *r, struct sighting *ret)
{
    AUTOJSON *peers = peers_list(d->peers);

    *ret = (struct sighting){ .silent = mem_strdup(""), .asked = mem_strdup("") };
    for (size_t i = 0; i < json_object_array_length(peers) && ret->id[0] == '\0'; i++)
        ask(d, r, json_object_array_get_idx(peers, i), ret);
    pthread_mutex_lock(&r->lock);
    r->looked_for_ms = units_monotonic_ms();
    pthread_mutex_unlock(&r->lock);
}

static void
forget_sighting(struct sighting *s)
{
    free(s->silent);
    free(s->asked);
}

/* --- what is done about it ------------------------------------------------------- */

static void
name_of(struct daemon *d, const char *id, struct peer_name *ret)
{
    *ret = (struct peer_name){ .name = "(unknown)" };
    peers_find(d->peers, id, ret, NULL);
}

/* An earlier one that failed left its reason. */
static bool
start_task(struct daemon *d, struct replication *r, const struct sighting *s,
           struct error **err)
{
    struct tasks_request request = { .kind = "hand-over",
                                     .resource_id = r->id,
                                     .resource_name = r->vm_name,
                                     .user = "virtdrd" };
    AUTOJSON *data = json_object_new_object();
    AUTOJSON *task = NULL;
    char why[REPLICATION_REASON];

    pthread_mutex_lock(&r->lock);
    snprintf(why, sizeof why, "%s", r->move_why);
    json_set_u64(data, "epoch", r->epoch + 1);
    pthread_mutex_unlock(&r->lock);
    json_set_string(data, "host", s->id);
    request.data = data;
    if (!tasks_busy(d->tasks, r->id) && !tasks_start(d->tasks, &request, &task, err))
        return error_prefix(err, "VM '%s' runs on host '%s' now", r->vm_name, s->name);
    return error_set(err, ERROR_IN_PROGRESS,
                     "VM '%s' runs on host '%s' now: its replication is handed over to "
                     "it%s%s",
                     r->vm_name, s->name, why[0] != '\0' ? "; the last try failed: " : "",
                     why);
}

static bool
hand_over(struct daemon *d, struct replication *r, const struct sighting *s,
          struct error **err)
{
    struct peer_name target;

    name_of(d, r->peer_id, &target);
    if (strcmp(s->id, r->peer_id) == 0)
        return error_set(err, ERROR_INVALID_STATE,
                         "VM '%s' runs on '%s', the host that its replica is on: nothing "
                         "is replicated; move it to another host that is paired with "
                         "'%s' (virsh migrate), or end this: virt-dr unprotect %s",
                         r->vm_name, s->name, s->name, r->vm_name);
    if (!s->knows_target)
        return error_set(err, ERROR_PEER_NOT_FOUND,
                         "VM '%s' runs on host '%s' now, which is not paired with '%s', "
                         "the host that its replica is on: pair those two (virt-dr "
                         "peer-invite on one, peer-join on the other), and it goes on",
                         r->vm_name, s->name, target.name);
    if (!peers_connected(d->peers, r->peer_id, NULL))
        return error_set(err, ERROR_CONNECT,
                         "VM '%s' runs on host '%s' now; its replication is handed over "
                         "to it as soon as '%s' answers, the host that its replica is on",
                         r->vm_name, s->name, target.name);
    return start_task(d, r, s, err);
}

static bool
complain(struct daemon *d, struct replication *r, const struct sighting *s,
         struct error **err)
{
    struct peer_name target;

    name_of(d, r->peer_id, &target);
    return error_set(err, ERROR_DOMAIN_NOT_FOUND,
                     "VM '%s' has left this host, and no paired host says that it runs "
                     "there (%s%s%s%s%s): start virtdrd where it runs and pair that host "
                     "with this one and with '%s', or bring the VM back (or end the "
                     "replication: virt-dr unprotect %s)",
                     r->vm_name, s->asked[0] != '\0' ? "not on: " : "", s->asked,
                     s->asked[0] != '\0' && s->silent[0] != '\0' ? "; " : "",
                     s->silent[0] != '\0' ? "no answer from: " : "", s->silent,
                     target.name, r->vm_name);
}

/*
 * We were offered it, and it went on before we knew whether the target takes from us.
 * If it does, this host is the source and hands it over like any other; if it does not,
 * the offer came to nothing.
 */
static bool
settle_offer(struct daemon *d, struct replication *r, struct error **err)
{
    AUTOFREE(char) *path = mem_printf("/api/v1/peers/replications/%s", r->id);
    struct log_ctx log = replication_log(r);
    struct error *e = NULL;

    if (r->move.from[0] == '\0')
        return true;
    if (peers_probe(d->peers, r->peer_id, path, NULL, &e))
        return handover_confirm(d, r, err);
    if (!error_is(e, ERROR_REPLICATION_NOT_FOUND)) {
        error_propagate(err, e);
        return error_prefix(err,
                            "ask the target whether this host is the source of VM "
                            "'%s', which has left it",
                            r->vm_name);
    }
    error_free(e);
    log_info(&log, "offer-void", "the VM has gone on, and its replication with it");
    return guard_remove(&d->guard, r->vm_uuid, err) &&
           replications_remove(d->replications, r, err) &&
           error_set(err, ERROR_CANCELLED, "VM '%s' has gone on to another host",
                     r->vm_name);
}

static bool
must_look(struct replication *r, const struct hv_domain *domain)
{
    bool due;

    pthread_mutex_lock(&r->lock);
    due = r->looked_for_ms == 0 || units_monotonic_ms() - r->looked_for_ms >= LOOK_MS;
    pthread_mutex_unlock(&r->lock);
    return due || domain == NULL || domain->migrated || atomic_load(&r->departed);
}

bool
handover_look(struct daemon *d, struct replication *r, const struct hv_domain *domain,
              struct error **err)
{
    struct sighting s;
    bool here = false;

    if (domain != NULL && domain->state != HV_STATE_OFF) {
        atomic_store(&r->departed, false);
        return true;
    }
    if (!must_look(r, domain))
        return true;
    if (!settle_offer(d, r, err))
        return false;
    ask_all(d, r, &s);
    atomic_store(&r->departed, s.id[0] != '\0' || domain == NULL || domain->migrated);
    if (s.id[0] != '\0')
        hand_over(d, r, &s, err);
    else if (atomic_load(&r->departed))
        complain(d, r, &s, err);
    else
        here = true;
    forget_sighting(&s);
    return here;
}

/* --- leaving ------------------------------------------------------------------------ */

static bool
forbid_start(struct daemon *d, const struct replication *r, const char *host,
             struct error **err)
{
    AUTOFREE(char) *message = mem_printf(
        "it was moved to host '%s', which replicates it now (epoch %llu); this "
        "copy is old. It may come back by a live migration. If that host is "
        "given up: virt-dr unprotect %s",
        host, (unsigned long long)r->epoch, r->vm_name);
    struct guard_record record = { .vm = r->vm_name,
                                   .may_run = false,
                                   .epoch = r->epoch,
                                   .incoming = true,
                                   .message = message };

    return guard_write(&d->guard, r->vm_uuid, &record, err);
}

/* What libvirt recorded here went along with the VM; only names are left. */
static struct json_object *
take_names(struct replication *r)
{
    struct json_object *names = TAKE(r->stale);

    json_append_string(names, replication_record(&r->newest));
    json_append_string(names, r->newest.name);
    json_append_string(names, r->pending.name);
    json_append_string(names, r->sync.name);
    r->stale = json_object_new_array();
    r->newest.name[0] = r->newest.record[0] = r->pending.name[0] = '\0';
    r->pending.record[0] = r->sync.name[0] = '\0';
    return names;
}

/* Under r->lock. The guard first: if we are cut off then, all of it is done again. */
static bool
become_moved(struct daemon *d, struct replication *r, const char *to, uint64_t epoch,
             struct json_object **ret_names, struct error **err)
{
    struct peer_name host;

    name_of(d, to, &host);
    r->epoch = epoch;
    /* Should it come back, then with other images. */
    if (!forbid_start(d, r, host.name, err) ||
        !imprint_remove(d->guard.records, r->vm_uuid, err))
        return false;
    r->phase = PHASE_MOVED;
    r->confirmed = false;
    snprintf(r->move.to, sizeof r->move.to, "%s", to);
    r->move.from[0] = '\0';
    replication_set_error(r, NULL);
    if (r->worker != NULL)
        cancel_request(r->worker);
    *ret_names = take_names(r);
    return replication_store(d->replications, r, NULL, 0, err);
}

/* Nothing is left here that could be started by mistake. */
static bool
is_unknown_here(struct daemon *d, const struct replication *r)
{
    AUTOPTR(hv_domain) *domain = NULL;
    AUTOPTR(error) *e = NULL;

    return !d->hypervisor->ops->lookup(d->hypervisor, r->vm_uuid, &domain, &e) &&
           error_is(e, ERROR_DOMAIN_NOT_FOUND);
}

bool
handover_leave(struct daemon *d, struct replication *r, const char *to, uint64_t epoch,
               struct error **err)
{
    struct log_ctx log = replication_log(r);
    AUTOJSON *names = NULL;
    struct peer_name host;
    bool ok = true;

    pthread_mutex_lock(&r->lock);
    if (r->phase != PHASE_MOVED && !r->removed)
        ok = become_moved(d, r, to, epoch, &names, err);
    pthread_mutex_unlock(&r->lock);
    if (!ok)
        return error_prefix(err, "let VM '%s' go", r->vm_name);
    if (names != NULL) {
        name_of(d, to, &host);
        events_emit(d, EVENT_INFO, &log, "moved",
                    "VM '%s' was moved to host '%s', which replicates it from now on "
                    "(epoch %llu)",
                    r->vm_name, host.name, (unsigned long long)epoch);
    }
    if (is_unknown_here(d, r))
        return guard_remove(&d->guard, r->vm_uuid, err) &&
               replications_remove(d->replications, r, err);
    if (names != NULL)
        cycle_disown(d, r, names);
    return true;
}

void
handover_hear(struct daemon *d, struct replication *r, struct json_object *said)
{
    struct log_ctx log = replication_log(r);
    uint64_t epoch = (uint64_t)json_int_or(said, "epoch", 0);
    struct error *e = NULL;
    bool ours;

    pthread_mutex_lock(&r->lock);
    ours = r->side == SIDE_SOURCE && states_is_protecting(r->phase) && epoch > r->epoch;
    pthread_mutex_unlock(&r->lock);
    if (ours && !handover_leave(d, r, json_string_or(said, "source", ""), epoch, &e)) {
        log_failure(&log, "leave-failed", e);
        error_free(e);
    }
}
