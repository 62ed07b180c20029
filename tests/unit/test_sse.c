#include "tests/unit/unit.h"

#include <stdio.h>

#include "common/json.h"
#include "common/sse.h"

/* What came: "id event number" of each, one behind the other. */
struct seen {
    char text[512];
    int stop_after; /* 0: never */
    int count;
};

static bool
note(const char *id, const char *event, struct json_object *data, void *opaque)
{
    struct seen *seen = opaque;
    size_t used = strlen(seen->text);

    snprintf(seen->text + used, sizeof seen->text - used, "[%s %s %d]", id, event,
             (int)json_int_or(data, "n", -1));
    seen->count++;
    return seen->stop_after == 0 || seen->count < seen->stop_after;
}

/* Feeds the stream in pieces of `step` bytes. */
static bool
feed(const char *stream, size_t step, struct seen *seen, struct error **err)
{
    AUTOPTR(sse) *s = sse_new(note, seen);
    size_t n = strlen(stream);
    bool more = true;

    for (size_t at = 0; at < n && more; at += step)
        if (!sse_feed(s, stream + at, MIN(step, n - at), &more, err))
            return false;
    return true;
}

static void
events_are_the_same_however_the_bytes_come(void **state UNUSED)
{
    static const char stream[] = ": hello\n\n"
                                 "id: 1\nevent: a\ndata: {\"n\":1}\n\n"
                                 "event:b\r\ndata:{\"n\":\r\ndata:2}\r\n\r\n"
                                 "retry: 5\nunknown\nid: 3\ndata: {\"n\":3}\n\n"
                                 "id: 4\ndata: {\"n\":4}\n"; /* its end never comes */

    for (size_t step = 1; step <= sizeof stream; step++) {
        struct seen seen = { 0 };
        struct error *err = NULL;

        assert_ok(feed(stream, step, &seen, &err), err);
        assert_string_equal(seen.text, "[1 a 1][1 b 2][3 message 3]");
    }
}

static void
a_callback_can_stop_in_the_middle(void **state UNUSED)
{
    static const char stream[] =
        "data: {\"n\":1}\n\ndata: {\"n\":2}\n\ndata: {\"n\":3}\n\n";
    struct seen seen = { .stop_after = 2 };
    struct error *err = NULL;

    assert_ok(feed(stream, sizeof stream, &seen, &err), err);
    assert_string_equal(seen.text, "[ message 1][ message 2]");
}

static void
data_that_is_no_object_is_an_error(void **state UNUSED)
{
    struct seen seen = { 0 };
    struct error *err = NULL;

    assert_fails(feed("data: 5\n\n", 1, &seen, &err), err, ERROR_PROTOCOL);
    assert_fails(feed("data: {\n\n", 1, &seen, &err), err, ERROR_PROTOCOL);
    assert_string_equal(seen.text, "");
}

static void
a_line_without_an_end_is_an_error(void **state UNUSED)
{
    struct seen seen = { 0 };
    AUTOPTR(sse) *s = sse_new(note, &seen);
    AUTOFREE(char) *line = mem_alloc(SSE_MAX_LINE, 1);
    struct error *err = NULL;
    bool more = true;

    memset(line, ':', SSE_MAX_LINE);
    assert_ok(sse_feed(s, line, SSE_MAX_LINE, &more, &err), err);
    assert_fails(sse_feed(s, ":", 1, &more, &err), err, ERROR_PROTOCOL);
}

static void
data_of_endless_lines_is_an_error(void **state UNUSED)
{
    struct seen seen = { 0 };
    AUTOPTR(sse) *s = sse_new(note, &seen);
    char line[1024];
    struct error *err = NULL;
    bool more = true, ok = true;

    memset(line, 'x', sizeof line);
    memcpy(line, "data:", 5);
    line[sizeof line - 1] = '\n';
    for (unsigned i = 0; ok && i < 2 * SSE_MAX_LINE / sizeof line; i++)
        ok = sse_feed(s, line, sizeof line, &more, &err);
    assert_fails(ok, err, ERROR_PROTOCOL);
}

static void
a_long_id_is_an_error(void **state UNUSED)
{
    struct seen seen = { 0 };
    struct error *err = NULL;
    char stream[SSE_MAX_NAME + 20];

    memset(stream, 'x', sizeof stream);
    memcpy(stream, "id: ", 4);
    memcpy(stream + sizeof stream - 2, "\n", 2);
    assert_fails(feed(stream, 7, &seen, &err), err, ERROR_PROTOCOL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_are_the_same_however_the_bytes_come),
        cmocka_unit_test(a_callback_can_stop_in_the_middle),
        cmocka_unit_test(data_that_is_no_object_is_an_error),
        cmocka_unit_test(a_line_without_an_end_is_an_error),
        cmocka_unit_test(data_of_endless_lines_is_an_error),
        cmocka_unit_test(a_long_id_is_an_error),
    };

    return cmocka_run_group_tests_name("sse", tests, NULL, NULL);
}
