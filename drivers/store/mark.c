#include "drivers/store/mark.h"

#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "drivers/store/blob.h"

struct layout_mark *
mark_before(const struct layout *l, uint64_t seq)
{
    size_t low = 0, high = l->n_marks;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (l->marks[middle].seq <= seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 ? &l->marks[low - 1] : NULL;
}

struct layout_mark *
mark_find(const struct layout *l, uint64_t seq)
{
    struct layout_mark *m = mark_before(l, seq);

    return m != NULL && m->seq == seq ? m : NULL;
}

struct layout_view *
mark_view(const struct layout_mark *m, const char *target)
{
    for (size_t i = 0; i < m->n_views; i++)
        if (strcmp(m->views[i].target, target) == 0)
            return &m->views[i];
    return NULL;
}

/* --- change --------------------------------------------------------------------- */

static struct layout_mark *
append(struct layout *l, uint64_t seq, bool base)
{
    l->marks = mem_realloc(l->marks, l->n_marks + 1, sizeof *l->marks);
    l->marks[l->n_marks] = (struct layout_mark){ .seq = seq, .base = base };
    return &l->marks[l->n_marks++];
}

static void
add_view(struct layout_mark *m, const struct layout_view *view)
{
    m->views = mem_realloc(m->views, m->n_views + 1, sizeof *m->views);
    m->views[m->n_views++] = *view;
}

static void
add_blob(struct layout_mark *m, const struct layout_blob *blob)
{
    m->blobs = mem_realloc(m->blobs, m->n_blobs + 1, sizeof *m->blobs);
    m->blobs[m->n_blobs++] = *blob;
}

struct layout_mark *
mark_add(struct layout *l, uint64_t seq, bool base)
{
    struct layout_mark *m = append(l, seq, base);

    for (size_t i = 0; i < l->n_disks; i++) {
        const struct layout_disk *d = &l->disks[i];
        struct layout_view view = { .capacity_bytes = d->capacity_bytes };

        snprintf(view.target, sizeof view.target, "%s", d->target);
        snprintf(view.layer, sizeof view.layer, "%s", d->layers[d->n_layers - 2]);
        add_view(m, &view);
    }
    for (size_t i = 0; i < l->n_blobs; i++)
        add_blob(m, &l->blobs[i]);
    return m;
}

void
mark_copy(struct layout *to, const struct layout_mark *m)
{
    struct layout_mark *copy = append(to, m->seq, m->base);

    for (size_t i = 0; i < m->n_views; i++)
        add_view(copy, &m->views[i]);
    for (size_t i = 0; i < m->n_blobs; i++)
        add_blob(copy, &m->blobs[i]);
}

void
mark_clear(struct layout_mark *m)
{
    free(m->views);
    free(m->blobs);
}

void
mark_drop(struct layout *l, uint64_t seq)
{
    struct layout_mark *m = mark_find(l, seq);

    if (m == NULL)
        return;
    mark_clear(m);
    l->n_marks--;
    memmove(m, m + 1, (size_t)(&l->marks[l->n_marks] - m) * sizeof *m);
}

void
mark_move(struct layout *l, const char *upper, const char *lower)
{
    for (size_t i = 0; i < l->n_marks; i++)
        for (size_t j = 0; j < l->marks[i].n_views; j++) {
            struct layout_view *view = &l->marks[i].views[j];

            if (strcmp(view->layer, upper) == 0)
                snprintf(view->layer, sizeof view->layer, "%s", lower);
        }
}

/* --- look ----------------------------------------------------------------------- */

bool
mark_names_layer(const struct layout *l, const char *file)
{
    for (size_t i = 0; i < l->n_marks; i++)
        for (size_t j = 0; j < l->marks[i].n_views; j++)
            if (strcmp(l->marks[i].views[j].layer, file) == 0)
                return true;
    return false;
}

bool
mark_names_blob(const struct layout *l, const char *file)
{
    for (size_t i = 0; i < l->n_marks; i++)
        for (size_t j = 0; j < l->marks[i].n_blobs; j++)
            if (strcmp(l->marks[i].blobs[j].file, file) == 0)
                return true;
    return false;
}

/* --- as JSON -------------------------------------------------------------------- */

static bool
parse_view(struct json_object *o, const struct layout *l, struct layout_mark *m,
           struct error **err)
{
    struct layout_view view = { .capacity_bytes = 0 };
    const char *target = NULL, *layer = NULL;
    const struct layout_disk *d;

    if (!json_get_string(o, "target", &target, err) ||
        !json_get_string(o, "layer", &layer, err) ||
        !json_get_u64(o, "capacity", WIRE_MAX_DISK_BYTES, &view.capacity_bytes, err))
        return false;
    d = layout_find(l, target);

    /* The tip is written: no mark can be it. */
    if (d == NULL || layout_layer_index(d, layer) + 1 >= d->n_layers)
        return error_set(err, ERROR_STORE, "disk '%s' has no sealed layer '%s'", target,
                         layer);
    if (!layout_check_disk(target, view.capacity_bytes, err))
        return false;
    snprintf(view.target, sizeof view.target, "%s", target);
    snprintf(view.layer, sizeof view.layer, "%s", layer);
    add_view(m, &view);
    return true;
}

static bool
parse_blob(struct json_object *o, struct layout_mark *m, struct error **err)
{
    struct layout_blob blob;

    if (!blob_parse(o, &blob, err))
        return false;
    add_blob(m, &blob);
    return true;
}

static bool
parse_parts(struct json_object *o, const struct layout *l, struct layout_mark *m,
            struct error **err)
{
    struct json_object *disks = NULL, *blobs = NULL;

    if (!json_get_array(o, "disks", &disks, err) ||
        !json_get_array(o, "blobs", &blobs, err))
        return false;
    if (json_object_array_length(disks) > WIRE_MAX_DISKS ||
        json_object_array_length(blobs) > WIRE_MAX_BLOBS)
        return error_set(err, ERROR_STORE, "it has too many disks or blobs");
    for (size_t i = 0; i < json_object_array_length(disks); i++)
        if (!parse_view(json_object_array_get_idx(disks, i), l, m, err))
            return false;
    for (size_t i = 0; i < json_object_array_length(blobs); i++)
        if (!parse_blob(json_object_array_get_idx(blobs, i), m, err))
            return false;
    return true;
}

bool
mark_parse(struct json_object *o, struct layout *l, struct error **err)
{
    uint64_t seq = 0, last = l->n_marks > 0 ? l->marks[l->n_marks - 1].seq : 0;

    if (!json_get_u64(o, "seq", UINT64_MAX, &seq, err))
        return false;
    if (seq <= last || seq > l->applied)
        return error_set(err, ERROR_STORE, "mark %llu is out of order",
                         (unsigned long long)seq);
    return parse_parts(o, l, append(l, seq, json_bool_or(o, "base", false)), err) ||
           error_prefix(err, "mark %llu", (unsigned long long)seq);
}

struct json_object *
mark_json(const struct layout_mark *m)
{
    struct json_object *o = json_object_new_object();
    struct json_object *disks = json_object_new_array();
    struct json_object *blobs = json_object_new_array();

    json_set_u64(o, "seq", m->seq);
    json_set_bool(o, "base", m->base);
    for (size_t i = 0; i < m->n_views; i++) {
        struct json_object *v = json_object_new_object();

        json_set_string(v, "target", m->views[i].target);
        json_set_string(v, "layer", m->views[i].layer);
        json_set_u64(v, "capacity", m->views[i].capacity_bytes);
        json_object_array_add(disks, v);
    }
    for (size_t i = 0; i < m->n_blobs; i++)
        json_object_array_add(blobs, blob_json(&m->blobs[i]));
    json_set(o, "disks", disks);
    json_set(o, "blobs", blobs);
    return o;
}
