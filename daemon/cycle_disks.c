/*
 * What a cycle captures, and with which driver: the VM and its disks as they are
 * now, and whether they are still what the newest point has.
 */
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle_private.h"
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
    enum capture_wish wish =
        c->r->lost_run != 0 ? CAPTURE_WISH_NO_JOB : c->daemon->config->capture_wish;
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

static void
look_at_images(struct cycle *c)
{
    const char *paths[WIRE_MAX_DISKS];
    size_t n = 0;
    struct error *e = NULL;

    c->generation = 0;
    if (c->kind != CAPTURE_OFFLINE)
        return;
    for (size_t i = 0; i < c->domain->n_disks && n < WIRE_MAX_DISKS; i++)
        if (capture_is_chosen(&c->domain->disks[i], c->r->excluded))
            paths[n++] = c->domain->disks[i].path;
    if (!generation_of(paths, n, &c->generation, &e))
        log_ignore(&c->log, "generation-unknown", &e);
}

bool
cycle_look_at_domain(struct cycle *c, struct error **err)
{
    struct hypervisor *hv = c->daemon->hypervisor;
    bool running;

    c->looked_ms = units_now_ms();
    if (!hv->ops->lookup(hv, c->r->vm_uuid, &c->domain, err))
        return false;
    running = c->domain->state != HV_STATE_OFF;
    pthread_mutex_lock(&c->r->lock);
    replication_rename(c->r, c->domain->name);
    c->r->source_running = running;
    pthread_mutex_unlock(&c->r->lock);
    if (running)
        atomic_store(&c->r->has_run, true);
    if (c->r->lost_run != c->domain->run)
        c->r->lost_run = 0;
    if (c->r->unsettled)
        cycle_recover(c->daemon, c->r);
    choose_driver(c);
    if (!choose_disks(c, err))
        return false;
    look_at_images(c);
    return true;
}

bool
cycle_is_unchanged(const struct cycle *c)
{
    return c->generation != 0 && c->generation == c->r->newest.generation;
}

bool
cycle_is_replaced(const struct cycle *c)
{
    return c->kind == CAPTURE_OFFLINE && c->r->newest.generation != 0 &&
           !cycle_is_unchanged(c) && !atomic_load(&c->r->has_run);
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
