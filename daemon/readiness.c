#include "daemon/readiness.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/events.h"
#include "daemon/guard_override.h"
#include "daemon/workers.h"

#define TICK_S   2
#define AGAIN_MS 5000 /* what could not be looked at is, after that */

struct entry {
    char id[ID_TEXT];
    int64_t checked_ms; /* monotonic; 0: never */
    int64_t time_ms;    /* wall clock of the same */
    struct json_object *own;
    struct json_object *heard; /* of the other host, what is not ok; NULL: nothing yet */
    enum readiness_level told; /* by event */
    struct json_object *override; /* that holds; NULL: none */
    struct entry *next;
};

struct readiness {
    struct daemon *daemon;
    struct event *timer;
    bool working, started; /* of the loop */
    _Atomic bool woken;
    pthread_mutex_t lock;
    struct entry *entries;
};

/* --- findings ------------------------------------------------------------------------
 */

void
readiness_find(struct json_object *findings, const char *check, const char *state,
               const char *text, const char *fix)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "check", check);
    json_set_string(o, "state", state);
    json_set_string(o, "text", text);
    json_set_string(o, "fix", fix);
    json_object_array_add(findings, o);
}

void
readiness_ok(struct json_object *findings, const char *check, const char *format, ...)
{
    AUTOFREE(char) *text = NULL;
    va_list args;

    va_start(args, format);
    text = mem_vprintf(format, args);
    va_end(args);
    readiness_find(findings, check, "ok", text, "");
}

static enum readiness_level
level_of(struct json_object *finding)
{
    const char *state = json_string_or(finding, "state", "");

    if (strcmp(state, "failed") == 0)
        return READINESS_FAILED;
    return strcmp(state, "warning") == 0 ? READINESS_WARNING : READINESS_READY;
}

static size_t
length(struct json_object *array)
{
    return array != NULL ? json_object_array_length(array) : 0;
}

static bool
is_ok(struct json_object *finding)
{
    return strcmp(json_string_or(finding, "state", ""), "ok") == 0;
}

static enum readiness_level
worst_of(struct json_object *findings, enum readiness_level so_far)
{
    for (size_t i = 0; i < length(findings); i++)
        so_far = MAX(so_far, level_of(json_object_array_get_idx(findings, i)));
    return so_far;
}

/* --- entries; under the lock -----------------------------------------------------------
 */

static struct entry *
find_entry(struct readiness *rd, const char *id)
{
    struct entry *e = rd->entries;

    while (e != NULL && strcmp(e->id, id) != 0)
        e = e->next;
    return e;
}

static struct entry *
get_entry(struct readiness *rd, const char *id)
{
    struct entry *e = find_entry(rd, id);

    if (e != NULL)
        return e;
    e = NEW(struct entry);
    snprintf(e->id, sizeof e->id, "%s", id);
    e->told = READINESS_UNKNOWN;
    e->next = rd->entries;
    rd->entries = e;
    return e;
}

static void
free_entry(struct entry *e)
{
    json_object_put(e->own);
    json_object_put(e->heard);
    json_object_put(e->override);
    free(e);
}

static enum readiness_level
entry_level(const struct entry *e)
{
    if (e->own == NULL)
        return READINESS_UNKNOWN;
    return worst_of(e->heard, worst_of(e->own, READINESS_READY));
}

/* --- one look --------------------------------------------------------------------------
 */

static bool
is_of_interest(struct replication *r)
{
    bool protecting;

    pthread_mutex_lock(&r->lock);
    protecting = states_is_protecting(r->phase);
    pthread_mutex_unlock(&r->lock);
    return protecting;
}

static struct json_object *
look(struct daemon *d, struct replication *r)
{
    struct json_object *findings = json_object_new_array();

    if (!is_of_interest(r))
        return findings;
    readiness_check_host(d, r, findings);
    if (r->side == SIDE_SOURCE)
        readiness_check_source(d, r, findings);
    else
        readiness_check_target(d, r, findings);
    return findings;
}

static void
tell_level(struct daemon *d, struct replication *r, enum readiness_level before,
           enum readiness_level now)
{
    struct log_ctx log = replication_log(r);
    enum readiness_level level;
    AUTOFREE(char) *text = readiness_text(d, r, &level);

    if (now == before || (before == READINESS_UNKNOWN && now == READINESS_READY))
        return;
    if (now == READINESS_READY)
        events_emit(d, EVENT_INFO, &log, "readiness-changed",
                    "VM '%s' could be failed over again", r->vm_name);
    else
        events_emit(d, EVENT_WARNING, &log, "readiness-changed",
                    "VM '%s' is %s for a failover: %s", r->vm_name,
                    now == READINESS_FAILED ? "not ready" : "ready with warnings",
                    text != NULL ? text : "");
}

/* What is told is what this host and the other one found together. */
static void
tell_if_changed(struct readiness *rd, struct replication *r)
{
    enum readiness_level before, now;
    struct entry *e;

    pthread_mutex_lock(&rd->lock);
    e = get_entry(rd, r->id);
    before = e->told;
    now = e->told = entry_level(e);
    pthread_mutex_unlock(&rd->lock);
    tell_level(rd->daemon, r, before, now);
}

static bool
has_undone(struct json_object *findings)
{
    for (size_t i = 0; i < length(findings); i++)
        if (strcmp(json_string_or(json_object_array_get_idx(findings, i), "state", ""),
                   "not-done") == 0)
            return true;
    return false;
}

static bool
is_due(struct readiness *rd, const char *id)
{
    int64_t every_ms = rd->daemon->config->readiness_ms;
    const struct entry *e;
    bool due;

    pthread_mutex_lock(&rd->lock);
    e = find_entry(rd, id);
    due = e == NULL || e->checked_ms == 0 ||
          units_monotonic_ms() - e->checked_ms >=
              (has_undone(e->own) ? MIN(AGAIN_MS, every_ms) : every_ms);
    pthread_mutex_unlock(&rd->lock);
    return due;
}

static void
check(struct readiness *rd, struct replication *r)
{
    struct json_object *findings = look(rd->daemon, r);
    struct entry *e;

    pthread_mutex_lock(&rd->lock);
    e = get_entry(rd, r->id);
    json_object_put(e->own);
    e->own = findings;
    e->checked_ms = units_monotonic_ms();
    e->time_ms = units_now_ms();
    pthread_mutex_unlock(&rd->lock);
    tell_if_changed(rd, r);
}

/* --- overrides of the guard
 * --------------------------------------------------------------
 */

static struct json_object *
read_override(struct daemon *d, struct replication *r)
{
    AUTOPTR(guard_override) *o = NULL;
    uint64_t epoch;

    pthread_mutex_lock(&r->lock);
    epoch = r->epoch;
    pthread_mutex_unlock(&r->lock);
    if (!guard_override_read(&d->guard, r->vm_uuid, &o, NULL) ||
        !guard_override_holds(o, epoch, units_now_ms()))
        return NULL;
    return guard_override_json(o);
}

static char *
override_text(struct json_object *o, const char *vm)
{
    char since[UNITS_TEXT_MAX], until[UNITS_TEXT_MAX];
    int64_t until_ms = json_int_or(o, "until", 0);

    return mem_printf("%s has %s VM '%s' to start on this host, since %s until %s: %s",
                      json_string_or(o, "by", "?"),
                      json_bool_or(o, "allow", false) ? "allowed" : "forbidden", vm,
                      units_format_time_ms(json_int_or(o, "since", 0), since),
                      until_ms > 0 ? units_format_time_ms(until_ms, until)
                                   : "it is ended (virt-dr guard override --end)",
                      json_string_or(o, "reason", ""));
}

static bool
same_override(struct json_object *a, struct json_object *b)
{
    return (a == NULL) == (b == NULL) &&
           (a == NULL || strcmp(json_text(a), json_text(b)) == 0);
}

static void
watch_override(struct readiness *rd, struct replication *r)
{
    struct json_object *now = read_override(rd->daemon, r);
    struct log_ctx log = replication_log(r);
    AUTOFREE(char) *text = now != NULL ? override_text(now, r->vm_name) : NULL;
    struct entry *e;
    bool changed;

    pthread_mutex_lock(&rd->lock);
    e = get_entry(rd, r->id);
    changed = !same_override(now, e->override);
    json_object_put(e->override);
    e->override = now;
    pthread_mutex_unlock(&rd->lock);
    if (changed && text != NULL)
        events_emit(rd->daemon, EVENT_WARNING, &log, "guard-override", "%s", text);
    else if (changed)
        events_emit(rd->daemon, EVENT_INFO, &log, "guard-override-ended",
                    "the guard decides again about VM '%s'", r->vm_name);
}

char *
readiness_override_text(struct daemon *d, const struct replication *r)
{
    struct readiness *rd = d->readiness;
    const struct entry *e;
    char *text = NULL;

    if (rd == NULL)
        return NULL;
    pthread_mutex_lock(&rd->lock);
    e = find_entry(rd, r->id);
    if (e != NULL && e->override != NULL)
        text = override_text(e->override, r->vm_name);
    pthread_mutex_unlock(&rd->lock);
    return text;
}

/* --- between the hosts
 * --------------------------------------------------------------------
 */

static struct json_object *
not_ok(struct json_object *findings)
{
    struct json_object *some = json_object_new_array();

    for (size_t i = 0; i < length(findings); i++) {
        struct json_object *copy = NULL;

        if (is_ok(json_object_array_get_idx(findings, i)))
            continue;
        json_object_deep_copy(json_object_array_get_idx(findings, i), &copy, NULL);
        json_object_array_add(some, copy);
    }
    return some;
}

struct json_object *
readiness_say(struct daemon *d, const struct replication *r)
{
    struct readiness *rd = d->readiness;
    struct json_object *said = NULL;
    const struct entry *e;

    if (rd == NULL)
        return NULL;
    pthread_mutex_lock(&rd->lock);
    e = find_entry(rd, r->id);
    if (e != NULL && e->own != NULL)
        said = not_ok(e->own);
    pthread_mutex_unlock(&rd->lock);
    return said;
}

void
readiness_hear(struct daemon *d, struct replication *r, struct json_object *said)
{
    struct json_object *findings = json_array_or_null(said, "readiness");
    struct readiness *rd = d->readiness;
    struct entry *e;

    if (rd == NULL || findings == NULL)
        return;
    pthread_mutex_lock(&rd->lock);
    e = get_entry(rd, r->id);
    json_object_put(e->heard);
    e->heard = not_ok(findings);
    pthread_mutex_unlock(&rd->lock);
    tell_if_changed(rd, r);
}

/* --- showing
 * ------------------------------------------------------------------------------
 */

static void
show_findings(struct json_object *to, struct json_object *findings, const char *host)
{
    for (size_t i = 0; i < length(findings); i++) {
        struct json_object *copy = NULL;

        json_object_deep_copy(json_object_array_get_idx(findings, i), &copy, NULL);
        json_set_string(copy, "host", host);
        json_object_array_add(to, copy);
    }
}

struct json_object *
readiness_view(struct daemon *d, const struct replication *r)
{
    static const char *const names[] = { "ready", "warning", "not-ready" };
    struct readiness *rd = d->readiness;
    struct json_object *o, *findings;
    enum readiness_level level;
    const struct entry *e;

    if (rd == NULL || !states_is_protecting(r->phase))
        return NULL;
    o = json_object_new_object();
    findings = json_object_new_array();
    pthread_mutex_lock(&rd->lock);
    e = find_entry(rd, r->id);
    level = e != NULL ? entry_level(e) : READINESS_UNKNOWN;
    if (e != NULL) {
        show_findings(findings, e->own, "here");
        show_findings(findings, e->heard, "peer");
        json_set_int(o, "time", e->time_ms);
    }
    pthread_mutex_unlock(&rd->lock);
    json_set_int(o, "level", level);
    json_set_string(o, "state", level == READINESS_UNKNOWN ? "unknown" : names[level]);
    json_set(o, "findings", findings);
    return o;
}

static void
add_texts(char **text, struct json_object *findings, enum readiness_level level)
{
    for (size_t i = 0; i < length(findings); i++) {
        struct json_object *o = json_object_array_get_idx(findings, i);
        char *longer;

        if (level_of(o) != level)
            continue;
        longer = mem_printf("%s%s%s", *text != NULL ? *text : "",
                            *text != NULL ? "; " : "", json_string_or(o, "text", ""));
        free(*text);
        *text = longer;
    }
}

char *
readiness_text(struct daemon *d, const struct replication *r,
               enum readiness_level *ret_level)
{
    struct readiness *rd = d->readiness;
    const struct entry *e;
    char *text = NULL;

    *ret_level = READINESS_UNKNOWN;
    if (rd == NULL)
        return NULL;
    pthread_mutex_lock(&rd->lock);
    e = find_entry(rd, r->id);
    if (e != NULL)
        *ret_level = entry_level(e);
    if (*ret_level > READINESS_READY) {
        add_texts(&text, e->own, *ret_level);
        add_texts(&text, e->heard, *ret_level);
    }
    pthread_mutex_unlock(&rd->lock);
    return text;
}

void
readiness_warn(struct op *op, const struct replication *r)
{
    enum readiness_level level;
    AUTOFREE(char) *text = readiness_text(op->daemon, r, &level);

    if (text != NULL)
        op_warn(op, "it was %s for a failover: %s",
                level == READINESS_FAILED ? "not ready" : "ready with warnings", text);
}

/* --- when
 * ----------------------------------------------------------------------------------
 */

/* Looked for without our lock: the registry takes those of all replications. */
static void
forget_removed(struct readiness *rd, struct replication *const *all, size_t n)
{
    struct entry **p = &rd->entries;

    pthread_mutex_lock(&rd->lock);
    while (*p != NULL) {
        struct entry *e = *p;
        size_t i = 0;

        while (i < n && strcmp(all[i]->id, e->id) != 0)
            i++;
        if (i < n) {
            p = &e->next;
            continue;
        }
        *p = e->next;
        free_entry(e);
    }
    pthread_mutex_unlock(&rd->lock);
}

void
readiness_pass(struct readiness *rd, bool all)
{
    AUTOFREE(struct replication *) *replications = NULL;
    size_t n = replications_all(rd->daemon->replications, &replications);

    forget_removed(rd, replications, n);
    for (size_t i = 0; i < n; i++) {
        watch_override(rd, replications[i]);
        if (all || is_due(rd, replications[i]->id))
            check(rd, replications[i]);
        replication_unref(replications[i]);
    }
}

static void
run(void *opaque)
{
    struct readiness *rd = opaque;

    readiness_pass(rd, atomic_exchange(&rd->woken, false));
}

static void
done(void *opaque)
{
    struct readiness *rd = opaque;

    rd->working = false;
}

static void
tick(evutil_socket_t fd UNUSED, short what UNUSED, void *opaque)
{
    struct readiness *rd = opaque;

    if (rd->working)
        return;
    rd->working = true;
    workers_submit(rd->daemon->looks, 0, run, done, rd);
}

void
readiness_wake(struct readiness *rd)
{
    if (rd != NULL)
        atomic_store(&rd->woken, true);
}

struct readiness *
readiness_new(struct daemon *d)
{
    struct readiness *rd = NEW(struct readiness);

    rd->daemon = d;
    pthread_mutex_init(&rd->lock, NULL);
    if (d->base == NULL)
        return rd;
    rd->timer = event_new(d->base, -1, EV_PERSIST, tick, rd);
    if (rd->timer == NULL)
        abort(); /* out of memory */
    return rd;
}

void
readiness_start(struct readiness *rd)
{
    const struct timeval period = { .tv_sec = TICK_S };

    event_add(rd->timer, &period);
    rd->started = true;
}

void
readiness_stop(struct readiness *rd)
{
    if (rd->started)
        event_del(rd->timer);
    rd->started = false;
}

void
readiness_free(struct readiness *rd)
{
    if (rd == NULL)
        return;
    if (rd->timer != NULL)
        event_free(rd->timer);
    while (rd->entries != NULL) {
        struct entry *e = rd->entries;

        rd->entries = e->next;
        free_entry(e);
    }
    pthread_mutex_destroy(&rd->lock);
    free(rd);
}
