/*
 * failover: the source is lost, the VM starts here from one of its points.
 *
 * data: {force}: also if the source answers and runs the VM; {select}: which
 * point (point_select.h), absent: the newest. Findings: {point, sequence, time,
 * contact, epoch, paths[], xml, report[], started, ms}. After raise-epoch there is
 * no way back here (undo is an operation of its own): a step that fails then
 * leaves the phase 'failing-over', and failover can be run again.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/auxiliary.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/ops.h"
#include "daemon/ops_failover.h"
#include "daemon/peers.h"
#include "daemon/replica.h"

#define CHECK_HOLDS_MS 60000 /* for so long it is believed what the source said */

/* --- choose-point --------------------------------------------------------------- */

static void
note_point(struct op *op, struct replication *r, const struct point *point)
{
    json_set_string(op->data, "point", point->name);
    json_set_u64(op->data, "sequence", point->sequence);
    json_set_int(op->data, "time", point->time_ms);
    pthread_mutex_lock(&r->lock);
    if (point->sequence == r->newest.sequence)
        json_set_int(op->data, "time",
                     r->newest.time_ms); /* nothing changed until then */
    json_set_int(op->data, "contact", r->contact_ms);
    pthread_mutex_unlock(&r->lock);
}

/* Retention must not let it go before the overlay stands on it. */
static bool
hold_point(struct op *op, struct replication *r, struct error **err)
{
    struct point_select select;
    struct point point;

    if (!point_select_parse(json_object_or_null(op->data, "select"), &select, err) ||
        !replica_hold_point(op->daemon, r, op, &select, &point, err))
        return false;
    note_point(op, r, &point);
    point_clear(&point);
    return true;
}

static bool
choose_point(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool ok;

    if (!replications_find(op->daemon->replications, op->resource_id, &r, err))
        return false;
    if (json_int_or(op->data, "started", 0) == 0)
        json_set_int(op->data, "started", units_now_ms());
    pthread_mutex_lock(&r->lock);
    ok = replication_allows(r, "failover", err);
    pthread_mutex_unlock(&r->lock);
    return ok && hold_point(op, r, err);
}

/* --- check-source ---------------------------------------------------------------- */

/* Nobody is there, or somebody else: all other errors are words of the source. */
static bool
is_silence(const struct error *e)
{
    return error_is(e, ERROR_CONNECT) || error_is(e, ERROR_TIMEOUT) ||
           error_is(e, ERROR_TLS) || error_is(e, ERROR_NOT_AUTHENTICATED) ||
           error_is(e, ERROR_FORBIDDEN) || error_is(e, ERROR_PEER_NOT_FOUND);
}

/*
 * What the source does with this VM, NULL if nothing, or if it is silent. One that
 * does not know the replication any more (it was unprotected there) may run it.
 */
static const char *
ask_source(struct op *op, struct replication *r)
{
    AUTOFREE(char) *path = mem_printf("/api/v1/peers/replications/%s", r->id);
    AUTOPTR(error) *e = NULL;
    AUTOJSON *answer = NULL;

    if (peers_probe(op->daemon->peers, r->peer_id, path, &answer, &e))
        return json_bool_or(answer, "running", true) ? "runs" : NULL;
    log_info(&op->log, is_silence(e) ? "source-silent" : "source-unclear", "%s",
             error_message(e));
    return is_silence(e) ? NULL : "perhaps runs";
}

static bool
check_source(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    const char *does;

    if (!replications_find(op->daemon->replications, op->resource_id, &r, err))
        return false;
    json_set_int(op->data, "checked", units_now_ms());
    does = ask_source(op, r);
    if (does == NULL)
        return true;
    if (!json_bool_or(op->data, "force", false))
        return error_set(err, ERROR_SOURCE_ALIVE,
                         "the source answers and %s VM '%s'; stop it there first, or use "
                         "--force if it must not wait",
                         does, r->vm_name);
    op_warn(op, "the source still %s VM '%s': forced all the same; stop it there at once",
            does, r->vm_name);
    return true;
}

/* --- raise-epoch ------------------------------------------------------------------ */

/* Was the source asked just now? After a restart of this daemon it may be back. */
static bool
is_checked(struct op *op, struct replication *r)
{
    int64_t age_ms = units_now_ms() - json_int_or(op->data, "checked", 0);
    bool begun;

    pthread_mutex_lock(&r->lock);
    begun = r->phase == PHASE_FAILING_OVER;
    pthread_mutex_unlock(&r->lock);
    return begun || (age_ms >= 0 && age_ms < CHECK_HOLDS_MS);
}

/* Nothing is raised that is not stored: peers are told what is in memory. Under r->lock.
 */
static bool
take_over(struct op *op, struct replication *r, struct error **err)
{
    enum replication_phase before = r->phase;

    if (!replication_allows(r, "failover", err))
        return false;
    if (r->phase == PHASE_FAILING_OVER)
        return true;
    r->epoch++;
    r->phase = PHASE_FAILING_OVER;
    if (replication_store(op->daemon->replications, r, NULL, 0, err))
        return true;
    r->epoch--;
    r->phase = before;
    return false;
}

/* On stable storage, state first, then the guard, before anything is started (I3). */
static bool
raise_epoch(struct op *op, struct error **err)
{
    struct daemon *d = op->daemon;
    AUTOPTR(replication) *r = NULL;
    struct guard_record record = { .may_run = true, .unconfirmed = GUARD_START };
    bool ok;

    if (!replications_find(d->replications, op->resource_id, &r, err) ||
        (!is_checked(op, r) && !check_source(op, err)) ||
        !replication_seize(r, &op->cancel, err))
        return false;
    pthread_mutex_lock(&r->lock);
    ok = take_over(op, r, err);
    json_set_u64(op->data, "epoch", r->epoch);
    record.epoch = r->epoch;
    record.vm = r->vm_name;
    pthread_mutex_unlock(&r->lock);
    /* An exchange may have ended since the point was chosen. */
    ok = ok && hold_point(op, r, err) &&
         guard_write(&d->guard, r->vm_uuid, &record, err) &&
         guard_confirm(&d->guard, r->vm_uuid, record.epoch, err);
    replication_release(r);
    return ok;
}

/* --- make-overlay ------------------------------------------------------------------ */

static void
take_progress(uint64_t done, uint64_t total, void *opaque)
{
    op_transfer(opaque, done, total);
}

static struct json_object *
paths_json(char **paths, const struct store_disk *disks, size_t n)
{
    struct json_object *array = json_object_new_array();

    for (size_t i = 0; i < n; i++) {
        struct json_object *o = json_object_new_object();

        json_set_string(o, "target", disks[i].target);
        json_set_string(o, "path", paths[i]);
        json_object_array_add(array, o);
    }
    return array;
}

char *
failover_overlay(uint64_t epoch)
{
    return mem_printf("failover-%llu", (unsigned long long)epoch);
}

char *
failover_nvram(uint64_t epoch)
{
    return mem_printf("nvram-%llu.fd", (unsigned long long)epoch);
}

char *
failover_tpm_mark(uint64_t epoch)
{
    return mem_printf("tpm-%llu.placed", (unsigned long long)epoch);
}

static uint64_t
epoch_of(struct op *op)
{
    return (uint64_t)json_int_or(op->data, "epoch", 0);
}

static bool
create_overlay(struct op *op, struct replication *r, struct store *store,
               struct error **err)
{
    AUTOFREE(struct store_disk) *disks = NULL;
    AUTOFREE(char) *id = failover_overlay(epoch_of(op));
    struct store_overlay wanted = { .id = id,
                                    .seq = (uint64_t)json_int_or(op->data, "sequence", 0),
                                    .cancel = &op->cancel,
                                    .progress = take_progress,
                                    .opaque = op };
    char **paths = NULL;
    size_t n_disks = 0, n = 0;
    bool ok;

    replica_lock_tip(r);
    ok = store->ops->disks(store, &disks, &n_disks, err) &&
         store->ops->overlay_create(store, &wanted, &paths, &n, err);
    replica_unlock_tip(r);
    if (ok)
        json_set(op->data, "paths", paths_json(paths, disks, MIN(n, n_disks)));
    for (size_t i = 0; i < n; i++)
        free(paths[i]);
    free(paths);
    return ok;
}

static bool
read_blob(struct op *op, struct replication *r, const char *name, char **ret_data,
          size_t *ret_length, struct error **err)
{
    AUTOFREE(char) *id = failover_overlay(epoch_of(op));
    struct store *store;

    return replica_store(op->daemon, r, &store, err) &&
           store->ops->overlay_blob(store, id, name, ret_data, ret_length, err);
}

static bool
make_overlay(struct op *op, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    AUTOFREE(char) *xml = NULL;
    struct store *store;
    size_t length;

    if (!replications_find(op->daemon->replications, op->resource_id, &r, err) ||
        !replica_store(op->daemon, r, &store, err) ||
        (!replica_tip_is_broken(r) && !replica_apply(op->daemon, r, &op->cancel, err)) ||
        !create_overlay(op, r, store, err) ||
        !read_blob(op, r, "domain.xml", &xml, &length, err))
        return false;
    json_set_string(op->data, "xml", xml);
    return true;
}

/* --- define-domain ------------------------------------------------------------------ */

static bool
sync_parent(const char *path)
{
    AUTOFREE(char) *copy = mem_strdup(path);
    AUTOFD(fd) = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd >= 0 && fsync(fd) == 0;
}

/* Beside the overlays, whole or absent, durable: it is the VM's own from now on. */
static bool
write_nvram(const char *path, const char *data, size_t length, struct error **err)
{
    AUTOFREE(char) *aside = mem_printf("%s.new", path);
    AUTOFD(fd) = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0)
        return error_errno(err, ERROR_STORE, "open '%s'", aside);
    for (size_t done = 0; done < length;) {
        ssize_t n = write(fd, data + done, length - done);

        if (n < 0)
            return error_errno(err, ERROR_STORE, "write '%s'", aside);
        done += (size_t)n;
    }
    if (fsync(fd) < 0 || rename(aside, path) < 0 || !sync_parent(path))
        return error_errno(err, ERROR_STORE, "make '%s' durable", path);
    return true;
}

/* *ret_path stays NULL for a VM without UEFI variables. */
static bool
place_nvram(struct op *op, struct replication *r, char **ret_path, struct error **err)
{
    AUTOFREE(char) *data = NULL;
    AUTOFREE(char) *name = NULL;
    AUTOFREE(char) *path = NULL;
    struct error *e = NULL;
    size_t length;

    if (!read_blob(op, r, "nvram", &data, &length, &e)) {
        if (!error_is(e, ERROR_POINT_NOT_FOUND))
            return error_propagate(err, e);
        error_free(e);
        return true;
    }
    if (length == 0) /* it vanished while it was captured */
        return true;
    name = failover_nvram(epoch_of(op));
    path = mem_printf("%s/%s", r->folder, name);
    /* The second time the VM may have written it already. */
    if (access(path, F_OK) < 0 && !write_nvram(path, data, length, err))
        return false;
    *ret_path = TAKE(path);
    return true;
}

static bool
adapt(struct op *op, const char *nvram, char **ret_xml, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    struct json_object *paths = json_array_or_null(op->data, "paths");
    size_t n = paths != NULL ? json_object_array_length(paths) : 0;
    AUTOFREE(const char *) *targets = mem_alloc(n, sizeof *targets);
    AUTOFREE(const char *) *images = mem_alloc(n, sizeof *images);
    struct hv_adapt change = { .targets = targets,
                               .paths = images,
                               .n_disks = n,
                               .nvram = nvram,
                               .networks = op->daemon->config->networks };
    struct json_object *report = NULL;

    for (size_t i = 0; i < n; i++) {
        struct json_object *o = json_object_array_get_idx(paths, i);

        targets[i] = json_string_or(o, "target", "");
        images[i] = json_string_or(o, "path", "");
    }
    if (!hv->ops->adapt(hv, json_string_or(op->data, "xml", ""), &change, ret_xml,
                        &report, err))
        return error_prefix(err, "adapt the domain's XML to this host");
    json_set(op->data, "report", report);
    return true;
}

/* The VM starts with its host here if it did so there. */
static bool
take_autostart(struct op *op, struct replication *r, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOFREE(char) *text = NULL;
    AUTOJSON *facts = NULL;
    size_t length;

    return read_blob(op, r, "vm.json", &text, &length, err) &&
           json_parse(text, length, &facts, err) &&
           hv->ops->set_autostart(hv, r->vm_uuid, json_bool_or(facts, "autostart", false),
                                  err);
}

static bool
read_own_blob(struct op *op, const char *name, char **ret_data, size_t *ret_length,
              struct error **err)
{
    AUTOPTR(replication) *r = NULL;

    return replications_find(op->daemon->replications, op->resource_id, &r, err) &&
           read_blob(op, r, name, ret_data, ret_length, err);
}

/* What the VM needs beside its disks and variables. */
static bool
place_auxiliary(struct op *op, struct replication *r, struct error **err)
{
    AUTOFREE(char) *kept_as =
        mem_printf("before-%lld", (long long)json_int_or(op->data, "epoch", 0));
    AUTOFREE(char) *mark = failover_tpm_mark(epoch_of(op));
    struct auxiliary a = { .uuid = r->vm_uuid,
                           .xml = json_string_or(op->data, "xml", ""),
                           .folder = r->folder,
                           .mark = mark,
                           .kept_as = kept_as,
                           .read = read_own_blob };

    return auxiliary_put_secrets(op, &a, err) && auxiliary_put_tpm(op, &a, err);
}

static bool
define_domain(struct op *op, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOPTR(replication) *r = NULL;
    AUTOFREE(char) *nvram = NULL;
    AUTOFREE(char) *xml = NULL;

    return replications_find(op->daemon->replications, op->resource_id, &r, err) &&
           place_nvram(op, r, &nvram, err) && adapt(op, nvram, &xml, err) &&
           place_auxiliary(op, r, err) && hv->ops->define(hv, xml, err) &&
           take_autostart(op, r, err);
}

/* --- start-domain --------------------------------------------------------------------
 */

static bool
start_domain(struct op *op, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOPTR(replication) *r = NULL;

    if (!replications_find(op->daemon->replications, op->resource_id, &r, err) ||
        !hv->ops->start(hv, r->vm_uuid, err))
        return false;
    json_set_int(op->data, "running", units_now_ms());
    return true;
}

/* --- record ---------------------------------------------------------------------------
 */

static void
fill_result(struct op *op, struct replication *r)
{
    struct json_object *point = json_object_new_object();
    int64_t time_ms = json_int_or(op->data, "time", 0);
    int64_t lost_ms = MAX(json_int_or(op->data, "contact", 0) - time_ms, 0);
    int64_t took_ms =
        json_int_or(op->data, "running", 0) - json_int_or(op->data, "started", 0);

    json_set_string(point, "key", json_string_or(op->data, "point", ""));
    json_set_int(point, "timestamp", time_ms);
    json_set_int(point, "sequenceNumber", json_int_or(op->data, "sequence", 0));
    op->result = json_object_new_object();
    json_set_string(op->result, "replication", r->id);
    json_set_string(op->result, "vmName", r->vm_name);
    json_set(op->result, "point", point);
    json_set_double(op->result, "rpoSeconds", (double)lost_ms / 1000);
    json_set_double(op->result, "rtoSeconds", (double)took_ms / 1000);
    json_set_int(op->result, "epoch", json_int_or(op->data, "epoch", 0));
    json_set(op->result, "report",
             json_object_get(json_array_or_null(op->data, "report")));
}

static bool
record(struct op *op, struct error **err)
{
    struct daemon *d = op->daemon;
    AUTOPTR(replication) *r = NULL;
    bool ok;

    if (!replications_find(d->replications, op->resource_id, &r, err))
        return false;
    pthread_mutex_lock(&r->lock);
    r->phase = PHASE_FAILED_OVER;
    ok = replication_store(d->replications, r, NULL, 0, err);
    if (!ok)
        r->phase = PHASE_FAILING_OVER; /* so that it can be run again */
    pthread_mutex_unlock(&r->lock);
    if (!ok)
        return false;
    replica_close(
        r); /* the images are the VM's now; from here on nobody opens it again */
    fill_result(op, r);
    events_emit(d, EVENT_WARNING, &op->log, "failed-over",
                "VM '%s' runs on this host now (epoch %lld)", r->vm_name,
                (long long)json_int_or(op->data, "epoch", 0));
    return true;
}

/* clang-format off */
static const struct op_step steps[] = {
    /* name             run            undo  timeout_s  commits */
    { "choose-point",   choose_point,  NULL, 10,        false },
    { "check-source",   check_source,  NULL, 30,        false },
    { "raise-epoch",    raise_epoch,   NULL, 30,        true  },
    { "make-overlay",   make_overlay,  NULL, 600,       false },
    { "define-domain",  define_domain, NULL, 60,        false },
    { "start-domain",   start_domain,  NULL, 120,       false },
    { "record",         record,        NULL, 30,        false },
    { 0 },
};
/* clang-format on */

static void
ended(struct op *op, const struct error *failure UNUSED)
{
    AUTOPTR(replication) *r = NULL;

    if (replications_find(op->daemon->replications, op->resource_id, &r, NULL))
        replica_release_point(r, op);
}

const struct op_kind op_failover = {
    .name = "failover", .result_type = "failover", .steps = steps, .ended = ended
};
