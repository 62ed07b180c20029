#include "daemon/old_folders.h"

#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/events.h"
#include "daemon/images_used.h"
#include "drivers/hypervisor.h"
#include "drivers/store/folder.h"

#define RETRY_MS (60 * 1000)

/* Its document; the new replica's first sync has to be over. Under r->lock. */
static bool
is_wanted(const struct replication *r)
{
    return r->side == SIDE_TARGET && r->phase == PHASE_REPLICATING && !r->removed &&
           json_array_or_null(r->formerly, "folders") != NULL &&
           (uint64_t)json_int_or(r->formerly, "tidied", 0) != r->epoch;
}

static bool
is_due(struct replication *r)
{
    int64_t now_ms = units_monotonic_ms();
    bool due;

    pthread_mutex_lock(&r->lock);
    due = is_wanted(r) && (r->tidied_ms == 0 || now_ms - r->tidied_ms >= RETRY_MS);
    if (due)
        r->tidied_ms = now_ms;
    pthread_mutex_unlock(&r->lock);
    return due;
}

/* The definition that is kept here names images, too. */
static bool
find_used(struct daemon *d, struct replication *r, struct images_used *ret,
          struct error **err)
{
    struct hypervisor *hv = d->hypervisor;
    AUTOPTR(hv_domain) *domain = NULL;
    struct error *e = NULL;

    if (!hv->ops->lookup(hv, r->vm_uuid, &domain, &e)) {
        if (!error_is(e, ERROR_DOMAIN_NOT_FOUND))
            return error_propagate(err, e);
        error_free(e);
    }
    return (domain == NULL || images_used_by_domain(ret, domain, err)) &&
           images_used_by_replica(ret, r->folder, err);
}

static uint64_t
size_of(const char *folder)
{
    uint64_t used = 0, free_bytes;

    if (access(folder, F_OK) < 0 || !folder_space(folder, &used, &free_bytes, NULL))
        return 0;
    return used;
}

/* *ret_left: those of which something is used; the caller's. */
static bool
tidy(const struct images_used *used, struct json_object *folders,
     struct json_object *left, uint64_t *ret_freed, struct error **err)
{
    uint64_t freed = 0;

    for (size_t i = 0; i < json_object_array_length(folders); i++) {
        const char *folder =
            json_object_get_string(json_object_array_get_idx(folders, i));
        uint64_t before = size_of(folder), after;

        if (!images_used_remove_others(used, folder, err))
            return false;
        after = size_of(folder);
        freed += before - MIN(before, after);
        if (access(folder, F_OK) == 0)
            json_append_string(left, folder);
    }
    *ret_freed = freed;
    return true;
}

static bool
note(struct daemon *d, struct replication *r, struct json_object *left,
     struct error **err)
{
    struct json_object *before, *after = NULL;
    bool ok = true;

    pthread_mutex_lock(&r->lock);
    if (is_wanted(r)) {
        before = r->formerly;
        json_object_deep_copy(before, &after, NULL);
        json_set(after, "folders", json_object_get(left));
        json_set_u64(after, "tidied", r->epoch);
        r->formerly = after;
        ok = replication_store(d->replications, r, NULL, 0, err);
        r->formerly = ok ? after : before;
        json_object_put(ok ? before : after);
    }
    pthread_mutex_unlock(&r->lock);
    return ok;
}

static void
tell(struct daemon *d, struct replication *r, uint64_t freed_bytes)
{
    struct log_ctx log = replication_log(r);
    char text[UNITS_TEXT_MAX];

    if (freed_bytes > 0)
        events_emit(d, EVENT_INFO, &log, "old-images-removed",
                    "what was left here of the time when VM '%s' ran on this host, and "
                    "nothing stands on any more, is removed: %s",
                    r->vm_name, units_format_size(freed_bytes, text));
}

static bool
look(struct daemon *d, struct replication *r, struct error **err)
{
    AUTOJSON *folders = NULL;
    AUTOJSON *left = json_object_new_array();
    struct images_used used = { .n = 0 };
    uint64_t freed_bytes = 0;
    bool ok;

    pthread_mutex_lock(&r->lock);
    folders = json_object_get(json_array_or_null(r->formerly, "folders"));
    pthread_mutex_unlock(&r->lock);
    ok = find_used(d, r, &used, err) && tidy(&used, folders, left, &freed_bytes, err) &&
         note(d, r, left, err);
    images_used_clear(&used);
    if (ok)
        tell(d, r, freed_bytes);
    return ok;
}

void
old_folders_look(struct daemon *d, struct replication *r)
{
    struct log_ctx log = replication_log(r);
    struct error *e = NULL;

    if (is_due(r) && !look(d, r, &e))
        log_ignore(&log, "old-images-stay", &e);
}
