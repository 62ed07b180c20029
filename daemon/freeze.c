#include "daemon/freeze.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/events.h"

#define DOCUMENT      "freeze"
#define THAW_WAIT_S   5    /* for the agent's answer */
#define RETRY_MS      1000 /* between tries to thaw */
#define RETRY_SLOW_MS 10000
#define QUICK_TRIES   60

struct freezes {
    struct daemon *daemon;
    pthread_mutex_t lock; /* what follows, and all freezes */
    pthread_cond_t changed;
    struct freeze *all; /* each has a thread */
    bool stopping;
};

struct freeze {
    struct freezes *freezes;
    struct freeze *next;
    char vm_uuid[ID_TEXT];
    char *vm_name;
    int64_t deadline_ms; /* monotonic */
    bool done;           /* freeze_end() was called, or there is nobody who would */
    bool in_doubt;       /* frozen, or perhaps: it has to be thawed */
    bool expired;        /* the deadline passed before */
    bool left;           /* the thread has ended: who ends the freeze frees it */
};

static void
freeze_free(struct freeze *z)
{
    free(z->vm_name);
    free(z);
}

/* --- the document --------------------------------------------------------------------
 */

static bool
remember(struct freeze *z, struct error **err)
{
    struct state *state = z->freezes->daemon->state;
    AUTOJSON *doc = json_object_new_object();
    struct state_write write = { .kind = DOCUMENT, .id = z->vm_uuid, .body = doc };

    json_set_string(doc, "vmId", z->vm_uuid);
    json_set_string(doc, "vmName", z->vm_name);
    json_set_int(doc, "time", units_now_ms());
    return state->ops->commit(state, &write, 1, err);
}

/* If it stays, the next start thaws a guest that is not frozen, which does no harm. */
static void
forget(struct freeze *z)
{
    struct state *state = z->freezes->daemon->state;
    struct state_write gone = { .kind = DOCUMENT, .id = z->vm_uuid };
    struct log_ctx log = { .vm = z->vm_name };
    struct error *e = NULL;

    if (!state->ops->commit(state, &gone, 1, &e))
        log_ignore(&log, "freeze-document-stays", &e);
}

/* --- the thread -----------------------------------------------------------------------
 */

/* Until somebody changes something or the time has come. Under the lock. */
static void
wait_until(struct freezes *f, int64_t until_ms)
{
    struct timespec until = { .tv_sec = until_ms / 1000,
                              .tv_nsec = until_ms % 1000 * 1000000 };

    pthread_cond_timedwait(&f->changed, &f->lock, &until);
}

/* For as long as the guest may be frozen. */
static void
wait_for_end(struct freeze *z)
{
    struct freezes *f = z->freezes;

    pthread_mutex_lock(&f->lock);
    while (!z->done && units_monotonic_ms() < z->deadline_ms)
        wait_until(f, z->deadline_ms);
    z->expired = !z->done;
    pthread_mutex_unlock(&f->lock);
}

/* False: the daemon stops. */
static bool
pause_between(struct freeze *z, unsigned tries)
{
    struct freezes *f = z->freezes;
    int64_t until_ms =
        units_monotonic_ms() + (tries < QUICK_TRIES ? RETRY_MS : RETRY_SLOW_MS);
    bool stopping;

    pthread_mutex_lock(&f->lock);
    while (!f->stopping && units_monotonic_ms() < until_ms)
        wait_until(f, until_ms);
    stopping = f->stopping;
    pthread_mutex_unlock(&f->lock);
    return !stopping;
}

static bool
thaw(struct freeze *z)
{
    struct daemon *d = z->freezes->daemon;
    struct log_ctx log = { .vm = z->vm_name };

    for (unsigned tries = 0;; tries++) {
        AUTOPTR(error) *e = NULL;

        if (d->hypervisor->ops->thaw(d->hypervisor, z->vm_uuid, THAW_WAIT_S, &e)) {
            if (tries > 0)
                events_emit(d, EVENT_INFO, &log, "guest-thawed",
                            "the file systems of VM '%s' are thawed again", z->vm_name);
            return true;
        }
        if (tries == 0)
            events_emit(d, EVENT_CRITICAL, &log, "guest-frozen",
                        "the file systems of VM '%s' may still be frozen: %s; it is "
                        "tried again until it succeeds",
                        z->vm_name, error_message(e));
        if (!pause_between(z, tries))
            return false;
    }
}

static void
leave(struct freeze *z)
{
    struct freezes *f = z->freezes;
    struct freeze **link = &f->all;
    bool is_mine;

    pthread_mutex_lock(&f->lock);
    while (*link != z)
        link = &(*link)->next;
    *link = z->next;
    z->left = true;
    is_mine = z->done;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    if (is_mine)
        freeze_free(z);
}

static void *
freeze_main(void *opaque)
{
    struct freeze *z = opaque;
    struct log_ctx log = { .vm = z->vm_name };

    wait_for_end(z);
    if (z->expired)
        events_emit(z->freezes->daemon, EVENT_WARNING, &log, "freeze-expired",
                    "VM '%s' was frozen for as long as it may be, and is thawed",
                    z->vm_name);
    if (!z->in_doubt || thaw(z))
        forget(z);
    leave(z);
    return NULL;
}

/* --- begin and end
 * ---------------------------------------------------------------------- */

/* Adds it and starts its thread, unless the VM has one. */
static bool
enter(struct freezes *f, struct freeze *z, struct error **err)
{
    pthread_t thread;
    bool ok = true;

    pthread_mutex_lock(&f->lock);
    for (struct freeze *i = f->all; i != NULL; i = i->next)
        if (strcmp(i->vm_uuid, z->vm_uuid) == 0)
            ok = error_set(err, ERROR_AGENT, "the guest is still being thawed");
    if (ok && pthread_create(&thread, NULL, freeze_main, z) != 0)
        ok = error_set(err, ERROR_INTERNAL, "start the thread that thaws the guest");
    if (ok) {
        pthread_detach(thread);
        z->next = f->all;
        f->all = z;
    }
    pthread_mutex_unlock(&f->lock);
    return ok;
}

static struct freeze *
freeze_new(struct freezes *f, const char *vm_uuid, const char *vm_name)
{
    struct freeze *z = NEW(struct freeze);

    z->freezes = f;
    snprintf(z->vm_uuid, sizeof z->vm_uuid, "%s", vm_uuid);
    z->vm_name = mem_strdup(vm_name);
    return z;
}

/* z is not to be used any more: its thread thaws it and goes. True: in time. */
static bool
end(struct freeze *z, bool in_doubt)
{
    struct freezes *f = z->freezes;
    bool expired, is_mine;

    pthread_mutex_lock(&f->lock);
    expired = z->expired;
    is_mine = z->left;
    z->in_doubt = in_doubt;
    z->done = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    if (is_mine)
        freeze_free(z);
    return !expired;
}

bool
freeze_begin(struct freezes *f, const struct replication *r, int64_t limit_ms,
             struct freeze **ret, struct error **err)
{
    struct hypervisor *hv = f->daemon->hypervisor;
    struct freeze *z = freeze_new(f, r->vm_uuid, r->vm_name);
    unsigned wait_s = (unsigned)MAX(limit_ms / 2000, 1);
    struct error *e = NULL;

    z->deadline_ms = units_monotonic_ms() + limit_ms;
    z->in_doubt = true;
    if (!enter(f, z, err)) {
        freeze_free(z);
        return false;
    }
    if (!remember(z, err)) {
        end(z, false);
        return false;
    }
    if (hv->ops->freeze(hv, r->vm_uuid, wait_s, &e)) {
        *ret = z;
        return true;
    }
    end(z, !error_is(e, ERROR_AGENT));
    return error_propagate(err, e);
}

bool
freeze_end(struct freeze *z)
{
    return end(z, true);
}

/* --- all -------------------------------------------------------------------------------
 */

struct freezes *
freezes_new(struct daemon *d)
{
    struct freezes *f = NEW(struct freezes);
    pthread_condattr_t attr;

    f->daemon = d;
    pthread_mutex_init(&f->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&f->changed, &attr);
    pthread_condattr_destroy(&attr);
    return f;
}

static void
thaw_left(struct freezes *f, struct json_object *doc)
{
    const char *uuid = json_string_or(doc, "vmId", "");
    struct freeze *z = freeze_new(f, uuid, json_string_or(doc, "vmName", uuid));
    struct log_ctx log = { .vm = z->vm_name };
    struct error *e = NULL;

    z->in_doubt = true;
    z->done = true;
    if (enter(f, z, &e))
        return;
    log_ignore(&log, "thaw-failed", &e);
    freeze_free(z);
}

void
freezes_start(struct freezes *f)
{
    struct state *state = f->daemon->state;
    AUTOJSON *docs = NULL;
    struct error *e = NULL;

    if (!state->ops->list(state, DOCUMENT, "", &docs, &e)) {
        log_ignore(NULL, "thaw-failed", &e);
        return;
    }
    for (size_t i = 0; i < json_object_array_length(docs); i++)
        thaw_left(f, json_object_array_get_idx(docs, i));
}

void
freezes_free(struct freezes *f)
{
    if (f == NULL)
        return;
    pthread_mutex_lock(&f->lock);
    f->stopping = true;
    pthread_cond_broadcast(&f->changed);
    while (f->all != NULL)
        pthread_cond_wait(&f->changed, &f->lock);
    pthread_mutex_unlock(&f->lock);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
    free(f);
}
