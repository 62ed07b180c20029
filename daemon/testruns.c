#include "daemon/testruns.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/testruns_private.h"

#define KIND          "test"
#define SUBNET_PREFIX 24

static const char *
text_of(const struct testrun *r, const char *key)
{
    return json_string_or(r->doc, key, "");
}

static bool
has_ended(const struct testrun *r)
{
    return strcmp(text_of(r, "state"), "ended") == 0;
}

static const char *
domain_text(const struct testrun *r, const char *key)
{
    return json_string_or(json_object_or_null(r->doc, "domain"), key, "");
}

static struct json_object *
copy_of(struct json_object *o)
{
    struct json_object *copy = NULL;

    json_object_deep_copy(o, &copy, NULL);
    return copy;
}

const char *
testruns_result(struct json_object *doc)
{
    return json_string_or(json_object_or_null(doc, "verdict"), "result",
                          json_string_or(doc, "result", ""));
}

char *
testruns_screenshot_path(struct daemon *d, const char *id)
{
    return mem_printf("%s/tests/%s.image", d->config->state_folder, id);
}

/* --- the list, under the lock
 * ------------------------------------------------------------
 */

static struct testrun *
find(struct testruns *t, const char *id)
{
    struct testrun *r = t->all;

    while (r != NULL && strcmp(text_of(r, "id"), id) != 0)
        r = r->next;
    return r;
}

static struct testrun *
find_domain(struct testruns *t, const char *name)
{
    struct testrun *r = t->all;

    while (r != NULL && strcmp(domain_text(r, "name"), name) != 0)
        r = r->next;
    return r;
}

/* By when it began, which the documents' ids do not tell. */
static struct testrun *
link_run(struct testruns *t, struct json_object *doc)
{
    int64_t started_ms = json_int_or(doc, "startedTime", 0);
    struct testrun **p = &t->all;
    struct testrun *r = NEW(struct testrun);

    while (*p != NULL && json_int_or((*p)->doc, "startedTime", 0) > started_ms)
        p = &(*p)->next;
    r->doc = json_object_get(doc);
    r->next = *p;
    *p = r;
    return r;
}

static void
unlink_run(struct testruns *t, struct testrun *r)
{
    struct testrun **p = &t->all;

    while (*p != r)
        p = &(*p)->next;
    *p = r->next;
    json_object_put(r->doc);
    free(r);
}

static bool
commit(struct testruns *t, const char *id, struct json_object *doc, struct error **err)
{
    struct state *state = t->daemon->state;
    struct state_write write = { .kind = KIND, .id = id, .body = doc };

    return state->ops->commit(state, &write, 1, err);
}

static bool
not_found(const char *key, struct error **err)
{
    return error_set(err, ERROR_NOT_FOUND, "there is no test '%.64s'", key);
}

static bool
is_of(const struct testrun *r, const char *replication)
{
    return replication == NULL || strcmp(text_of(r, "replication"), replication) == 0;
}

/* --- admission
 * -------------------------------------------------------------------------- */

/* Under the lock. */
static unsigned
count(struct testruns *t, const char *replication)
{
    unsigned n = 0;

    for (struct testrun *r = t->all; r != NULL; r = r->next)
        n += !has_ended(r) && is_of(r, replication);
    return n;
}

static bool
check_room(struct testruns *t, struct error **err)
{
    unsigned n = count(t, NULL), limit = t->daemon->config->test_number;

    return n < limit ||
           error_set(err, ERROR_INVALID_STATE,
                     "%u tests go on, and [test] number allows %u: one too many; end one "
                     "(virt-dr test-cleanup) or raise it",
                     n, limit);
}

bool
testruns_check_room(struct testruns *t, struct error **err)
{
    bool ok;

    pthread_mutex_lock(&t->lock);
    ok = check_room(t, err);
    pthread_mutex_unlock(&t->lock);
    return ok;
}

static bool
check_name(struct testruns *t, struct json_object *doc, struct error **err)
{
    const char *name = json_string_or(json_object_or_null(doc, "domain"), "name", "");

    for (struct testrun *r = t->all; r != NULL; r = r->next)
        if (!has_ended(r) && strcmp(domain_text(r, "name"), name) == 0)
            return error_set(err, ERROR_EXISTS, "another test is called '%s'", name);
    return true;
}

bool
testruns_add(struct testruns *t, struct json_object *doc, struct error **err)
{
    const char *id = json_string_or(doc, "id", "");
    AUTOJSON *copy = copy_of(doc);
    bool ok = true;

    pthread_mutex_lock(&t->lock);
    if (find(t, id) == NULL) {
        ok = check_room(t, err) && check_name(t, doc, err) && commit(t, id, copy, err);
        if (ok)
            link_run(t, copy);
    }
    pthread_mutex_unlock(&t->lock);
    return ok;
}

/* Replaces the document of r by what change makes of it. Under the lock. */
static bool
change_run(struct testruns *t, struct testrun *r, testruns_change_fn change, void *opaque,
           struct error **err)
{
    struct json_object *doc = copy_of(r->doc);

    change(doc, opaque);
    if (!commit(t, text_of(r, "id"), doc, err)) {
        json_object_put(doc);
        return false;
    }
    json_object_put(r->doc);
    r->doc = doc;
    return true;
}

bool
testruns_change(struct testruns *t, const char *id, testruns_change_fn change,
                void *opaque, struct error **err)
{
    struct testrun *r;
    bool ok;

    pthread_mutex_lock(&t->lock);
    r = find(t, id);
    ok = r != NULL ? change_run(t, r, change, opaque, err) : not_found(id, err);
    pthread_mutex_unlock(&t->lock);
    return ok;
}

static uint64_t
memory_of(const struct testrun *r)
{
    return (uint64_t)json_int_or(json_object_or_null(r->doc, "domain"), "memory", 0);
}

static void
set_memory(struct json_object *doc, void *opaque)
{
    json_set_u64(json_object_or_null(doc, "domain"), "memory", *(uint64_t *)opaque);
}

static bool
check_memory(struct testruns *t, const struct testrun *self, uint64_t bytes,
             struct error **err)
{
    char wants[UNITS_TEXT_MAX], uses[UNITS_TEXT_MAX], has[UNITS_TEXT_MAX],
        over[UNITS_TEXT_MAX];
    uint64_t limit = t->daemon->config->test_memory_bytes, used = 0;

    for (struct testrun *r = t->all; r != NULL; r = r->next)
        if (r != self && !has_ended(r))
            used += memory_of(r);
    if (limit == 0 || used + bytes <= limit)
        return true;
    return error_set(
        err, ERROR_INVALID_STATE,
        "the test wants %s of memory, others have %s, and [test] memory allows %s in "
        "all: "
        "%s too much; give it less (--memory), end another test, or raise the limit",
        units_format_size(bytes, wants), units_format_size(used, uses),
        units_format_size(limit, has), units_format_size(used + bytes - limit, over));
}

bool
testruns_reserve(struct testruns *t, const char *id, uint64_t bytes, struct error **err)
{
    struct testrun *r;
    bool ok;

    pthread_mutex_lock(&t->lock);
    r = find(t, id);
    ok = r != NULL
             ? check_memory(t, r, bytes, err) && change_run(t, r, set_memory, &bytes, err)
             : not_found(id, err);
    pthread_mutex_unlock(&t->lock);
    return ok;
}

/* --- subnets
 * ------------------------------------------------------------------------------
 */

static bool
subnet_of(const struct testrun *r, struct subnet *ret)
{
    const char *text =
        json_string_or(json_object_or_null(r->doc, "network"), "subnet", NULL);

    return text != NULL && subnet_parse(text, ret, NULL);
}

static void
set_subnet(struct json_object *doc, void *opaque)
{
    char text[SUBNET_TEXT];

    json_set_string(json_object_or_null(doc, "network"), "subnet",
                    subnet_format(opaque, text));
}

/* What the host's routes have, and what tests are about to have. Under the lock. */
static bool
choose_subnet(struct testruns *t, struct subnet *ret, struct error **err)
{
    const char *range_text = t->daemon->config->test_subnets;
    AUTOFREE(struct subnet) *taken = NULL;
    struct subnet range, one;
    size_t n = 0;

    if (!subnet_parse(range_text, &range, err) || !subnet_routes(&taken, &n, err))
        return false;
    for (struct testrun *r = t->all; r != NULL; r = r->next) {
        if (has_ended(r) || !subnet_of(r, &one))
            continue;
        taken = mem_realloc(taken, n + 1, sizeof *taken);
        taken[n++] = one;
    }
    return subnet_choose(&range, SUBNET_PREFIX, taken, n, ret) ||
           error_set(err, ERROR_INVALID_STATE,
                     "this host has routes into all of %s; set [test] subnets to "
                     "addresses that nobody uses",
                     range_text);
}

bool
testruns_take_subnet(struct testruns *t, const char *id, struct subnet *ret,
                     struct error **err)
{
    struct testrun *r;
    bool ok;

    pthread_mutex_lock(&t->lock);
    r = find(t, id);
    if (r == NULL)
        ok = not_found(id, err);
    else if (subnet_of(r, ret))
        ok = true;
    else
        ok = choose_subnet(t, ret, err) && change_run(t, r, set_subnet, ret, err);
    pthread_mutex_unlock(&t->lock);
    return ok;
}

/* --- looking
 * ------------------------------------------------------------------------------
 */

bool
testruns_get(struct testruns *t, const char *key, struct json_object **ret,
             struct error **err)
{
    struct testrun *r;

    pthread_mutex_lock(&t->lock);
    r = find(t, key);
    if (r == NULL)
        r = find_domain(t, key);
    if (r != NULL)
        *ret = copy_of(r->doc);
    pthread_mutex_unlock(&t->lock);
    return r != NULL || not_found(key, err);
}

struct json_object *
testruns_list(struct testruns *t, const char *replication)
{
    struct json_object *items = json_object_new_array();

    pthread_mutex_lock(&t->lock);
    for (struct testrun *r = t->all; r != NULL; r = r->next)
        if (is_of(r, replication))
            json_object_array_add(items, copy_of(r->doc));
    pthread_mutex_unlock(&t->lock);
    return items;
}

bool
testruns_is_domain(struct testruns *t, const char *uuid)
{
    bool is = false;

    pthread_mutex_lock(&t->lock);
    for (struct testrun *r = t->all; r != NULL && !is; r = r->next)
        is = !has_ended(r) && strcmp(domain_text(r, "uuid"), uuid) == 0;
    pthread_mutex_unlock(&t->lock);
    return is;
}

unsigned
testruns_count(struct testruns *t, const char *replication)
{
    unsigned n;

    pthread_mutex_lock(&t->lock);
    n = count(t, replication);
    pthread_mutex_unlock(&t->lock);
    return n;
}

/* The newest that has a result; NULL: none. Under the lock. */
static struct testrun *
find_last(struct testruns *t, const char *replication)
{
    struct testrun *r = t->all;

    while (r != NULL && !(is_of(r, replication) && testruns_result(r->doc)[0] != '\0'))
        r = r->next;
    return r;
}

struct json_object *
testruns_last(struct testruns *t, const char *replication)
{
    struct json_object *o = NULL;
    struct testrun *r;

    pthread_mutex_lock(&t->lock);
    r = find_last(t, replication);
    if (r != NULL) {
        o = json_object_new_object();
        json_set_string(o, "id", text_of(r, "id"));
        json_set_int(o, "time", json_int_or(r->doc, "startedTime", 0));
        json_set_string(o, "result", testruns_result(r->doc));
        json_set(o, "point", copy_of(json_object_or_null(r->doc, "point")));
        json_set(o, "rtoSeconds", copy_of(json_object_object_get(r->doc, "rtoSeconds")));
    }
    pthread_mutex_unlock(&t->lock);
    return o;
}

char *
testruns_complaint(struct testruns *t, const char *replication,
                   int64_t protected_since_ms)
{
    AUTOJSON *last = testruns_last(t, replication);
    int64_t max_ms = t->daemon->config->test_max_age_ms;
    int64_t age_ms = units_now_ms() - json_int_or(last, "time", protected_since_ms);
    char age[UNITS_TEXT_MAX], limit[UNITS_TEXT_MAX];

    if (last != NULL && strcmp(json_string_or(last, "result", ""), "passed") != 0)
        return mem_printf(
            "the last test failover did not pass; see virt-dr test-report %s",
            json_string_or(last, "id", ""));
    if (max_ms == 0 || age_ms <= max_ms)
        return NULL;
    units_format_duration_ms(age_ms, age);
    units_format_duration_ms(max_ms, limit);
    return last != NULL ? mem_printf("the last test failover is %s old, at most %s is "
                                     "wanted; run virt-dr test-failover",
                                     age, limit)
                        : mem_printf("protected for %s and never tested, at most %s is "
                                     "wanted; run virt-dr test-failover",
                                     age, limit);
}

/* --- the end
 * ------------------------------------------------------------------------------
 */

/* Under the lock. The picture first: without the document nobody would find it. */
static bool
forget(struct testruns *t, struct testrun *r, struct error **err)
{
    AUTOFREE(char) *path = testruns_screenshot_path(t->daemon, text_of(r, "id"));

    if (unlink(path) < 0 && errno != ENOENT)
        return error_errno(err, ERROR_STATE, "remove '%s'", path);
    if (!commit(t, text_of(r, "id"), NULL, err))
        return false;
    unlink_run(t, r);
    return true;
}

bool
testruns_forget(struct testruns *t, const char *id, struct error **err)
{
    struct testrun *r;
    bool ok;

    pthread_mutex_lock(&t->lock);
    r = find(t, id);
    ok = r == NULL || forget(t, r, err);
    pthread_mutex_unlock(&t->lock);
    return ok;
}

/* Of each VM the newest [test] results stay. Under the lock. */
static void
prune(struct testruns *t, const char *replication)
{
    unsigned n = 0;

    for (struct testrun *next, *r = t->all; r != NULL; r = next) {
        struct error *e = NULL;

        next = r->next;
        if (!has_ended(r) || !is_of(r, replication) ||
            ++n <= t->daemon->config->test_results)
            continue;
        if (!forget(t, r, &e))
            log_ignore(NULL, "test-result-stays", &e);
    }
}

static void
set_ended(struct json_object *doc, void *opaque UNUSED)
{
    json_set_string(doc, "state", "ended");
    json_set_int(doc, "endedTime", units_now_ms());
    json_set_int(doc, "expires", 0);
}

bool
testruns_close(struct testruns *t, const char *id, struct error **err)
{
    AUTOFREE(char) *replication = NULL;
    struct testrun *r;
    bool ok = true;

    pthread_mutex_lock(&t->lock);
    r = find(t, id);
    if (r != NULL && json_bool_or(r->doc, "forget", false)) {
        ok = forget(t, r, err);
    } else if (r != NULL && !has_ended(r)) {
        replication = mem_strdup(text_of(r, "replication"));
        ok = change_run(t, r, set_ended, NULL, err);
        if (ok)
            prune(t, replication);
    }
    pthread_mutex_unlock(&t->lock);
    return ok;
}

/* --- life
 * ---------------------------------------------------------------------------------
 */

bool
testruns_load(struct daemon *d, struct testruns **ret, struct error **err)
{
    AUTOPTR(testruns) *t = NEW(struct testruns);
    AUTOJSON *docs = NULL;

    t->daemon = d;
    pthread_mutex_init(&t->lock, NULL);
    if (!d->state->ops->list(d->state, KIND, "", &docs, err))
        return false;
    for (size_t i = 0; i < json_object_array_length(docs); i++)
        link_run(t, json_object_array_get_idx(docs, i));
    *ret = TAKE(t);
    return true;
}

void
testruns_free(struct testruns *t)
{
    if (t == NULL)
        return;
    if (t->timer != NULL)
        event_free(t->timer);
    while (t->all != NULL)
        unlink_run(t, t->all);
    pthread_mutex_destroy(&t->lock);
    free(t);
}
