/*
 * clone: an independent VM out of a recovery point, defined here, not started.
 *
 * data: {replication, point: the choice, overlay, name, uuid, storage}; the
 * resource is the new VM. Findings: those of point_overlay.h, report[]. Disks are
 * copied into STORAGE/clones/.UUID, which becomes STORAGE/clones/NAME when all
 * is there: what a crash leaves is found by the UUID (I6).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/auxiliary.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/ops.h"
#include "daemon/point_overlay.h"
#include "daemon/replication.h"
#include "drivers/hypervisor.h"
#include "drivers/store/folder.h"
#include "drivers/store/image_copy.h"

#define CLONES "clones"
#define NVRAM  "nvram.fd"
/* Says whose folder it is, to us and to people. */
#define LABEL     "clone.json"
#define LABEL_MAX 65536

/* --- where it is -------------------------------------------------------------------- */

static const char *
name_of(struct op *op)
{
    return json_string_or(op->data, "name", "");
}

static const char *
uuid_of(struct op *op)
{
    return json_string_or(op->data, "uuid", "");
}

static bool
find_storage(struct op *op, const struct config_storage **ret, struct error **err)
{
    const char *name = json_string_or(op->data, "storage", "");

    *ret = config_storage(op->daemon->config, name);
    return *ret != NULL ||
           error_set(err, ERROR_STORAGE_NOT_FOUND, "this host has no storage '%s'", name);
}

/* STORAGE/clones, made if it is missing. */
static bool
open_clones(struct op *op, int *ret, struct error **err)
{
    const struct config_storage *storage;
    AUTOFD(at) = -1;

    return find_storage(op, &storage, err) &&
           folder_open(AT_FDCWD, storage->path, &at, err) &&
           folder_make(at, CLONES, err) && folder_open(at, CLONES, ret, err);
}

static char *
work_name(struct op *op)
{
    return mem_printf(".%s", uuid_of(op));
}

/* Absolute, as the definition names it; the caller frees. */
static char *
path_of(struct op *op, const char *file)
{
    const struct config_storage *storage =
        config_storage(op->daemon->config, json_string_or(op->data, "storage", ""));

    return mem_printf("%s/" CLONES "/%s/%s", storage != NULL ? storage->path : "",
                      name_of(op), file);
}

static size_t
n_disks(struct op *op)
{
    struct json_object *disks = json_array_or_null(op->data, "disks");

    return disks != NULL ? json_object_array_length(disks) : 0;
}

static const char *
disk_text(struct op *op, size_t i, const char *key)
{
    struct json_object *disks = json_array_or_null(op->data, "disks");

    return json_string_or(json_object_array_get_idx(disks, i), key, "");
}

/* --- check-name ----------------------------------------------------------------------
 */

static bool
taken(const char *what, const char *name, struct error **err)
{
    return error_set(err, ERROR_EXISTS, "%s '%s' already; choose another name", what,
                     name);
}

/* A name that a failover may need is as good as taken. */
static bool
check_domain(struct op *op, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOPTR(hv_domain) *domain = NULL;
    AUTOPTR(replication) *r = NULL;
    struct error *e = NULL;

    if (hv->ops->lookup(hv, name_of(op), &domain, &e))
        return taken("this host has a domain", name_of(op), err);
    if (!error_is(e, ERROR_DOMAIN_NOT_FOUND))
        return error_propagate(err, e);
    error_clear(&e);
    if (replications_find(op->daemon->replications, name_of(op), &r, NULL))
        return taken("this host has a replica of a VM", name_of(op), err);
    return true;
}

static bool
check_name(struct op *op, struct error **err)
{
    AUTOFD(clones) = -1;

    if (!check_domain(op, err) || !open_clones(op, &clones, err))
        return false;
    if (faccessat(clones, name_of(op), F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return taken("the storage has a folder of a clone", name_of(op), err);
    return true;
}

/* --- copy-disks ------------------------------------------------------------------------
 */

/* Asked of qemu-img, which knows what is allocated and what is zero. */
static bool
check_space(struct op *op, int work, uint64_t *ret_needed, struct error **err)
{
    const struct config_storage *storage;
    char need[UNITS_TEXT_MAX], have[UNITS_TEXT_MAX];
    uint64_t used, free_bytes, needed = 0;

    if (!find_storage(op, &storage, err))
        return false;
    for (size_t i = 0; i < n_disks(op); i++) {
        uint64_t bytes;

        if (!image_copy_measure(work, disk_text(op, i, "path"), &bytes, err))
            return false;
        needed += bytes;
    }
    if (!folder_space(storage->path, &used, &free_bytes, err))
        return false;
    if (free_bytes < storage->reserve_bytes + needed)
        return error_set(
            err, ERROR_NO_SPACE,
            "storage '%s' ('%s') has %s free, but %s are needed for the clone and the "
            "reserve",
            storage->name, storage->path, units_format_size(free_bytes, have),
            units_format_size(storage->reserve_bytes + needed, need));
    *ret_needed = needed;
    return true;
}

static bool
write_label(struct op *op, int work, struct error **err)
{
    AUTOJSON *o = json_object_new_object();
    const char *text;

    json_set_string(o, "name", name_of(op));
    json_set_string(o, "uuid", uuid_of(op));
    json_set_string(o, "vmName", op->log.vm);
    json_set(o, "point", json_object_get(json_object_or_null(op->data, "chosen")));
    text = json_text(o);
    return folder_replace(work, LABEL, text, strlen(text), err);
}

static bool
copy_nvram(struct op *op, int work, struct error **err)
{
    AUTOFREE(char) *data = NULL;
    struct error *e = NULL;
    size_t length;

    if (point_overlay_blob(op, AUXILIARY_NVRAM, &data, &length, &e))
        return length == 0 || /* it vanished while it was captured */
               folder_replace(work, NVRAM, data, length, err);
    if (!error_is(e, ERROR_POINT_NOT_FOUND))
        return error_propagate(err, e);
    error_free(e);
    return true;
}

/* What all disks before this one came to. */
struct progress {
    struct op *op;
    uint64_t before, total;
};

static void
show_progress(uint64_t done, void *opaque)
{
    struct progress *p = opaque;

    op_transfer(p->op, MIN(p->before + done, p->total), p->total);
}

static bool
copy_all(struct op *op, int work, uint64_t total, struct error **err)
{
    struct progress progress = { .op = op, .total = total };

    for (size_t i = 0; i < n_disks(op); i++) {
        AUTOFREE(char) *name = mem_printf("%s.qcow2", disk_text(op, i, "target"));
        struct image_copy copy = { .folder = work,
                                   .from = disk_text(op, i, "path"),
                                   .to = name,
                                   .cancel = &op->cancel,
                                   .progress = show_progress,
                                   .opaque = &progress };
        uint64_t bytes = 0;

        if (!image_copy(&copy, &bytes, err))
            return error_prefix(err, "copy disk '%s'", disk_text(op, i, "target"));
        progress.before += bytes;
    }
    op_transfer(op, total, total);
    return true;
}

/* A copy that a crash has interrupted begins anew: its process may still be at work. */
static bool
open_work(struct op *op, int *ret, struct error **err)
{
    AUTOFREE(char) *work = work_name(op);
    AUTOFD(clones) = -1;

    return open_clones(op, &clones, err) && folder_make(clones, work, err) &&
           folder_sync(clones, ".", err) && folder_open(clones, work, ret, err) &&
           image_copy_end_stale(*ret, err);
}

/* The folder that place() has made of it already, in an earlier run. */
static bool
is_placed(struct op *op, int clones)
{
    AUTOFREE(char) *path = mem_printf("%s/" LABEL, name_of(op));
    AUTOFREE(char) *text = NULL;
    AUTOJSON *label = NULL;
    size_t n;

    return folder_read(clones, path, LABEL_MAX, &text, &n, NULL) &&
           json_parse(text, n, &label, NULL) &&
           strcmp(json_string_or(label, "uuid", ""), uuid_of(op)) == 0;
}

static bool
copy_disks(struct op *op, struct error **err)
{
    AUTOFD(work) = -1;
    uint64_t needed = 0;

    return open_work(op, &work, err) && check_space(op, work, &needed, err) &&
           write_label(op, work, err) && copy_all(op, work, needed, err) &&
           copy_nvram(op, work, err) && folder_sync(work, ".", err);
}

static bool
end_copying(int clones, const char *work, struct error **err)
{
    AUTOFD(fd) = openat(clones, work, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 || image_copy_end_stale(fd, err);
}

/* Both names, whichever it has come to; what is somebody else's stays. */
static bool
remove_copy(struct op *op, struct error **err)
{
    AUTOFREE(char) *work = work_name(op);
    AUTOFD(clones) = -1;

    if (!open_clones(op, &clones, err) || !end_copying(clones, work, err) ||
        !folder_remove(clones, work, err))
        return false;
    if (is_placed(op, clones) && !folder_remove(clones, name_of(op), err))
        return false;
    return folder_sync(clones, ".", err);
}

/* --- place
 * ------------------------------------------------------------------------------- */

static bool
place(struct op *op, struct error **err)
{
    AUTOFREE(char) *work = work_name(op);
    AUTOFD(clones) = -1;

    if (!open_clones(op, &clones, err))
        return false;
    if (is_placed(op, clones))
        return true;
    if (renameat2(clones, work, clones, name_of(op), RENAME_NOREPLACE) < 0 &&
        errno == EEXIST)
        return taken("the storage has a folder of a clone", name_of(op), err);
    if (!is_placed(op, clones))
        return folder_errno(err, "rename the folder of clone '%s'", name_of(op));
    return folder_sync(clones, ".", err);
}

/* --- define
 * ------------------------------------------------------------------------------ */

static bool
adapt(struct op *op, char **ret_xml, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    size_t n = n_disks(op);
    AUTOFREE(const char *) *targets = mem_alloc(n + 1, sizeof *targets);
    AUTOFREE(char *) *paths = mem_alloc(n + 1, sizeof *paths);
    AUTOFREE(char) *nvram = path_of(op, NVRAM);
    struct hv_adapt change = { .targets = targets,
                               .paths = (const char *const *)paths,
                               .n_disks = n,
                               .nvram = access(nvram, F_OK) == 0 ? nvram : NULL,
                               .networks = op->daemon->config->networks,
                               .name = name_of(op),
                               .uuid = uuid_of(op) };
    struct json_object *report = NULL;
    bool ok;

    for (size_t i = 0; i < n; i++) {
        AUTOFREE(char) *file = mem_printf("%s.qcow2", disk_text(op, i, "target"));

        targets[i] = disk_text(op, i, "target");
        paths[i] = path_of(op, file);
    }
    ok = hv->ops->adapt(hv, json_string_or(op->data, "xml", ""), &change, ret_xml,
                        &report, err);
    for (size_t i = 0; i < n; i++)
        free(paths[i]);
    if (!ok)
        return error_prefix(err, "adapt the domain's XML to the clone");
    json_set(op->data, "report", report);
    return true;
}

/* A copy, for a guest that has sealed its keys; it is the clone's own from its first
 * start on. */
static bool
put_auxiliary(struct op *op, struct error **err)
{
    AUTOFREE(char) *folder = path_of(op, ".");
    struct auxiliary a = { .uuid = uuid_of(op),
                           .xml = json_string_or(op->data, "xml", ""),
                           .folder = folder,
                           .mark = "tpm.placed",
                           .kept_as = "before",
                           .read = point_overlay_blob };

    return auxiliary_put_secrets(op, &a, err) && auxiliary_put_tpm(op, &a, err);
}

static bool
define(struct op *op, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOFREE(char) *xml = NULL;

    return adapt(op, &xml, err) && hv->ops->define(hv, xml, err) &&
           put_auxiliary(op, err);
}

/* By the UUID, which is nobody else's. */
static bool
undefine(struct op *op, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;

    return hv->ops->undefine(hv, uuid_of(op), err);
}

/* --- its end
 * ------------------------------------------------------------------------------- */

static struct json_object *
result_disks(struct op *op)
{
    struct json_object *array = json_object_new_array();

    for (size_t i = 0; i < n_disks(op); i++) {
        struct json_object *o = json_object_new_object();
        AUTOFREE(char) *file = mem_printf("%s.qcow2", disk_text(op, i, "target"));
        AUTOFREE(char) *path = path_of(op, file);

        json_set_string(o, "target", disk_text(op, i, "target"));
        json_set_string(o, "path", path);
        json_object_array_add(array, o);
    }
    return array;
}

static bool
remove_overlay(struct op *op, struct error **err)
{
    if (!point_overlay_remove(op, err))
        return false;
    op->result = json_object_new_object();
    json_set_string(op->result, "name", name_of(op));
    json_set_string(op->result, "uuid", uuid_of(op));
    json_set_string(op->result, "vmName", op->log.vm);
    json_set(op->result, "point",
             json_object_get(json_object_or_null(op->data, "chosen")));
    json_set(op->result, "disks", result_disks(op));
    json_set(op->result, "report",
             json_object_get(json_array_or_null(op->data, "report")));
    return true;
}

static void
ended(struct op *op, const struct error *failure)
{
    point_overlay_release(op);
    if (failure == NULL)
        events_emit(op->daemon, EVENT_INFO, &op->log, "cloned",
                    "VM '%s' is a clone of a point of VM '%s'", name_of(op), op->log.vm);
}

/* clang-format off */
static const struct op_step steps[] = {
    /* name              run                   undo                  timeout_s  commits */
    { "check-name",      check_name,           NULL,                 60,        false },
    { "choose-point",    point_overlay_choose, NULL,                 10,        false },
    { "make-overlay",    point_overlay_make,   point_overlay_remove, 3600,      false },
    { "copy-disks",      copy_disks,           remove_copy,          0,         false },
    { "place",           place,                remove_copy,          60,        false },
    { "define",          define,               undefine,             60,        true  },
    { "remove-overlay",  remove_overlay,       NULL,                 600,       false },
    { 0 },
};
/* clang-format on */

const struct op_kind op_clone = { .name = "clone",
                                  .company = OP_BESIDE,
                                  .result_type = "clone",
                                  .steps = steps,
                                  .ended = ended };
