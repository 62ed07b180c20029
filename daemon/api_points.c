/*
 * The API of recovery points and of how long they stay. The target has them: asked
 * on the source, it is asked; but changes are made on the target alone, so that
 * who has taken over the source cannot take the points away.
 */
#include <event2/http.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/api_private.h"
#include "daemon/events.h"
#include "daemon/kept.h"
#include "daemon/peers.h"
#include "daemon/replica_private.h"
#include "daemon/retention.h"

#define MAX_LIMIT 10000 /* an answer must stay below JSON_MAX_BYTES */

/* The replication that the path names; of a peer only what it shares with us. */
static bool
find_visible(struct rest_request *request, struct replication **ret, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    bool is_peer = (request->caller.roles & (REST_ROLE_VIEWER | REST_ROLE_ADMIN)) == 0;

    if (!api_find(request, &r, err))
        return false;
    if (is_peer &&
        (strcmp(r->peer_id, request->caller.peer_id) != 0 || r->side == SIDE_SOURCE))
        return error_set(err, ERROR_REPLICATION_NOT_FOUND,
                         "this host has no replica '%s' of the caller",
                         request->params[0]);
    *ret = TAKE(r);
    return true;
}

/* Asks the target the same question; rest is what the path ends with. */
static bool
ask_target(struct rest_request *request, const struct replication *r, const char *rest,
           struct error **err)
{
    struct daemon *d = request->opaque;
    AUTOFREE(char) *path = mem_printf("/api/v1/peers/replications/%s/%s", r->id, rest);
    char separator = '?';

    json_object_object_foreach (request->query, key, value) {
        AUTOFREE(char) *before = path;
        AUTOFREE(char) *name = evhttp_uriencode(key, -1, 0);
        AUTOFREE(char) *text = evhttp_uriencode(json_object_get_string(value), -1, 0);

        path = mem_printf("%s%c%s=%s", before, separator, name, text);
        separator = '&';
    }
    return peers_call(d->peers, r->peer_id, "GET", path, NULL, &request->reply, err) ||
           error_prefix(err, "the target of VM '%s'", r->vm_name);
}

/* The same for a change: ERROR_INVALID_STATE on the source. */
static bool
find_target(struct rest_request *request, struct replication **ret, struct error **err)
{
    struct daemon *d = request->opaque;
    AUTOPTR(replication) *r = NULL;
    struct peer_name peer = { .name = "?" };

    if (!api_find(request, &r, err))
        return false;
    if (r->side == SIDE_SOURCE) {
        peers_find(d->peers, r->peer_id, &peer, NULL);
        return error_set(err, ERROR_INVALID_STATE,
                         "the recovery points of VM '%s' are on its target, host '%s'; "
                         "change them there",
                         r->vm_name, peer.name);
    }
    *ret = TAKE(r);
    return true;
}

static struct retention
retention_of(struct replication *r)
{
    struct retention retention;

    pthread_mutex_lock(&r->lock);
    retention = r->retention;
    pthread_mutex_unlock(&r->lock);
    return retention;
}

/* --- the list ------------------------------------------------------------------ */

struct question {
    bool plan;
    uint64_t limit; /* of those that the window keeps, or nothing: the newest so many */
    struct retention retention;
};

/* ?window=, ?maxSize= and ?rules= take the place of what is set. */
static bool
parse_other_retention(struct json_object *query, struct retention *ret,
                      struct error **err)
{
    const char *window = json_string_or(query, "window", NULL);
    const char *size = json_string_or(query, "maxSize", NULL);
    const char *rules = json_string_or(query, "rules", NULL);
    AUTOJSON *checked = json_object_new_object();
    int64_t window_ms = ret->window_ms;

    if (window != NULL && !units_parse_duration_ms(window, &window_ms, err))
        return error_prefix(err, "?window=");
    if (size != NULL && !units_parse_size(size, &ret->max_bytes, err))
        return error_prefix(err, "?maxSize=");
    json_set_int(checked, "window", window_ms);
    json_set_u64(checked, "maxBytes", ret->max_bytes);
    if (rules != NULL)
        json_set_string(checked, "rules", rules);
    return retention_parse(checked, ret, err);
}

static bool
parse_question(struct rest_request *request, struct question *q, struct error **err)
{
    const char *plan = json_string_or(request->query, "plan", "false");
    const char *limit = json_string_or(request->query, "limit", NULL);

    q->plan = strcmp(plan, "true") == 0 || strcmp(plan, "1") == 0;
    q->limit = MAX_LIMIT;
    if (limit != NULL && !units_parse_u64(limit, 0, MAX_LIMIT, &q->limit, err))
        return error_prefix(err, "?limit=");
    return parse_other_retention(request->query, &q->retention, err);
}

static struct json_object *
show_point(const struct question *q, const struct point *point,
           const struct retention_verdict *v)
{
    struct json_object *o = point_json(point);
    char buf[UNITS_TEXT_MAX];

    json_set_string(o, "keptBy", retention_reason_name(&q->retention, v, buf));
    json_set(o, "expires",
             v->expires_ms > 0 ? json_object_new_int64(v->expires_ms) : NULL);
    return o;
}

static bool
is_one_of_many(const struct retention_verdict *v)
{
    return v->reason == RETENTION_WINDOW || v->reason == RETENTION_DROP;
}

static struct json_object *
show_list(const struct question *q, const struct point *list, size_t n)
{
    AUTOFREE(struct retention_verdict) *verdicts = mem_alloc(n + 1, sizeof *verdicts);
    struct json_object *items = json_object_new_array();
    uint64_t many = 0;

    retention_judge(&q->retention, list, n, verdicts);
    for (size_t i = 0; i < n; i++)
        many += is_one_of_many(&verdicts[i]);
    for (size_t i = 0; i < n; i++)
        if (!is_one_of_many(&verdicts[i]) || many-- <= q->limit)
            json_object_array_add(items, show_point(q, &list[i], &verdicts[i]));
    return items;
}

bool
api_points_list(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    struct points *points;
    struct question q;
    struct point *list;
    size_t n;

    if (!find_visible(request, &r, err))
        return false;
    if (r->side == SIDE_SOURCE)
        return ask_target(request, r, "points", err);
    q.retention = retention_of(r);
    if (!parse_question(request, &q, err) ||
        !replica_points(request->opaque, r, &points, err))
        return false;
    list = points_list(points, &n);
    api_reply_items(request, show_list(&q, list, n));
    if (q.plan)
        json_set(request->reply, "plan", retention_plan(&q.retention, list, n));
    points_list_free(list, n);
    kept_list(r, json_array_or_null(request->reply, "items"));
    return true;
}

/* --- one point ------------------------------------------------------------------- */

typedef bool (*change_fn)(struct points *points, uint64_t sequence,
                          struct json_object *body, struct error **err);

/* Retention, which has looked before, must not let it go after we said that it stays. */
static bool
change_kept(struct replication *r, struct points *points, uint64_t sequence,
            change_fn change, struct json_object *body, struct error **err)
{
    struct replica *replica = replica_get(r);
    bool ok;

    pthread_mutex_lock(&replica->keep);
    ok = change(points, sequence, body, err);
    pthread_mutex_unlock(&replica->keep);
    return ok;
}

/* The answer is the point as it is then. */
static bool
change_point(struct rest_request *request, change_fn change, const char *done,
             struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    struct points *points;
    struct point before, after;
    struct log_ctx log;

    if (!find_target(request, &r, err) ||
        !replica_points(request->opaque, r, &points, err) ||
        !points_find(points, request->params[1], &before, err))
        return false;
    point_clear(&before);
    if (!change_kept(r, points, before.sequence, change, request->body, err) ||
        !points_find(points, before.name, &after, err))
        return false;
    log = replication_log(r);
    events_emit(request->opaque, EVENT_INFO, &log, "point-changed",
                "recovery point '%s' of VM '%s' was %s by %s", after.name, r->vm_name,
                done, request->caller.name);
    request->reply = point_json(&after);
    point_clear(&after);
    return true;
}

/* The tag first: a wrong one leaves all as it was. */
static bool
pin(struct points *points, uint64_t sequence, struct json_object *body,
    struct error **err)
{
    const char *tag = NULL;

    if (!api_check_members(body, "tag", err) ||
        (body != NULL && !json_opt_string(body, "tag", &tag, err)))
        return false;
    return (tag == NULL || points_tag(points, sequence, tag, err)) &&
           points_set_pinned(points, sequence, true, err);
}

static bool
unpin(struct points *points, uint64_t sequence, struct json_object *body UNUSED,
      struct error **err)
{
    return points_set_pinned(points, sequence, false, err);
}

static bool
set_tags(struct points *points, uint64_t sequence, struct json_object *body,
         struct error **err)
{
    const char *names[POINTS_MAX_TAGS];
    struct json_object *tags = json_array_or_null(body, "tags");
    size_t n = tags != NULL ? json_object_array_length(tags) : 0;

    if (!api_check_members(body, "tags", err))
        return false;
    if (tags == NULL || n > POINTS_MAX_TAGS)
        return error_set(err, ERROR_USAGE, "'tags' is a list of at most %d",
                         POINTS_MAX_TAGS);
    for (size_t i = 0; i < n; i++) {
        struct json_object *tag = json_object_array_get_idx(tags, i);

        if (!json_object_is_type(tag, json_type_string))
            return error_set(err, ERROR_USAGE, "'tags' is a list of names");
        names[i] = json_object_get_string(tag);
    }
    return points_set_tags(points, sequence, names, n, err);
}

static bool
add_tag(struct points *points, uint64_t sequence, struct json_object *body,
        struct error **err)
{
    const char *tag;

    if (body == NULL)
        return error_set(err, ERROR_USAGE, "the request needs {tag} as its body");
    return api_check_members(body, "tag", err) &&
           json_get_string(body, "tag", &tag, err) &&
           points_tag(points, sequence, tag, err);
}

bool
api_point_pin(struct rest_request *request, struct error **err)
{
    return change_point(request, pin, "pinned", err);
}

/* What no rule keeps goes when it is unpinned. *ret: that was meant. */
static bool
drop_kept(struct rest_request *request, bool *ret, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    struct json_object *kept;
    struct log_ctx log;

    *ret = false;
    if (!find_target(request, &r, err))
        return false;
    kept = kept_find(r, request->params[1]);
    if (kept == NULL)
        return true;
    *ret = true;
    request->reply = kept;
    if (!kept_remove(request->opaque, r, request->params[1], err))
        return false;
    log = replication_log(r);
    events_emit(request->opaque, EVENT_WARNING, &log, "point-changed",
                "'%s' of VM '%s', which no rule keeps, was removed by %s",
                request->params[1], r->vm_name, request->caller.name);
    return true;
}

bool
api_point_unpin(struct rest_request *request, struct error **err)
{
    bool done;

    if (!drop_kept(request, &done, err))
        return false;
    return done || change_point(request, unpin, "unpinned", err);
}

bool
api_point_tags(struct rest_request *request, struct error **err)
{
    return change_point(request, set_tags, "tagged", err);
}

bool
api_point_tag(struct rest_request *request, struct error **err)
{
    return change_point(request, add_tag, "tagged", err);
}

bool
api_point_untag(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    struct points *points;
    struct log_ctx log;

    if (!find_target(request, &r, err) ||
        !replica_points(request->opaque, r, &points, err) ||
        !points_untag(points, request->params[1], err))
        return false;
    log = replication_log(r);
    events_emit(
        request->opaque, EVENT_INFO, &log, "point-changed",
        "no recovery point of VM '%s' has the tag '%s' any more: taken away by %s",
        r->vm_name, request->params[1], request->caller.name);
    return true;
}

/* --- how long they stay ------------------------------------------------------------ */

bool
api_retention_show(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    struct retention retention;

    if (!find_visible(request, &r, err))
        return false;
    if (r->side == SIDE_SOURCE)
        return ask_target(request, r, "retention", err);
    retention = retention_of(r);
    request->reply = retention_json(&retention);
    return true;
}

/* In memory only what is stored. */
static bool
store_retention(struct daemon *d, struct replication *r, struct json_object *body,
                struct retention *ret, struct error **err)
{
    struct retention before;
    bool ok;

    pthread_mutex_lock(&r->lock);
    before = r->retention;
    ok = retention_parse(body, &r->retention, err);
    if (ok && !replication_store(d->replications, r, NULL, 0, err)) {
        r->retention = before;
        ok = false;
    }
    *ret = r->retention;
    pthread_mutex_unlock(&r->lock);
    return ok;
}

bool
api_retention_set(struct rest_request *request, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    struct json_object *body;
    struct retention retention;
    struct log_ctx log;
    AUTOFREE(char) *rules = NULL;
    char window[UNITS_TEXT_MAX];

    if (!api_body(request, &body, err) ||
        !api_check_members(body, "window maxBytes rules", err) ||
        !find_target(request, &r, err) ||
        !store_retention(request->opaque, r, body, &retention, err))
        return false;
    log = replication_log(r);
    rules = retention_format_rules(&retention);
    events_emit(request->opaque, EVENT_INFO, &log, "retention-changed",
                "recovery points of VM '%s' are kept for %s, by the rules '%s'; set by "
                "%s",
                r->vm_name, units_format_duration_ms(retention.window_ms, window), rules,
                request->caller.name);
    request->reply = retention_json(&retention);
    return true;
}
