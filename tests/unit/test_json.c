#include "tests/unit/unit.h"

#include "common/json.h"

static struct json_object *
parsed(const char *text)
{
    struct error *err = NULL;
    struct json_object *o = NULL;

    assert_ok(json_parse(text, strlen(text), &o, &err), err);
    return o;
}

static void
texts_that_are_no_object_are_refused(void **state UNUSED)
{
    static const char *const texts[] = {
        "",         "   ",   "[]",         "1",          "null",
        "\"x\"",    "{",     "{\"a\":",    "{\"a\":1",   "{\"a\":1}}",
        "{} x",     "{a:1}", "{\"a\":1,}", "{\"a\":01}", "{\"a\":\"\xff\"}",
        "// x\n{}",
    };

    for (size_t i = 0; i < N_ELEMENTS(texts); i++) {
        struct error *err = NULL;
        struct json_object *o = NULL;

        if (json_parse(texts[i], strlen(texts[i]), &o, &err))
            fail_msg("was taken: %s", texts[i]);
        assert_int_equal(error_code(err), ERROR_PROTOCOL);
        assert_null(o);
        error_clear(&err);
    }
}

static void
what_is_behind_a_nul_is_seen(void **state UNUSED)
{
    static const char text[] = "{\"a\":1}\0{\"b\":2}";
    struct error *err = NULL;
    struct json_object *o = NULL;

    assert_fails(json_parse(text, sizeof text - 1, &o, &err), err, ERROR_PROTOCOL);
}

static void
depth_and_size_are_limited(void **state UNUSED)
{
    AUTOFREE(char) *big = mem_alloc(JSON_MAX_BYTES + 1, 1);
    char deep[2 * 100 + 1];
    struct error *err = NULL;
    struct json_object *o = NULL;

    memset(big, ' ', JSON_MAX_BYTES + 1);
    memcpy(big, "{}", 2);
    assert_ok(json_parse(big, JSON_MAX_BYTES, &o, &err), err);
    json_object_put(TAKE(o));
    assert_fails(json_parse(big, JSON_MAX_BYTES + 1, &o, &err), err, ERROR_PROTOCOL);

    deep[0] = '\0';
    for (size_t i = 0; i < 40; i++)
        memcpy(deep + 5 * i, "{\"a\":", 6);
    assert_fails(json_parse(deep, strlen(deep), &o, &err), err, ERROR_PROTOCOL);
}

static void
members_are_read_by_type(void **state UNUSED)
{
    AUTOJSON *o = parsed("{\"s\":\"x\",\"i\":-5,\"u\":18446744073709551615,\"b\":true,"
                         "\"d\":2.5,\"o\":{},\"a\":[1]} \n");
    struct json_object *inner = NULL;
    struct error *err = NULL;
    const char *s = NULL;
    int64_t i = 0;
    uint64_t u = 0;
    double d = 0;
    bool b = false;

    assert_ok(json_get_string(o, "s", &s, &err), err);
    assert_string_equal(s, "x");
    assert_ok(json_get_int(o, "i", -5, 10, &i, &err), err);
    assert_int_equal(i, -5);
    assert_ok(json_get_u64(o, "u", UINT64_MAX, &u, &err), err);
    assert_int_equal(u, UINT64_MAX);
    assert_ok(json_get_bool(o, "b", &b, &err), err);
    assert_true(b);
    assert_ok(json_get_double(o, "d", &d, &err), err);
    assert_true(d > 2.4 && d < 2.6);
    assert_ok(json_get_double(o, "i", &d, &err), err);
    assert_ok(json_get_object(o, "o", &inner, &err), err);
    assert_ok(json_get_array(o, "a", &inner, &err), err);
    assert_int_equal(json_object_array_length(inner), 1);
}

static void
missing_and_null_members_are_named(void **state UNUSED)
{
    static const char *const keys[] = { "absent", "n" };
    AUTOJSON *o = parsed("{\"n\":null}");
    struct error *err = NULL;
    const char *s = "before";
    int64_t i = 7;

    for (size_t k = 0; k < N_ELEMENTS(keys); k++) {
        assert_false(json_get_string(o, keys[k], &s, &err));
        assert_non_null(strstr(error_message(err), keys[k]));
        error_clear(&err);
        assert_fails(json_get_int(o, keys[k], 0, 9, &i, &err), err, ERROR_PROTOCOL);
        assert_ok(json_opt_string(o, keys[k], &s, &err), err);
        assert_ok(json_opt_int(o, keys[k], 0, 9, &i, &err), err);
    }
    assert_string_equal(s, "before");
    assert_int_equal(i, 7);
}

static void
wrong_types_are_refused_also_where_the_member_is_optional(void **state UNUSED)
{
    AUTOJSON *o = parsed("{\"nan\":NaN,\"s\":\"1\",\"d\":1.0,\"i\":1,\"a\":[],\"o\":{}}");
    struct json_object *inner = NULL;
    struct error *err = NULL;
    const char *s = NULL;
    int64_t i = 0;
    uint64_t u = 0;
    double d = 0;
    bool b = false;

    assert_fails(json_opt_string(o, "i", &s, &err), err, ERROR_PROTOCOL);
    assert_fails(json_opt_int(o, "s", 0, 9, &i, &err), err, ERROR_PROTOCOL);
    assert_fails(json_opt_int(o, "d", 0, 9, &i, &err), err, ERROR_PROTOCOL);
    assert_fails(json_opt_u64(o, "s", 9, &u, &err), err, ERROR_PROTOCOL);
    assert_fails(json_opt_bool(o, "i", &b, &err), err, ERROR_PROTOCOL);
    assert_fails(json_get_double(o, "s", &d, &err), err, ERROR_PROTOCOL);
    assert_fails(json_get_double(o, "nan", &d, &err), err, ERROR_PROTOCOL);
    assert_fails(json_get_object(o, "a", &inner, &err), err, ERROR_PROTOCOL);
    assert_fails(json_get_array(o, "o", &inner, &err), err, ERROR_PROTOCOL);
}

static void
numbers_keep_to_their_range(void **state UNUSED)
{
    AUTOJSON *o = parsed("{\"n\":-1,\"ten\":10,\"big\":9223372036854775808}");
    struct error *err = NULL;
    int64_t i = 7;
    uint64_t u = 7;

    assert_fails(json_get_int(o, "ten", 0, 9, &i, &err), err, ERROR_PROTOCOL);
    assert_fails(json_get_int(o, "n", 0, 9, &i, &err), err, ERROR_PROTOCOL);
    assert_fails(json_get_int(o, "big", 0, INT64_MAX, &i, &err), err, ERROR_PROTOCOL);
    assert_fails(json_get_u64(o, "n", UINT64_MAX, &u, &err), err, ERROR_PROTOCOL);
    assert_fails(json_get_u64(o, "ten", 9, &u, &err), err, ERROR_PROTOCOL);
    assert_fails(json_get_u64(o, "big", INT64_MAX, &u, &err), err, ERROR_PROTOCOL);
    assert_int_equal(i, 7);
    assert_int_equal(u, 7);
    assert_ok(json_get_u64(o, "big", UINT64_MAX, &u, &err), err);
    assert_int_equal(u, 9223372036854775808u);
}

static void
a_number_too_large_for_any_type_is_refused(void **state UNUSED)
{
    static const char text[] = "{\"n\":99999999999999999999999}";
    struct json_object *o = NULL;
    struct error *err = NULL;
    uint64_t u = 7;

    if (json_parse(text, strlen(text), &o, &err)) {
        assert_fails(json_get_u64(o, "n", INT64_MAX, &u, &err), err, ERROR_PROTOCOL);
        json_object_put(o);
    }
    error_clear(&err);
    assert_int_equal(u, 7);
}

static void
a_name_with_a_hidden_end_is_refused(void **state UNUSED)
{
    AUTOJSON *o = parsed("{\"s\":\"admin\\u0000x\"}");
    struct error *err = NULL;
    const char *s = NULL;

    assert_fails(json_get_string(o, "s", &s, &err), err, ERROR_PROTOCOL);
    assert_fails(json_opt_string(o, "s", &s, &err), err, ERROR_PROTOCOL);
    assert_null(s);
}

static void
quiet_readers_fall_back(void **state UNUSED)
{
    AUTOJSON *o =
        parsed("{\"s\":\"x\",\"i\":3,\"b\":true,\"d\":1.5,\"o\":{},\"n\":null}");

    assert_string_equal(json_string_or(o, "s", "y"), "x");
    assert_string_equal(json_string_or(o, "i", "y"), "y");
    assert_string_equal(json_string_or(o, "n", "y"), "y");
    assert_int_equal(json_int_or(o, "i", 9), 3);
    assert_int_equal(json_int_or(o, "s", 9), 9);
    assert_true(json_bool_or(o, "b", false));
    assert_true(json_bool_or(o, "absent", true));
    assert_true(json_double_or(o, "d", 0) > 1.4);
    assert_true(json_double_or(o, "i", 0) > 2.9);
    assert_true(json_double_or(o, "s", 4) > 3.9);
    assert_non_null(json_object_or_null(o, "o"));
    assert_null(json_object_or_null(o, "s"));
    assert_null(json_object_or_null(NULL, "s"));
}

static void
what_is_written_can_be_read_again(void **state UNUSED)
{
    AUTOJSON *o = json_object_new_object();
    AUTOJSON *again = NULL;
    struct json_object *array = json_object_new_array();
    uint64_t u = 0;
    struct error *err = NULL;

    json_set_string(o, "s", "a/b \"q\"\n");
    json_set_string(o, "none", NULL);
    json_set_int(o, "i", INT64_MIN);
    json_set_u64(o, "u", UINT64_MAX);
    json_set_bool(o, "b", false);
    json_set_double(o, "d", 0.5);
    json_append_string(array, "x");
    json_set(o, "a", array);
    assert_string_equal(
        json_text(o),
        "{\"s\":\"a/b \\\"q\\\"\\n\",\"none\":null,\"i\":-9223372036854775808,"
        "\"u\":18446744073709551615,\"b\":false,\"d\":0.5,\"a\":[\"x\"]}");
    again = parsed(json_text(o));
    assert_int_equal(json_int_or(again, "i", 0), INT64_MIN);
    assert_ok(json_get_u64(again, "u", UINT64_MAX, &u, &err), err);
    assert_int_equal(u, UINT64_MAX);
}

static void
foreign_bytes_do_not_make_a_text_that_the_peer_refuses(void **state UNUSED)
{
    AUTOJSON *o = json_object_new_object();
    AUTOJSON *again = NULL;

    json_set_string(
        o, "s", "na\xefve, Zo\xc3\xab \xf0\x9f\x98\x80 \xc0\xaf \xed\xa0\x80 \xe2\x82");
    again = parsed(json_text(o));
    assert_string_equal(json_string_or(again, "s", ""),
                        "na?ve, Zo\xc3\xab \xf0\x9f\x98\x80 ?? ??? ??");
}

static void
errors_travel(void **state UNUSED)
{
    AUTOPTR(error) *sent = NULL;
    AUTOPTR(error) *got = NULL;
    AUTOJSON *o = NULL;

    error_set(&sent, ERROR_NO_SPACE, "storage 'default' has %d%% left", 2);
    o = json_from_error(sent);
    assert_false(json_to_error(o, &got));
    assert_int_equal(error_code(got), ERROR_NO_SPACE);
    assert_string_equal(error_message(got), "storage 'default' has 2% left");
}

static void
an_error_that_is_none_is_told_as_such(void **state UNUSED)
{
    AUTOJSON *unknown = parsed("{\"code\":\"FromTheFuture\",\"message\":\"m %s\"}");
    AUTOJSON *wrong = parsed("{\"code\":5,\"message\":\"m\"}");
    struct error *err = NULL;

    assert_fails(json_to_error(unknown, &err), err, ERROR_INTERNAL);
    assert_fails(json_to_error(wrong, &err), err, ERROR_PROTOCOL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_that_are_no_object_are_refused),
        cmocka_unit_test(what_is_behind_a_nul_is_seen),
        cmocka_unit_test(depth_and_size_are_limited),
        cmocka_unit_test(members_are_read_by_type),
        cmocka_unit_test(missing_and_null_members_are_named),
        cmocka_unit_test(wrong_types_are_refused_also_where_the_member_is_optional),
        cmocka_unit_test(numbers_keep_to_their_range),
        cmocka_unit_test(a_number_too_large_for_any_type_is_refused),
        cmocka_unit_test(a_name_with_a_hidden_end_is_refused),
        cmocka_unit_test(quiet_readers_fall_back),
        cmocka_unit_test(what_is_written_can_be_read_again),
        cmocka_unit_test(foreign_bytes_do_not_make_a_text_that_the_peer_refuses),
        cmocka_unit_test(errors_travel),
        cmocka_unit_test(an_error_that_is_none_is_told_as_such),
    };

    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
