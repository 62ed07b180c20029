#include "tests/unit/unit.h"

#include <stdio.h>

#include "common/json.h"
#include "daemon/exchange.h"

#define ID "0b1c2d3e-0000-4000-8000-000000000001"

static struct exchange_begin
full_begin(void)
{
    struct exchange_begin b = { .replication = ID,
                                .epoch = 7,
                                .kind = EXCHANGE_DELTA,
                                .sequence = 42,
                                .point = "virt-dr-new",
                                .parent = "virt-dr-old",
                                .time_ms = 1700000000000,
                                .n_disks = 2,
                                .n_blobs = 2 };

    b.disks[0] = (struct exchange_disk){ "vda", 1 << 20 };
    b.disks[1] = (struct exchange_disk){ "sd-b", 512 };
    snprintf(b.blobs[0], sizeof b.blobs[0], "domain.xml");
    snprintf(b.blobs[1], sizeof b.blobs[1], "nvram");
    return b;
}

static struct exchange_ready
full_ready(void)
{
    return (struct exchange_ready){
        .epoch = 3,
        .newest = { .name = "p-1", .sequence = 9, .time_ms = 1700000000001 },
        .compare = true,
        .sync = { .name = "s-1", .target = "vdb", .offset = 65536, .complete = true },
        .secrets = true
    };
}

static struct exchange_end
full_end(void)
{
    return (struct exchange_end){ 1700000000002, UINT32_MAX, "vda", 4096, true, true };
}

/* --- round trips -------------------------------------------------------------------- */

static void
begin_comes_back_as_it_was_for_each_kind(void **state UNUSED)
{
    for (int kind = EXCHANGE_QUERY; kind <= EXCHANGE_VERIFY; kind++) {
        struct exchange_begin b = full_begin(), back;
        struct error *err = NULL;
        AUTOJSON *o = NULL;

        b.kind = (enum exchange_kind)kind;
        b.compare = kind == EXCHANGE_SLICE;
        o = exchange_begin_json(&b);
        memset(&back, 0xff, sizeof back);
        assert_ok(exchange_begin_parse(o, &back, &err), err);
        assert_int_equal(back.kind, kind);
        assert_string_equal(back.replication, ID);
        assert_int_equal(back.compare, b.compare);
        assert_string_equal(back.point, b.point);
        assert_string_equal(back.parent, b.parent);
        assert_int_equal(back.epoch, 7);
        assert_int_equal(back.sequence, 42);
        assert_int_equal(back.time_ms, b.time_ms);
        assert_int_equal(back.n_disks, 2);
        assert_memory_equal(back.disks, b.disks, sizeof b.disks);
        assert_int_equal(back.n_blobs, 2);
        assert_memory_equal(back.blobs, b.blobs, sizeof b.blobs);
    }
}

static void
ready_comes_back_as_it_was(void **state UNUSED)
{
    struct exchange_ready r = full_ready(), back;
    AUTOJSON *o = exchange_ready_json(&r);
    struct error *err = NULL;

    assert_ok(exchange_ready_parse(o, &back, &err), err);
    assert_int_equal(back.epoch, 3);
    assert_string_equal(back.newest.name, "p-1");
    assert_int_equal(back.newest.sequence, 9);
    assert_int_equal(back.newest.time_ms, 1700000000001);
    assert_string_equal(back.sync.name, "s-1");
    assert_string_equal(back.sync.target, "vdb");
    assert_int_equal(back.sync.offset, 65536);
    assert_true(back.sync.complete);
    assert_true(back.compare);
    assert_true(back.secrets);
}

static void
end_comes_back_as_it_was(void **state UNUSED)
{
    struct exchange_end e = full_end(), back;
    AUTOJSON *o = exchange_end_json(&e);
    struct error *err = NULL;

    assert_ok(exchange_end_parse(o, &back, &err), err);
    assert_int_equal(back.time_ms, e.time_ms);
    assert_int_equal(back.frames, UINT32_MAX);
    assert_string_equal(back.target, "vda");
    assert_int_equal(back.offset, 4096);
    assert_true(back.complete);
}

/* A target tells points and syncs apart by their names. */
static void
a_point_or_a_sync_has_a_name(void **state UNUSED)
{
    for (int kind = EXCHANGE_QUERY; kind <= EXCHANGE_VERIFY; kind++) {
        bool needs = kind == EXCHANGE_SLICE || kind == EXCHANGE_DELTA;
        struct exchange_begin b = full_begin(), back;
        struct error *err = NULL;
        AUTOJSON *o = NULL;

        b.kind = (enum exchange_kind)kind;
        b.point[0] = '\0';
        o = exchange_begin_json(&b);
        if (needs)
            assert_fails(exchange_begin_parse(o, &back, &err), err, ERROR_PROTOCOL);
        else
            assert_ok(exchange_begin_parse(o, &back, &err), err);
    }
}

static void
only_a_slice_compares(void **state UNUSED)
{
    for (int kind = EXCHANGE_QUERY; kind <= EXCHANGE_VERIFY; kind++) {
        struct exchange_begin b = full_begin(), back;
        struct error *err = NULL;
        AUTOJSON *o = NULL;

        b.kind = (enum exchange_kind)kind;
        b.compare = true;
        o = exchange_begin_json(&b);
        if (kind == EXCHANGE_SLICE)
            assert_ok(exchange_begin_parse(o, &back, &err), err);
        else
            assert_fails(exchange_begin_parse(o, &back, &err), err, ERROR_PROTOCOL);
    }
}

/* --- what is refused ------------------------------------------------------------------
 */

typedef bool (*parse_fn)(struct json_object *o, struct error **err);

static bool
parse_begin(struct json_object *o, struct error **err)
{
    struct exchange_begin b;

    return exchange_begin_parse(o, &b, err);
}

static bool
parse_ready(struct json_object *o, struct error **err)
{
    struct exchange_ready r;

    return exchange_ready_parse(o, &r, err);
}

static bool
parse_end(struct json_object *o, struct error **err)
{
    struct exchange_end e;

    return exchange_end_parse(o, &e, err);
}

static struct json_object *
begin_json(void)
{
    struct exchange_begin b = full_begin();

    return exchange_begin_json(&b);
}

static struct json_object *
ready_json(void)
{
    struct exchange_ready r = full_ready();

    return exchange_ready_json(&r);
}

static struct json_object *
end_json(void)
{
    struct exchange_end e = full_end();

    return exchange_end_json(&e);
}

static const struct form {
    struct json_object *(*make)(void);
    parse_fn parse;
} forms[] = {
    { begin_json, parse_begin },
    { ready_json, parse_ready },
    { end_json, parse_end },
};

static void
refuses(const struct form *f, const char *key, const char *value)
{
    AUTOJSON *o = f->make();
    struct error *err = NULL;

    if (value == NULL)
        json_object_object_del(o, key);
    else
        json_object_object_add(o, key, json_tokener_parse(value));
    if (f->parse(o, &err))
        fail_msg("'%s' was taken as %s", key, value != NULL ? value : "missing");
    assert_int_equal(error_code(err), ERROR_PROTOCOL);
    error_free(err);
}

/* Values that fit no member of that type, wherever it is. */
static void
refuses_all_wrong(const struct form *f, const char *key, enum json_type type)
{
    static const char *const wrong[] = {
        "null", "{}", "[]", "\"x/y\"", "-1", "1.5", "true", "9007199254740993000000"
    };

    refuses(f, key, NULL);
    for (size_t i = 0; i < N_ELEMENTS(wrong); i++) {
        AUTOJSON *value = json_tokener_parse(wrong[i]);

        if (!json_object_is_type(value, type) || type == json_type_int ||
            type == json_type_string)
            refuses(f, key, wrong[i]);
    }
}

static void
each_member_that_is_missing_or_wrong_is_refused(void **state UNUSED)
{
    for (size_t i = 0; i < N_ELEMENTS(forms); i++) {
        AUTOJSON *whole = forms[i].make();

        json_object_object_foreach (whole, key, value) {
            refuses_all_wrong(&forms[i], key, json_object_get_type(value));
        }
    }
}

static void
numbers_out_of_range_are_refused(void **state UNUSED)
{
    const struct form *begin = &forms[0], *ready = &forms[1], *end = &forms[2];

    refuses(begin, "epoch", "9223372036854775808");
    refuses(begin, "timestamp", "9007199254740993");
    refuses(ready, "offset", "72057594037927937");
    refuses(end, "frames", "4294967296");
    refuses(end, "offset", "72057594037927937");
}

static void
names_that_lead_elsewhere_or_are_too_long_are_refused(void **state UNUSED)
{
    static const char *const bad[] = { "\"a/b\"",       "\"..\\/x\"",  "\"a b\"",
                                       "\"a\\u0000b\"", "\"\\u00e9\"", "\"a\\nb\"" };
    AUTOFREE(char) *longest = mem_printf("\"%061d\"", 0);

    for (size_t i = 0; i < N_ELEMENTS(bad); i++) {
        refuses(&forms[0], "point", bad[i]);
        refuses(&forms[0], "parent", bad[i]);
        refuses(&forms[1], "point", bad[i]);
        refuses(&forms[2], "target", bad[i]);
    }
    refuses(&forms[0], "point", longest);
    refuses(&forms[0], "replication", "\"\"");
    refuses(&forms[0], "replication", "\"0b1c2d3e-0000-4000-8000-00000000000G\"");
    refuses(&forms[0], "kind", "\"DELTA\"");
    refuses(&forms[0], "kind", "\"\"");
}

static void
disks_that_are_no_disks_are_refused(void **state UNUSED)
{
    static const char *const bad[] = {
        "[1]",
        "[null]",
        "[{}]",
        "[{\"target\":\"vda\"}]",
        "[{\"capacity\":512}]",
        "[{\"target\":\"\",\"capacity\":512}]",
        "[{\"target\":\".\",\"capacity\":512}]",
        "[{\"target\":\"..\",\"capacity\":512}]",
        "[{\"target\":\"a.b\",\"capacity\":512}]",
        "[{\"target\":\"a/b\",\"capacity\":512}]",
        "[{\"target\":\"vda\",\"capacity\":511}]",
        "[{\"target\":\"vda\",\"capacity\":-512}]",
        "[{\"target\":\"vda\",\"capacity\":144115188075855872}]",
        "[{\"target\":\"abcdefghijklmnopqrstuvwxyz0123456\",\"capacity\":512}]",
        "[{\"target\":\"vda\",\"capacity\":512},{\"target\":\"vda\",\"capacity\":512}]",
    };

    for (size_t i = 0; i < N_ELEMENTS(bad); i++)
        refuses(&forms[0], "disks", bad[i]);
}

static void
blobs_that_are_no_file_names_are_refused(void **state UNUSED)
{
    static const char *const bad[] = {
        "[1]",
        "[null]",
        "[\"\"]",
        "[\".\"]",
        "[\"..\"]",
        "[\".x\"]",
        "[\"a/b\"]",
        "[\"A\"]",
        "[\"abcdefghijklmnopqrstuvwxyz01234567\"]",
        "[\"domain.xml\",\"domain.xml\"]",
    };

    for (size_t i = 0; i < N_ELEMENTS(bad); i++)
        refuses(&forms[0], "blobs", bad[i]);
}

/* BEGIN with n disks, or with n blobs. */
static bool
takes_n(const char *key, size_t n, struct error **err)
{
    AUTOJSON *o = begin_json();
    struct json_object *array = json_object_new_array();

    for (size_t i = 0; i < n; i++) {
        AUTOFREE(char) *name = mem_printf("d%zu", i);
        struct json_object *disk = json_object_new_object();

        json_set_string(disk, "target", name);
        json_set_u64(disk, "capacity", 512);
        json_object_array_add(array, strcmp(key, "disks") == 0
                                         ? json_object_get(disk)
                                         : json_object_new_string(name));
        json_object_put(disk);
    }
    json_set(o, key, array);
    return parse_begin(o, err);
}

static void
sixty_four_disks_and_sixteen_blobs_are_the_most(void **state UNUSED)
{
    struct error *err = NULL;

    assert_ok(takes_n("disks", 64, &err), err);
    assert_fails(takes_n("disks", 65, &err), err, ERROR_PROTOCOL);
    assert_ok(takes_n("blobs", 16, &err), err);
    assert_fails(takes_n("blobs", 17, &err), err, ERROR_PROTOCOL);
    assert_ok(takes_n("disks", 0, &err), err);
}

static void
a_failure_leaves_the_result_untouched(void **state UNUSED)
{
    struct exchange_end e = full_end();
    AUTOJSON *o = json_tokener_parse("{\"timestamp\":5,\"frames\":6}");
    struct error *err = NULL;

    assert_fails(exchange_end_parse(o, &e, &err), err, ERROR_PROTOCOL);
    assert_int_equal(e.time_ms, 1700000000002);
    assert_int_equal(e.frames, UINT32_MAX);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_point_or_a_sync_has_a_name),
        cmocka_unit_test(only_a_slice_compares),
        cmocka_unit_test(begin_comes_back_as_it_was_for_each_kind),
        cmocka_unit_test(ready_comes_back_as_it_was),
        cmocka_unit_test(end_comes_back_as_it_was),
        cmocka_unit_test(each_member_that_is_missing_or_wrong_is_refused),
        cmocka_unit_test(numbers_out_of_range_are_refused),
        cmocka_unit_test(names_that_lead_elsewhere_or_are_too_long_are_refused),
        cmocka_unit_test(disks_that_are_no_disks_are_refused),
        cmocka_unit_test(blobs_that_are_no_file_names_are_refused),
        cmocka_unit_test(sixty_four_disks_and_sixteen_blobs_are_the_most),
        cmocka_unit_test(a_failure_leaves_the_result_untouched),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
