#include "daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/api.h"
#include "daemon/cycle.h"
#include "daemon/event_libvirt.h"
#include "daemon/exports.h"
#include "daemon/freeze.h"
#include "daemon/flatten.h"
#include "daemon/leftovers.h"
#include "daemon/ops.h"
#include "daemon/peers.h"
#include "daemon/readiness.h"
#include "daemon/replica.h"
#include "daemon/replication.h"
#include "daemon/scheduler.h"
#include "daemon/stream.h"
#include "daemon/tasks.h"
#include "daemon/testruns.h"
#include "daemon/traffic.h"
#include "daemon/upkeep.h"
#include "drivers/capture/bitmap.h"
#include "drivers/capture/checkpoint.h"
#include "drivers/capture/offline.h"
#include "drivers/hypervisor/libvirt.h"
#include "drivers/state/sqlite.h"

#define REQUEST_THREADS    12 /* most of them sit in long polls */
#define CONTACT_THREADS    4
#define BACKGROUND_THREADS 8 /* tests wait for their guests in it */
#define UPKEEP_THREADS     2
#define MAX_STREAMS        256

/* --- folders and identity ---------------------------------------------------------- */

static bool
make_folder(const char *path, mode_t mode, struct error **err)
{
    if (mkdir(path, mode) < 0 && errno != EEXIST)
        return error_errno(err, ERROR_STATE, "make folder '%s'", path);
    return true;
}

/*
 * QEMU makes sockets in the scratch folder, as its own user: the one to whom
 * libvirtd gives the folder below when it starts.
 */
static bool
make_scratch(const char *path, struct error **err)
{
    struct stat st;

    if (!make_folder(path, 0711, err))
        return false;
    if (stat("/var/lib/libvirt/qemu", &st) == 0 && chown(path, st.st_uid, st.st_gid) < 0)
        return error_errno(err, ERROR_STATE, "give '%s' to QEMU's user", path);
    return true;
}

static bool
make_folders(struct daemon *d, struct error **err)
{
    const struct config *c = d->config;
    AUTOFREE(char) *tls = mem_printf("%s/tls", c->state_folder);

    d->guard_records = mem_printf("%s/guard", c->state_folder);
    d->guard_confirmations = mem_printf("%s/guard", c->run_folder);
    d->guard.records = d->guard_records;
    d->guard.confirmations = d->guard_confirmations;
    return make_folder(c->state_folder, 0711, err) && make_folder(tls, 0700, err) &&
           make_folder(c->run_folder, 0755, err) &&
           make_folder(d->guard.records, 0755, err) &&
           make_folder(d->guard.confirmations, 0755, err) &&
           make_scratch(c->scratch_folder, err);
}

/* This host's id is made once and never changes: peers know it by that. */
static bool
load_identity(struct daemon *d, struct error **err)
{
    AUTOJSON *doc = NULL;
    struct error *e = NULL;
    struct state_write write = { .kind = "host", .id = "self" };

    if (d->state->ops->get(d->state, "host", "self", &doc, &e)) {
        const char *id;

        if (!json_get_string(doc, "id", &id, err))
            return error_prefix(err, "this host's stored identity");
        snprintf(d->host_id, sizeof d->host_id, "%s", id);
        return true;
    }
    if (!error_is(e, ERROR_NOT_FOUND))
        return error_propagate(err, e);
    error_free(e);
    id_new(d->host_id);
    doc = json_object_new_object();
    json_set_string(doc, "id", d->host_id);
    write.body = doc;
    return d->state->ops->commit(d->state, &write, 1, err);
}

/* Two of them on one state would each undo what the other one does. */
static bool
lock_state(struct daemon *d, struct error **err)
{
    AUTOFREE(char) *path = mem_printf("%s/lock", d->config->state_folder);

    d->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (d->lock_fd < 0)
        return error_errno(err, ERROR_STATE, "open '%s'", path);
    if (flock(d->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return true;
    if (errno == EWOULDBLOCK)
        return error_set(err, ERROR_EXISTS,
                         "another virtdrd is running with the state in '%s'",
                         d->config->state_folder);
    return error_errno(err, ERROR_STATE, "lock '%s'", path);
}

static bool
open_state(struct daemon *d, struct error **err)
{
    AUTOFREE(char) *path = mem_printf("%s/state.db", d->config->state_folder);

    return state_sqlite_open(path, &d->state, err) && load_identity(d, err);
}

static bool
open_tls(struct daemon *d, struct error **err)
{
    const struct config *c = d->config;
    struct tls_settings settings = { .certificate = c->certificate,
                                     .key = c->key,
                                     .ca = c->ca };

    return tls_ensure_own(c->certificate, c->key, d->host_id, err) &&
           tls_new(&settings, &d->tls, err);
}

/* --- events from libvirt -------------------------------------------------------------
 */

static void
wake_all(struct daemon *d)
{
    AUTOFREE(struct replication *) *all = NULL;
    size_t n = replications_all(d->replications, &all);

    for (size_t i = 0; i < n; i++) {
        /* A libvirtd that was restarted may have forgotten it. */
        atomic_store(&all[i]->lost_job, false);
        scheduler_wake(d->scheduler, all[i]);
        replication_unref(all[i]);
    }
}

/* What captures have waited for. The next cycle stores it. */
static void
release_hold(struct replication *r)
{
    pthread_mutex_lock(&r->lock);
    r->resync.held_until_ms = 0;
    pthread_mutex_unlock(&r->lock);
}

static void
on_hypervisor_event(enum hv_event event, const char *uuid, void *opaque)
{
    struct daemon *d = opaque;
    AUTOPTR(replication) *r = NULL;

    if (d->scheduler == NULL)
        return;
    switch (event) {
    case HV_EVENT_STARTED:
    case HV_EVENT_STOPPED:
    case HV_EVENT_REVERTED:
        if (d->leftovers != NULL)
            leftovers_wake(d->leftovers);
        if (d->testruns != NULL && event == HV_EVENT_STOPPED)
            testruns_wake(d->testruns);
        if (d->flatten != NULL)
            flatten_wake(d->flatten);
        readiness_wake(d->readiness);
        if (!replications_find(d->replications, uuid, &r, NULL))
            break;
        atomic_store(&r->has_run, true);
        if (event == HV_EVENT_REVERTED)
            release_hold(r);
        scheduler_wake(d->scheduler, r);
        break;
    case HV_EVENT_CONNECTED:
        log_info(NULL, "hypervisor-connected", "connected to %s", d->config->libvirt_uri);
        if (d->testruns != NULL)
            testruns_wake(d->testruns);
        wake_all(d);
        break;
    case HV_EVENT_DISCONNECTED:
        log_warn(NULL, "hypervisor-disconnected", "lost %s; connecting again",
                 d->config->libvirt_uri);
        break;
    }
}

/* --- who calls
 * -------------------------------------------------------------------------- */

static void
identify_caller(struct rest_caller *caller, const SSL *ssl, void *opaque)
{
    struct daemon *d = opaque;
    const struct config *c = d->config;
    struct peer_name peer;

    if (ssl == NULL) { /* the unix socket: its file mode decides who gets here */
        caller->roles = REST_ROLE_ADMIN;
        return;
    }
    caller->roles = REST_ROLE_ANYONE;
    if (peers_identify(d->peers, ssl, caller->fingerprint, &peer)) {
        caller->roles |= REST_ROLE_PEER;
        snprintf(caller->peer_id, sizeof caller->peer_id, "%s", peer.id);
        snprintf(caller->name, sizeof caller->name, "%s", peer.name);
    }
    for (size_t i = 0; i < c->n_clients; i++)
        if (strcmp(c->clients[i].fingerprint, caller->fingerprint) == 0) {
            caller->roles |= c->clients[i].admin ? REST_ROLE_ADMIN : REST_ROLE_VIEWER;
            snprintf(caller->name, sizeof caller->name, "%s", c->clients[i].name);
        }
}

static bool
identify_stream(const SSL *ssl, const char *fingerprint, char ret_peer_id[40],
                void *opaque)
{
    struct daemon *d = opaque;
    struct peer_name peer;

    if (!peers_identify(d->peers, ssl, fingerprint, &peer))
        return false;
    snprintf(ret_peer_id, 40, "%s", peer.id);
    return true;
}

/* --- listening
 * ---------------------------------------------------------------------------- */

static bool
listen_stream(struct daemon *d, struct error **err)
{
    struct stream_listener_settings settings = {
        .base = d->base,
        .tls = d->tls,
        .workers = d->receives,
        .address = d->config->listen_stream,
        .host_id = d->host_id,
        .max_connections = MAX_STREAMS,
        .identify = identify_stream,
        .serve = replica_serve,
        .opaque = d,
    };

    return stream_listener_new(&settings, &d->listener, err);
}

static bool
start_listening(struct daemon *d, struct error **err)
{
    const struct config *c = d->config;
    struct rest_settings settings = { .routes = api_routes,
                                      .identify = identify_caller,
                                      .opaque = d,
                                      .workers = d->requests };

    d->rest = rest_new(d->base, &settings);
    if (!rest_listen_unix(d->rest, c->listen_unix, c->unix_group, err))
        return false;
    return c->listen_tls == NULL ||
           (rest_listen_tls(d->rest, c->listen_tls, d->tls, err) &&
            listen_stream(d, err));
}

/* --- start
 * ---------------------------------------------------------------------------------- */

static void
tell_task(struct json_object *task, void *opaque)
{
    struct daemon *d = opaque;

    if (d->rest != NULL)
        rest_publish(d->rest, atomic_fetch_add(&d->event_id, 1), "task", task);
}

static bool
open_tasks(struct daemon *d, struct error **err)
{
    struct tasks_settings settings = { .daemon = d,
                                       .state = d->state,
                                       .workers = d->steps,
                                       .background = d->background,
                                       .kinds = ops_all,
                                       .site = d->config->site,
                                       .changed = tell_task,
                                       .opaque = d };

    return tasks_new(&settings, &d->tasks, err) && tasks_load(d->tasks, err);
}

static void
open_pools(struct daemon *d)
{
    d->requests = workers_new(d->base, "request", REQUEST_THREADS);
    d->cycles = workers_new(d->base, "cycle", d->config->cycle_workers);
    d->receives = workers_new(d->base, "receive", d->config->receive_workers);
    d->applies = workers_new(d->base, "apply", d->config->receive_workers);
    d->steps = workers_new(d->base, "step", d->config->task_workers);
    d->contacts = workers_new(d->base, "contact", CONTACT_THREADS);
    d->background = workers_new(d->base, "background", BACKGROUND_THREADS);
    d->looks = workers_new(d->base, "look", 1);
    d->upkeeps = workers_new(d->base, "upkeep", UPKEEP_THREADS);
}

/* What the last run left half done; on a worker, because it asks libvirt and the disks.
 */
static void
recover(void *opaque)
{
    struct daemon *d = opaque;
    AUTOFREE(struct replication *) *all = NULL;
    size_t n = replications_all(d->replications, &all);

    freezes_start(d->freezes);
    for (size_t i = 0; i < n; i++) {
        if (all[i]->side == SIDE_SOURCE)
            cycle_recover(d, all[i]);
        else
            replica_apply_later(d, all[i]);
        replication_unref(all[i]);
    }
    exports_start(d->exports);
    d->is_recovered = true;
}

static void
warm_up(void *opaque)
{
    struct daemon *d = opaque;

    d->hypervisor->ops->warm_up(d->hypervisor);
}

static void
start_work(struct daemon *d)
{
    AUTOPTR(error) *e = NULL;

    if (!tasks_resume(d->tasks, &e))
        log_failure(NULL, "tasks-resume-failed", e);
    scheduler_start(d->scheduler);
    upkeep_start(d->upkeep);
    leftovers_start(d->leftovers);
    flatten_start(d->flatten);
    readiness_start(d->readiness);
    testruns_start(d->testruns);
    peers_start(d->peers);
    workers_submit(d->steps, 0, warm_up, NULL, d);
}

/* Dropped without a recover(): the daemon is stopped as soon as it has started. */
static void
recovered(void *opaque)
{
    struct daemon *d = opaque;

    if (d->is_recovered)
        start_work(d);
}

bool
daemon_open(struct config *config, struct event_base *base, struct daemon **ret,
            struct error **err)
{
    AUTOPTR(daemon) *d = NEW(struct daemon);

    d->config = config;
    d->base = base;
    d->lock_fd = -1;
    atomic_init(&d->event_id, (uint64_t)units_now_ms() * 1000);
    event_libvirt_register(base);
    if (!make_folders(d, err) || !lock_state(d, err) || !open_state(d, err) ||
        !open_tls(d, err))
        return false;
    open_pools(d);
    if (!libvirt_open(config->libvirt_uri, on_hypervisor_event, d, &d->hypervisor, err) ||
        !capture_checkpoint_open(d->hypervisor, &d->captures[CAPTURE_CHECKPOINT], err) ||
        !capture_bitmap_open(d->hypervisor, &d->captures[CAPTURE_BITMAP], err) ||
        !capture_offline_open(d->hypervisor, &d->captures[CAPTURE_OFFLINE], err) ||
        !replications_load(d->state, &d->replications, err) ||
        !peers_load(d, &d->peers, err) || !exports_load(d, &d->exports, err) ||
        !testruns_load(d, &d->testruns, err) || !open_tasks(d, err))
        return false;
    d->freezes = freezes_new(d);
    d->traffic = traffic_new();
    d->scheduler = scheduler_new(d);
    d->upkeep = upkeep_new(d);
    d->leftovers = leftovers_new(d);
    d->flatten = flatten_new(d);
    d->readiness = readiness_new(d);
    if (!start_listening(d, err))
        return false;
    workers_submit(d->steps, 0, recover, recovered, d);
    *ret = TAKE(d);
    return true;
}

/* --- end
 * --------------------------------------------------------------------------------------
 */

/* Asks everybody who waits to stop, then waits for them, then takes apart. */
static void
stop_workers(struct daemon *d)
{
    if (d->scheduler != NULL)
        scheduler_stop(d->scheduler);
    if (d->tasks != NULL)
        tasks_stop(d->tasks);
    if (d->upkeep != NULL)
        upkeep_stop(d->upkeep);
    if (d->leftovers != NULL)
        leftovers_stop(d->leftovers);
    if (d->flatten != NULL)
        flatten_stop(d->flatten);
    if (d->readiness != NULL)
        readiness_stop(d->readiness);
    if (d->testruns != NULL)
        testruns_stop(d->testruns);
    stream_listener_free(TAKE(d->listener));
    workers_free(TAKE(d->cycles));
    workers_free(TAKE(d->receives));
    workers_free(TAKE(d->steps));
    workers_free(TAKE(d->background));
    workers_free(TAKE(d->looks));
    workers_free(TAKE(d->upkeeps));
    workers_free(TAKE(d->applies));
    workers_free(TAKE(d->contacts));
    workers_free(TAKE(d->requests));
}

/* Also those that a dropped job still refers to: their storage daemons end with us. */
static void
close_replicas(struct daemon *d)
{
    AUTOFREE(struct replication *) *all = NULL;
    size_t n = d->replications != NULL ? replications_all(d->replications, &all) : 0;

    for (size_t i = 0; i < n; i++) {
        replica_close(all[i]);
        replication_unref(all[i]);
    }
}

void
daemon_free(struct daemon *d)
{
    if (d == NULL)
        return;
    stop_workers(d);
    traffic_free(d->traffic);
    freezes_free(d->freezes);
    exports_free(d->exports);
    testruns_free(d->testruns);
    close_replicas(d);
    rest_free(d->rest);
    scheduler_free(d->scheduler);
    upkeep_free(d->upkeep);
    leftovers_free(d->leftovers);
    flatten_free(d->flatten);
    readiness_free(d->readiness);
    tasks_free(d->tasks);
    peers_free(d->peers);
    replications_free(d->replications);
    for (size_t i = 0; i < CAPTURE_N_KINDS; i++)
        if (d->captures[i] != NULL)
            d->captures[i]->ops->close(d->captures[i]);
    if (d->hypervisor != NULL)
        d->hypervisor->ops->close(d->hypervisor);
    event_libvirt_stop();
    tls_free(d->tls);
    if (d->state != NULL)
        d->state->ops->close(d->state);
    if (d->lock_fd >= 0)
        close(d->lock_fd);
    free(d->guard_records);
    free(d->guard_confirmations);
    free(d);
}
