/*
 * What a cycle captures, and with which driver: the VM and its disks as they are
 * now, and whether they are still what the newest point has.
 */
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle_private.h"
#include "daemon/handover.h"
#include "daemon/imprint.h"
#include "drivers/capture/generation.h"

bool
cycle_had_disk(struct replication *r, const char *target)
{
    for (size_t i = 0; i < json_object_array_length(r->disks); i++) {
        struct json_object *disk = json_object_array_get_idx(r->disks, i);

        if (strcmp(json_string_or(disk, "target", ""), target) == 0)
            return !json_bool_or(disk, "excluded", true);
    }
    return false;
}

/* It is just being taken out, or its image is not where the definition says. */
static bool
say_no_size(const struct cycle *c, const struct hv_disk *disk, struct error **err)
{
    if (disk->path == NULL)
        return error_set(err, ERROR_UNSUPPORTED_DISK, "disk '%s' of VM '%s' has no image",
                         disk->target, c->domain->name);
    if (access(disk->path, F_OK) < 0)
        return error_set(
            err, ERROR_UNSUPPORTED_DISK,
            "disk '%s' of VM '%s': its image '%s' is not there; put it back, "
            "or correct the definition (virsh edit %s)",
            disk->target, c->domain->name, disk->path, c->domain->name);
    return error_set(err, ERROR_JOB_BUSY,
                     "disk '%s' of VM '%s' cannot be looked at now; it is tried again",
                     disk->target, c->domain->name);
}

static bool
choose_disks(struct cycle *c, struct error **err)
{
    c->disks = mem_alloc(c->domain->n_disks, sizeof *c->disks);
    for (size_t i = 0; i < c->domain->n_disks; i++) {
        const struct hv_disk *disk = &c->domain->disks[i];

        if (!capture_is_chosen(disk, c->r->excluded))
            continue;
        if (disk->excuse != NULL)
            return error_set(err, ERROR_UNSUPPORTED_DISK, "disk '%s' of VM '%s': %s",
                             disk->target, c->domain->name, disk->excuse);
        if (disk->capacity_bytes == 0)
            return say_no_size(c, disk, err);
        if (c->n_disks == WIRE_MAX_DISKS)
            return error_set(err, ERROR_UNSUPPORTED_DISK,
                             "VM '%s' has more than %d disks", c->domain->name,
                             WIRE_MAX_DISKS);
        c->disks[c->n_disks].target = disk->target;
        c->capacities[c->n_disks] = disk->capacity_bytes;
        c->n_disks++;
    }
    if (c->n_disks == 0)
        return error_set(err, ERROR_UNSUPPORTED_DISK,
                         "VM '%s' has no disk that can be replicated", c->domain->name);
    return true;
}

/* Of a disk that is captured; 0: it runs. */
static uint64_t
generation_at(const struct cycle *c, const char *target)
{
    for (size_t i = 0; i < c->n_disks; i++)
        if (strcmp(c->disks[i].target, target) == 0)
            return c->generations[i];
    return 0;
}

void
cycle_remember_disks(struct cycle *c)
{
    struct json_object *array = json_object_new_array();

    for (size_t i = 0; i < c->domain->n_disks; i++) {
        const struct hv_disk *disk = &c->domain->disks[i];
        struct json_object *o = json_object_new_object();
        bool excluded = !capture_is_chosen(disk, c->r->excluded);

        json_set_string(o, "target", disk->target);
        json_set_u64(o, "capacity", disk->capacity_bytes);
        json_set_string(o, "format", disk->format);
        json_set_string(o, "path", disk->path);
        json_set_bool(o, "excluded", excluded);
        if (!excluded) {
            AUTOFREE(char) *reason = capture_choice_disk_reason(c->kind, disk);

            json_set_string(o, "capture", capture_kind_name(c->kind));
            json_set_string(o, "reason", reason);
            json_set_int(o, "generation", (int64_t)generation_at(c, disk->target));
        } else {
            json_set_string(o, "reason",
                            disk->removable ? "removable medium"
                                            : "excluded by the operator");
        }
        json_object_array_add(array, o);
    }
    json_object_put(c->r->disks);
    c->r->disks = array;
}

/* Stored with the new point's name, before a driver makes anything of that name. */
static void
choose_driver(struct cycle *c)
{
    enum capture_wish wish = atomic_load(&c->r->lost_job)
                                 ? CAPTURE_WISH_NO_JOB
                                 : c->daemon->config->capture_wish;
    AUTOFREE(char) *reason = capture_choice_reason(c->domain, c->r->excluded, wish);
    struct json_object *capture = json_object_new_object();

    c->kind = capture_choice(c->domain, c->r->excluded, wish);
    c->driver = c->daemon->captures[c->kind];
    json_set_string(capture, "driver", capture_kind_name(c->kind));
    json_set_string(capture, "reason", reason);
    json_set_bool(capture, "usedBitmaps",
                  c->kind == CAPTURE_BITMAP ||
                      json_bool_or(c->r->capture, "usedBitmaps", false));
    pthread_mutex_lock(&c->r->lock);
    json_object_put(c->r->capture);
    c->r->capture = capture;
    pthread_mutex_unlock(&c->r->lock);
}

static const char *
path_of(const struct cycle *c, size_t i)
{
    for (size_t k = 0; k < c->domain->n_disks; k++)
        if (strcmp(c->domain->disks[k].target, c->disks[i].target) == 0)
            return c->domain->disks[k].path;
    return NULL;
}

static void
look_at_images(struct cycle *c)
{
    const char *paths[WIRE_MAX_DISKS];
    struct error *e = NULL;
    bool ok = true;

    c->generation = 0;
    if (c->kind != CAPTURE_OFFLINE)
        return;
    for (size_t i = 0; ok && i < c->n_disks; i++) {
        paths[i] = path_of(c, i);
        c->generations[i] = 0;
        ok = generation_of(&paths[i], 1, &c->generations[i], &e);
    }
    if (!ok || !generation_of(paths, c->n_disks, &c->generation, &e))
        log_ignore(&c->log, "generation-unknown", &e);
}

/* --- is the record of these images? ------------------------------------------------- */

static uint64_t
newest_generation(const struct replication *r, const char *target)
{
    for (size_t i = 0; i < json_object_array_length(r->disks); i++) {
        struct json_object *disk = json_object_array_get_idx(r->disks, i);

        if (strcmp(json_string_or(disk, "target", ""), target) == 0)
            return (uint64_t)json_int_or(disk, "generation", 0);
    }
    return 0;
}

/* What the VM left is known from libvirt's hook; without, from who was seen running. */
static bool
is_changed(const struct cycle *c, size_t i, const struct imprint *left)
{
    uint64_t now = c->generations[i], then = newest_generation(c->r, c->disks[i].target);
    uint64_t as_left = imprint_of(left, c->disks[i].target);

    if (now == 0 || now == then || now == as_left)
        return false;
    return as_left != 0 || (then != 0 && !atomic_load(&c->r->has_run));
}

/* A VM that is off and has no imprint yet: the next start compares with this. */
static void
leave_imprint(struct cycle *c)
{
    struct imprint now = { .n = 0 };
    struct error *e = NULL;

    for (size_t i = 0; i < c->n_disks; i++)
        imprint_add(&now, c->disks[i].target, path_of(c, i));
    if (!imprint_write(c->daemon->guard.records, c->r->vm_uuid, &now, &e))
        log_ignore(&c->log, "imprint-failed", &e);
}

static void
look_for_replaced(struct cycle *c)
{
    const char *folder = c->daemon->guard.records;
    struct imprint changed = { .n = 0 }, left = { .n = 0 };
    bool any = imprint_changed(folder, c->r->vm_uuid, &changed);
    bool has_imprint = imprint_read(folder, c->r->vm_uuid, &left);

    bool has_record = c->r->newest.name[0] != '\0' || c->r->sync.name[0] != '\0';

    c->replaced = NULL;
    for (size_t i = 0; i < c->n_disks && c->replaced == NULL && has_record; i++)
        if ((any && imprint_of(&changed, c->disks[i].target) != 0) ||
            (c->kind == CAPTURE_OFFLINE && is_changed(c, i, &left)))
            c->replaced = c->disks[i].target;
    if (any && c->replaced == NULL)
        imprint_accept(folder, c->r->vm_uuid,
                       NULL); /* of disks that are not replicated */
    if (c->kind == CAPTURE_OFFLINE && !has_imprint && c->generation != 0)
        leave_imprint(c);
    if (c->kind != CAPTURE_OFFLINE && has_imprint) /* there is no hook to do it */
        imprint_remove(folder, c->r->vm_uuid, NULL);
}

const char *
cycle_replaced(const struct cycle *c)
{
    return c->replaced;
}

void
cycle_accept_replaced(const struct cycle *c)
{
    struct error *e = NULL;

    if (!imprint_accept(c->daemon->guard.records, c->r->vm_uuid, &e))
        log_ignore(&c->log, "imprint-failed", &e);
    if (c->kind == CAPTURE_OFFLINE)
        leave_imprint((struct cycle *)c);
}

static bool
has_moved(const struct cycle *c)
{
    for (size_t i = 0; i < json_object_array_length(c->r->disks); i++) {
        struct json_object *disk = json_object_array_get_idx(c->r->disks, i);

        for (size_t k = 0; k < c->n_disks; k++) {
            const char *path = path_of(c, k);

            if (path != NULL &&
                strcmp(c->disks[k].target, json_string_or(disk, "target", "")) == 0 &&
                strcmp(path, json_string_or(disk, "path", "")) != 0)
                return true;
        }
    }
    return false;
}

/* What differs may be what the VM writes itself, if it has been started since it was
   looked up: libvirt tells so before QEMU has its images. */
static bool
check_still_off(const struct cycle *c, struct error **err)
{
    struct hypervisor *hv = c->daemon->hypervisor;
    AUTOPTR(hv_domain) *now = NULL;

    if (c->replaced == NULL || c->kind != CAPTURE_OFFLINE)
        return true;
    if (!hv->ops->lookup(hv, c->r->vm_uuid, &now, err))
        return false;
    return now->state == HV_STATE_OFF ||
           error_set(err, ERROR_INVALID_STATE, "VM '%s' was started meanwhile",
                     c->domain->name);
}

bool
cycle_look_at_domain(struct cycle *c, struct error **err)
{
    struct hypervisor *hv = c->daemon->hypervisor;
    struct error *e = NULL;
    bool running;

    c->looked_ms = units_now_ms();
    if (!hv->ops->lookup(hv, c->r->vm_uuid, &c->domain, &e) &&
        !error_is(e, ERROR_DOMAIN_NOT_FOUND))
        return error_propagate(err, e);
    error_free(e);
    /* A VM that runs elsewhere now: what is here is old. */
    if (!handover_look(c->daemon, c->r, c->domain, err))
        return false;
    running = c->domain->state != HV_STATE_OFF;
    pthread_mutex_lock(&c->r->lock);
    replication_rename(c->r, c->domain->name);
    c->r->source_running = running;
    pthread_mutex_unlock(&c->r->lock);
    if (running)
        atomic_store(&c->r->has_run, true);
    if (c->r->unsettled)
        cycle_recover(c->daemon, c->r);
    choose_driver(c);
    if (!choose_disks(c, err))
        return false;
    c->moved = has_moved(c);
    look_at_images(c);
    look_for_replaced(c);
    return check_still_off(c, err);
}

bool
cycle_is_unchanged(const struct cycle *c)
{
    return c->generation != 0 && c->generation == c->r->newest.generation;
}

static bool
has_grown(const struct cycle *c, struct json_object *disk)
{
    for (size_t i = 0; i < c->n_disks; i++)
        if (strcmp(c->disks[i].target, json_string_or(disk, "target", "")) == 0)
            return (int64_t)c->capacities[i] != json_int_or(disk, "capacity", 0);
    return false;
}

bool
cycle_has_same_disks(struct cycle *c)
{
    size_t n = 0;

    for (size_t i = 0; i < json_object_array_length(c->r->disks); i++) {
        struct json_object *disk = json_object_array_get_idx(c->r->disks, i);

        if (json_bool_or(disk, "excluded", true))
            continue;
        if (has_grown(c, disk))
            return false;
        n++;
    }
    for (size_t i = 0; i < c->n_disks; i++)
        if (!cycle_had_disk(c->r, c->disks[i].target))
            return false;
    return n == c->n_disks;
}
