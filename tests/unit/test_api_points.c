/* The API of recovery points: its handlers on a real database, without a server. */
#include "tests/unit/unit.h"

#include <stdio.h>

#include "common/json.h"
#include "daemon/api_private.h"
#include "daemon/peers.h"
#include "daemon/replica.h"
#include "drivers/state/sqlite.h"
#include "tests/sim/files.h"
#include "tests/unit/figure.h"

#define VM        "0b1c2d3e-0000-4000-8000-000000000001"
#define OTHER_VM  "0b1c2d3e-0000-4000-8000-000000000002"
#define ID        "0b1c2d3e-0000-4000-8000-0000000000f1"
#define OTHER_ID  "0b1c2d3e-0000-4000-8000-0000000000f2"
#define PEER      "0b1c2d3e-0000-4000-8000-00000000000b"
#define MINUTE_MS 60000ll
#define NOON_MS   1772366400000ll

struct fixture {
    char folder[64];
    struct config config;
    struct daemon d;
};

static void
open_all(struct fixture *f)
{
    AUTOFREE(char) *path = mem_printf("%s/state.db", f->folder);
    struct error *err = NULL;

    f->d.config = &f->config;
    assert_ok(state_sqlite_open(path, &f->d.state, &err), err);
    assert_ok(replications_load(f->d.state, &f->d.replications, &err), err);
    assert_ok(peers_load(&f->d, &f->d.peers, &err), err);
}

static void
close_all(struct fixture *f)
{
    peers_free(f->d.peers);
    replications_free(f->d.replications);
    f->d.state->ops->close(f->d.state);
}

static void
protect(struct fixture *f, enum replication_side side, const char *id, const char *vm,
        const char *name)
{
    AUTOPTR(replication) *r = replication_new(side, id, vm, name, PEER);
    struct error *err = NULL;

    assert_ok(replications_add(f->d.replications, r, &err), err);
}

static int
set_up(void **state)
{
    struct fixture *f = NEW(struct fixture);

    snprintf(f->folder, sizeof f->folder, "/tmp/virt-dr-api-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    open_all(f);
    protect(f, SIDE_TARGET, ID, VM, "web01");
    protect(f, SIDE_SOURCE, OTHER_ID, OTHER_VM, "db");
    *state = f;
    return 0;
}

static int
tear_down(void **state)
{
    struct fixture *f = *state;

    close_all(f);
    files_remove(f->folder);
    free(f);
    return 0;
}

/* n points, a minute apart, the last at noon. */
static void
add_points(struct fixture *f, size_t n)
{
    AUTOPTR(replication) *r = NULL;
    struct points *points;
    struct error *err = NULL;

    assert_ok(replications_find(f->d.replications, ID, &r, &err), err);
    assert_ok(replica_points(&f->d, r, &points, &err), err);
    for (size_t i = 1; i <= n; i++) {
        struct point p = { .sequence = i,
                           .time_ms = NOON_MS - (int64_t)(n - i) * MINUTE_MS,
                           .transfer_bytes = 100 };

        snprintf(p.name, sizeof p.name, "virt-dr-%zu", i);
        points_added(points, &p);
    }
}

struct call {
    const char *vm, *point;
    const char *query, *body; /* JSON */
    const char *peer;         /* the caller is one; NULL: an admin */
};

#define CALL(...) (&(struct call){ __VA_ARGS__ })

/* The answer, the caller's; NULL with an error. */
static struct json_object *
ask(struct fixture *f, rest_handler_fn handler, const struct call *call,
    struct error **err)
{
    AUTOJSON *query = json_tokener_parse(call->query != NULL ? call->query : "{}");
    AUTOJSON *body = call->body != NULL ? json_tokener_parse(call->body) : NULL;
    struct rest_request request = { .params = { call->vm, call->point },
                                    .query = query,
                                    .body = body,
                                    .caller = { .roles = REST_ROLE_ADMIN,
                                                .name = "root" },
                                    .opaque = &f->d };

    if (call->peer != NULL) {
        request.caller.roles = REST_ROLE_PEER;
        snprintf(request.caller.peer_id, sizeof request.caller.peer_id, "%s", call->peer);
    }
    if (!handler(&request, err)) {
        assert_null(request.reply);
        return NULL;
    }
    return request.reply != NULL ? request.reply : json_object_new_object();
}

static struct json_object *
must_ask(struct fixture *f, rest_handler_fn handler, const struct call *call)
{
    struct error *err = NULL;
    struct json_object *answer = ask(f, handler, call, &err);

    assert_ok(answer != NULL, err);
    return answer;
}

static void
must_fail(struct fixture *f, rest_handler_fn handler, const struct call *call,
          enum error_code code)
{
    struct error *err = NULL;

    assert_fails(ask(f, handler, call, &err) != NULL, err, code);
}

static struct json_object *
item(struct json_object *answer, size_t i)
{
    return json_object_array_get_idx(json_array_or_null(answer, "items"), i);
}

static void
a_list_says_what_keeps_each_point_and_until_when(void **state)
{
    AUTOJSON *answer = NULL;
    AUTOJSON *set = NULL;

    add_points(*state, 241);
    set = must_ask(*state, api_retention_set,
                   CALL(.vm = "web01", .body = "{\"window\":3600000,"
                                               "\"rules\":\"hourly:3\"}"));
    answer = must_ask(*state, api_points_list, CALL(.vm = "web01"));
    assert_int_equal(json_object_array_length(json_array_or_null(answer, "items")), 241);
    assert_null(json_string_or(item(answer, 0), "keptBy", NULL));
    assert_string_equal(json_string_or(item(answer, 120), "keptBy", ""), "hourly");
    assert_string_equal(json_string_or(item(answer, 200), "keptBy", ""), "window");
    assert_string_equal(json_string_or(item(answer, 240), "keptBy", ""), "newest");
    assert_int_equal(json_int_or(item(answer, 200), "expires", 0),
                     NOON_MS + 20 * MINUTE_MS);
    assert_null(json_object_or_null(answer, "plan"));
}

static void
a_plan_tries_other_rules_and_changes_nothing(void **state)
{
    static const char query[] = "{\"plan\":\"true\",\"window\":\"30m\",\"rules\":"
                                "\"15m:4\",\"maxSize\":\"1KiB\",\"limit\":\"2\"}";
    AUTOJSON *answer = NULL;
    AUTOJSON *set = NULL;
    struct json_object *plan;

    add_points(*state, 241);
    answer = must_ask(*state, api_points_list, CALL(.vm = "web01", .query = query));
    plan = json_object_or_null(answer, "plan");
    assert_int_equal(json_int_or(json_object_or_null(plan, "window"), "have", 0), 10);
    assert_int_equal(json_int_or(plan, "kept", 0), 13);
    /* The newest, four of the rule (one is the newest), two of the window. */
    assert_int_equal(json_object_array_length(json_array_or_null(answer, "items")), 6);
    set = must_ask(*state, api_retention_show, CALL(.vm = "web01"));
    assert_int_equal(json_int_or(set, "window", 0), 240 * MINUTE_MS);
    assert_int_equal(json_object_array_length(json_array_or_null(set, "rules")), 0);
}

static void
wrong_questions_are_refused(void **state)
{
    static const char *const queries[] = {
        "{\"limit\":\"-1\"}",    "{\"limit\":\"10001\"}",      "{\"window\":\"31d\"}",
        "{\"window\":\"long\"}", "{\"maxSize\":\"5 apples\"}", "{\"rules\":\"hourly\"}",
    };

    for (size_t i = 0; i < N_ELEMENTS(queries); i++)
        must_fail(*state, api_points_list, CALL(.vm = "web01", .query = queries[i]),
                  ERROR_USAGE);
    must_fail(*state, api_points_list, CALL(.vm = "nobody"), ERROR_REPLICATION_NOT_FOUND);
}

static void
points_are_pinned_tagged_and_released(void **state)
{
    AUTOJSON *pinned = NULL;
    AUTOJSON *tagged = NULL;
    AUTOJSON *more = NULL;
    AUTOJSON *gone = NULL;
    AUTOJSON *free_again = NULL;

    add_points(*state, 3);
    pinned = must_ask(*state, api_point_pin,
                      CALL(.vm = "web01", .point = "1", .body = "{\"tag\":\"gold\"}"));
    assert_true(json_bool_or(pinned, "isPinned", false));
    assert_string_equal(json_text(json_array_or_null(pinned, "tags")), "[\"gold\"]");
    /* Named by a tag that it loses. */
    tagged = must_ask(*state, api_point_tags,
                      CALL(.vm = "web01", .point = "gold", .body = "{\"tags\":[\"a\"]}"));
    assert_string_equal(json_string_or(tagged, "id", ""), "virt-dr-1");
    more = must_ask(*state, api_point_tag,
                    CALL(.vm = "web01", .point = "virt-dr-1", .body = "{\"tag\":\"b\"}"));
    assert_string_equal(json_text(json_array_or_null(more, "tags")), "[\"a\",\"b\"]");
    gone = must_ask(*state, api_point_untag, CALL(.vm = "web01", .point = "a"));
    free_again = must_ask(*state, api_point_unpin, CALL(.vm = "web01", .point = "b"));
    assert_false(json_bool_or(free_again, "isPinned", true));
    assert_string_equal(json_text(json_array_or_null(free_again, "tags")), "[\"b\"]");
}

static void
a_wrong_tag_pins_nothing(void **state)
{
    AUTOJSON *list = NULL;

    add_points(*state, 1);
    must_fail(*state, api_point_pin,
              CALL(.vm = "web01", .point = "1", .body = "{\"tag\":\"1st\"}"),
              ERROR_USAGE);
    must_fail(*state, api_point_tags,
              CALL(.vm = "web01", .point = "1", .body = "{\"tags\":[5]}"), ERROR_USAGE);
    must_fail(*state, api_point_tags, CALL(.vm = "web01", .point = "1", .body = "{}"),
              ERROR_USAGE);
    must_fail(*state, api_point_tags, CALL(.vm = "web01", .point = "1"), ERROR_USAGE);
    must_fail(*state, api_point_tag, CALL(.vm = "web01", .point = "1"), ERROR_USAGE);
    must_fail(*state, api_point_pin, CALL(.vm = "web01", .point = "2"),
              ERROR_POINT_NOT_FOUND);
    must_fail(*state, api_point_untag, CALL(.vm = "web01", .point = "x"),
              ERROR_POINT_NOT_FOUND);
    list = must_ask(*state, api_points_list, CALL(.vm = "web01"));
    assert_false(json_bool_or(item(list, 0), "isPinned", true));
}

static void
retention_survives_a_restart_and_a_wrong_one_changes_nothing(void **state)
{
    AUTOJSON *set = NULL;
    AUTOJSON *again = NULL;

    set = must_ask(*state, api_retention_set,
                   CALL(.vm = "web01", .body = "{\"maxBytes\":4096,\"rules\":"
                                               "\"daily:7 15m:8\"}"));
    must_fail(*state, api_retention_set,
              CALL(.vm = "web01", .body = "{\"window\":1,\"rules\":\"x\"}"), ERROR_USAGE);
    must_fail(*state, api_retention_set, CALL(.vm = "web01"), ERROR_USAGE);
    close_all(*state);
    open_all(*state);
    again = must_ask(*state, api_retention_show, CALL(.vm = "web01"));
    assert_string_equal(json_text(again), json_text(set));
    assert_int_equal(json_int_or(again, "window", 0), 240 * MINUTE_MS);
}

static void
on_the_source_questions_go_to_the_target_and_changes_are_refused(void **state)
{
    static const rest_handler_fn asking[] = { api_points_list, api_retention_show };
    static const rest_handler_fn changing[] = {
        api_point_pin, api_point_unpin, api_point_tags,
        api_point_tag, api_point_untag, api_retention_set,
    };
    struct call call = { .vm = "db",
                         .point = "1",
                         .query = "{\"rules\":\"hourly:24 daily:7\",\"limit\":\"5\"}",
                         .body = "{}" };

    for (size_t i = 0; i < N_ELEMENTS(changing); i++)
        must_fail(*state, changing[i], &call, ERROR_INVALID_STATE);
    for (size_t i = 0; i < N_ELEMENTS(asking); i++) /* nobody was paired */
        must_fail(*state, asking[i], &call, ERROR_PEER_NOT_FOUND);
}

static void
a_peer_sees_its_own_replicas_alone(void **state)
{
    AUTOJSON *answer = NULL;

    add_points(*state, 2);
    answer = must_ask(*state, api_points_list, CALL(.vm = ID, .peer = PEER));
    assert_int_equal(json_object_array_length(json_array_or_null(answer, "items")), 2);
    must_fail(*state, api_points_list, CALL(.vm = ID, .peer = OTHER_ID),
              ERROR_REPLICATION_NOT_FOUND);
    must_fail(*state, api_retention_show, CALL(.vm = ID, .peer = OTHER_ID),
              ERROR_REPLICATION_NOT_FOUND);
    /* Nor does it make a source ask around. */
    must_fail(*state, api_points_list, CALL(.vm = OTHER_ID, .peer = PEER),
              ERROR_REPLICATION_NOT_FOUND);
}

static void
ten_thousand_points_fit_into_an_answer_that_comes_at_once(void **state)
{
    AUTOJSON *answer = NULL;
    AUTOJSON *pinned = NULL;
    int64_t began;

    add_points(*state, 20000);
    pinned = must_ask(*state, api_point_pin, CALL(.vm = "web01", .point = "5"));
    began = figure_cpu_ms();
    answer = must_ask(*state, api_points_list,
                      CALL(.vm = "web01", .query = "{\"limit\":\"1000\"}"));
    assert_in_range(strlen(json_text(answer)), 1, JSON_MAX_BYTES);
    assert_in_range(figure_cpu_ms() - began, 0, figure_limit_ms(100));
    assert_string_equal(json_string_or(item(answer, 0), "id", ""), "virt-dr-5");
    json_object_put(answer);
    answer = must_ask(*state, api_points_list, CALL(.vm = "web01"));
    assert_in_range(strlen(json_text(answer)), 1, JSON_MAX_BYTES);
}

/* One that is passed over would mean: the newest point, no limit, no tag. */
static void
a_misspelt_member_is_refused(void **state)
{
    static const struct {
        rest_handler_fn handler;
        const char *body;
    } calls[] = {
        { api_retention_set, "{\"windows\":60000}" },
        { api_point_pin, "{\"tags\":\"a\"}" },
        { api_point_tag, "{\"tag\":\"a\",\"pin\":true}" },
        { api_point_tags, "{\"tags\":[],\"tag\":\"a\"}" },
        { api_replication_failover, "{\"points\":{\"type\":\"id\",\"value\":\"3\"}}" },
        { api_replication_failover, "{\"point\":{\"type\":\"latest\",\"val\":\"3\"}}" },
        { api_exports_create, "{\"Point\":{\"type\":\"latest\"}}" },
        { api_clone_create, "{\"name\":\"web02\",\"pont\":{\"type\":\"latest\"}}" },
    };

    add_points(*state, 3);
    for (size_t i = 0; i < N_ELEMENTS(calls); i++)
        must_fail(*state, calls[i].handler,
                  CALL(.vm = "web01", .point = "3", .body = calls[i].body), ERROR_USAGE);
}

/* Its replications know no retention, no scrub and no damage. */
static void
what_the_first_release_stored_is_read(void **state)
{
    static const char point[] =
        "{\"key\":\"" ID ".000000000007\",\"replication\":\"" ID "\",\"name\":"
        "\"virt-dr-7\",\"sequenceNumber\":7,\"timestamp\":1772366400000,"
        "\"receivedTime\":1772366400100,\"transferBytes\":4096,"
        "\"consistency\":\"crash\"}";
    static const char *const later[] = { "damaged", "scrub", "retention" };
    struct fixture *f = *state;
    struct state *s = f->d.state;
    AUTOJSON *replication = NULL;
    AUTOJSON *points = NULL;
    AUTOJSON *settings = NULL;
    AUTOJSON *doc = json_tokener_parse(point);
    struct state_write writes[] = {
        { .kind = "replication", .id = ID },
        { .kind = "point", .id = ID ".000000000007", .body = doc },
    };
    struct error *err = NULL;

    assert_ok(s->ops->get(s, "replication", ID, &replication, &err), err);
    for (size_t i = 0; i < N_ELEMENTS(later); i++)
        json_object_object_del(replication, later[i]);
    writes[0].body = replication;
    assert_ok(s->ops->commit(s, writes, N_ELEMENTS(writes), &err), err);
    close_all(f);
    open_all(f);
    points = must_ask(f, api_points_list, CALL(.vm = "web01"));
    assert_int_equal(json_int_or(item(points, 0), "sequenceNumber", 0), 7);
    assert_string_equal(json_string_or(item(points, 0), "state", ""), "ok");
    settings = must_ask(f, api_retention_show, CALL(.vm = "web01"));
    assert_int_equal(json_int_or(settings, "window", 0), 240 * MINUTE_MS);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_misspelt_member_is_refused),
        TEST(what_the_first_release_stored_is_read),
        TEST(a_list_says_what_keeps_each_point_and_until_when),
        TEST(a_plan_tries_other_rules_and_changes_nothing),
        TEST(wrong_questions_are_refused),
        TEST(points_are_pinned_tagged_and_released),
        TEST(a_wrong_tag_pins_nothing),
        TEST(retention_survives_a_restart_and_a_wrong_one_changes_nothing),
        TEST(on_the_source_questions_go_to_the_target_and_changes_are_refused),
        TEST(a_peer_sees_its_own_replicas_alone),
        TEST(ten_thousand_points_fit_into_an_answer_that_comes_at_once),
    };

    return cmocka_run_group_tests_name("API of points", tests, NULL, NULL);
}
