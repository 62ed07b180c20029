/* Could the VM be failed over? Both hosts know, and say when it changes. */
#include "tests/sim/replicated.h"

#include <event2/thread.h>

#include "common/json.h"
#include "daemon/contact.h"
#include "daemon/guard_override.h"
#include "daemon/readiness.h"
#include "daemon/replica.h"
#include "daemon/replication_view.h"

static bool
find_a_fault(struct hypervisor *hv UNUSED, const char *xml UNUSED,
             struct json_object *networks UNUSED, struct json_object *findings,
             struct error **err UNUSED)
{
    readiness_find(findings, "machine", "failed", "it lacks a network", "mend it");
    return true;
}

/* What is looked at is the newest point that was applied. */
static void
apply(struct world *w)
{
    AUTOPTR(replication) *b = world_replication(&w->target);
    struct error *err = NULL;

    assert_ok(replica_apply(&w->target.d, b, NULL, &err), err);
}

/* Readiness of hosts that have no timers: a test says when they look. */
static int
setup(void **state)
{
    struct event_base *base;
    struct world *w;

    replicated_setup(state);
    w = *state;
    apply(w);
    w->target.config.readiness_ms = w->source.config.readiness_ms = 60000;
    base = w->target.d.base;
    w->target.d.base = NULL;
    w->target.d.readiness = readiness_new(&w->target.d);
    w->target.d.base = base;
    base = w->source.d.base;
    w->source.d.base = NULL;
    w->source.d.readiness = readiness_new(&w->source.d);
    w->source.d.base = base;
    return 0;
}

static int
teardown(void **state)
{
    struct world *w = *state;

    readiness_free(TAKE(w->target.d.readiness));
    readiness_free(TAKE(w->source.d.readiness));
    return replicated_teardown(state);
}

static void
meet(struct world *w)
{
    AUTOJSON *a = contact_say(&w->source.d, WORLD_TARGET);
    AUTOJSON *b = contact_say(&w->target.d, WORLD_SOURCE);

    contact_hear(&w->target.d, WORLD_SOURCE, a);
    contact_hear(&w->source.d, WORLD_TARGET, b);
}

static struct json_object *
view_of(struct world_host *h)
{
    AUTOPTR(replication) *r = world_replication(h);

    return replication_view(&h->d, r);
}

/* The finding of a check, NULL: there is none; borrowed from view. */
static struct json_object *
finding(struct json_object *view, const char *check, const char *host)
{
    struct json_object *findings =
        json_array_or_null(json_object_or_null(view, "readiness"), "findings");

    for (size_t i = 0; i < json_object_array_length(findings); i++) {
        struct json_object *o = json_object_array_get_idx(findings, i);

        if (strcmp(json_string_or(o, "check", ""), check) == 0 &&
            strcmp(json_string_or(o, "host", ""), host) == 0)
            return o;
    }
    return NULL;
}

static bool
has_reason(struct json_object *view, const char *words)
{
    struct json_object *reasons = json_array_or_null(view, "healthReasons");

    for (size_t i = 0; i < json_object_array_length(reasons); i++)
        if (strstr(json_object_get_string(json_object_array_get_idx(reasons, i)),
                   words) != NULL)
            return true;
    return false;
}

static void
before_the_first_look_nothing_is_known(void **state)
{
    struct world *w = *state;
    AUTOJSON *view = view_of(&w->target);
    struct json_object *readiness = json_object_or_null(view, "readiness");

    assert_string_equal(json_string_or(readiness, "state", ""), "unknown");
    assert_int_equal(json_int_or(readiness, "level", 0), -1);
}

static void
the_target_asks_the_hypervisor_about_the_replica(void **state)
{
    struct world *w = *state;
    AUTOJSON *view = NULL;

    readiness_pass(w->target.d.readiness, true);
    view = view_of(&w->target);
    assert_string_equal(json_string_or(finding(view, "machine", "here"), "state", ""),
                        "ok");
    assert_non_null(finding(view, "space", "here"));
    assert_non_null(finding(view, "certificate", "here"));
    assert_non_null(finding(view, "guard", "here"));
}

static void
what_is_amiss_is_known_on_both_hosts_and_in_the_health(void **state)
{
    struct world *w = *state;
    AUTOJSON *at_target = NULL;
    AUTOJSON *at_source = NULL;
    AUTOJSON *after = NULL;

    w->target.hypervisor_ops.assess = find_a_fault;
    readiness_pass(w->target.d.readiness, true);
    readiness_pass(w->source.d.readiness, true);
    meet(w);
    at_target = view_of(&w->target);
    at_source = view_of(&w->source);
    assert_string_equal(json_string_or(finding(at_target, "machine", "here"), "fix", ""),
                        "mend it");
    assert_non_null(finding(at_source, "machine", "peer"));
    assert_true(has_reason(at_target, "it lacks a network"));
    assert_true(has_reason(at_source, "it lacks a network"));
    assert_string_equal(json_string_or(at_source, "overallHealth", ""), "red");
    w->target.hypervisor_ops.assess = w->target.hypervisor_real->assess;
    readiness_pass(w->target.d.readiness, true);
    meet(w);
    after = view_of(&w->source);
    assert_null(finding(after, "machine", "peer"));
    assert_false(has_reason(after, "it lacks a network"));
}

static void
nothing_is_looked_at_anew_before_it_is_due(void **state)
{
    struct world *w = *state;
    AUTOJSON *view = NULL;

    readiness_pass(w->target.d.readiness, false);
    w->target.hypervisor_ops.assess = find_a_fault;
    readiness_pass(w->target.d.readiness, false);
    view = view_of(&w->target);
    assert_string_equal(json_string_or(finding(view, "machine", "here"), "state", ""),
                        "ok");
}

/* It is told, not enforced: who needs a failover needs it. */
static void
a_failover_is_not_kept_back(void **state)
{
    struct world *w = *state;
    AUTOJSON *view = NULL;
    struct error *err = NULL;

    w->target.hypervisor_ops.assess = find_a_fault;
    readiness_pass(w->target.d.readiness, true);
    assert_ok(world_failover(w, &err), err);
    readiness_pass(w->target.d.readiness, true);
    view = view_of(&w->target);
    assert_false(has_reason(view, "it lacks a network"));
}

static void
the_newest_definition_is_read_from_the_store(void **state)
{
    struct world *w = *state;
    AUTOPTR(replication) *b = world_replication(&w->target);
    struct error *err = NULL;
    struct store *store;
    char *xml = NULL;
    size_t n;

    assert_ok(replica_store(&w->target.d, b, &store, &err), err);
    assert_fails(store->ops->blob(store, "no.such", &xml, &n, &err), err,
                 ERROR_POINT_NOT_FOUND);
    assert_ok(store->ops->blob(store, "domain.xml", &xml, &n, &err), err);
    assert_non_null(strstr(xml, "<domain"));
    assert_int_equal(strlen(xml), n);
    free(xml);
}

static void
an_override_of_the_guard_is_in_the_health_until_it_ends(void **state)
{
    struct world *w = *state;
    struct guard_override o = { .by = (char[]){ "ann" },
                                .reason = (char[]){ "under repair" } };
    AUTOJSON *view = NULL;
    AUTOJSON *after = NULL;
    struct error *err = NULL;

    assert_ok(guard_override_set(&w->source.d.guard, WORLD_VM, &o, &err), err);
    readiness_pass(w->source.d.readiness, false);
    view = view_of(&w->source);
    assert_true(has_reason(view, "under repair"));
    assert_ok(guard_override_end(&w->source.d.guard, WORLD_VM, &err), err);
    readiness_pass(w->source.d.readiness, false);
    after = view_of(&w->source);
    assert_false(has_reason(after, "under repair"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        TEST(before_the_first_look_nothing_is_known),
        TEST(the_target_asks_the_hypervisor_about_the_replica),
        TEST(what_is_amiss_is_known_on_both_hosts_and_in_the_health),
        TEST(nothing_is_looked_at_anew_before_it_is_due),
        TEST(a_failover_is_not_kept_back),
        TEST(the_newest_definition_is_read_from_the_store),
        TEST(an_override_of_the_guard_is_in_the_health_until_it_ends),
    };

    evthread_use_pthreads();
    world_be_child(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
