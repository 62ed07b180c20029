#include "tests/sim/world_private.h"

#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle.h"
#include "daemon/exports.h"
#include "daemon/flatten.h"
#include "daemon/freeze.h"
#include "daemon/ops.h"
#include "daemon/peers.h"
#include "daemon/replica.h"
#include "daemon/scheduler.h"
#include "daemon/stream.h"
#include "daemon/tasks.h"
#include "daemon/testruns.h"
#include "daemon/traffic.h"
#include "daemon/upkeep.h"
#include "tests/sim/files.h"

#define FIRST_PORT 12000
#define N_PORTS    20000
#define PORTS_EACH 37

#define LISTEN_AGAIN_MS 1

/* --- a host ----------------------------------------------------------------------------
 */

static void
fill_config(struct world_host *h)
{
    struct config *c = &h->config;

    c->host_name = mem_strdup(h->is_source ? "alpha" : "beta");
    c->site = mem_strdup("sim");
    c->state_folder = mem_strdup(h->folder);
    c->run_folder = mem_printf("%s/run", h->folder);
    c->scratch_folder = mem_printf("%s/scratch", h->folder);
    c->certificate = mem_printf("%s/own.crt", h->folder);
    c->key = mem_printf("%s/own.key", h->folder);
    c->scratch_limit_bytes = 1u << 30;
    c->slice_bytes = 256 << 10;
    c->slice_ms = 60000;
    c->replicate_secrets = true;
    c->mark_ms = 5 * 60 * 1000;
    c->mark_bytes = 256u << 20;
    c->retention = retention_default();
    c->freeze_max_ms = 10000;
    c->latency_factor = 3;
    c->latency_min_ms = 5;
    c->latency_longest = 4;
    c->test_number = 4;
    c->test_memory_bytes = 1u << 30;
    c->test_subnets = mem_strdup("10.213.0.0/16");
    c->test_scripts = mem_strdup(h->folder);
    c->test_timeout_ms = 60000;
    c->test_results = 20;
    h->storage = (struct config_storage){ .name = mem_strdup("default"),
                                          .path = mem_printf("%s/storage", h->folder) };
    c->storages = &h->storage;
    c->n_storages = 1;
    if (h->world->carries_seeds && !h->is_source) {
        h->peer =
            (struct config_peer){ .name = mem_strdup("alpha"),
                                  .may_replicate = true,
                                  .seed_folder = mem_printf("%s/seeds", h->folder) };
        c->peers = &h->peer;
        c->n_peers = 1;
    }
    h->d.config = c;
    h->d.guard_records = mem_printf("%s/guard", h->folder);
    h->d.guard_confirmations = mem_printf("%s/confirmed", h->folder);
    h->d.guard.records = h->d.guard_records;
    h->d.guard.confirmations = h->d.guard_confirmations;
}

static void
free_config(struct world_host *h)
{
    struct config *c = &h->config;

    free(c->host_name);
    free(c->site);
    free(c->state_folder);
    free(c->run_folder);
    free(c->scratch_folder);
    free(c->certificate);
    free(c->key);
    free(c->test_subnets);
    free(c->test_scripts);
    free(h->peer.name);
    free(h->peer.seed_folder);
    free(h->storage.name);
    free(h->storage.path);
    free(TAKE(h->d.guard_records));
    free(TAKE(h->d.guard_confirmations));
    *c = (struct config){ 0 };
}

/* A child ends here and now. */
static void
be_killed(struct fated *f UNUSED, const struct state_write *writes UNUSED,
          size_t n UNUSED)
{
    raise(SIGKILL);
}

static void
open_state(struct world_host *h)
{
    AUTOFREE(char) *path = mem_printf("%s/state.db", h->folder);

    fated_open(&h->state, path, be_killed);
    h->d.state = &h->state.head;
}

static void
open_tls(struct world_host *h)
{
    struct tls_settings settings = { .certificate = h->config.certificate,
                                     .key = h->config.key };
    struct error *err = NULL;

    assert_ok(tls_ensure_own(settings.certificate, settings.key,
                             h->is_source ? WORLD_SOURCE : WORLD_TARGET, &err),
              err);
    assert_ok(tls_new(&settings, &h->d.tls, &err), err);
}

static void
open_host(struct world_host *h, struct world *w, bool is_source)
{
    struct error *err = NULL;

    h->world = w;
    h->is_source = is_source;
    snprintf(h->folder, sizeof h->folder, "%s/%s", w->folder, is_source ? "a" : "b");
    snprintf(h->d.host_id, sizeof h->d.host_id, "%s",
             is_source ? WORLD_SOURCE : WORLD_TARGET);
    h->d.base = event_base_new();
    fill_config(h);
    world_open_hypervisor(h);
    open_state(h);
    open_tls(h);
    assert_ok(replications_load(h->d.state, &h->d.replications, &err), err);
    assert_ok(peers_load(&h->d, &h->d.peers, &err), err);
    assert_ok(testruns_load(&h->d, &h->d.testruns, &err), err);
    h->d.freezes = freezes_new(&h->d);
    h->d.traffic = traffic_new();
    h->d.scheduler = scheduler_new(&h->d);
}

static void
close_host(struct world_host *h)
{
    testruns_free(h->d.testruns);
    traffic_free(h->d.traffic);
    freezes_free(h->d.freezes);
    scheduler_free(h->d.scheduler);
    peers_free(h->d.peers);
    replications_free(h->d.replications);
    if (h->capture != NULL) {
        h->d.captures[CAPTURE_OFFLINE]->ops->close(h->d.captures[CAPTURE_OFFLINE]);
        h->capture->ops->close(h->capture);
    }
    world_close_hypervisor(h);
    tls_free(h->d.tls);
    fated_close(&h->state);
    event_base_free(h->d.base);
    free_config(h);
    *h = (struct world_host){ .world = h->world };
}

/* Of the disks of the VM that runs here. */
static void
open_capture(struct world_host *h)
{
    AUTOFREE(char) *disks =
        mem_printf("%s/disks%s", h->world->folder, h->is_source ? "" : "-b");
    struct error *err = NULL;

    h->d.cycles = workers_new(h->d.base, "cycle", 1);
    assert_ok(fake_capture_open(disks, &h->capture, &err), err);
    h->d.captures[CAPTURE_CHECKPOINT] = h->capture;
    h->d.captures[CAPTURE_BITMAP] = h->capture;
    h->d.captures[CAPTURE_OFFLINE] = fake_capture_offline(h->capture);
}

static bool
identify(const SSL *ssl, const char *fingerprint, char ret_peer_id[40], void *opaque)
{
    struct daemon *d = opaque;
    struct peer_name peer;

    if (!peers_identify(d->peers, ssl, fingerprint, &peer))
        return false;
    snprintf(ret_peer_id, 40, "%s", peer.id);
    return true;
}

/* A helper that the other host is starting has the socket of before for a moment more,
   until it is another program. */
static void
listen_stream(struct world_host *h)
{
    AUTOFREE(char) *path = mem_printf("%s/address", h->folder);
    AUTOFREE(char) *address = file_read(path);
    struct stream_listener_settings settings = {
        .base = h->d.base,
        .tls = h->d.tls,
        .workers = h->d.receives,
        .address = address,
        .host_id = h->d.host_id,
        .max_connections = 16,
        .identify = identify,
        .serve = replica_serve,
        .opaque = &h->d,
    };
    int64_t until_ms = units_monotonic_ms() + WORLD_DEADLINE;
    struct error *err = NULL;

    while (!stream_listener_new(&settings, &h->d.listener, &err)) {
        if (!error_is(err, ERROR_EXISTS) || units_monotonic_ms() > until_ms)
            fail_msg("%s", error_message(err));
        error_clear(&err);
        poll(NULL, 0, LISTEN_AGAIN_MS);
    }
}

static void
open_services(struct world_host *h)
{
    struct tasks_settings settings = { .kinds = ops_all, .site = "sim", .daemon = &h->d };
    struct error *err = NULL;

    h->d.receives = workers_new(h->d.base, "receive", 2);
    h->d.applies = workers_new(h->d.base, "apply", 2);
    h->d.steps = workers_new(h->d.base, "step", 2);
    settings.state = h->d.state;
    settings.workers = h->d.steps;
    assert_ok(tasks_new(&settings, &h->d.tasks, &err), err);
    h->d.upkeep = upkeep_new(&h->d); /* not started: tests say when */
    h->d.flatten = flatten_new(&h->d);
    assert_ok(exports_load(&h->d, &h->d.exports, &err), err);
    listen_stream(h);
    h->loop.base = h->d.base;
    h->serves = true;
    net_loop_start(&h->loop);
}

static void
close_services(struct world_host *h)
{
    net_loop_stop(&h->loop);
    testruns_stop(h->d.testruns);
    tasks_stop(h->d.tasks);
    stream_listener_free(TAKE(h->d.listener));
    workers_free(TAKE(h->d.receives));
    workers_free(TAKE(h->d.steps));
    workers_free(TAKE(h->d.applies));
    tasks_free(h->d.tasks);
    upkeep_stop(h->d.upkeep);
    upkeep_free(h->d.upkeep);
    flatten_free(h->d.flatten);
    exports_free(h->d.exports);
}

void
world_open_source(struct world *w)
{
    bool anew = w->kept[true] == NULL;

    open_host(&w->source, w, true);
    open_capture(&w->source);
    if (anew)
        world_plug(w);
}

void
world_open_target(struct world *w)
{
    open_host(&w->target, w, false);
    open_services(&w->target);
}

void
world_open_both(struct world *w, bool is_source)
{
    struct world_host *h = is_source ? &w->source : &w->target;

    open_host(h, w, is_source);
    open_capture(h);
    open_services(h);
}

void
world_close(struct world_host *h)
{
    if (h->serves)
        close_services(h);
    if (h->d.cycles != NULL)
        workers_free(TAKE(h->d.cycles));
    close_host(h);
}

void
world_close_source(struct world *w)
{
    world_close(&w->source);
}

void
world_close_target(struct world *w)
{
    world_close(&w->target);
}

/* --- the world -------------------------------------------------------------------------
 */

struct world *
world_attach(const char *folder)
{
    struct world *w = NEW(struct world);

    snprintf(w->folder, sizeof w->folder, "%s", folder);
    w->hosts = fake_world_new();
    w->reserved[false] = w->reserved[true] = -1;
    w->seed = 4711;
    return w;
}

/* As after pairing: each has the other's certificate pinned. */
static void
introduce(struct world_host *h, const struct world_host *other, const char *stream)
{
    AUTOJSON *o = json_object_new_object();
    struct state_write write = { .kind = "peer", .id = other->d.host_id, .body = o };
    struct error *err = NULL;

    json_set_string(o, "id", other->d.host_id);
    json_set_string(o, "name", other->config.host_name);
    json_set_string(o, "site", "sim");
    json_set_string(o, "address", "127.0.0.1:1"); /* nobody answers there */
    json_set_string(o, "stream", stream);
    json_set_string(o, "fingerprint", tls_fingerprint(other->d.tls));
    json_set_bool(o, "vouched", false);
    json_set_int(o, "pairedAt", 1);
    assert_ok(h->d.state->ops->commit(h->d.state, &write, 1, &err), err);
}

/* A socket that keeps others away from the port, but not those who listen with
   SO_REUSEADDR, as our listeners do; -1: it is somebody else's. */
static int
reserve(uint16_t port)
{
    struct sockaddr_in in = { .sin_family = AF_INET,
                              .sin_port = htons(port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    AUTOFD(fd) = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;

    if (bind(fd, (struct sockaddr *)&in, sizeof in) < 0)
        return -1;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
    return TAKE_FD(fd);
}

/* Where its streams come in: also when it is opened again, so it is none of those ports
   that the kernel gives to whoever connects to somebody meanwhile, and no other test may
   take it while the host is closed. */
static void
choose_address(struct world *w, bool is_source, char ret[32])
{
    AUTOFREE(char) *path = mem_printf("%s/%s/address", w->folder, is_source ? "a" : "b");
    static uint16_t tried;
    uint16_t port;

    do {
        port = (uint16_t)(FIRST_PORT + (getpid() * PORTS_EACH + tried++) % N_PORTS);
        w->reserved[is_source] = reserve(port);
    } while (w->reserved[is_source] < 0);
    snprintf(ret, 32, "127.0.0.1:%u", port);
    file_write(path, ret);
}

struct world *
world_new(void)
{
    static const char *const folders[] = { "a",         "b",         "a/scratch",
                                           "b/scratch", "b/storage", "a/storage",
                                           "a/run",     "b/run",     "b/seeds" };
    char folder[] = "/var/tmp/virt-dr-sim-XXXXXX";
    char address_a[32], address_b[32];
    struct world *w;

    assert_non_null(mkdtemp(folder));
    chmod(folder, 0755);
    w = world_attach(folder);
    for (size_t i = 0; i < N_ELEMENTS(folders); i++) {
        AUTOFREE(char) *sub = mem_printf("%s/%s", folder, folders[i]);

        assert_int_equal(mkdir(sub, 0755), 0);
    }
    choose_address(w, true, address_a);
    choose_address(w, false, address_b);
    open_host(&w->source, w, true);
    open_host(&w->target, w, false);
    introduce(&w->source, &w->target, address_b);
    introduce(&w->target, &w->source, address_a);
    close_host(&w->source);
    close_host(&w->target);
    return w;
}

void
world_free(struct world *w)
{
    if (w->source.d.state != NULL)
        world_close(&w->source);
    if (w->target.d.state != NULL)
        world_close(&w->target);
    for (size_t i = 0; i < N_ELEMENTS(w->kept); i++)
        if (w->kept[i] != NULL)
            w->kept[i]->ops->close(w->kept[i]);
    fake_world_free(w->hosts);
    for (size_t i = 0; i < N_ELEMENTS(w->reserved); i++)
        if (w->reserved[i] >= 0)
            close(w->reserved[i]);
    files_remove(w->folder);
    free(w);
}

/* --- the replication
 * --------------------------------------------------------------------- */

void
world_protect(struct world *w)
{
    struct store_disk disks[FAKE_CAPTURE_DISKS] = { 0 };
    struct replica_request request = { .replication = WORLD_REPLICA,
                                       .vm_uuid = WORLD_VM,
                                       .vm_name = "web01",
                                       .peer_id = WORLD_SOURCE,
                                       .storage = "default",
                                       .rpo_ms = 5000,
                                       .disks = disks,
                                       .seed = w->replica_seed,
                                       .user = "sim" };
    struct guard_record record = { .vm = (char *)(uintptr_t) "web01",
                                   .may_run = true,
                                   .epoch = 1 };
    AUTOPTR(replication) *r =
        replication_new(SIDE_SOURCE, WORLD_REPLICA, WORLD_VM, "web01", WORLD_TARGET);
    struct error *err = NULL;
    const char *target;

    while ((target = fake_capture_disk(w->source.capture, request.n_disks,
                                       &disks[request.n_disks].capacity_bytes)) != NULL) {
        snprintf(disks[request.n_disks].target, sizeof disks[0].target, "%s", target);
        request.n_disks++;
    }
    assert_ok(replica_create(&w->target.d, &request, &err), err);
    assert_ok(replications_add(w->source.d.replications, r, &err), err);
    assert_ok(guard_write(&w->source.d.guard, WORLD_VM, &record, &err), err);
    assert_ok(guard_confirm(&w->source.d.guard, WORLD_VM, 1, &err), err);
}

struct replication *
world_replication(struct world_host *h)
{
    struct replication *r = NULL;
    struct error *err = NULL;

    assert_ok(replications_find(h->d.replications, WORLD_REPLICA, &r, &err), err);
    return r;
}

bool
world_cycle_from(struct world_host *h, struct error **err)
{
    AUTOPTR(replication) *r = world_replication(h);
    struct cancel cancel = { 0 };
    struct error *e = NULL;
    bool more = true;
    bool ok = true;

    assert_true(replication_claim(r, &cancel, false, NULL));
    while (ok && more)
        ok = cycle_run(&h->d, r, &cancel, &more, &e);
    scheduler_note(h->d.scheduler, r, e);
    if (!ok)
        r->agreed = false; /* scheduler_note() leaves a cycle that was cancelled alone */
    replication_release(r);
    return ok || error_propagate(err, e);
}

bool
world_cycle(struct world *w, struct error **err)
{
    return world_cycle_from(&w->source, err);
}

bool
world_recover(struct world *w, unsigned tries, struct error **err)
{
    struct error *e = NULL;

    while (tries-- > 0) {
        error_clear(&e);
        if (world_cycle(w, &e))
            return true;
    }
    return error_propagate(err, e);
}
