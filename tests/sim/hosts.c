#include "tests/sim/hosts.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/contact.h"
#include "daemon/exports.h"
#include "daemon/flatten.h"
#include "daemon/scheduler.h"
#include "daemon/stream.h"
#include "drivers/capture/fake.h"
#include "tests/sim/files.h"

#define DEADLINE 20000

const char *const hosts_ids[N_HOSTS] = {
    "0b1c2d3e-0000-4000-8000-00000000000a",
    "0b1c2d3e-0000-4000-8000-00000000000b",
    "0b1c2d3e-0000-4000-8000-00000000000c",
};

static struct hosts *the_world; /* for peers_*(), which get no more than their caller */

/* --- the network: what peers.h promises --------------------------------------------- */

static struct host *
host_by(const char *key)
{
    for (size_t i = 0; i < N_HOSTS; i++)
        if (strcmp(hosts_ids[i], key) == 0 || strcmp(the_world->hosts[i].name, key) == 0)
            return &the_world->hosts[i];
    return NULL;
}

bool
host_is_dead(const struct host *h)
{
    return h->state.dead;
}

bool
hosts_are_paired(const struct host *a, const struct host *b)
{
    return a != b && !(the_world->strangers && strcmp(a->name, "a") != 0 &&
                       strcmp(b->name, "a") != 0);
}

bool
peers_find(struct peers *p, const char *key, struct peer_name *ret, struct error **err)
{
    const struct host *h = host_by(key);

    if (h == NULL || !hosts_are_paired(p->host, h))
        return error_set(err, ERROR_PEER_NOT_FOUND, "no peer '%s'", key);
    *ret = (struct peer_name){ 0 };
    snprintf(ret->id, sizeof ret->id, "%s", h->d.host_id);
    snprintf(ret->name, sizeof ret->name, "%s", h->name);
    return true;
}

struct json_object *
peers_list(struct peers *p)
{
    struct json_object *list = json_object_new_array();

    for (size_t i = 0; i < N_HOSTS; i++) {
        struct json_object *o;

        if (!hosts_are_paired(p->host, &the_world->hosts[i]))
            continue;
        o = json_object_new_object();
        json_set_string(o, "id", hosts_ids[i]);
        json_set_string(o, "name", the_world->hosts[i].name);
        json_object_array_add(list, o);
    }
    return list;
}

static bool
reach(struct peers *p, const char *id, struct host **ret, struct error **err)
{
    struct host *h = host_by(id);

    *ret = h;
    return (!the_world->cut && !host_is_dead(p->host) && !host_is_dead(h) &&
            !h->no_virtdrd && hosts_are_paired(p->host, h)) ||
           error_set(err, ERROR_CONNECT, "host '%s' does not answer", h->name);
}

/* The answer of one that dies meanwhile, or is cut off, is not heard. */
static bool
answered(const struct host *h, bool ok, struct error *e, struct error **err)
{
    if (!host_is_dead(h) && !the_world->cut)
        return ok || error_propagate(err, e);
    error_free(e);
    return error_set(err, ERROR_CONNECT, "host '%s' died, or is cut off", h->name);
}

bool
peers_connected(struct peers *p, const char *id, int64_t *ret_ms)
{
    struct host *h;

    if (ret_ms != NULL)
        *ret_ms = 0;
    return reach(p, id, &h, NULL);
}

void
peers_heard(struct peers *p UNUSED, const char *id UNUSED)
{
}

struct replication *
host_replication(struct host *h)
{
    struct replication *r = NULL;

    return replications_find(h->d.replications, HOSTS_REPLICA, &r, NULL) ? r : NULL;
}

bool
peers_probe(struct peers *p, const char *id, const char *path, struct json_object **ret,
            struct error **err)
{
    struct host *h;

    return reach(p, id, &h, err) && hosts_probed(h, p->host->d.host_id, path, ret, err);
}

bool
peers_call(struct peers *p, const char *id, const char *method, const char *path,
           struct json_object *body, struct json_object **ret, struct error **err)
{
    struct hosts_call call = { .caller = p->host->d.host_id,
                               .method = method,
                               .path = path };
    AUTOJSON *copy = NULL;
    AUTOJSON *answer = NULL;
    struct error *e = NULL;
    struct host *h;
    bool ok;

    if (!reach(p, id, &h, err))
        return false;
    if (body != NULL)
        json_object_deep_copy(body, &copy, NULL);
    call.body = copy;
    ok = hosts_called(h, &call, &answer, &e);
    ok = answered(h, ok, e, err);
    if (ok && ret != NULL)
        *ret = TAKE(answer);
    return ok;
}

/* No cycle runs here. */
bool
peers_stream_take(struct peers *p UNUSED, const char *id UNUSED,
                  struct cancel *cancel UNUSED, bool fresh UNUSED,
                  struct stream **ret UNUSED, struct error **err)
{
    return error_set(err, ERROR_CONNECT, "there are no streams");
}

void
peers_stream_put(struct peers *p UNUSED, const char *id UNUSED, struct stream *stream)
{
    stream_free(stream);
}

/* --- hosts ---------------------------------------------------------------------------
 */

static void
open_host(struct host *h)
{
    AUTOFREE(char) *path = mem_printf("%s/state.db", h->folder);
    struct tasks_settings settings = { .kinds = h->world->kinds,
                                       .site = "sim",
                                       .daemon = &h->d };
    struct error *err = NULL;

    h->d.base = event_base_new();
    h->d.config = &h->config;
    fated_open(&h->state, path, NULL);
    h->d.state = &h->state.head;
    h->d.peers = &h->peers;
    assert_ok(replications_load(h->d.state, &h->d.replications, &err), err);
    assert_ok(exports_load(&h->d, &h->d.exports, &err), err);
    h->d.scheduler = scheduler_new(&h->d); /* not started: tests say when */
    h->d.flatten = flatten_new(&h->d);
    h->d.steps = workers_new(h->d.base, "step", 1);
    settings.state = h->d.state;
    settings.workers = h->d.steps;
    assert_ok(tasks_new(&settings, &h->d.tasks, &err), err);
    h->loop.base = h->d.base;
    net_loop_start(&h->loop);
    assert_ok(tasks_resume(h->d.tasks, &err), err);
}

static void
close_host(struct host *h)
{
    net_loop_stop(&h->loop);
    tasks_stop(h->d.tasks);
    workers_free(TAKE(h->d.steps));
    tasks_free(h->d.tasks);
    flatten_free(h->d.flatten);
    scheduler_free(h->d.scheduler);
    exports_free(h->d.exports);
    replications_free(h->d.replications);
    fated_close(&h->state);
    event_base_free(h->d.base);
}

static void
make_host(struct hosts *w, size_t i)
{
    static const char *const names[] = { "a", "b", "c" };
    struct host *h = &w->hosts[i];
    AUTOFREE(char) *disks = NULL;
    struct error *err = NULL;

    h->world = w;
    h->name = names[i];
    h->peers.host = h;
    snprintf(h->folder, sizeof h->folder, "%s/%s", w->folder, h->name);
    assert_int_equal(mkdir(h->folder, 0700), 0);
    snprintf(h->d.host_id, sizeof h->d.host_id, "%s", hosts_ids[i]);
    h->config = (struct config){ .host_name = mem_strdup(h->name),
                                 .site = mem_strdup("sim"),
                                 .storages = &h->storage,
                                 .n_storages = 1 };
    h->storage = (struct config_storage){ .name = mem_strdup("default"),
                                          .path = mem_strdup(h->folder) };
    h->d.guard_records = mem_printf("%s/guard", h->folder);
    h->d.guard_confirmations = mem_printf("%s/confirmed", h->folder);
    h->d.guard.records = h->d.guard_records;
    h->d.guard.confirmations = h->d.guard_confirmations;
    h->d.hypervisor = fake_open(w->fakes, NULL, NULL);
    disks = mem_printf("%s/disks", h->folder);
    assert_ok(fake_capture_open(disks, &h->d.captures[CAPTURE_CHECKPOINT], &err), err);
    h->d.captures[CAPTURE_BITMAP] = h->d.captures[CAPTURE_CHECKPOINT];
    h->d.captures[CAPTURE_OFFLINE] = h->d.captures[CAPTURE_CHECKPOINT];
    open_host(h);
}

static void
remove_host(struct host *h)
{
    close_host(h);
    h->d.captures[CAPTURE_CHECKPOINT]->ops->close(h->d.captures[CAPTURE_CHECKPOINT]);
    h->d.hypervisor->ops->close(h->d.hypervisor);
    free(h->config.host_name);
    free(h->config.site);
    free(h->storage.name);
    free(h->storage.path);
    free(h->d.guard_records);
    free(h->d.guard_confirmations);
}

/* --- all of them
 * ------------------------------------------------------------------------
 */

struct hosts *
hosts_new(const struct op_kind *const *kinds)
{
    struct hosts *w = NEW(struct hosts);

    snprintf(w->folder, sizeof w->folder, "/var/tmp/virt-dr-hosts-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    the_world = w;
    w->kinds = kinds;
    w->fakes = fake_world_new();
    for (size_t i = 0; i < N_HOSTS; i++)
        w->hosts[i].name = "";
    for (size_t i = 0; i < N_HOSTS; i++)
        make_host(w, i);
    return w;
}

void
hosts_free(struct hosts *w)
{
    for (size_t i = 0; i < N_HOSTS; i++)
        remove_host(&w->hosts[i]);
    fake_world_free(w->fakes);
    files_remove(w->folder);
    free(w);
}

void
host_define(struct host *h)
{
    AUTOFREE(char) *xml =
        mem_printf("<domain type='kvm'><name>web01</name><uuid>" HOSTS_VM "</uuid>"
                   "<devices><disk type='file' device='disk'>"
                   "<driver name='qemu' type='qcow2'/>"
                   "<source file='%s/vda.qcow2'/>"
                   "<target dev='vda' bus='virtio'/></disk></devices></domain>",
                   h->folder);
    struct error *err = NULL;

    assert_ok(fake_add(h->d.hypervisor, xml, &err), err);
}

void
host_await(struct host *h)
{
    int64_t until_ms = units_monotonic_ms() + DEADLINE;

    while (tasks_busy(h->d.tasks, HOSTS_REPLICA)) {
        assert_true(units_monotonic_ms() < until_ms);
        usleep(1000);
    }
}

void
host_contact(struct host *from, struct host *to)
{
    AUTOJSON *said = NULL;

    if (from->world->cut || host_is_dead(from) || host_is_dead(to))
        return;
    said = contact_say(&from->d, to->d.host_id);
    contact_hear(&to->d, from->d.host_id, said);
}

void
hosts_boot(struct hosts *w)
{
    for (size_t i = 0; i < N_HOSTS; i++)
        if (host_is_dead(&w->hosts[i])) {
            close_host(&w->hosts[i]);
            open_host(&w->hosts[i]);
        }
}

bool
host_may_start(struct host *h)
{
    return guard_judge(&h->d.guard, HOSTS_VM, NULL);
}
