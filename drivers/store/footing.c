#include "drivers/store/footing.h"

#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "drivers/store/hashed.h"

void
footing_clear(struct footing *f)
{
    free(f->disks);
    f->disks = NULL;
    f->n_disks = 0;
}

void
footing_add_disk(struct footing *f, const char *target, const char *layer)
{
    struct footing_disk *d;

    f->disks = mem_realloc(f->disks, f->n_disks + 1, sizeof *f->disks);
    d = &f->disks[f->n_disks++];
    snprintf(d->target, sizeof d->target, "%s", target);
    snprintf(d->layer, sizeof d->layer, "%s", layer);
}

/* --- the record ------------------------------------------------------------------- */

bool
footing_save(const struct footing *f, int at, struct error **err)
{
    AUTOJSON *o = json_object_new_object();
    struct json_object *disks = json_object_new_array();

    json_set_u64(o, "seq", f->seq);
    json_set_u64(o, "mark", f->mark);
    for (size_t i = 0; i < f->n_disks; i++) {
        struct json_object *d = json_object_new_object();

        json_set_string(d, "target", f->disks[i].target);
        json_set_string(d, "layer", f->disks[i].layer);
        json_object_array_add(disks, d);
    }
    json_set(o, "disks", disks);
    return hashed_save(at, FOOTING_FILE, o, err);
}

static bool
parse_disk(struct json_object *o, struct footing *f, struct error **err)
{
    const char *target = NULL, *layer = NULL;

    if (!json_get_string(o, "target", &target, err) ||
        !json_get_string(o, "layer", &layer, err) ||
        !layout_check_disk(target, WIRE_MAX_DISK_BYTES, err))
        return false;
    if (strlen(layer) >= LAYOUT_NAME_MAX)
        return error_set(err, ERROR_STORE, "disk '%s': its layer has no name", target);
    footing_add_disk(f, target, layer);
    return true;
}

static bool
parse(struct json_object *o, struct footing *f, struct error **err)
{
    struct json_object *disks = NULL;

    if (!json_get_u64(o, "seq", UINT64_MAX, &f->seq, err) ||
        !json_get_u64(o, "mark", UINT64_MAX, &f->mark, err) ||
        !json_get_array(o, "disks", &disks, err))
        return false;
    if (json_object_array_length(disks) > WIRE_MAX_DISKS)
        return error_set(err, ERROR_STORE, "it has too many disks");
    for (size_t i = 0; i < json_object_array_length(disks); i++)
        if (!parse_disk(json_object_array_get_idx(disks, i), f, err))
            return false;
    return true;
}

bool
footing_load(struct footing *f, int at, struct error **err)
{
    AUTOPTR(error) *why = NULL;
    AUTOJSON *o = NULL;

    if (!hashed_load(at, FOOTING_FILE, &o, err))
        return false;
    if (!parse(o, f, &why))
        return error_set(err, ERROR_STORE, "'%s' is damaged: %s", FOOTING_FILE,
                         error_message(why));
    return true;
}

/* --- the list --------------------------------------------------------------------- */

struct footing *
footings_find(const struct footings *all, const char *id)
{
    for (size_t i = 0; i < all->n; i++)
        if (strcmp(all->items[i].id, id) == 0)
            return &all->items[i];
    return NULL;
}

void
footings_add(struct footings *all, struct footing *f)
{
    all->items = mem_realloc(all->items, all->n + 1, sizeof *all->items);
    all->items[all->n++] = *f;
    *f = (struct footing){ .ready = false };
}

void
footings_remove(struct footings *all, const char *id)
{
    struct footing *f = footings_find(all, id);

    if (f == NULL)
        return;
    footing_clear(f);
    all->n--;
    memmove(f, f + 1, (size_t)(&all->items[all->n] - f) * sizeof *f);
}

void
footings_clear(struct footings *all)
{
    for (size_t i = 0; i < all->n; i++)
        footing_clear(&all->items[i]);
    free(all->items);
    *all = (struct footings){ .items = NULL };
}

/* The layer under one of them, n_layers if it is none of d's. */
static size_t
layer_under(const struct footing *f, const struct layout_disk *d)
{
    if (f->unknown && d->n_layers >= 2)
        return d->n_layers - 2;
    for (size_t i = 0; i < f->n_disks; i++)
        if (strcmp(f->disks[i].target, d->target) == 0)
            return layout_layer_index(d, f->disks[i].layer);
    return d->n_layers;
}

bool
footings_highest(const struct footings *all, const struct layout_disk *d,
                 size_t *ret_index)
{
    bool found = false;
    size_t highest = 0;

    for (size_t i = 0; i < all->n; i++) {
        size_t index = layer_under(&all->items[i], d);

        if (index < d->n_layers) {
            highest = MAX(highest, index);
            found = true;
        }
    }
    if (found)
        *ret_index = highest;
    return found;
}
