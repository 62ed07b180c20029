#include "daemon/exchange.h"

#include <stdio.h>
#include <string.h>

#include "common/json.h"

static const char *const kinds[] = {
    [EXCHANGE_QUERY] = "query", [EXCHANGE_SLICE] = "slice",   [EXCHANGE_DELTA] = "delta",
    [EXCHANGE_TOUCH] = "touch", [EXCHANGE_VERIFY] = "verify",
};

#define MAX_TIME_MS (INT64_C(1) << 53)

/* Copies a member of at most size - 1 bytes out of [A-Za-z0-9.-] into ret. */
static bool
get_word(struct json_object *o, const char *key, char *ret, size_t size,
         struct error **err)
{
    const char *text;

    if (!json_get_string(o, key, &text, err))
        return false;
    if (strlen(text) >= size ||
        text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                          "0123456789.-")] != '\0')
        return error_set(err, ERROR_PROTOCOL, "'%s' is no valid name", key);
    snprintf(ret, size, "%s", text);
    return true;
}

bool
exchange_target_is_valid(const char *target)
{
    size_t n = strlen(target);

    return n > 0 && n < sizeof((struct exchange_disk){ 0 }).target && target[0] != '.' &&
           strspn(target, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                          "0123456789-") == n;
}

static struct json_object *
disks_json(const struct exchange_begin *b)
{
    struct json_object *array = json_object_new_array();

    for (size_t i = 0; i < b->n_disks; i++) {
        struct json_object *disk = json_object_new_object();

        json_set_string(disk, "target", b->disks[i].target);
        json_set_u64(disk, "capacity", b->disks[i].capacity_bytes);
        json_object_array_add(array, disk);
    }
    return array;
}

struct json_object *
exchange_begin_json(const struct exchange_begin *b)
{
    struct json_object *o = json_object_new_object();
    struct json_object *blobs = json_object_new_array();

    for (size_t i = 0; i < b->n_blobs; i++)
        json_append_string(blobs, b->blobs[i]);
    json_set_string(o, "replication", b->replication);
    json_set_u64(o, "epoch", b->epoch);
    json_set_string(o, "kind", kinds[b->kind]);
    json_set_u64(o, "sequence", b->sequence);
    json_set_string(o, "point", b->point);
    json_set_string(o, "parent", b->parent);
    json_set_int(o, "timestamp", b->time_ms);
    json_set_bool(o, "compare", b->compare);
    json_set(o, "disks", disks_json(b));
    json_set(o, "blobs", blobs);
    return o;
}

static bool
parse_kind(struct json_object *o, enum exchange_kind *ret, struct error **err)
{
    const char *text;

    if (!json_get_string(o, "kind", &text, err))
        return false;
    for (size_t i = 0; i < N_ELEMENTS(kinds); i++)
        if (strcmp(kinds[i], text) == 0) {
            *ret = (enum exchange_kind)i;
            return true;
        }
    return error_set(err, ERROR_PROTOCOL, "unknown kind of exchange");
}

static bool
parse_disks(struct json_object *o, struct exchange_begin *ret, struct error **err)
{
    struct json_object *array;
    size_t n;

    if (!json_get_array(o, "disks", &array, err))
        return false;
    n = json_object_array_length(array);
    if (n > WIRE_MAX_DISKS)
        return error_set(err, ERROR_PROTOCOL, "%zu disks are too many", n);
    for (size_t i = 0; i < n; i++) {
        struct json_object *disk = json_object_array_get_idx(array, i);
        struct exchange_disk *d = &ret->disks[i];

        if (!get_word(disk, "target", d->target, sizeof d->target, err) ||
            !json_get_u64(disk, "capacity", WIRE_MAX_DISK_BYTES, &d->capacity_bytes, err))
            return error_prefix(err, "disk %zu", i);
        if (!exchange_target_is_valid(d->target) || d->capacity_bytes % 512 != 0)
            return error_set(err, ERROR_PROTOCOL, "disk %zu has no valid name or size",
                             i);
        for (size_t k = 0; k < i; k++)
            if (strcmp(ret->disks[k].target, d->target) == 0)
                return error_set(err, ERROR_PROTOCOL, "disk '%s' is named twice",
                                 d->target);
    }
    ret->n_disks = n;
    return true;
}

static bool
parse_blobs(struct json_object *o, struct exchange_begin *ret, struct error **err)
{
    struct json_object *array;
    size_t n;

    if (!json_get_array(o, "blobs", &array, err))
        return false;
    n = json_object_array_length(array);
    if (n > WIRE_MAX_BLOBS)
        return error_set(err, ERROR_PROTOCOL, "%zu blobs are too many", n);
    for (size_t i = 0; i < n; i++) {
        struct json_object *name = json_object_array_get_idx(array, i);
        const char *text = json_object_get_string(name);

        if (!json_object_is_type(name, json_type_string) || *text == '\0' ||
            *text == '.' || strlen(text) >= sizeof ret->blobs[i] ||
            text[strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789.-")] != '\0')
            return error_set(err, ERROR_PROTOCOL, "blob %zu has no valid name", i);
        for (size_t k = 0; k < i; k++)
            if (strcmp(ret->blobs[k], text) == 0)
                return error_set(err, ERROR_PROTOCOL, "blob '%s' is named twice", text);
        snprintf(ret->blobs[i], sizeof ret->blobs[i], "%s", text);
    }
    ret->n_blobs = n;
    return true;
}

bool
exchange_begin_parse(struct json_object *o, struct exchange_begin *ret,
                     struct error **err)
{
    struct exchange_begin b = { 0 };

    if (!get_word(o, "replication", b.replication, sizeof b.replication, err) ||
        !json_get_u64(o, "epoch", INT64_MAX, &b.epoch, err) ||
        !parse_kind(o, &b.kind, err) ||
        !json_get_u64(o, "sequence", INT64_MAX, &b.sequence, err) ||
        !get_word(o, "point", b.point, sizeof b.point, err) ||
        !get_word(o, "parent", b.parent, sizeof b.parent, err) ||
        !json_get_int(o, "timestamp", 0, MAX_TIME_MS, &b.time_ms, err) ||
        !json_get_bool(o, "compare", &b.compare, err) || !parse_disks(o, &b, err) ||
        !parse_blobs(o, &b, err))
        return error_prefix(err, "BEGIN");
    if (!id_is_valid(b.replication))
        return error_set(err, ERROR_PROTOCOL, "BEGIN: 'replication' is no id");
    /* A target tells syncs and points apart by their names; "" is none. */
    if ((b.kind == EXCHANGE_SLICE || b.kind == EXCHANGE_DELTA) && b.point[0] == '\0')
        return error_set(err, ERROR_PROTOCOL, "BEGIN: a %s needs the name of its point",
                         kinds[b.kind]);
    if (b.compare && b.kind != EXCHANGE_SLICE)
        return error_set(err, ERROR_PROTOCOL, "BEGIN: a %s does not compare",
                         kinds[b.kind]);
    *ret = b;
    return true;
}

struct json_object *
exchange_ready_json(const struct exchange_ready *r)
{
    struct json_object *o = json_object_new_object();

    json_set_u64(o, "epoch", r->epoch);
    json_set_string(o, "point", r->newest.name);
    json_set_u64(o, "sequence", r->newest.sequence);
    json_set_int(o, "timestamp", r->newest.time_ms);
    json_set_string(o, "sync", r->sync.name);
    json_set_string(o, "target", r->sync.target);
    json_set_u64(o, "offset", r->sync.offset);
    json_set_bool(o, "complete", r->sync.complete);
    json_set_bool(o, "compare", r->compare);
    json_set_bool(o, "secrets", r->secrets);
    return o;
}

bool
exchange_ready_parse(struct json_object *o, struct exchange_ready *ret,
                     struct error **err)
{
    struct exchange_ready r = { 0 };

    if (!json_get_u64(o, "epoch", INT64_MAX, &r.epoch, err) ||
        !get_word(o, "point", r.newest.name, sizeof r.newest.name, err) ||
        !json_get_u64(o, "sequence", INT64_MAX, &r.newest.sequence, err) ||
        !json_get_int(o, "timestamp", 0, MAX_TIME_MS, &r.newest.time_ms, err) ||
        !get_word(o, "sync", r.sync.name, sizeof r.sync.name, err) ||
        !get_word(o, "target", r.sync.target, sizeof r.sync.target, err) ||
        !json_get_u64(o, "offset", WIRE_MAX_DISK_BYTES, &r.sync.offset, err) ||
        !json_get_bool(o, "complete", &r.sync.complete, err) ||
        !json_get_bool(o, "compare", &r.compare, err) ||
        !json_get_bool(o, "secrets", &r.secrets, err))
        return error_prefix(err, "READY");
    *ret = r;
    return true;
}

struct json_object *
exchange_end_json(const struct exchange_end *e)
{
    struct json_object *o = json_object_new_object();

    json_set_int(o, "timestamp", e->time_ms);
    json_set_u64(o, "frames", e->frames);
    json_set_string(o, "target", e->target);
    json_set_u64(o, "offset", e->offset);
    json_set_bool(o, "complete", e->complete);
    json_set_bool(o, "consistent", e->consistent);
    return o;
}

bool
exchange_end_parse(struct json_object *o, struct exchange_end *ret, struct error **err)
{
    struct exchange_end e = { 0 };
    uint64_t frames;

    if (!json_get_int(o, "timestamp", 0, MAX_TIME_MS, &e.time_ms, err) ||
        !json_get_u64(o, "frames", UINT32_MAX, &frames, err) ||
        !get_word(o, "target", e.target, sizeof e.target, err) ||
        !json_get_u64(o, "offset", WIRE_MAX_DISK_BYTES, &e.offset, err) ||
        !json_get_bool(o, "complete", &e.complete, err) ||
        !json_get_bool(o, "consistent", &e.consistent, err))
        return error_prefix(err, "END");
    e.frames = (uint32_t)frames;
    *ret = e;
    return true;
}
