/* The index of recovery points, on the real state database. */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <unistd.h>

#include "common/json.h"
#include "daemon/points.h"
#include "drivers/state/sqlite.h"
#include "tests/unit/figure.h"

#define REPLICATION "11111111-2222-4333-8444-555555555555"
#define OTHER       "11111111-2222-4333-8444-555555555556"
#define T0          1772366400000ll

struct place {
    char folder[64];
    char path[96];
    struct state *state;
    struct points *points;
};

static void
reopen(struct place *p)
{
    struct error *err = NULL;

    points_free(TAKE(p->points));
    assert_ok(points_open(p->state, REPLICATION, &p->points, &err), err);
}

static int
set_up(void **state)
{
    struct place *p = NEW(struct place);
    struct error *err = NULL;

    snprintf(p->folder, sizeof p->folder, "/tmp/vdr-points-XXXXXX");
    if (mkdtemp(p->folder) == NULL)
        return -1;
    snprintf(p->path, sizeof p->path, "%s/state.db", p->folder);
    assert_ok(state_sqlite_open(p->path, &p->state, &err), err);
    reopen(p);
    *state = p;
    return 0;
}

static int
tear_down(void **state)
{
    struct place *p = *state;
    static const char *const suffixes[] = { "", "-wal", "-shm" };

    points_free(p->points);
    p->state->ops->close(p->state);
    for (size_t i = 0; i < N_ELEMENTS(suffixes); i++) {
        AUTOFREE(char) *name = mem_printf("%s%s", p->path, suffixes[i]);

        unlink(name);
    }
    rmdir(p->folder);
    free(p);
    return 0;
}

static struct point
make_point(uint64_t sequence, int64_t time_ms)
{
    struct point point = { .sequence = sequence,
                           .time_ms = time_ms,
                           .received_ms = time_ms + 200,
                           .transfer_bytes = 4096 };

    snprintf(point.name, sizeof point.name, "virt-dr-%llu", (unsigned long long)sequence);
    return point;
}

/* As an exchange does: its document in a commit, then it is known. */
static void
add_some(struct place *p, uint64_t first, size_t n)
{
    struct state_write *writes = mem_alloc(n, sizeof *writes);
    struct error *err = NULL;

    for (size_t i = 0; i < n; i++) {
        struct point point = make_point(first + i, T0 + (int64_t)(first + i) * 1000);
        char *key;

        writes[i].kind = "point";
        writes[i].body = points_document(p->points, &point, &key);
        writes[i].id = key;
    }
    assert_ok(p->state->ops->commit(p->state, writes, n, &err), err);
    for (size_t i = 0; i < n; i++) {
        struct point point = make_point(first + i, T0 + (int64_t)(first + i) * 1000);

        points_added(p->points, &point);
        free((char *)(uintptr_t)writes[i].id);
        json_object_put(writes[i].body);
    }
    free(writes);
}

/* The sequences as text: "1 2 3". */
static void
assert_sequences(struct place *p, const char *wanted)
{
    char text[256] = "";
    size_t n, used = 0;
    struct point *list = points_list(p->points, &n);

    for (size_t i = 0; i < n && used < sizeof text - 24; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%llu",
                                 i > 0 ? " " : "", (unsigned long long)list[i].sequence);
    points_list_free(list, n);
    assert_string_equal(text, wanted);
}

/* Of the point with that sequence number: "pinned a b". */
static void
assert_marks(struct place *p, const char *sequence, const char *wanted)
{
    char text[256];
    struct point point;
    struct error *err = NULL;
    size_t used;

    assert_ok(points_find(p->points, sequence, &point, &err), err);
    used = (size_t)snprintf(text, sizeof text, "%s", point.pinned ? "pinned" : "");
    for (size_t i = 0; i < point.n_tags; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, " %s", point.tags[i]);
    point_clear(&point);
    assert_string_equal(text, wanted);
}

static void
points_are_there_again_after_a_restart(void **state)
{
    struct place *p = *state;
    struct point before, after;
    struct error *err = NULL;

    add_some(p, 1, 3);
    assert_sequences(p, "1 2 3");
    assert_ok(points_find(p->points, "2", &before, &err), err);
    reopen(p);
    assert_sequences(p, "1 2 3");
    assert_ok(points_find(p->points, "virt-dr-2", &after, &err), err);
    assert_memory_equal(&before, &after, sizeof before);
    assert_int_equal(after.time_ms, T0 + 2000);
    assert_int_equal(after.received_ms, T0 + 2200);
}

static void
points_of_other_replications_are_not_seen(void **state)
{
    struct place *p = *state;
    AUTOPTR(points) *other = NULL;
    struct error *err = NULL;
    size_t n;

    add_some(p, 1, 2);
    assert_ok(points_open(p->state, OTHER, &other, &err), err);
    assert_null(points_list(other, &n));
    assert_int_equal(n, 0);
}

static void
times_do_not_fall_when_a_clock_steps_back(void **state)
{
    struct place *p = *state;
    struct point late = make_point(4, T0 - 5000), found;
    AUTOFREE(char) *key = NULL;
    AUTOJSON *doc = NULL;
    struct error *err = NULL;

    add_some(p, 1, 3);
    doc = points_document(p->points, &late, &key);
    assert_int_equal(json_int_or(doc, "timestamp", 0), T0 + 3000);
    points_added(p->points, &late);
    assert_ok(points_find(p->points, "4", &found, &err), err);
    assert_int_equal(found.time_ms, T0 + 3000);
}

static void
a_point_is_found_by_id_number_and_tag(void **state)
{
    struct place *p = *state;
    static const char *const keys[] = { "virt-dr-3", "3", "gold" };
    struct point found;
    struct error *err = NULL;

    add_some(p, 1, 5);
    assert_ok(points_tag(p->points, 3, "gold", &err), err);
    for (size_t i = 0; i < N_ELEMENTS(keys); i++) {
        assert_ok(points_find(p->points, keys[i], &found, &err), err);
        assert_int_equal(found.sequence, 3);
        point_clear(&found);
    }
    assert_fails(points_find(p->points, "6", &found, &err), err, ERROR_POINT_NOT_FOUND);
    assert_fails(points_find(p->points, "", &found, &err), err, ERROR_POINT_NOT_FOUND);
}

static void
removed_points_stay_away(void **state)
{
    struct place *p = *state;
    const uint64_t gone[] = { 2, 77, 4, 1, 2 };
    struct error *err = NULL;

    add_some(p, 1, 5);
    assert_ok(points_remove(p->points, gone, 0, &err), err);
    assert_ok(points_remove(p->points, gone, N_ELEMENTS(gone), &err), err);
    assert_sequences(p, "3 5");
    reopen(p);
    assert_sequences(p, "3 5");
    assert_ok(points_remove_all(p->points, &err), err);
    reopen(p);
    assert_sequences(p, "");
}

static void
pins_and_tags_survive_a_restart(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;

    add_some(p, 1, 2);
    assert_ok(points_set_pinned(p->points, 1, true, &err), err);
    assert_ok(points_set_pinned(p->points, 1, true, &err), err);
    assert_ok(points_tag(p->points, 1, "a", &err), err);
    assert_ok(points_tag(p->points, 1, "b.2_c-d", &err), err);
    assert_ok(points_tag(p->points, 1, "a", &err), err);
    reopen(p);
    assert_marks(p, "1", "pinned a b.2_c-d");
    assert_ok(points_set_pinned(p->points, 1, false, &err), err);
    assert_ok(points_untag(p->points, "a", &err), err);
    assert_fails(points_untag(p->points, "a", &err), err, ERROR_POINT_NOT_FOUND);
    reopen(p);
    assert_marks(p, "1", " b.2_c-d");
}

static void
a_tag_moves_from_point_to_point(void **state)
{
    struct place *p = *state;
    static const char *const tags[] = { "a", "b", "c" };
    struct error *err = NULL;

    add_some(p, 1, 3);
    assert_ok(points_tag(p->points, 1, "a", &err), err);
    assert_ok(points_tag(p->points, 2, "b", &err), err);
    assert_ok(points_tag(p->points, 2, "x", &err), err);
    assert_ok(points_set_tags(p->points, 3, tags, 3, &err), err);
    reopen(p);
    assert_marks(p, "1", "");
    assert_marks(p, "2", " x");
    assert_marks(p, "3", " a b c");
    assert_ok(points_set_tags(p->points, 3, NULL, 0, &err), err);
    assert_marks(p, "3", "");
}

static void
bad_tags_are_refused(void **state)
{
    struct place *p = *state;
    static const char *const bad[] = {
        "",
        "1st",
        "-x",
        "a b",
        "a/b",
        "\xc3\xa4",
        "virt-dr-2",
        "a\n",
        "a234567890123456789012345678901234567890123456789012345678901234",
    };
    static const char *const twice[] = { "a", "a" };
    struct error *err = NULL;

    add_some(p, 1, 2);
    for (size_t i = 0; i < N_ELEMENTS(bad); i++)
        assert_fails(points_tag(p->points, 1, bad[i], &err), err, ERROR_USAGE);
    assert_fails(points_set_tags(p->points, 1, twice, 2, &err), err, ERROR_USAGE);
    for (int i = 0; i < POINTS_MAX_TAGS; i++) {
        char tag[] = { 'a', (char)('0' + i), '\0' };

        assert_ok(points_tag(p->points, 1, tag, &err), err);
    }
    assert_fails(points_tag(p->points, 1, "a9", &err), err, ERROR_USAGE);
    assert_ok(points_tag(p->points, 1, "a0", &err), err);
    assert_fails(points_tag(p->points, 9, "x", &err), err, ERROR_POINT_NOT_FOUND);
    assert_fails(points_set_pinned(p->points, 9, true, &err), err, ERROR_POINT_NOT_FOUND);
}

static void
damage_is_remembered_and_healed(void **state)
{
    struct place *p = *state;
    struct point found;
    struct error *err = NULL;

    add_some(p, 1, 9);
    assert_ok(points_set_damaged(p->points, 3, 5, "vda: block 7", &err), err);
    reopen(p);
    assert_ok(points_find(p->points, "5", &found, &err), err);
    assert_true(found.damaged);
    assert_string_equal(found.damage, "vda: block 7");
    point_clear(&found);
    assert_ok(points_find(p->points, "6", &found, &err), err);
    assert_false(found.damaged);
    assert_ok(points_set_damaged(p->points, 1, UINT64_MAX, NULL, &err), err);
    reopen(p);
    assert_ok(points_find(p->points, "4", &found, &err), err);
    assert_false(found.damaged);
    assert_null(found.damage);
}

static void
a_bad_document_is_named(void **state)
{
    struct place *p = *state;
    static const char *const bad[] = {
        "{}",
        "{\"key\":5}",
        "{\"key\":\"" REPLICATION ".000000000001\",\"sequenceNumber\":1}",
        "{\"key\":\"" REPLICATION ".000000000001\",\"name\":\"x\",\"sequenceNumber\":2,"
        "\"timestamp\":5,\"transferBytes\":1}",
        "{\"key\":\"" REPLICATION ".000000000001\",\"name\":\"\",\"sequenceNumber\":1,"
        "\"timestamp\":5,\"transferBytes\":1}",
        "{\"key\":\"" REPLICATION ".000000000001\",\"name\":\"x\",\"sequenceNumber\":1,"
        "\"timestamp\":-5,\"transferBytes\":1}",
        "{\"key\":\"" REPLICATION ".000000000001\",\"name\":\"x\",\"sequenceNumber\":1,"
        "\"timestamp\":5,\"transferBytes\":1,\"tags\":[\"a\",7]}",
    };
    struct error *err = NULL;

    for (size_t i = 0; i < N_ELEMENTS(bad); i++) {
        AUTOJSON *doc = json_tokener_parse(bad[i]);
        struct state_write w = { "point", REPLICATION ".000000000001", doc };
        struct points *points = NULL;

        assert_ok(p->state->ops->commit(p->state, &w, 1, &err), err);
        assert_false(points_open(p->state, REPLICATION, &points, &err));
        assert_true(error_is(err, ERROR_STATE));
        if (i > 1 && strstr(error_message(err), REPLICATION ".000000000001") == NULL)
            fail_msg("not named: %s", error_message(err));
        error_clear(&err);
    }
}

static void
documents_of_the_first_release_are_read(void **state)
{
    struct place *p = *state;
    AUTOJSON *doc = json_tokener_parse(
        "{\"key\":\"" REPLICATION ".000000000001\",\"replication\":\"" REPLICATION "\","
        "\"name\":\"virt-dr-1\",\"sequenceNumber\":1,\"timestamp\":1772366400000,"
        "\"receivedTime\":1772366400100,\"transferBytes\":5,\"consistency\":\"crash\"}");
    struct state_write w = { "point", REPLICATION ".000000000001", doc };
    struct error *err = NULL;

    assert_ok(p->state->ops->commit(p->state, &w, 1, &err), err);
    reopen(p);
    assert_sequences(p, "1");
    assert_marks(p, "1", "");
}

/* An hour of points every quarter of a second: many more than a window should have. */
static void
fifteen_thousand_points_are_listed_and_removed_fast(void **state)
{
    enum {
        MANY = 15000,
        KEPT = 5
    };
    struct place *p = *state;
    AUTOFREE(uint64_t) *gone = mem_alloc(MANY, sizeof *gone);
    struct error *err = NULL;
    struct point *list;
    int64_t began;
    size_t n;

    add_some(p, 1, MANY);
    began = figure_cpu_ms();
    for (int i = 0; i < 20; i++) {
        list = points_list(p->points, &n);
        points_list_free(list, n);
    }
    assert_int_equal(n, MANY);
    assert_in_range(figure_cpu_ms() - began, 0, figure_limit_ms(20 * 5));
    for (uint64_t i = 0; i < MANY - KEPT; i++)
        gone[i] = i + 1;
    began = figure_cpu_ms();
    assert_ok(points_remove(p->points, gone, MANY - KEPT, &err), err);
    assert_in_range(figure_cpu_ms() - began, 0, figure_limit_ms(1000));
    reopen(p);
    assert_sequences(p, "14996 14997 14998 14999 15000");
}

static void
a_point_is_shown_as_the_api_says(void **state)
{
    struct place *p = *state;
    AUTOJSON *wanted = json_tokener_parse(
        "{\"id\":\"virt-dr-1\",\"sequenceNumber\":1,\"timestamp\":1772366401000,"
        "\"receivedTime\":1772366401200,\"transferBytes\":4096,\"consistency\":\"crash\","
        "\"isPinned\":false,\"tags\":[\"a\"],\"state\":\"damaged\",\"damage\":\"why\"}");
    AUTOJSON *shown = NULL;
    struct point found;
    struct error *err = NULL;

    add_some(p, 1, 1);
    assert_ok(points_tag(p->points, 1, "a", &err), err);
    assert_ok(points_set_damaged(p->points, 1, 1, "why", &err), err);
    assert_ok(points_find(p->points, "1", &found, &err), err);
    shown = point_json(&found);
    point_clear(&found);
    assert_string_equal(json_text(shown), json_text(wanted));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(points_are_there_again_after_a_restart),
        TEST(points_of_other_replications_are_not_seen),
        TEST(times_do_not_fall_when_a_clock_steps_back),
        TEST(a_point_is_found_by_id_number_and_tag),
        TEST(removed_points_stay_away),
        TEST(pins_and_tags_survive_a_restart),
        TEST(a_tag_moves_from_point_to_point),
        TEST(bad_tags_are_refused),
        TEST(damage_is_remembered_and_healed),
        TEST(a_bad_document_is_named),
        TEST(documents_of_the_first_release_are_read),
        TEST(fifteen_thousand_points_are_listed_and_removed_fast),
        TEST(a_point_is_shown_as_the_api_says),
    };

    return cmocka_run_group_tests_name("points", tests, NULL, NULL);
}
