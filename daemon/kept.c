#include "daemon/kept.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/json.h"
#include "daemon/exports.h"
#include "daemon/replica.h"

char *
kept_name(int64_t time_ms)
{
    time_t seconds = (time_t)(time_ms / 1000);
    struct tm utc;
    char text[32];

    gmtime_r(&seconds, &utc);
    strftime(text, sizeof text, "%Y%m%dT%H%M%SZ", &utc);
    return mem_printf(KEPT_PREFIX "%s", text);
}

char *
kept_overlay(uint64_t epoch)
{
    return mem_printf(KEPT_PREFIX "%llu", (unsigned long long)epoch);
}

static struct json_object *
copy_of(struct json_object *o)
{
    struct json_object *copy = NULL;

    json_object_deep_copy(o, &copy, NULL);
    return copy;
}

static const char *
name_of(struct json_object *kept, size_t i)
{
    return json_string_or(json_object_array_get_idx(kept, i), "id", "");
}

static size_t
count(struct json_object *kept)
{
    return kept != NULL ? json_object_array_length(kept) : 0;
}

void
kept_add(struct replication *r, const char *name, const char *overlay, int64_t time_ms)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "id", name);
    json_set_string(o, "overlay", overlay);
    json_set_int(o, "timestamp", time_ms);
    json_set_int(o, "receivedTime", time_ms);
    json_set_int(o, "sequenceNumber", 0);
    json_set_int(o, "transferBytes", 0);
    json_set_string(o, "consistency", "crash");
    json_set_bool(o, "isPinned", true);
    json_set(o, "tags", json_object_new_array());
    json_set_string(o, "state", "ok");
    json_set_string(o, "keptBy", "split brain");
    if (r->kept == NULL)
        r->kept = json_object_new_array();
    for (size_t i = 0; i < count(r->kept); i++)
        if (strcmp(name_of(r->kept, i), name) == 0)
            json_object_array_del_idx(r->kept, i, 1);
    json_object_array_add(r->kept, o);
}

struct json_object *
kept_find(struct replication *r, const char *name)
{
    struct json_object *found = NULL;

    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < count(r->kept) && found == NULL; i++)
        if (strcmp(name_of(r->kept, i), name) == 0)
            found = copy_of(json_object_array_get_idx(r->kept, i));
    pthread_mutex_unlock(&r->lock);
    return found;
}

void
kept_list(struct replication *r, struct json_object *items)
{
    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < count(r->kept); i++)
        json_object_array_add(items, copy_of(json_object_array_get_idx(r->kept, i)));
    pthread_mutex_unlock(&r->lock);
}

bool
kept_check_none(struct replication *r, struct error **err)
{
    bool ok;

    pthread_mutex_lock(&r->lock);
    ok = count(r->kept) == 0 ||
         error_set(err, ERROR_INVALID_STATE,
                   "recovery point '%s', what VM '%s' had written when a split brain "
                   "ended, would be lost: export or clone it, then: virt-dr unpin %s %s",
                   name_of(r->kept, 0), r->vm_name, r->vm_name, name_of(r->kept, 0));
    pthread_mutex_unlock(&r->lock);
    return ok;
}

struct json_object *
kept_drop_all(struct replication *r)
{
    struct json_object *names = json_object_new_array();

    for (size_t i = 0; i < count(r->kept); i++)
        json_append_string(names, name_of(r->kept, i));
    json_object_put(r->kept);
    r->kept = json_object_new_array();
    return names;
}

/* --- removal ------------------------------------------------------------------------ */

static bool
forget(struct daemon *d, struct replication *r, const char *name, struct error **err)
{
    struct json_object *before, *after = json_object_new_array();
    bool ok;

    pthread_mutex_lock(&r->lock);
    before = r->kept;
    for (size_t i = 0; i < count(before); i++)
        if (strcmp(name_of(before, i), name) != 0)
            json_object_array_add(after, copy_of(json_object_array_get_idx(before, i)));
    r->kept = after;
    ok = replication_store(d->replications, r, NULL, 0, err);
    r->kept = ok ? after : before;
    json_object_put(ok ? before : after);
    pthread_mutex_unlock(&r->lock);
    return ok;
}

/* The images first: what is listed is there. */
bool
kept_remove(struct daemon *d, struct replication *r, const char *name, struct error **err)
{
    AUTOJSON *point = kept_find(r, name);
    struct store *store;
    bool ok;

    if (point == NULL)
        return error_set(err, ERROR_POINT_NOT_FOUND, "there is no point '%s'", name);
    if (!exports_check_unused(d->exports, r, err))
        return error_prefix(err, "point '%s'", name);
    replica_lock_tip(r);
    ok = replica_store(d, r, &store, err) &&
         store->ops->overlay_remove(store, json_string_or(point, "overlay", ""), err);
    replica_unlock_tip(r);
    return ok && forget(d, r, name, err);
}
