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
#include "daemon/divergence.h"
#include "daemon/failover_steps.h"
#include "daemon/homecoming.h"
#include "daemon/imprint.h"
#include "daemon/ops_failover.h"
#include "daemon/replica.h"

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
    char record[CAPTURE_NAME_MAX + 1];
    struct store_overlay wanted = { .id = id,
                                    .record = record,
                                    .seq = (uint64_t)json_int_or(op->data, "sequence", 0),
                                    .cancel = &op->cancel,
                                    .progress = take_progress,
                                    .opaque = op };
    char **paths = NULL;
    size_t n_disks = 0, n = 0;
    bool ok;

    divergence_name_record(r, epoch_of(op), record);
    json_set_string(op->data, "record", record);
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

bool
failover_make_overlay(struct op *op, struct error **err)
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

/* What this failover wants goes before what is configured; the caller's to put. */
static struct json_object *
networks_of(struct op *op)
{
    struct json_object *wanted = json_object_or_null(op->data, "networks");
    struct json_object *configured = op->daemon->config->networks;
    struct json_object *map = NULL;

    if (configured != NULL)
        json_object_deep_copy(configured, &map, NULL);
    if (wanted == NULL)
        return map;
    if (map == NULL)
        map = json_object_new_object();
    json_object_object_foreach (wanted, there, here)
        json_set_string(map, there, json_object_get_string(here));
    return map;
}

static bool
adapt(struct op *op, const char *xml, const char *nvram, char **ret_xml,
      struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    struct json_object *paths = json_array_or_null(op->data, "paths");
    size_t n = paths != NULL ? json_object_array_length(paths) : 0;
    AUTOFREE(const char *) *targets = mem_alloc(n, sizeof *targets);
    AUTOFREE(const char *) *images = mem_alloc(n, sizeof *images);
    AUTOJSON *networks = networks_of(op);
    struct hv_adapt change = { .targets = targets,
                               .paths = images,
                               .n_disks = n,
                               .nvram = nvram,
                               .networks = networks };
    struct json_object *report = NULL;

    for (size_t i = 0; i < n; i++) {
        struct json_object *o = json_object_array_get_idx(paths, i);

        targets[i] = json_string_or(o, "target", "");
        images[i] = json_string_or(o, "path", "");
    }
    if (!hv->ops->adapt(hv, xml, &change, ret_xml, &report, err))
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

/* As libvirt has it now: what differs later is the operator's doing (reversal.h). */
static bool
note_defined(struct op *op, struct replication *r, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOPTR(hv_domain) *domain = NULL;

    if (!hv->ops->lookup(hv, r->vm_uuid, &domain, err))
        return false;
    json_set_string(op->data, "defined", domain->xml);
    return true;
}

/* The imprint of images that it had here before would make it seem that somebody has
   changed the new ones. */
bool
failover_define_domain(struct op *op, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    const char *there = json_string_or(op->data, "xml", "");
    AUTOPTR(replication) *r = NULL;
    AUTOFREE(char) *nvram = NULL;
    AUTOFREE(char) *own = NULL;
    AUTOFREE(char) *xml = NULL;

    return replications_find(op->daemon->replications, op->resource_id, &r, err) &&
           place_nvram(op, r, &nvram, err) &&
           homecoming_definition(op, r, there, &own, err) &&
           adapt(op, own != NULL ? own : there, nvram, &xml, err) &&
           place_auxiliary(op, r, err) &&
           imprint_remove(op->daemon->guard.records, r->vm_uuid, err) &&
           hv->ops->define(hv, xml, err) && take_autostart(op, r, err) &&
           note_defined(op, r, err);
}

/* --- start-domain --------------------------------------------------------------------
 */

bool
failover_start_domain(struct op *op, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOPTR(replication) *r = NULL;

    if (!json_bool_or(op->data, "start", true))
        return true;
    if (!replications_find(op->daemon->replications, op->resource_id, &r, err) ||
        !hv->ops->start(hv, r->vm_uuid, err))
        return false;
    json_set_int(op->data, "running", units_now_ms());
    return true;
}
