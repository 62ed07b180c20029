#include "tests/sim/world.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle.h"
#include "daemon/freeze.h"
#include "daemon/traffic.h"
#include "daemon/ops.h"
#include "daemon/peers.h"
#include "daemon/replica.h"
#include "daemon/scheduler.h"
#include "daemon/stream.h"
#include "daemon/tasks.h"
#include "daemon/testruns.h"
#include "daemon/upkeep.h"
#include "drivers/hypervisor/fake_testbed.h"
#include "drivers/state/sqlite.h"
#include "drivers/store/layout.h"
#include "tests/sim/files.h"

static const struct op_kind *const kinds[] = {
    &op_failover, &op_undo, &op_import_seed, &op_test_failover, &op_test_cleanup,
    &op_planned,  NULL
};

/* --- the state: counts, fails, kills ---------------------------------------------- */

static bool
fated_get(struct state *s, const char *kind, const char *id, struct json_object **ret,
          struct error **err)
{
    struct state *real = ((struct world_state *)s)->real;

    return real->ops->get(real, kind, id, ret, err);
}

static bool
fated_list(struct state *s, const char *kind, const char *prefix,
           struct json_object **ret, struct error **err)
{
    struct state *real = ((struct world_state *)s)->real;

    return real->ops->list(real, kind, prefix, ret, err);
}

static bool
fated_commit(struct state *s, const struct state_write *writes, size_t n,
             struct error **err)
{
    struct world_state *w = (struct world_state *)s;
    bool now = w->left > 0 && --w->left == 0;
    bool ok;

    if (now && w->fate == FATE_KILL_BEFORE)
        raise(SIGKILL);
    if (now && w->fate == FATE_FAIL)
        return error_set(err, ERROR_STATE, "the test lets this commit fail");
    ok = w->real->ops->commit(w->real, writes, n, err);
    if (now && w->fate == FATE_KILL_AFTER)
        raise(SIGKILL);
    w->commits++;
    if (w->told != NULL)
        w->told(w->opaque);
    return ok;
}

static void
fated_close(struct state *s)
{
    struct state *real = ((struct world_state *)s)->real;

    real->ops->close(real);
}

static const struct state_ops fated_ops = { .name = "fated",
                                            .close = fated_close,
                                            .get = fated_get,
                                            .list = fated_list,
                                            .commit = fated_commit };

/* --- the hypervisor: what it must keep is in files -----------------------------------
 */

/* struct hypervisor has no room for it, and only the target's is asked. */
static struct world_host *definer;

static bool
kept_define(struct hypervisor *hv, const char *xml, struct error **err)
{
    AUTOFREE(char) *path = mem_printf("%s/defined.xml", definer->folder);

    if (!definer->hypervisor_real->define(hv, xml, err))
        return false;
    file_write(path, xml);
    return true;
}

static bool
kept_undefine(struct hypervisor *hv, const char *uuid, struct error **err)
{
    AUTOFREE(char) *path = mem_printf("%s/defined.xml", definer->folder);

    if (!definer->hypervisor_real->undefine(hv, uuid, err))
        return false;
    files_remove(path);
    return true;
}

/* At the instant of a start: may it be? One line in a file for each. */
static void
note_start(enum hv_event event, const char *uuid, void *opaque)
{
    struct world_host *h = opaque;
    AUTOFREE(char) *path = mem_printf("%s/starts", h->folder);
    AUTOPTR(guard_record) *record = NULL;
    AUTOJSON *doc = NULL;
    int64_t epoch = 0;
    bool may;

    if (event != HV_EVENT_STARTED || h->is_source || h->d.state == NULL)
        return;
    if (h->d.state->ops->get(h->d.state, "replication", WORLD_REPLICA, &doc, NULL))
        epoch = json_int_or(doc, "epoch", 0);
    may = guard_judge(&h->d.guard, uuid, NULL) &&
          guard_read(&h->d.guard, uuid, &record, NULL) && (int64_t)record->epoch == epoch;
    file_append(path, may && epoch > 1 ? "good\n" : "bad\n");
}

static bool
reopen_hypervisor(struct world_host *h)
{
    if (h->world->kept[h->is_source] == NULL)
        return false;
    h->d.hypervisor = TAKE(h->world->kept[h->is_source]);
    h->hypervisor_real = h->d.hypervisor->ops;
    return true;
}

static void
close_hypervisor(struct world_host *h)
{
    if (h->hypervisor_real != NULL)
        h->d.hypervisor->ops = h->hypervisor_real;
    if (h->world->keeps_domains)
        h->world->kept[h->is_source] = h->d.hypervisor;
    else
        h->d.hypervisor->ops->close(h->d.hypervisor);
}

static void
open_hypervisor(struct world_host *h)
{
    AUTOFREE(char) *defined = mem_printf("%s/defined.xml", h->folder);
    AUTOFREE(char) *starts = mem_printf("%s/starts", h->folder);
    AUTOFREE(char) *xml = file_read(defined);
    AUTOFREE(char) *started = file_read(starts);
    AUTOFREE(char) *tpms = mem_printf("%s/swtpm", h->folder);
    AUTOFREE(char) *testbed = mem_printf("%s/testbed", h->folder);
    struct error *err = NULL;

    if (reopen_hypervisor(h))
        return;
    h->d.hypervisor = fake_open(h->world->hosts, note_start, h);
    fake_set_tpms(h->d.hypervisor, tpms);
    fake_testbed_keep(h->d.hypervisor, testbed);
    h->hypervisor_real = h->d.hypervisor->ops;
    h->hypervisor_ops = *h->hypervisor_real;
    h->hypervisor_ops.define = kept_define;
    h->hypervisor_ops.undefine = kept_undefine;
    if (!h->is_source) {
        definer = h;
        h->d.hypervisor->ops = &h->hypervisor_ops;
    }
    if (xml == NULL)
        return;
    assert_ok(fake_add(h->d.hypervisor, xml, &err), err);
    if (started != NULL) /* no state is open yet: not noted as a start */
        fake_set_state(h->d.hypervisor, WORLD_VM, HV_STATE_RUNNING);
}

/* --- a host ----------------------------------------------------------------------------
 */

static void
fill_config(struct world_host *h)
{
    struct config *c = &h->config;

    c->host_name = mem_strdup(h->is_source ? "alpha" : "beta");
    c->site = mem_strdup("sim");
    c->state_folder = mem_strdup(h->folder);
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
    free(c->scratch_folder);
    free(c->certificate);
    free(c->key);
    free(c->test_subnets);
    free(c->test_scripts);
    free(h->storage.name);
    free(h->storage.path);
    free(TAKE(h->d.guard_records));
    free(TAKE(h->d.guard_confirmations));
    *c = (struct config){ 0 };
}

static void
open_state(struct world_host *h)
{
    AUTOFREE(char) *path = mem_printf("%s/state.db", h->folder);
    struct error *err = NULL;

    h->state.head.ops = &fated_ops;
    assert_ok(state_sqlite_open(path, &h->state.real, &err), err);
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
    open_hypervisor(h);
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
    close_hypervisor(h);
    tls_free(h->d.tls);
    h->d.state->ops->close(h->d.state);
    event_base_free(h->d.base);
    free_config(h);
    *h = (struct world_host){ .world = h->world };
}

void
world_open_source(struct world *w)
{
    AUTOFREE(char) *disks = mem_printf("%s/disks", w->folder);
    struct world_host *h = &w->source;
    bool anew = w->kept[true] == NULL;
    struct error *err = NULL;

    open_host(h, w, true);
    h->d.cycles = workers_new(h->d.base, "cycle", 1);
    assert_ok(fake_capture_open(disks, &h->capture, &err), err);
    h->d.captures[CAPTURE_CHECKPOINT] = h->capture;
    h->d.captures[CAPTURE_BITMAP] = h->capture;
    h->d.captures[CAPTURE_OFFLINE] = fake_capture_offline(h->capture);
    if (anew)
        world_plug(w);
}

void
world_close_source(struct world *w)
{
    workers_free(TAKE(w->source.d.cycles));
    close_host(&w->source);
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

static void
listen_stream(struct world_host *h)
{
    AUTOFREE(char) *path = mem_printf("%s/address", h->world->folder);
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
    struct error *err = NULL;

    assert_ok(stream_listener_new(&settings, &h->d.listener, &err), err);
}

void
world_open_target(struct world *w)
{
    struct world_host *h = &w->target;
    struct tasks_settings settings = { .kinds = kinds, .site = "sim", .daemon = &h->d };
    struct error *err = NULL;

    open_host(h, w, false);
    h->d.receives = workers_new(h->d.base, "receive", 2);
    h->d.applies = workers_new(h->d.base, "apply", 2);
    h->d.steps = workers_new(h->d.base, "step", 2);
    settings.state = h->d.state;
    settings.workers = h->d.steps;
    assert_ok(tasks_new(&settings, &h->d.tasks, &err), err);
    h->d.upkeep = upkeep_new(&h->d); /* not started: tests say when */
    listen_stream(h);
    h->loop.base = h->d.base;
    net_loop_start(&h->loop);
}

void
world_close_target(struct world *w)
{
    struct world_host *h = &w->target;

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
    close_host(h);
}

/* --- the world -------------------------------------------------------------------------
 */

struct world *
world_attach(const char *folder)
{
    struct world *w = NEW(struct world);

    snprintf(w->folder, sizeof w->folder, "%s", folder);
    w->hosts = fake_world_new();
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

struct world *
world_new(void)
{
    static const char *const folders[] = { "a",         "b",         "a/scratch",
                                           "b/scratch", "b/storage", "a/storage" };
    char folder[] = "/var/tmp/virt-dr-sim-XXXXXX";
    struct world *w;
    char address[32];
    AUTOFREE(char) *path = NULL;

    assert_non_null(mkdtemp(folder));
    chmod(folder, 0755);
    w = world_attach(folder);
    for (size_t i = 0; i < N_ELEMENTS(folders); i++) {
        AUTOFREE(char) *sub = mem_printf("%s/%s", folder, folders[i]);

        assert_int_equal(mkdir(sub, 0755), 0);
    }
    net_free_address(address);
    path = mem_printf("%s/address", folder);
    file_write(path, address);
    open_host(&w->source, w, true);
    open_host(&w->target, w, false);
    introduce(&w->source, &w->target, address);
    introduce(&w->target, &w->source, address);
    close_host(&w->source);
    close_host(&w->target);
    return w;
}

void
world_free(struct world *w)
{
    if (w->source.d.state != NULL)
        world_close_source(w);
    if (w->target.d.state != NULL)
        world_close_target(w);
    for (size_t i = 0; i < N_ELEMENTS(w->kept); i++)
        if (w->kept[i] != NULL)
            w->kept[i]->ops->close(w->kept[i]);
    fake_world_free(w->hosts);
    files_remove(w->folder);
    free(w);
}

/* --- the replication
 * --------------------------------------------------------------------- */

void
world_image_changes(struct world *w, const char *target)
{
    AUTOFREE(char) *path = mem_printf("%s/images/%s.qcow2", w->folder, target);
    AUTOFD(fd) = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    assert_int_equal(write(fd, "x", 1), 1);
}

static void
make_image(struct world *w, const char *target)
{
    AUTOFREE(char) *path = mem_printf("%s/images/%s.qcow2", w->folder, target);

    if (access(path, F_OK) != 0)
        world_image_changes(w, target);
}

void
world_plug(struct world *w)
{
    AUTOFREE(char) *disks = mem_strdup("");
    AUTOFREE(char) *xml = NULL;
    AUTOFREE(char) *images = mem_printf("%s/images", w->folder);
    struct hypervisor *hv = w->source.d.hypervisor;
    struct error *err = NULL;
    const char *target;
    uint64_t capacity;

    mkdir(images, 0700);
    for (size_t i = 0;
         (target = fake_capture_disk(w->source.capture, i, &capacity)) != NULL; i++) {
        char *longer = mem_printf("%s<disk type='file' device='disk'>"
                                  "<driver name='qemu' type='qcow2'/>"
                                  "<source file='%s/%s.qcow2'/>"
                                  "<target dev='%s' bus='virtio'/></disk>",
                                  disks, images, target, target);

        make_image(w, target);
        free(disks);
        disks = longer;
        fake_set_capacity(hv, target, capacity);
    }
    xml = mem_printf("<domain type='kvm'><name>web01</name><uuid>%s</uuid>"
                     "<memory unit='MiB'>64</memory><devices>%s%s</devices></domain>",
                     WORLD_VM, disks, w->devices != NULL ? w->devices : "");
    assert_ok(fake_add(hv, xml, &err), err);
    fake_set_state(hv, WORLD_VM, HV_STATE_RUNNING);
}

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
world_cycle(struct world *w, struct error **err)
{
    AUTOPTR(replication) *r = world_replication(&w->source);
    struct cancel cancel = { 0 };
    struct error *e = NULL;
    bool more = true;
    bool ok = true;

    assert_true(replication_claim(r, &cancel, false, NULL));
    while (ok && more)
        ok = cycle_run(&w->source.d, r, &cancel, &more, &e);
    scheduler_note(w->source.d.scheduler, r, e);
    if (!ok)
        r->agreed = false; /* scheduler_note() leaves a cycle that was cancelled alone */
    replication_release(r);
    return ok || error_propagate(err, e);
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

/* Random numbers that are the same in each run. */
static uint64_t
random_number(struct world *w)
{
    w->seed ^= w->seed << 13;
    w->seed ^= w->seed >> 7;
    w->seed ^= w->seed << 17;
    return w->seed;
}

void
world_guest_writes(struct world *w, unsigned n)
{
    struct capture_driver *capture = w->source.capture;
    uint8_t run[3 * FAKE_CAPTURE_BLOCK];
    const char *target;
    uint64_t capacity;

    for (size_t i = 0; (target = fake_capture_disk(capture, i, &capacity)) != NULL; i++)
        for (unsigned k = 0; k < n; k++) {
            size_t length = random_number(w) % sizeof run + 1;
            uint64_t offset = random_number(w) % (capacity - length);
            bool zero = random_number(w) % 4 == 0;

            for (size_t b = 0; b < length; b++)
                run[b] = zero ? 0 : (uint8_t)(random_number(w) >> 17);
            fake_capture_write(capture, target, offset, run, length);
        }
}

/* --- what the replica holds
 * ---------------------------------------------------------------- */

void
world_model_take(struct world *w, struct world_model *ret)
{
    struct capture_driver *capture = w->source.capture;
    const char *target;

    *ret = (struct world_model){ 0 };
    while ((target = fake_capture_disk(capture, ret->n, &ret->capacity_bytes[ret->n])) !=
           NULL) {
        snprintf(ret->target[ret->n], sizeof ret->target[0], "%s", target);
        ret->bytes[ret->n] = (uint8_t *)mem_memdup(fake_capture_content(capture, target),
                                                   ret->capacity_bytes[ret->n]);
        ret->n++;
    }
}

void
world_model_free(struct world_model *m)
{
    for (size_t i = 0; i < m->n; i++)
        free(m->bytes[i]);
}

static void
check_image(struct world *w, const char *path, const struct world_model *m, size_t disk)
{
    AUTOFREE(char) *raw = mem_printf("%s/read.raw", w->folder);
    AUTOFREE(char) *bytes = NULL;
    size_t n = 0;

    run_program((const char *const[]){ "qemu-img", "convert", "-U", "-O", "raw", path,
                                       raw, NULL });
    bytes = file_read_bytes(raw, &n);
    assert_non_null(bytes);
    assert_int_equal(n, m->capacity_bytes[disk]);
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)bytes[i] != m->bytes[disk][i])
            fail_msg("'%s' differs from what it must hold at byte %zu", path, i);
}

void
world_check_tip(struct world *w, const struct world_model *m)
{
    AUTOPTR(replication) *r = world_replication(&w->target);
    AUTOFD(fd) = open(r->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTOPTR(layout) *l = NULL;
    struct error *err = NULL;

    assert_ok(replica_apply(&w->target.d, r, NULL, &err), err);
    assert_ok(layout_load(fd, &l, &err), err);
    for (size_t i = 0; i < m->n; i++) {
        const struct layout_disk *d = layout_find(l, m->target[i]);
        AUTOFREE(char) *path = NULL;

        assert_non_null(d);
        path = mem_printf("%s/disks/%s", r->folder, d->layers[d->n_layers - 1]);
        check_image(w, path, m, i);
    }
}

void
world_check_overlay(struct world *w, uint64_t epoch, const struct world_model *m)
{
    for (size_t i = 0; i < m->n; i++) {
        AUTOFREE(char) *path =
            mem_printf("%s/b/storage/%s/overlay/failover-%llu/%s.qcow2", w->folder,
                       WORLD_REPLICA, (unsigned long long)epoch, m->target[i]);

        check_image(w, path, m, i);
    }
}

/* --- failover
 * --------------------------------------------------------------------------------
 */

/* The task that is under way; a new one if there is none. */
static struct json_object *
the_task(struct world_host *h, const struct tasks_request *request)
{
    struct json_object *task = NULL;
    AUTOJSON *list = NULL;
    struct error *err = NULL;

    assert_ok(tasks_list(h->d.tasks, 1, &list, &err), err);
    if (json_object_array_length(list) > 0) {
        struct json_object *last = json_object_array_get_idx(list, 0);

        if (strcmp(json_string_or(last, "state", ""), "FAILED") != 0 &&
            strcmp(json_string_or(last, "state", ""), "CANCELLED") != 0 &&
            strcmp(json_string_or(last, "type", ""), request->kind) == 0)
            return json_object_get(last);
    }
    assert_ok(tasks_start(h->d.tasks, request, &task, &err), err);
    return task;
}

bool
world_run(struct world *w, const struct tasks_request *request, struct error **err)
{
    int64_t deadline_ms = units_monotonic_ms() + WORLD_DEADLINE;
    struct tasks *tasks = w->target.d.tasks;
    AUTOFREE(char) *id = NULL;
    AUTOJSON *task = NULL;

    task = the_task(&w->target, request);
    id = mem_strdup(json_string_or(task, "id", ""));
    while (strcmp(json_string_or(task, "state", ""), "RUNNING") == 0) {
        struct json_object *now = NULL;

        assert_true(units_monotonic_ms() < deadline_ms);
        assert_true(tasks_wait(tasks, id, 1000, &now, NULL));
        json_object_put(task);
        task = now;
    }
    if (strcmp(json_string_or(task, "state", ""), "SUCCEEDED") == 0)
        return true;
    return json_to_error(json_object_or_null(task, "error"), err);
}

/* Of the replication itself. */
static bool
run_task(struct world *w, const char *kind, const char *select, struct error **err)
{
    AUTOJSON *data = json_object_new_object();
    struct tasks_request request = { .kind = kind,
                                     .resource_id = WORLD_REPLICA,
                                     .resource_name = "web01",
                                     .user = "test",
                                     .data = data };

    if (select != NULL)
        json_set(data, "select", json_tokener_parse(select));
    return world_run(w, &request, err);
}

bool
world_test(struct world *w, struct error **err)
{
    AUTOJSON *data = json_tokener_parse(
        "{\"replication\": \"" WORLD_REPLICA "\", \"overlay\": \"test-" WORLD_TEST
        "\", \"test\": {\"id\": \"" WORLD_TEST "\", \"replication\": \"" WORLD_REPLICA
        "\", \"vmName\": \"web01\", \"state\": \"starting\", \"overlay\": "
        "\"test-" WORLD_TEST "\", \"startedTime\": 1, \"timeout\": 2000, "
        "\"domain\": {\"name\": \"web01-test\", \"uuid\": \"" WORLD_TEST_VM "\"}, "
        "\"network\": {\"name\": \"virt-dr-test\", \"isolated\": true, \"uuid\": "
        "\"" WORLD_TEST_VM "\", \"bridge\": \"vdrt\"}, \"notes\": [], \"checks\": "
        "[{\"type\": \"running\", \"argument\": \"0ms\"}]}}");
    struct tasks_request request = { .kind = "test-failover",
                                     .resource_id = WORLD_TEST,
                                     .resource_name = "web01",
                                     .user = "test",
                                     .data = data };

    assert_non_null(data);
    return world_run(w, &request, err);
}

bool
world_test_cleanup(struct world *w, struct error **err)
{
    AUTOJSON *data = json_tokener_parse("{\"replication\": \"" WORLD_REPLICA
                                        "\", \"test\": \"" WORLD_TEST "\"}");
    struct tasks_request request = { .kind = "test-cleanup",
                                     .resource_id = WORLD_TEST,
                                     .resource_name = "web01",
                                     .user = "test",
                                     .data = data };

    return world_run(w, &request, err);
}

bool
world_failover(struct world *w, struct error **err)
{
    return world_failover_to(w, NULL, err);
}

bool
world_failover_to(struct world *w, const char *select, struct error **err)
{
    if (w->source.d.hypervisor != NULL) /* the site is lost */
        fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_OFF);
    return run_task(w, "failover", select, err);
}

bool
world_undo(struct world *w, struct error **err)
{
    return run_task(w, "undo", NULL, err);
}

unsigned
world_starts(struct world *w)
{
    AUTOFREE(char) *path = mem_printf("%s/b/starts", w->folder);
    AUTOFREE(char) *lines = file_read(path);
    unsigned n = 0;

    for (const char *p = lines; p != NULL && *p != '\0'; p = strchr(p, '\n') + 1) {
        assert_int_equal(strncmp(p, "good\n", 5), 0);
        n++;
    }
    return n;
}

/* --- children
 * ----------------------------------------------------------------------------------
 */

extern char **environ;

bool
world_child(struct world *w, const char *work, enum world_fate fate, unsigned n)
{
    char fate_text[12], n_text[12];
    char *const argv[] = { (char *)(uintptr_t) "child",
                           w->folder,
                           (char *)(uintptr_t)work,
                           fate_text,
                           n_text,
                           NULL };
    pid_t pid;
    int status;

    snprintf(fate_text, sizeof fate_text, "%d", (int)fate);
    snprintf(n_text, sizeof n_text, "%u", n);
    assert_int_equal(posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return true;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("the child that does '%s' with fate %s at %s ended with %d", work,
                 fate_text, n_text, status);
    return false;
}

static void
set_fate(struct world_host *h, char **argv)
{
    uint64_t fate = 0, n = 0;

    if (!units_parse_u64(argv[3], 0, FATE_FAIL, &fate, NULL) ||
        !units_parse_u64(argv[4], 0, 1000, &n, NULL))
        exit(2);
    h->state.fate = (enum world_fate)fate;
    h->state.left = (unsigned)n;
}

void
world_be_child(int argc, char **argv)
{
    AUTOPTR(error) *e = NULL;
    struct world *w;
    bool ok;

    log_init(LOG_LEVEL_ERROR);
    if (argc != 5 || strcmp(argv[0], "child") != 0)
        return;
    w = world_attach(argv[1]);
    if (strncmp(argv[2], "cycle", 5) == 0) {
        world_open_source(w);
        if (strcmp(argv[2], "cycle-off") == 0)
            fake_set_state(w->source.d.hypervisor, WORLD_VM, HV_STATE_OFF);
        cycle_recover(&w->source.d, world_replication(&w->source));
        set_fate(&w->source, argv);
        ok = world_recover(w, 3, &e); /* a lost record fails the first one */
    } else {
        world_open_target(w);
        set_fate(&w->target, argv);
        ok = tasks_resume(w->target.d.tasks, &e) &&
             (strcmp(argv[2], "test") == 0           ? world_test(w, &e)
              : strcmp(argv[2], "test-cleanup") == 0 ? world_test_cleanup(w, &e)
                                                     : run_task(w, argv[2], NULL, &e));
        world_close_target(w); /* its storage daemon ends with it */
    }
    if (!ok)
        fprintf(stderr, "%s: %s\n", argv[2], error_message(e));
    _exit(ok ? 0 : 1);
}

/* --- saved states
 * ---------------------------------------------------------------------------------
 */

void
world_save_target(struct world *w)
{
    AUTOFREE(char) *from = mem_printf("%s/b", w->folder);
    AUTOFREE(char) *to = mem_printf("%s/saved", w->folder);

    files_remove(to);
    run_program((const char *const[]){ "cp", "-a", from, to, NULL });
}

void
world_restore_target(struct world *w)
{
    AUTOFREE(char) *from = mem_printf("%s/saved", w->folder);
    AUTOFREE(char) *to = mem_printf("%s/b", w->folder);

    files_remove(to);
    run_program((const char *const[]){ "cp", "-a", from, to, NULL });
}
