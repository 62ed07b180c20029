#include "daemon/points.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "common/id.h"
#include "common/json.h"
#include "common/units.h"

#define KIND       "point"
#define MAX_WRITES 4096 /* of one commit, which holds the state's lock */

struct points {
    struct state *state;
    char replication[ID_TEXT];
    pthread_mutex_t lock;
    struct point *all; /* by sequence */
    size_t n, room;
};

/* --- one point -------------------------------------------------------------- */

void
point_clear(struct point *point)
{
    for (size_t i = 0; i < point->n_tags; i++)
        free(point->tags[i]);
    free(TAKE(point->tags));
    free(TAKE(point->damage));
    point->n_tags = 0;
}

static void
copy_tags(struct point *point, char *const *tags, size_t n)
{
    point->n_tags = n;
    point->tags = n > 0 ? mem_alloc(n, sizeof *point->tags) : NULL;
    for (size_t i = 0; i < n; i++)
        point->tags[i] = mem_strdup(tags[i]);
}

static struct point
copy_point(const struct point *from)
{
    struct point copy = *from;

    copy_tags(&copy, from->tags, from->n_tags);
    copy.damage = mem_strdup(from->damage);
    return copy;
}

void
point_copy(struct point *ret, const struct point *from)
{
    *ret = copy_point(from);
}

static bool
has_tag(const struct point *point, const char *tag)
{
    for (size_t i = 0; i < point->n_tags; i++)
        if (strcmp(point->tags[i], tag) == 0)
            return true;
    return false;
}

static void
drop_tag(struct point *point, const char *tag)
{
    size_t kept = 0;

    for (size_t i = 0; i < point->n_tags; i++) {
        if (strcmp(point->tags[i], tag) == 0)
            free(point->tags[i]);
        else
            point->tags[kept++] = point->tags[i];
    }
    point->n_tags = kept;
}

static void
set_members(const struct point *point, struct json_object *o)
{
    struct json_object *tags = json_object_new_array_ext((int)point->n_tags);

    for (size_t i = 0; i < point->n_tags; i++)
        json_append_string(tags, point->tags[i]);
    json_set_u64(o, "sequenceNumber", point->sequence);
    json_set_int(o, "timestamp", point->time_ms);
    json_set_int(o, "receivedTime", point->received_ms);
    json_set_u64(o, "transferBytes", point->transfer_bytes);
    json_set_string(o, "consistency", point->application ? "application" : "crash");
    json_set_bool(o, "isPinned", point->pinned);
    json_set(o, "tags", tags);
    json_set_string(o, "state", point->damaged ? "damaged" : "ok");
    if (point->damaged)
        json_set_string(o, "damage", point->damage != NULL ? point->damage : "");
}

struct json_object *
point_json(const struct point *point)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "id", point->name);
    set_members(point, o);
    return o;
}

/* --- documents -------------------------------------------------------------- */

static char *
key_of(const struct points *p, uint64_t sequence)
{
    return mem_printf("%s.%012" PRIu64, p->replication, sequence);
}

static struct json_object *
to_doc(const struct points *p, const struct point *point, const char *key)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "key", key);
    json_set_string(o, "replication", p->replication);
    json_set_string(o, "name", point->name);
    set_members(point, o);
    return o;
}

static bool
take_tags(struct json_object *array, struct point *point, struct error **err)
{
    size_t n = array != NULL ? json_object_array_length(array) : 0;

    if (n > POINTS_MAX_TAGS)
        return error_set(err, ERROR_STATE, "has %zu tags", n);
    point->tags = n > 0 ? mem_alloc(n, sizeof *point->tags) : NULL;
    for (size_t i = 0; i < n; i++) {
        struct json_object *tag = json_object_array_get_idx(array, i);

        if (!json_object_is_type(tag, json_type_string))
            return error_set(err, ERROR_STATE, "has a tag that is no string");
        point->tags[point->n_tags++] = mem_strdup(json_object_get_string(tag));
    }
    return true;
}

static bool
take_members(struct json_object *o, struct point *point, struct error **err)
{
    const char *name;

    if (!json_get_string(o, "name", &name, err) ||
        !json_get_u64(o, "sequenceNumber", INT64_MAX, &point->sequence, err) ||
        !json_get_int(o, "timestamp", 0, INT64_MAX, &point->time_ms, err) ||
        !json_get_u64(o, "transferBytes", INT64_MAX, &point->transfer_bytes, err))
        return false;
    if (name[0] == '\0' || strlen(name) > CAPTURE_NAME_MAX)
        return error_set(err, ERROR_STATE, "the name '%.64s' is not valid", name);
    snprintf(point->name, sizeof point->name, "%s", name);
    point->received_ms = json_int_or(o, "receivedTime", point->time_ms);
    point->application = strcmp(json_string_or(o, "consistency", ""), "application") == 0;
    point->pinned = json_bool_or(o, "isPinned", false);
    point->damaged = strcmp(json_string_or(o, "state", "ok"), "damaged") == 0;
    if (point->damaged)
        point->damage = mem_strdup(json_string_or(o, "damage", ""));
    return take_tags(json_array_or_null(o, "tags"), point, err);
}

/* What is wrong with the state is not the caller's mistake: always ERROR_STATE. */
static bool
from_doc(const struct points *p, struct json_object *o, struct point *ret,
         struct error **err)
{
    const char *stored = json_string_or(o, "key", "(without a key)");
    AUTOFREE(char) *key = NULL;
    AUTOPTR(error) *e = NULL;

    *ret = (struct point){ 0 };
    if (take_members(o, ret, &e)) {
        key = key_of(p, ret->sequence);
        if (strcmp(key, stored) == 0)
            return true;
        error_set(&e, ERROR_STATE, "has sequence number %" PRIu64, ret->sequence);
    }
    point_clear(ret);
    return error_set(err, ERROR_STATE, "stored recovery point '%s': %s", stored,
                     error_message(e));
}

/* --- the set ---------------------------------------------------------------- */

/* The index of the first whose sequence is not below. */
static size_t
lower_bound(const struct points *p, uint64_t sequence)
{
    size_t from = 0, to = p->n;

    while (from < to) {
        size_t middle = from + (to - from) / 2;

        if (p->all[middle].sequence < sequence)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

static struct point *
find_sequence(const struct points *p, uint64_t sequence)
{
    size_t i = lower_bound(p, sequence);

    return i < p->n && p->all[i].sequence == sequence ? &p->all[i] : NULL;
}

/* Not before the one in front of it. */
static int64_t
time_in_order(const struct points *p, const struct point *point)
{
    size_t i = lower_bound(p, point->sequence);

    return i > 0 ? MAX(point->time_ms, p->all[i - 1].time_ms) : point->time_ms;
}

/* Takes over what the point owns. */
static void
insert(struct points *p, const struct point *point)
{
    size_t i = lower_bound(p, point->sequence);
    int64_t time_ms = time_in_order(p, point);

    if (i < p->n && p->all[i].sequence == point->sequence) {
        point_clear(&p->all[i]);
        p->all[i] = *point;
        p->all[i].time_ms = time_ms;
        return;
    }
    if (p->n == p->room) {
        p->room = MAX(2 * p->room, (size_t)64);
        p->all = mem_realloc(p->all, p->room, sizeof *p->all);
    }
    memmove(&p->all[i + 1], &p->all[i], (p->n - i) * sizeof *p->all);
    p->all[i] = *point;
    p->all[i].time_ms = time_ms;
    p->n++;
}

static bool
load(struct points *p, struct error **err)
{
    AUTOFREE(char) *prefix = mem_printf("%s.", p->replication);
    AUTOJSON *docs = NULL;

    if (!p->state->ops->list(p->state, KIND, prefix, &docs, err))
        return false;
    for (size_t i = 0; i < json_object_array_length(docs); i++) {
        struct point point;

        if (!from_doc(p, json_object_array_get_idx(docs, i), &point, err))
            return false;
        insert(p, &point);
    }
    return true;
}

bool
points_open(struct state *state, const char *replication_id, struct points **ret,
            struct error **err)
{
    AUTOPTR(points) *p = NEW(struct points);

    p->state = state;
    snprintf(p->replication, sizeof p->replication, "%s", replication_id);
    pthread_mutex_init(&p->lock, NULL);
    if (!load(p, err))
        return false;
    *ret = TAKE(p);
    return true;
}

void
points_free(struct points *p)
{
    if (p == NULL)
        return;
    points_list_free(p->all, p->n);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

struct point *
points_list(struct points *p, size_t *ret_n)
{
    struct point *list;

    pthread_mutex_lock(&p->lock);
    list = p->n > 0 ? mem_realloc(NULL, p->n, sizeof *list) : NULL;
    for (size_t i = 0; i < p->n; i++)
        list[i] = copy_point(&p->all[i]);
    *ret_n = p->n;
    pthread_mutex_unlock(&p->lock);
    return list;
}

void
points_list_free(struct point *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        point_clear(&list[i]);
    free(list);
}

struct json_object *
points_document(struct points *p, const struct point *point, char **ret_key)
{
    struct point ordered = *point;

    pthread_mutex_lock(&p->lock);
    ordered.time_ms = time_in_order(p, point);
    pthread_mutex_unlock(&p->lock);
    *ret_key = key_of(p, point->sequence);
    return to_doc(p, &ordered, *ret_key);
}

void
points_added(struct points *p, const struct point *point)
{
    struct point copy = copy_point(point);

    pthread_mutex_lock(&p->lock);
    insert(p, &copy);
    pthread_mutex_unlock(&p->lock);
}

/* A name wins over a number, and both over a tag. */
static struct point *
find(const struct points *p, const char *key)
{
    uint64_t sequence;
    struct point *found = NULL;

    for (size_t i = 0; i < p->n && found == NULL; i++)
        if (strcmp(p->all[i].name, key) == 0)
            found = &p->all[i];
    if (found == NULL && units_parse_u64(key, 0, UINT64_MAX, &sequence, NULL))
        found = find_sequence(p, sequence);
    for (size_t i = 0; i < p->n && found == NULL; i++)
        if (has_tag(&p->all[i], key))
            found = &p->all[i];
    return found;
}

bool
points_find(struct points *p, const char *key, struct point *ret, struct error **err)
{
    const struct point *found;

    pthread_mutex_lock(&p->lock);
    found = find(p, key);
    if (found != NULL)
        *ret = copy_point(found);
    pthread_mutex_unlock(&p->lock);
    return found != NULL ||
           error_set(err, ERROR_POINT_NOT_FOUND,
                     "no recovery point has the id, number or tag '%.80s'", key);
}

bool
points_next(struct points *p, uint64_t above, uint64_t *ret)
{
    bool found;
    size_t i;

    pthread_mutex_lock(&p->lock);
    i = lower_bound(p, above + 1);
    found = i < p->n;
    if (found)
        *ret = p->all[i].sequence;
    pthread_mutex_unlock(&p->lock);
    return found;
}

bool
points_get(struct points *p, uint64_t sequence, struct point *ret)
{
    const struct point *found;

    pthread_mutex_lock(&p->lock);
    found = find_sequence(p, sequence);
    if (found != NULL)
        *ret = copy_point(found);
    pthread_mutex_unlock(&p->lock);
    return found != NULL;
}

/* --- removing --------------------------------------------------------------- */

/* One commit. */
static bool
forget(struct points *p, const uint64_t *sequences, size_t n, struct error **err)
{
    struct state_write *writes = mem_alloc(n, sizeof *writes);
    bool ok;

    for (size_t i = 0; i < n; i++)
        writes[i] = (struct state_write){ .kind = KIND, .id = key_of(p, sequences[i]) };
    ok = p->state->ops->commit(p->state, writes, n, err);
    for (size_t i = 0; i < n; i++)
        free((char *)(uintptr_t)writes[i].id);
    free(writes);
    return ok || error_prefix(err, "forget recovery points");
}

/* Marks and sweeps: removing many from a long array stays linear. */
static void
take_out(struct points *p, const uint64_t *sequences, size_t n)
{
    AUTOFREE(bool) *gone = mem_alloc(p->n + 1, sizeof *gone);
    size_t kept = 0;

    for (size_t i = 0; i < n; i++) {
        const struct point *point = find_sequence(p, sequences[i]);

        if (point != NULL)
            gone[point - p->all] = true;
    }
    for (size_t i = 0; i < p->n; i++) {
        if (gone[i])
            point_clear(&p->all[i]);
        else
            p->all[kept++] = p->all[i];
    }
    p->n = kept;
}

bool
points_remove(struct points *p, const uint64_t *sequences, size_t n, struct error **err)
{
    bool ok = true;

    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < n && ok; i += MAX_WRITES) {
        size_t some = MIN(n - i, (size_t)MAX_WRITES);

        ok = forget(p, sequences + i, some, err);
        if (ok)
            take_out(p, sequences + i, some);
    }
    pthread_mutex_unlock(&p->lock);
    return ok;
}

bool
points_remove_all(struct points *p, struct error **err)
{
    size_t n = 0;
    struct point *list = points_list(p, &n);
    AUTOFREE(uint64_t) *sequences = mem_alloc(n + 1, sizeof *sequences);

    for (size_t i = 0; i < n; i++)
        sequences[i] = list[i].sequence;
    points_list_free(list, n);
    return points_remove(p, sequences, n, err);
}

/* --- changing --------------------------------------------------------------- */

/*
 * Stores the changed copies in one commit, then they replace the points; what
 * they own is taken over in any case. Under the lock.
 */
static bool
replace(struct points *p, struct point *changed, size_t n, struct error **err)
{
    struct state_write *writes = mem_alloc(n + 1, sizeof *writes);
    bool ok;

    for (size_t i = 0; i < n; i++) {
        char *key = key_of(p, changed[i].sequence);

        writes[i] = (struct state_write){ .kind = KIND,
                                          .id = key,
                                          .body = to_doc(p, &changed[i], key) };
    }
    ok = n == 0 || p->state->ops->commit(p->state, writes, n, err);
    for (size_t i = 0; i < n; i++) {
        free((char *)(uintptr_t)writes[i].id);
        json_object_put(writes[i].body);
        if (ok)
            insert(p, &changed[i]);
        else
            point_clear(&changed[i]);
    }
    free(writes);
    return ok || error_prefix(err, "store recovery points");
}

static bool
not_found(uint64_t sequence, struct error **err)
{
    return error_set(err, ERROR_POINT_NOT_FOUND,
                     "there is no recovery point %" PRIu64 " any more", sequence);
}

bool
points_set_pinned(struct points *p, uint64_t sequence, bool pinned, struct error **err)
{
    const struct point *point;
    struct point changed;
    bool ok;

    pthread_mutex_lock(&p->lock);
    point = find_sequence(p, sequence);
    ok = point != NULL || not_found(sequence, err);
    if (ok && point->pinned != pinned) {
        changed = copy_point(point);
        changed.pinned = pinned;
        ok = replace(p, &changed, 1, err);
    }
    pthread_mutex_unlock(&p->lock);
    return ok;
}

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

static bool
check_tag(const struct points *p, const char *tag, struct error **err)
{
    size_t n = strlen(tag);

    if (n > POINTS_TAG_MAX || strspn(tag, LETTERS) == 0 ||
        strspn(tag, LETTERS "0123456789._-") != n)
        return error_set(err, ERROR_USAGE,
                         "'%.80s' is no tag: it has 1 to %d letters, digits and . _ -, "
                         "and begins with a letter",
                         tag, POINTS_TAG_MAX);
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->all[i].name, tag) == 0)
            return error_set(err, ERROR_USAGE, "'%s' is the id of a recovery point", tag);
    return true;
}

static bool
check_tags(const struct points *p, const char *const *tags, size_t n, struct error **err)
{
    if (n > POINTS_MAX_TAGS)
        return error_set(err, ERROR_USAGE, "a recovery point has at most %d tags",
                         POINTS_MAX_TAGS);
    for (size_t i = 0; i < n; i++) {
        if (!check_tag(p, tags[i], err))
            return false;
        for (size_t k = 0; k < i; k++)
            if (strcmp(tags[k], tags[i]) == 0)
                return error_set(err, ERROR_USAGE, "the tag '%s' is there twice",
                                 tags[i]);
    }
    return true;
}

/* Those that lose a tag to the point; changed has room for one for each tag. */
static size_t
lose_tags(const struct points *p, const struct point *to, const char *const *tags,
          size_t n, struct point *changed)
{
    size_t n_changed = 0;

    for (size_t i = 0; i < p->n && n_changed < n; i++) {
        bool loses = false;

        for (size_t k = 0; k < n && &p->all[i] != to; k++)
            loses = loses || has_tag(&p->all[i], tags[k]);
        if (!loses)
            continue;
        changed[n_changed] = copy_point(&p->all[i]);
        for (size_t k = 0; k < n; k++)
            drop_tag(&changed[n_changed], tags[k]);
        n_changed++;
    }
    return n_changed;
}

/* Under the lock. */
static bool
set_tags(struct points *p, uint64_t sequence, const char *const *tags, size_t n,
         struct error **err)
{
    struct point changed[POINTS_MAX_TAGS + 1];
    const struct point *point = find_sequence(p, sequence);
    size_t n_changed;

    if (point == NULL)
        return not_found(sequence, err);
    if (!check_tags(p, tags, n, err))
        return false;
    n_changed = lose_tags(p, point, tags, n, changed);
    changed[n_changed] = *point;
    changed[n_changed].damage = mem_strdup(point->damage);
    copy_tags(&changed[n_changed], (char *const *)(uintptr_t)tags, n);
    return replace(p, changed, n_changed + 1, err);
}

bool
points_set_tags(struct points *p, uint64_t sequence, const char *const *tags, size_t n,
                struct error **err)
{
    bool ok;

    pthread_mutex_lock(&p->lock);
    ok = set_tags(p, sequence, tags, n, err);
    pthread_mutex_unlock(&p->lock);
    return ok;
}

bool
points_tag(struct points *p, uint64_t sequence, const char *tag, struct error **err)
{
    const char *tags[POINTS_MAX_TAGS + 1];
    const struct point *point;
    size_t n = 0;
    bool ok;

    pthread_mutex_lock(&p->lock);
    point = find_sequence(p, sequence);
    for (; point != NULL && n < point->n_tags; n++)
        tags[n] = point->tags[n];
    if (point != NULL && has_tag(point, tag)) {
        ok = true;
    } else {
        tags[n++] = tag;
        ok = set_tags(p, sequence, tags, n, err);
    }
    pthread_mutex_unlock(&p->lock);
    return ok;
}

bool
points_untag(struct points *p, const char *tag, struct error **err)
{
    struct point changed;
    size_t i = 0;
    bool ok;

    pthread_mutex_lock(&p->lock);
    while (i < p->n && !has_tag(&p->all[i], tag))
        i++;
    ok = i < p->n || error_set(err, ERROR_POINT_NOT_FOUND,
                               "no recovery point has the tag '%.80s'", tag);
    if (ok) {
        changed = copy_point(&p->all[i]);
        drop_tag(&changed, tag);
        ok = replace(p, &changed, 1, err);
    }
    pthread_mutex_unlock(&p->lock);
    return ok;
}

/* --- damage ----------------------------------------------------------------- */

/* At most so many, from *at on, whose state is another one; *at moves behind them. */
static size_t
change_damage(const struct points *p, uint64_t last, const char *text, size_t *at,
              struct point *changed)
{
    size_t n = 0;

    for (; *at < p->n && p->all[*at].sequence <= last && n < MAX_WRITES; (*at)++) {
        const struct point *point = &p->all[*at];

        if (point->damaged == (text != NULL) &&
            (text == NULL || strcmp(point->damage, text) == 0))
            continue;
        changed[n] = copy_point(point);
        changed[n].damaged = text != NULL;
        mem_setstr(&changed[n].damage, text);
        n++;
    }
    return n;
}

bool
points_set_damaged(struct points *p, uint64_t first, uint64_t last, const char *text,
                   struct error **err)
{
    AUTOFREE(struct point) *changed = mem_realloc(NULL, MAX_WRITES, sizeof *changed);
    bool ok = true;
    size_t at, n;

    pthread_mutex_lock(&p->lock);
    at = lower_bound(p, first);
    do {
        n = change_damage(p, last, text, &at, changed);
        ok = replace(p, changed, n, err);
    } while (ok && n == MAX_WRITES);
    pthread_mutex_unlock(&p->lock);
    return ok;
}
