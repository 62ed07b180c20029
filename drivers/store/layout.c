#include "drivers/store/layout.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "drivers/store/blob.h"
#include "drivers/store/footing.h"
#include "drivers/store/hashed.h"
#include "drivers/store/mark.h"

#define FIRST_LAYER       0
#define LAYER_NUMBERS     1000000000u
#define BLOB_NAME_MAX     32
#define ORIGINAL_PATH_MAX 1023 /* what a qcow2 header has room for */

static const char letters[] = "abcdefghijklmnopqrstuvwxyz";

void
layout_free(struct layout *l)
{
    if (l == NULL || atomic_fetch_sub(&l->refs, 1) > 0)
        return;
    for (size_t i = 0; i < l->n_disks; i++) {
        free(l->disks[i].original.path);
        free(l->disks[i].layers);
    }
    for (size_t i = 0; i < l->n_marks; i++)
        mark_clear(&l->marks[i]);
    free(l->disks);
    free(l->blobs);
    free(l->marks);
    free(l);
}

struct layout *
layout_ref(struct layout *l)
{
    atomic_fetch_add(&l->refs, 1);
    return l;
}

struct layout *
layout_copy(const struct layout *l)
{
    struct layout *copy = NEW(struct layout);

    copy->applied = l->applied;
    copy->applying = l->applying;
    copy->direct = l->direct;
    copy->fold = l->fold;
    for (size_t i = 0; i < l->n_disks; i++) {
        const struct layout_disk *from = &l->disks[i];
        struct layout_disk *to =
            layout_add_disk(copy, from->target, from->capacity_bytes);

        if (from->original.path != NULL)
            layout_set_original(to, &from->original);
        for (size_t j = 0; j < from->n_layers; j++)
            layout_add_layer(to, from->layers[j]);
    }
    for (size_t i = 0; i < l->n_blobs; i++)
        layout_set_blob(copy, &l->blobs[i]);
    for (size_t i = 0; i < l->n_marks; i++)
        mark_copy(copy, &l->marks[i]);
    return copy;
}

struct layout_disk *
layout_find(const struct layout *l, const char *target)
{
    for (size_t i = 0; i < l->n_disks; i++)
        if (strcmp(l->disks[i].target, target) == 0)
            return &l->disks[i];
    return NULL;
}

struct layout_blob *
layout_find_blob(const struct layout *l, const char *name)
{
    for (size_t i = 0; i < l->n_blobs; i++)
        if (strcmp(l->blobs[i].name, name) == 0)
            return &l->blobs[i];
    return NULL;
}

struct layout_disk *
layout_add_disk(struct layout *l, const char *target, uint64_t capacity_bytes)
{
    struct layout_disk *d;

    l->disks = mem_realloc(l->disks, l->n_disks + 1, sizeof *l->disks);
    d = &l->disks[l->n_disks++];
    *d = (struct layout_disk){ .capacity_bytes = capacity_bytes };
    snprintf(d->target, sizeof d->target, "%s", target);
    return d;
}

void
layout_add_layer(struct layout_disk *d, const char *file)
{
    d->layers = mem_realloc(d->layers, d->n_layers + 1, sizeof *d->layers);
    snprintf(d->layers[d->n_layers++], LAYOUT_NAME_MAX, "%s", file);
}

void
layout_set_original(struct layout_disk *d, const struct layout_original *original)
{
    d->original = *original;
    d->original.path = mem_strdup(original->path);
}

void
layout_set_blob(struct layout *l, const struct layout_blob *blob)
{
    struct layout_blob *b = layout_find_blob(l, blob->name);

    if (b == NULL) {
        l->blobs = mem_realloc(l->blobs, l->n_blobs + 1, sizeof *l->blobs);
        b = &l->blobs[l->n_blobs++];
    }
    *b = *blob;
}

bool
layout_is_raw(const char *file)
{
    const char *dot = strrchr(file, '.');

    return dot != NULL && strcmp(dot, ".raw") == 0;
}

/* The number in "vda.0001.qcow2"; false if it is no name of a layer of target. */
static bool
layer_number(const char *file, const char *target, uint64_t *ret)
{
    size_t n = strlen(target);
    AUTOFREE(char) *digits = NULL;
    const char *dot;

    if (strncmp(file, target, n) != 0 || file[n] != '.')
        return false;
    dot = strchr(file + n + 1, '.');
    if (dot == NULL || (strcmp(dot, ".qcow2") != 0 && !layout_is_raw(dot)))
        return false;
    digits = mem_memdup(file + n + 1, (size_t)(dot - file) - n - 1);
    return units_parse_u64(digits, FIRST_LAYER, LAYER_NUMBERS, ret, NULL);
}

void
layout_next_file(const struct layout_disk *d, char ret[LAYOUT_NAME_MAX])
{
    uint64_t number = FIRST_LAYER;

    /* layout_load() has checked the names that we count on from. */
    if (d->n_layers > 0 && layer_number(d->layers[d->n_layers - 1], d->target, &number))
        number++;
    snprintf(ret, LAYOUT_NAME_MAX, "%s.%04llu.%s", d->target, (unsigned long long)number,
             d->n_layers == 0 && d->original.path == NULL ? "raw" : "qcow2");
}

void
layout_path(const char *file, char ret[LAYOUT_PATH_MAX])
{
    snprintf(ret, LAYOUT_PATH_MAX, "disks/%.*s", LAYOUT_NAME_MAX, file);
}

size_t
layout_layer_index(const struct layout_disk *d, const char *file)
{
    size_t i = 0;

    while (i < d->n_layers && strcmp(d->layers[i], file) != 0)
        i++;
    return i;
}

bool
layout_has_layer(const struct layout *l, const char *file)
{
    for (size_t i = 0; i < l->n_disks; i++)
        if (layout_layer_index(&l->disks[i], file) < l->disks[i].n_layers)
            return true;
    return false;
}

bool
layout_has_blob_file(const struct layout *l, const char *file)
{
    for (size_t i = 0; i < l->n_blobs; i++)
        if (strcmp(l->blobs[i].file, file) == 0)
            return true;
    return mark_names_blob(l, file);
}

bool
layout_check_disk(const char *target, uint64_t capacity_bytes, struct error **err)
{
    size_t n = strlen(target);

    if (n == 0 || n >= STORE_TARGET_MAX || strspn(target, letters) == 0 ||
        strspn(target, "abcdefghijklmnopqrstuvwxyz0123456789-") != n)
        return error_set(err, ERROR_PROTOCOL,
                         "disk '%.40s': a target is letters and digits, like 'vda'",
                         target);
    if (capacity_bytes == 0 || capacity_bytes % 512 != 0 ||
        capacity_bytes > WIRE_MAX_DISK_BYTES)
        return error_set(err, ERROR_PROTOCOL,
                         "disk '%s': a capacity of %llu bytes is out of range or no "
                         "multiple of 512",
                         target, (unsigned long long)capacity_bytes);
    return true;
}

/* In an overlay's folder the blobs are beside the images and our own record. */
static bool
is_taken(const char *name)
{
    const char *dot = strrchr(name, '.');

    return strcmp(name, FOOTING_FILE) == 0 || (dot != NULL && strcmp(dot, ".qcow2") == 0);
}

bool
layout_check_blob(const char *name, struct error **err)
{
    size_t n = strlen(name);

    if (n == 0 || n > BLOB_NAME_MAX || name[0] == '.' ||
        strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789.-") != n)
        return error_set(err, ERROR_PROTOCOL,
                         "blob '%.40s': a name is 1 to %d of a-z, 0-9, '.' and '-'", name,
                         BLOB_NAME_MAX);
    if (is_taken(name))
        return error_set(err, ERROR_PROTOCOL, "blob '%s': this name is not free", name);
    return true;
}

bool
layout_check_original(const char *path, const char *format, struct error **err)
{
    size_t n = strlen(format);

    if (path[0] != '/' || strlen(path) > ORIGINAL_PATH_MAX)
        return error_set(err, ERROR_PROTOCOL,
                         "original image '%.80s': a path is absolute, and has at most %d "
                         "bytes",
                         path, ORIGINAL_PATH_MAX);
    if (n == 0 || n >= LAYOUT_FORMAT_MAX ||
        strspn(format, "abcdefghijklmnopqrstuvwxyz0123456789-") != n)
        return error_set(err, ERROR_PROTOCOL,
                         "original image '%.80s': what format is it?", path);
    return true;
}

/* --- as JSON ---------------------------------------------------------------------- */

/* Numbers rise along the chain, so that no file is there twice; a raw one has nothing
   below it. */
static bool
parse_layer(const char *file, struct layout_disk *d, uint64_t *next, struct error **err)
{
    uint64_t number;

    if (file == NULL || !layer_number(file, d->target, &number) || number < *next ||
        (layout_is_raw(file) && (d->n_layers > 0 || d->original.path != NULL)))
        return error_set(err, ERROR_STORE, "disk '%s': '%s' is no name of its layer %zu",
                         d->target, file != NULL ? file : "", d->n_layers);
    layout_add_layer(d, file);
    *next = number + 1;
    return true;
}

static bool
parse_layers(struct json_object *array, struct layout_disk *d, struct error **err)
{
    size_t n = json_object_array_length(array);
    uint64_t next = FIRST_LAYER;

    if (n < LAYOUT_MIN_LAYERS || n > LAYOUT_MAX_LAYERS)
        return error_set(err, ERROR_STORE, "disk '%s' has %zu layers", d->target, n);
    for (size_t i = 0; i < n; i++)
        if (!parse_layer(json_object_get_string(json_object_array_get_idx(array, i)), d,
                         &next, err))
            return false;
    return true;
}

static bool
parse_original(struct json_object *o, struct layout_disk *d, struct error **err)
{
    struct layout_original original = { .path = NULL };
    const char *path = NULL, *format = NULL;

    if (!json_get_string(o, "path", &path, err) ||
        !json_get_string(o, "format", &format, err) ||
        !json_get_u64(o, "size", INT64_MAX, &original.size_bytes, err) ||
        !json_get_u64(o, "fingerprint", UINT64_MAX, &original.fingerprint, err) ||
        !layout_check_original(path, format, err))
        return false;
    snprintf(original.format, sizeof original.format, "%s", format);
    original.path = (char *)path;
    layout_set_original(d, &original);
    return true;
}

static bool
parse_disk(struct json_object *o, struct layout *l, struct error **err)
{
    struct json_object *original = json_object_or_null(o, "original");
    struct json_object *layers = NULL;
    struct layout_disk *d;
    const char *target = NULL;
    uint64_t capacity = 0;

    if (!json_get_string(o, "target", &target, err) ||
        !json_get_u64(o, "capacity", WIRE_MAX_DISK_BYTES, &capacity, err) ||
        !json_get_array(o, "layers", &layers, err) ||
        !layout_check_disk(target, capacity, err))
        return false;
    if (layout_find(l, target) != NULL)
        return error_set(err, ERROR_STORE, "disk '%s' is there twice", target);
    d = layout_add_disk(l, target, capacity);
    return (original == NULL || parse_original(original, d, err)) &&
           parse_layers(layers, d, err);
}

static bool
parse_blob(struct json_object *o, struct layout *l, struct error **err)
{
    struct layout_blob blob;

    if (!blob_parse(o, &blob, err))
        return false;
    layout_set_blob(l, &blob);
    return true;
}

static bool
parse_fold(struct json_object *o, struct layout *l, struct error **err)
{
    const char *target = "", *lower = "", *upper = "";
    struct layout_disk *d;

    if (!json_get_string(o, "target", &target, err) ||
        !json_get_string(o, "lower", &lower, err) ||
        !json_get_string(o, "upper", &upper, err))
        return false;
    d = layout_find(l, target);
    if (d == NULL || layout_layer_index(d, upper) == d->n_layers ||
        layout_layer_index(d, lower) + 1 != layout_layer_index(d, upper))
        return error_set(err, ERROR_STORE, "its fold is of layers that it does not have");
    snprintf(l->fold.target, sizeof l->fold.target, "%s", target);
    snprintf(l->fold.lower, sizeof l->fold.lower, "%s", lower);
    snprintf(l->fold.upper, sizeof l->fold.upper, "%s", upper);
    return true;
}

typedef bool (*parse_fn)(struct json_object *o, struct layout *l, struct error **err);

static bool
parse_each(struct json_object *o, const char *key, parse_fn parse, struct layout *l,
           struct error **err)
{
    struct json_object *array = NULL;

    if (!json_get_array(o, key, &array, err))
        return false;
    if (json_object_array_length(array) > MARK_MAX)
        return error_set(err, ERROR_STORE, "there are too many %s", key);
    for (size_t i = 0; i < json_object_array_length(array); i++)
        if (!parse(json_object_array_get_idx(array, i), l, err))
            return false;
    return true;
}

static bool
parse_layout(struct json_object *o, struct layout *l, struct error **err)
{
    int64_t version = 0;
    struct json_object *fold = json_object_or_null(o, "fold");

    if (!json_get_int(o, "version", 1, INT32_MAX, &version, err))
        return false;
    if (version != LAYOUT_VERSION)
        return error_set(err, ERROR_STORE,
                         "its version is %lld; this virtdrd knows only %d",
                         (long long)version, LAYOUT_VERSION);
    return json_get_u64(o, "applied", UINT64_MAX, &l->applied, err) &&
           json_get_u64(o, "applying", UINT64_MAX, &l->applying, err) &&
           parse_each(o, "disks", parse_disk, l, err) &&
           parse_each(o, "blobs", parse_blob, l, err) &&
           json_get_bool(o, "direct", &l->direct, err) &&
           parse_each(o, "marks", mark_parse, l, err) &&
           (fold == NULL || parse_fold(fold, l, err));
}

bool
layout_load(int at, struct layout **ret, struct error **err)
{
    AUTOPTR(layout) *l = NEW(struct layout);
    AUTOPTR(error) *why = NULL;
    AUTOJSON *o = NULL;

    if (!hashed_load(at, LAYOUT_FILE, &o, err))
        return false;
    if (!parse_layout(o, l, &why))
        return error_set(err, ERROR_STORE, "'%s' is damaged: %s", LAYOUT_FILE,
                         error_message(why));
    *ret = TAKE(l);
    return true;
}

static struct json_object *
original_to_json(const struct layout_original *original)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "path", original->path);
    json_set_string(o, "format", original->format);
    json_set_u64(o, "size", original->size_bytes);
    json_set_u64(o, "fingerprint", original->fingerprint);
    return o;
}

static struct json_object *
disk_to_json(const struct layout_disk *d)
{
    struct json_object *o = json_object_new_object();
    struct json_object *layers = json_object_new_array();

    json_set_string(o, "target", d->target);
    json_set_u64(o, "capacity", d->capacity_bytes);
    if (d->original.path != NULL)
        json_set(o, "original", original_to_json(&d->original));
    for (size_t i = 0; i < d->n_layers; i++)
        json_append_string(layers, d->layers[i]);
    json_set(o, "layers", layers);
    return o;
}

static struct json_object *
fold_to_json(const struct layout_fold *f)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "target", f->target);
    json_set_string(o, "lower", f->lower);
    json_set_string(o, "upper", f->upper);
    return o;
}

static struct json_object *
layout_to_json(const struct layout *l)
{
    struct json_object *o = json_object_new_object();
    struct json_object *disks = json_object_new_array();
    struct json_object *blobs = json_object_new_array();
    struct json_object *marks = json_object_new_array();

    json_set_int(o, "version", LAYOUT_VERSION);
    json_set_u64(o, "applied", l->applied);
    json_set_u64(o, "applying", l->applying);
    json_set_bool(o, "direct", l->direct);
    for (size_t i = 0; i < l->n_disks; i++)
        json_object_array_add(disks, disk_to_json(&l->disks[i]));
    for (size_t i = 0; i < l->n_blobs; i++)
        json_object_array_add(blobs, blob_json(&l->blobs[i]));
    for (size_t i = 0; i < l->n_marks; i++)
        json_object_array_add(marks, mark_json(&l->marks[i]));
    json_set(o, "disks", disks);
    json_set(o, "blobs", blobs);
    json_set(o, "marks", marks);
    if (l->fold.target[0] != '\0')
        json_set(o, "fold", fold_to_json(&l->fold));
    return o;
}

bool
layout_save(const struct layout *l, int at, struct error **err)
{
    AUTOJSON *o = layout_to_json(l);

    return hashed_save(at, LAYOUT_FILE, o, err);
}
