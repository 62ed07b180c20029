#include "daemon/exports.h"

#include <pthread.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/credentials.h"
#include "daemon/events.h"
#include "daemon/export_server.h"
#include "daemon/point_overlay.h"
#include "daemon/testruns.h"
#include "daemon/workers.h"

#define LOOK_MS        1000
#define RETRY_FIRST_MS 1000
/* A server that lived for so long has nothing to do with the failure before. */
#define SETTLED_MS 60000

struct export
{
    struct export *next;
    struct json_object *doc; /* replaced, never changed, once it is in the list */
    struct export_server server;
    bool busy;      /* somebody starts, ends or removes it; the rest is his */
    bool removing;  /* for good */
    unsigned tries; /* in a row that failed */
    int64_t started_ms, retry_ms; /* monotonic; 0: not started, no retry */
    struct error *error;          /* why it is not served */
};

struct exports {
    struct daemon *daemon;
    pthread_mutex_t lock;
    pthread_cond_t freed; /* somebody is not busy any more */
    struct export *all;
    size_t n;
    struct event *watch;
};

static const char *
id_of(const struct export *e)
{
    return json_string_or(e->doc, "id", "");
}

static const char *
name_of(const struct export *e)
{
    return json_string_or(e->doc, "name", "");
}

static struct log_ctx
log_of(const struct export *e)
{
    return (struct log_ctx){ .vm = json_string_or(e->doc, "vmName", NULL),
                             .replication = json_string_or(e->doc, "replication", NULL) };
}

/* --- the list, under the lock ----------------------------------------------------------
 */

static struct export *
find(struct exports *x, const char *key)
{
    struct export *e = x->all;

    while (e != NULL && strcmp(name_of(e), key) != 0 && strcmp(id_of(e), key) != 0)
        e = e->next;
    return e;
}

static struct export *
link_export(struct exports *x, struct json_object *doc)
{
    struct export *e = NEW(struct export);

    e->doc = json_object_get(doc);
    e->server.listener = -1;
    e->next = x->all;
    x->all = e;
    x->n++;
    return e;
}

static void
export_free(struct export *e)
{
    json_object_put(e->doc);
    error_free(e->error);
    free(e);
}

static void
unlink_export(struct exports *x, struct export *e)
{
    struct export **p = &x->all;

    while (*p != e)
        p = &(*p)->next;
    *p = e->next;
    x->n--;
    export_free(e);
}

/* Waits until nobody is at work on it. NULL: there is none, or not any more. */
static struct export *
claim(struct exports *x, const char *key)
{
    struct export *e;

    while ((e = find(x, key)) != NULL && e->busy)
        pthread_cond_wait(&x->freed, &x->lock);
    if (e != NULL)
        e->busy = true;
    return e;
}

static void
release(struct exports *x, struct export *e)
{
    e->busy = false;
    pthread_cond_broadcast(&x->freed);
}

/* --- serving ---------------------------------------------------------------------------
 */

static void
note_failure(struct exports *x, struct export *e, struct error *failure)
{
    pthread_mutex_lock(&x->lock);
    error_free(e->error);
    e->error = failure;
    e->tries++;
    e->started_ms = 0;
    e->retry_ms = e->tries < EXPORTS_MAX_TRIES
                      ? units_monotonic_ms() + ((int64_t)RETRY_FIRST_MS << e->tries)
                      : 0;
    pthread_mutex_unlock(&x->lock);
}

static void
note_success(struct exports *x, struct export *e)
{
    pthread_mutex_lock(&x->lock);
    error_clear(&e->error);
    e->started_ms = units_monotonic_ms();
    e->retry_ms = 0;
    pthread_mutex_unlock(&x->lock);
}

/* By whoever has claimed it. */
static void
serve(struct exports *x, struct export *e)
{
    struct log_ctx log = log_of(e);
    struct error *failure = NULL;

    if (export_server_start(&e->server, x->daemon, e->doc, &failure)) {
        note_success(x, e);
        return;
    }
    events_emit(
        x->daemon, e->tries + 1 < EXPORTS_MAX_TRIES ? EVENT_WARNING : EVENT_CRITICAL,
        &log, "export-failed", "export '%s' of VM '%s' cannot be served%s: %s",
        name_of(e), log.vm, e->tries + 1 < EXPORTS_MAX_TRIES ? "; it is tried again" : "",
        error_message(failure));
    note_failure(x, e, failure);
}

/* The process is gone, and nobody asked it to go. */
static void
serve_again(struct exports *x, struct export *e)
{
    struct log_ctx log = log_of(e);
    AUTOFREE(char) *words = nbd_server_output(e->server.process);

    if (units_monotonic_ms() - e->started_ms > SETTLED_MS)
        e->tries = 0;
    export_server_end(&e->server);
    events_emit(x->daemon, EVENT_WARNING, &log, "export-server-ended",
                "the server of export '%s' ended by itself: %s", name_of(e),
                *words != '\0' ? words : "it gave no reason");
    if (e->tries + 1 < EXPORTS_MAX_TRIES) {
        e->tries++; /* one that dies at once must not be started for ever */
        serve(x, e);
        return;
    }
    note_failure(x, e, NULL);
    pthread_mutex_lock(&x->lock);
    error_set(&e->error, ERROR_STORE, "its server ended %d times in a row: %s",
              EXPORTS_MAX_TRIES, *words != '\0' ? words : "it gave no reason");
    pthread_mutex_unlock(&x->lock);
    events_emit(x->daemon, EVENT_CRITICAL, &log, "export-failed",
                "export '%s' of VM '%s' is given up: its server ends at once", name_of(e),
                log.vm);
}

struct look {
    struct exports *exports;
    struct export *export; /* claimed */
};

static void
look_after(void *opaque)
{
    struct look *look = opaque;
    struct export *e = look->export;

    if (e->server.process != NULL)
        serve_again(look->exports, e);
    else
        serve(look->exports, e);
    pthread_mutex_lock(&look->exports->lock);
    release(look->exports, e);
    pthread_mutex_unlock(&look->exports->lock);
}

/* One that has died, or whose time to be tried again has come. */
static bool
needs_look(const struct export *e)
{
    if (e->busy || e->removing)
        return false;
    if (e->server.process != NULL)
        return !nbd_server_is_alive(e->server.process);
    return e->retry_ms != 0 && units_monotonic_ms() >= e->retry_ms;
}

static void
on_watch(evutil_socket_t fd UNUSED, short what UNUSED, void *opaque)
{
    struct exports *x = opaque;

    pthread_mutex_lock(&x->lock);
    for (struct export *e = x->all; e != NULL; e = e->next) {
        struct look *look;

        if (!needs_look(e))
            continue;
        e->busy = true;
        look = NEW(struct look);
        *look = (struct look){ x, e };
        workers_submit(x->daemon->steps, 0, look_after, free, look);
    }
    pthread_mutex_unlock(&x->lock);
}

/* --- what the API shows
 * ------------------------------------------------------------------ */

/* Under the lock. */
static struct json_object *
show(const struct export *e)
{
    struct json_object *o = NULL;
    bool serving = e->started_ms != 0 && !e->removing;

    json_object_deep_copy(e->doc, &o, NULL);
    json_object_object_del(o, "removing");
    json_set_string(o, "state",
                    e->removing        ? "removing"
                    : serving          ? "serving"
                    : e->error == NULL ? "starting"
                                       : "failed");
    json_set(o, "error", e->error != NULL ? json_from_error(e->error) : NULL);
    json_set_int(o, "serverPid",
                 serving && !e->busy && e->server.process != NULL
                     ? nbd_server_pid(e->server.process)
                     : 0);
    return o;
}

static bool
belongs(const struct export *e, const char *replication)
{
    return replication == NULL ||
           strcmp(json_string_or(e->doc, "replication", ""), replication) == 0;
}

struct json_object *
exports_list(struct exports *x, const char *replication)
{
    struct json_object *items = json_object_new_array();

    pthread_mutex_lock(&x->lock);
    for (struct export *e = x->all; e != NULL; e = e->next)
        if (belongs(e, replication))
            json_object_array_add(items, show(e));
    pthread_mutex_unlock(&x->lock);
    return items;
}

static bool
not_found(const char *key, struct error **err)
{
    return error_set(err, ERROR_NOT_FOUND, "there is no export '%.64s'", key);
}

bool
exports_get(struct exports *x, const char *key, struct json_object **ret,
            struct error **err)
{
    struct export *e;

    pthread_mutex_lock(&x->lock);
    e = find(x, key);
    if (e != NULL)
        *ret = show(e);
    pthread_mutex_unlock(&x->lock);
    return e != NULL || not_found(key, err);
}

bool
exports_credentials(struct exports *x, const char *key, struct json_object **ret,
                    struct error **err)
{
    AUTOJSON *shown = NULL;
    AUTOFREE(char) *folder = NULL;

    if (!exports_get(x, key, &shown, err))
        return false;
    if (json_string_or(shown, "credentials", NULL) == NULL)
        return error_set(err, ERROR_INVALID_STATE,
                         "export '%s' is served on a unix socket and needs no "
                         "certificates",
                         json_string_or(shown, "name", ""));
    folder = export_server_folder(x->daemon, json_string_or(shown, "id", ""));
    return credentials_read(folder, ret, err);
}

/* --- adding
 * --------------------------------------------------------------------------------- */

bool
exports_check_name(struct exports *x, const char *name, struct error **err)
{
    size_t n = strlen(name);
    bool ok = true;

    if (n == 0 || n > EXPORTS_NAME_MAX || name[0] == '-' ||
        strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != n)
        return error_set(err, ERROR_USAGE,
                         "'%.50s' is no name for an export: 1 to %d of a-z, 0-9 and '-'",
                         name, EXPORTS_NAME_MAX);
    pthread_mutex_lock(&x->lock);
    if (find(x, name) != NULL)
        ok = error_set(err, ERROR_EXISTS, "there is an export '%s' already", name);
    else if (x->n >= EXPORTS_MAX)
        ok = error_set(err, ERROR_INVALID_STATE,
                       "there are %d exports already, and no more are served at once; "
                       "end one with virt-dr unexport",
                       EXPORTS_MAX);
    pthread_mutex_unlock(&x->lock);
    return ok;
}

bool
exports_prepare(struct exports *x, struct json_object *doc, struct error **err)
{
    return export_server_prepare(x->daemon, doc, err);
}

bool
exports_discard(struct exports *x, const char *id, struct error **err)
{
    return export_server_discard(x->daemon, id, err);
}

static bool
commit(struct exports *x, const char *id, struct json_object *doc, struct error **err)
{
    struct state *state = x->daemon->state;
    struct state_write write = { .kind = "export", .id = id, .body = doc };

    return state->ops->commit(state, &write, 1, err);
}

/* Claimed, in the list, not yet stored. NULL: the name is taken. */
static struct export *
enlist(struct exports *x, struct json_object *doc, bool *ret_is_new, struct error **err)
{
    struct export *e;

    *ret_is_new = false;
    pthread_mutex_lock(&x->lock);
    e = claim(x, json_string_or(doc, "id", ""));
    if (e == NULL && find(x, json_string_or(doc, "name", "")) != NULL) {
        error_set(err, ERROR_EXISTS, "there is an export '%s' already",
                  json_string_or(doc, "name", ""));
    } else if (e == NULL) {
        e = link_export(x, doc);
        e->busy = true;
        *ret_is_new = true;
    }
    pthread_mutex_unlock(&x->lock);
    return e;
}

/* The document comes first: what a crash leaves running has an owner (I6). */
static bool
store_and_serve(struct exports *x, struct export *e, struct error **err)
{
    if (e->server.process != NULL)
        return true;
    if (!commit(x, id_of(e), e->doc, err))
        return false;
    if (export_server_start(&e->server, x->daemon, e->doc, err)) {
        note_success(x, e);
        return true;
    }
    (void)commit(x, id_of(e), NULL, NULL);
    return false;
}

bool
exports_add(struct exports *x, struct json_object *doc, struct json_object **ret,
            struct error **err)
{
    bool is_new, ok;
    struct export *e = enlist(x, doc, &is_new, err);

    if (e == NULL)
        return false;
    ok = store_and_serve(x, e, err);
    if (!ok)
        export_server_close(&e->server, x->daemon, e->doc);
    pthread_mutex_lock(&x->lock);
    release(x, e);
    if (ok)
        *ret = show(e);
    else
        unlink_export(x, e);
    pthread_mutex_unlock(&x->lock);
    return ok;
}

/* --- removing
 * --------------------------------------------------------------------------------- */

/* It is stored that it goes, so that a crash on the way goes on with it. */
static bool
take_apart(struct exports *x, struct export *e, struct error **err)
{
    struct json_object *doc = NULL;

    json_object_deep_copy(e->doc, &doc, NULL);
    json_set_bool(doc, "removing", true);
    if (!commit(x, id_of(e), doc, err)) {
        json_object_put(doc);
        return false;
    }
    pthread_mutex_lock(&x->lock);
    json_object_put(e->doc);
    e->doc = doc;
    e->removing = true;
    pthread_mutex_unlock(&x->lock);
    export_server_close(&e->server, x->daemon, e->doc);
    return point_overlay_drop(x->daemon, json_string_or(e->doc, "replication", ""),
                              id_of(e), err) &&
           export_server_discard(x->daemon, id_of(e), err) &&
           commit(x, id_of(e), NULL, err);
}

bool
exports_remove(struct exports *x, const char *key, struct error **err)
{
    struct export *e;
    struct error *failure = NULL;
    bool ok;

    pthread_mutex_lock(&x->lock);
    e = claim(x, key);
    pthread_mutex_unlock(&x->lock);
    if (e == NULL)
        return not_found(key, err);
    ok = take_apart(x, e, &failure);
    pthread_mutex_lock(&x->lock);
    release(x, e);
    if (ok) {
        unlink_export(x, e);
    } else {
        error_free(e->error);
        e->error = NULL;
        error_set(&e->error, error_code(failure), "%s", error_message(failure));
    }
    pthread_mutex_unlock(&x->lock);
    return ok || error_propagate(err, failure);
}

bool
exports_remove_all(struct exports *x, const char *replication, struct error **err)
{
    AUTOJSON *items = exports_list(x, replication);

    for (size_t i = 0; i < json_object_array_length(items); i++) {
        struct json_object *o = json_object_array_get_idx(items, i);
        struct error *e = NULL;

        if (!exports_remove(x, json_string_or(o, "id", ""), &e) &&
            !error_is(e, ERROR_NOT_FOUND))
            return error_propagate(err, e);
        error_free(e);
    }
    return true;
}

static bool
is_known(const char *overlay, void *opaque)
{
    struct exports *x = opaque;
    bool known;

    pthread_mutex_lock(&x->lock);
    known = find(x, overlay) != NULL;
    pthread_mutex_unlock(&x->lock);
    return known;
}

bool
exports_check_unused(struct exports *x, struct replication *r, struct error **err)
{
    unsigned n =
        x->daemon->testruns != NULL ? testruns_count(x->daemon->testruns, r->id) : 0;

    if (n > 0)
        return error_set(err, ERROR_INVALID_STATE,
                         "%u test failover%s of VM '%s' go%s on; end that first (virt-dr "
                         "test-cleanup %s)",
                         n, n == 1 ? "" : "s", r->vm_name, n == 1 ? "es" : "",
                         r->vm_name);
    return exports_check_none(x, r, err);
}

/* Then nobody can use one; and it may not even have a store, after a crash. */
static bool
has_no_point(struct replication *r)
{
    bool none;

    pthread_mutex_lock(&r->lock);
    none = r->phase == PHASE_INITIAL_SYNC && r->newest.name[0] == '\0';
    pthread_mutex_unlock(&r->lock);
    return none;
}

bool
exports_check_none(struct exports *x, struct replication *r, struct error **err)
{
    AUTOJSON *items = exports_list(x, r->id);
    AUTOFREE(char) *names = mem_strdup("");

    for (size_t i = 0; i < json_object_array_length(items); i++) {
        struct json_object *o = json_object_array_get_idx(items, i);
        char *longer = mem_printf("%s%s'%s'", names, i > 0 ? ", " : "",
                                  json_string_or(o, "name", ""));

        free(names);
        names = longer;
    }
    if (*names != '\0')
        return error_set(err, ERROR_INVALID_STATE,
                         "points of VM '%s' are exported: %s; end that first (virt-dr "
                         "unexport NAME, or --force)",
                         r->vm_name, names);
    return has_no_point(r) || point_overlay_check_unused(x->daemon, r, is_known, x, err);
}

/* --- life
 * ---------------------------------------------------------------------------------------
 */

bool
exports_load(struct daemon *d, struct exports **ret, struct error **err)
{
    AUTOPTR(exports) *x = NEW(struct exports);
    AUTOJSON *docs = NULL;

    x->daemon = d;
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->freed, NULL);
    if (!d->state->ops->list(d->state, "export", "", &docs, err))
        return false;
    for (size_t i = 0; i < json_object_array_length(docs); i++) {
        struct json_object *doc = json_object_array_get_idx(docs, i);

        link_export(x, doc)->removing = json_bool_or(doc, "removing", false);
    }
    *ret = TAKE(x);
    return true;
}

/* Claimed all the time: nobody looks at what is not served yet. */
static void
start_one(struct exports *x, const char *id)
{
    AUTOPTR(error) *e = NULL;
    struct export *export;
    bool removing;

    pthread_mutex_lock(&x->lock);
    export = claim(x, id);
    removing = export != NULL && export->removing;
    if (removing)
        release(x, export);
    pthread_mutex_unlock(&x->lock);
    if (removing && !exports_remove(x, id, &e))
        log_failure(NULL, "export-remove-failed", e);
    if (removing || export == NULL)
        return;
    if (export->server.process == NULL)
        serve(x, export);
    pthread_mutex_lock(&x->lock);
    release(x, export);
    pthread_mutex_unlock(&x->lock);
}

void
exports_start(struct exports *x)
{
    const struct timeval interval = { .tv_sec = LOOK_MS / 1000 };
    AUTOJSON *items = exports_list(x, NULL);

    for (size_t i = 0; i < json_object_array_length(items); i++)
        start_one(x, json_string_or(json_object_array_get_idx(items, i), "id", ""));
    x->watch = event_new(x->daemon->base, -1, EV_PERSIST, on_watch, x);
    event_add(x->watch, &interval);
}

void
exports_free(struct exports *x)
{
    if (x == NULL)
        return;
    if (x->watch != NULL)
        event_free(x->watch);
    while (x->all != NULL) {
        export_server_close(&x->all->server, x->daemon, x->all->doc);
        unlink_export(x, x->all);
    }
    pthread_cond_destroy(&x->freed);
    pthread_mutex_destroy(&x->lock);
    free(x);
}
