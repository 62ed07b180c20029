/* The commands of test failovers. */
#include "client/handlers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/point_options.h"
#include "client/show.h"
#include "common/units.h"

#define PASSED "passed"

static const char *
text(struct json_object *o, const char *key)
{
    return json_string_or(o, key, SHOW_NOTHING);
}

static enum tone
tone_of(const char *result)
{
    return strcmp(result, PASSED) == 0     ? TONE_GOOD
           : strcmp(result, "failed") == 0 ? TONE_BAD
                                           : TONE_WARN;
}

/* --- one of them
 * --------------------------------------------------------------------------
 */

static void
show_seconds(struct writer *w, struct json_object *test, const char *name,
             const char *key)
{
    double s = json_double_or(test, key, -1);

    if (s >= 0)
        writer_field(w, name, TONE_PLAIN, "%.2f s", s);
}

static void
show_times(struct writer *w, struct json_object *test)
{
    char buf[UNITS_TEXT_MAX];

    writer_field(w, "Started", TONE_PLAIN, "%s by %s",
                 show_time(test, "startedTime", buf), text(test, "user"));
    show_seconds(w, test, "RTO, running", "rtoSeconds");
    show_seconds(w, test, "RTO, checked", "rtoCheckedSeconds");
    if (json_int_or(test, "expires", 0) > 0)
        writer_field(w, "Ends by itself", TONE_PLAIN, "%s",
                     show_time(test, "expires", buf));
    if (json_int_or(test, "endedTime", 0) > 0)
        writer_field(w, "Ended", TONE_PLAIN, "%s: %s", show_time(test, "endedTime", buf),
                     text(test, "endedBy"));
}

static void
show_place(struct writer *w, struct json_object *test)
{
    struct json_object *domain = json_object_or_null(test, "domain");
    struct json_object *network = json_object_or_null(test, "network");
    char buf[UNITS_TEXT_MAX];

    writer_field(w, "Domain", TONE_PLAIN, "%s, UUID %s, memory %s", text(domain, "name"),
                 text(domain, "uuid"), show_size(domain, "memory", buf));
    if (!json_bool_or(network, "isolated", true))
        writer_field(w, "Network", TONE_PLAIN, "%s, which was given",
                     text(network, "name"));
    else if (json_string_or(network, "subnet", NULL) != NULL)
        writer_field(w, "Network", TONE_PLAIN, "%s, isolated, %s", text(network, "name"),
                     text(network, "subnet"));
    if (json_string_or(test, "address", NULL) != NULL)
        writer_field(w, "Address", TONE_PLAIN, "%s", text(test, "address"));
}

static void
show_checks(struct writer *w, struct json_object *test)
{
    struct json_object *checks = show_array(test, "checks");
    struct json_object *screenshot = json_object_or_null(test, "screenshot");

    writer_heading(w, "Checks");
    for (size_t i = 0; i < show_length(checks); i++) {
        struct json_object *o = show_item(checks, i);
        const char *argument = json_string_or(o, "argument", "");
        AUTOFREE(char) *name = mem_printf("%s%s%s", text(o, "type"),
                                          argument[0] != '\0' ? ":" : "", argument);

        writer_field(w, name, tone_of(text(o, "result")), "%s, %s", text(o, "result"),
                     text(o, "message"));
    }
    if (screenshot != NULL)
        writer_field(w, "screenshot", TONE_PLAIN, "%s",
                     json_string_or(screenshot, "path", text(screenshot, "message")));
}

static void
show_words(struct writer *w, struct json_object *test)
{
    struct json_object *notes = show_array(test, "notes");
    struct json_object *report = show_array(test, "report");
    char buf[UNITS_TEXT_MAX];

    if (show_length(notes) > 0)
        writer_heading(w, "Notes");
    for (size_t i = 0; i < show_length(notes); i++) {
        struct json_object *note = show_item(notes, i);

        writer_say(w, "- %s, %s: %s", show_time(note, "time", buf), text(note, "user"),
                   text(note, "text"));
    }
    if (show_length(report) > 0)
        writer_heading(w, "Report");
    for (size_t i = 0; i < show_length(report); i++)
        writer_say(w, "- %s", show_item_string(report, i));
}

static void
show_test(struct writer *w, struct json_object *test)
{
    struct json_object *point = json_object_or_null(test, "point");
    struct json_object *verdict = json_object_or_null(test, "verdict");
    struct json_object *error = json_object_or_null(test, "error");
    char buf[UNITS_TEXT_MAX];

    writer_heading(w, "Test failover");
    writer_field(w, "Test", TONE_PLAIN, "%s", text(test, "id"));
    writer_field(w, "VM", TONE_PLAIN, "%s", text(test, "vmName"));
    writer_field(w, "State", TONE_PLAIN, "%s", text(test, "state"));
    writer_field(w, "Result", tone_of(text(test, "result")), "%s%s%s",
                 text(test, "result"), verdict != NULL ? ", says " : "",
                 verdict != NULL ? text(verdict, "user") : "");
    if (error != NULL)
        writer_field(w, "Error", TONE_BAD, "%s", text(error, "message"));
    writer_field(w, "Point", TONE_PLAIN, "%s", show_time(point, "timestamp", buf));
    show_times(w, test);
    show_place(w, test);
    show_checks(w, test);
    show_words(w, test);
}

/* --- test-failover
 * ------------------------------------------------------------------------
 */

static void
add_number(const struct invocation *inv, const char *option, struct json_object *body)
{
    if (invocation_has(inv, option))
        json_set_int(body, option, invocation_number(inv, option, 0));
}

static void
add_text(const struct invocation *inv, const char *option, struct json_object *body)
{
    if (invocation_has(inv, option))
        json_set_string(body, option, invocation_text(inv, option, ""));
}

static bool
fill_body(const struct invocation *inv, struct json_object *body, struct error **err)
{
    const char *check;

    if (invocation_has(inv, "keep") && invocation_has(inv, "clean-up"))
        return error_set(err, ERROR_USAGE,
                         "--keep and --clean-up contradict each other; give one of them");
    add_text(inv, "network", body);
    add_text(inv, "name", body);
    add_text(inv, "note", body);
    add_number(inv, "memory", body);
    add_number(inv, "keep", body);
    add_number(inv, "timeout", body);
    if (invocation_has(inv, "clean-up"))
        json_set_bool(body, "cleanUp", true);
    if (invocation_has(inv, "check"))
        json_set(body, "checks", json_object_new_array());
    for (size_t i = 0; (check = invocation_nth(inv, "check", i)) != NULL; i++)
        json_append_string(json_array_or_null(body, "checks"), check);
    return point_options_add(inv, body, err);
}

/* A script must not have to read the page. */
static bool
judge(struct json_object *test, struct error **err)
{
    return strcmp(text(test, "result"), PASSED) == 0 ||
           error_set(
               err, ERROR_TEST_FAILED,
               "the test failover of VM '%s' did not pass; see virt-dr test-report %s",
               text(test, "vmName"), text(test, "id"));
}

HANDLER(handle_test_failover)
{
    const char *const path[] = { "/replications/", invocation_text(inv, "VM", ""),
                                 "/tests" };
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *task = NULL;
    AUTOJSON *done = NULL;
    struct json_object *test;

    if (!fill_body(inv, body, err) ||
        !session_call_on(s, "POST", path, body, &task, err) ||
        !show_started(s, inv, task, false, &done, err))
        return false;
    if (done == NULL)
        return true;
    test = json_object_or_null(done, "result");
    show_test(s->out, test);
    writer_bare(s->out, text(test, "id"));
    return judge(test, err);
}

/* --- test-list
 * ----------------------------------------------------------------------------
 */

static bool
get_tests(struct session *s, const char *vm, struct json_object **ret, struct error **err)
{
    const char *const of_vm[] = { "/tests?vm=", vm, "" };

    return vm == NULL ? session_get(s, "/tests", ret, err)
                      : session_call_on(s, "GET", of_vm, NULL, ret, err);
}

static void
show_row(struct writer *w, struct json_object *test)
{
    struct json_object *point = json_object_or_null(test, "point");
    char buf[UNITS_TEXT_MAX];

    writer_cell(w, TONE_PLAIN, "%s", text(test, "id"));
    writer_cell(w, TONE_PLAIN, "%s", text(test, "vmName"));
    writer_cell(w, TONE_PLAIN, "%s", text(test, "state"));
    writer_cell(w, tone_of(text(test, "result")), "%s", text(test, "result"));
    writer_cell(w, TONE_PLAIN, "%s", show_time(test, "startedTime", buf));
    writer_cell(w, TONE_PLAIN, "%s", show_time(point, "timestamp", buf));
    writer_cell(w, TONE_PLAIN, "%s", text(json_object_or_null(test, "domain"), "name"));
    writer_cell(w, TONE_PLAIN, "%s", show_time(test, "expires", buf));
}

HANDLER(handle_test_list)
{
    static const char *const columns[] = { "TEST",    "VM",    "STATE",  "RESULT",
                                           "STARTED", "POINT", "DOMAIN", "UNTIL" };
    AUTOJSON *answer = NULL;
    struct json_object *items = NULL;

    if (!get_tests(s, invocation_text(inv, "VM", NULL), &answer, err) ||
        !session_items(answer, &items, err))
        return false;
    writer_answer(s->out, answer);
    writer_table_start(s->out, columns, N_ELEMENTS(columns));
    for (size_t i = 0; i < show_length(items); i++)
        show_row(s->out, show_item(items, i));
    writer_table_end(s->out);
    return true;
}

/* --- test-cleanup
 * -------------------------------------------------------------------------
 */

/* By its id or its domain's name; else all of the VM of that name. */
static bool
find_tests(struct session *s, const char *key, struct json_object **ret_answer,
           struct json_object **ret_items, struct error **err)
{
    const char *const path[] = { "/tests/", key, "" };
    struct json_object *one = NULL;
    struct error *e = NULL;

    if (session_call_on(s, "GET", path, NULL, &one, &e)) {
        *ret_answer = json_object_new_object();
        *ret_items = json_object_new_array();
        json_object_array_add(*ret_items, one);
        json_set(*ret_answer, "items", *ret_items);
        return true;
    }
    if (!error_is(e, ERROR_NOT_FOUND))
        return error_propagate(err, e);
    error_free(e);
    return get_tests(s, key, ret_answer, err) &&
           session_items(*ret_answer, ret_items, err);
}

static bool
say_verdict(struct session *s, const struct invocation *inv, const char *id,
            struct error **err)
{
    const char *const path[] = { "/tests/", id, "/verdict" };
    AUTOJSON *body = json_object_new_object();

    if (invocation_has(inv, "pass") || invocation_has(inv, "fail"))
        json_set_string(body, "result", invocation_has(inv, "pass") ? PASSED : "failed");
    add_text(inv, "note", body);
    return json_object_object_length(body) == 0 ||
           session_call_on(s, "PUT", path, body, NULL, err);
}

static bool
clean_up(struct session *s, const struct invocation *inv, struct json_object *test,
         struct error **err)
{
    const char *id = text(test, "id");
    const char *const path[] = { "/tests/", id, "/cleanup" };
    AUTOJSON *task = NULL;
    AUTOJSON *done = NULL;

    if (!say_verdict(s, inv, id, err))
        return false;
    if (strcmp(text(test, "state"), "ended") == 0) {
        writer_say(s->out, "test '%s' has ended already", id);
        return true;
    }
    return session_call_on(s, "POST", path, NULL, &task, err) &&
           show_started(s, inv, task, false, &done, err);
}

/* Of a VM those that go on; if there is none, its last one is what a verdict means. */
HANDLER(handle_test_cleanup)
{
    const char *key = invocation_text(inv, "TEST", "");
    AUTOJSON *answer = NULL;
    struct json_object *items = NULL;
    size_t n = 0;

    if (invocation_has(inv, "pass") && invocation_has(inv, "fail"))
        return error_set(err, ERROR_USAGE, "--pass and --fail contradict each other");
    if (!find_tests(s, key, &answer, &items, err))
        return false;
    for (size_t i = 0; i < show_length(items); i++) {
        struct json_object *test = show_item(items, i);

        if (show_length(items) > 1 && strcmp(text(test, "state"), "ended") == 0)
            continue;
        if (!clean_up(s, inv, test, err))
            return false;
        n++;
    }
    if (n == 0 && show_length(items) > 0)
        return clean_up(s, inv, show_item(items, 0), err);
    return n > 0 || error_set(err, ERROR_NOT_FOUND, "VM '%s' has no test", key);
}

/* --- test-report
 * --------------------------------------------------------------------------
 */

static int
digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                 "0123456789+/";
    const char *p = c != '\0' ? strchr(digits, c) : NULL;

    return p != NULL ? (int)(p - digits) : -1;
}

/* In place; the number of bytes. It ends at the first that is no digit. */
static size_t
decode(const char *from, unsigned char *to)
{
    unsigned value = 0, bits = 0;
    size_t n = 0;

    for (int d; (d = digit(*from)) >= 0; from++) {
        value = value << 6 | (unsigned)d;
        bits += 6;
        if (bits < 8)
            continue;
        bits -= 8;
        to[n++] = (unsigned char)(value >> bits);
        value &= (1u << bits) - 1;
    }
    return n;
}

static bool
write_piece(int fd, struct json_object *answer, uint64_t *offset, struct error **err)
{
    const char *data = NULL;
    AUTOFREE(unsigned char) *bytes = NULL;
    size_t n;

    if (!json_get_string(answer, "data", &data, err))
        return false;
    bytes = mem_alloc(strlen(data) + 1, 1);
    n = decode(data, bytes);
    if (n == 0)
        return error_set(err, ERROR_PROTOCOL, "the screenshot ends before its end");
    if (pwrite(fd, bytes, n, (off_t)*offset) != (ssize_t)n)
        return error_errno(err, ERROR_PERMISSION, "write the screenshot");
    *offset += n;
    return true;
}

static bool
save_screenshot(struct session *s, const char *id, const char *file, struct error **err)
{
    AUTOFD(fd) = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    uint64_t offset = 0, size = 1;

    if (fd < 0)
        return error_errno(err, ERROR_PERMISSION, "open '%s'", file);
    while (offset < size) {
        AUTOFREE(char) *rest =
            mem_printf("/screenshot?offset=%llu", (unsigned long long)offset);
        const char *const path[] = { "/tests/", id, rest };
        AUTOJSON *answer = NULL;

        if (!session_call_on(s, "GET", path, NULL, &answer, err) ||
            !json_get_u64(answer, "sizeBytes", UINT32_MAX, &size, err) ||
            (size > 0 && !write_piece(fd, answer, &offset, err)))
            return false;
    }
    return true;
}

HANDLER(handle_test_report)
{
    const char *key = invocation_text(inv, "TEST", "");
    const char *file = invocation_text(inv, "screenshot", NULL);
    AUTOJSON *answer = NULL;
    struct json_object *items = NULL, *test;

    if (!find_tests(s, key, &answer, &items, err))
        return false;
    test = show_item(items, 0); /* the newest */
    if (test == NULL)
        return error_set(err, ERROR_NOT_FOUND, "VM '%s' was never tested", key);
    if (file != NULL && !save_screenshot(s, text(test, "id"), file, err))
        return false;
    writer_answer(s->out, test);
    show_test(s->out, test);
    return true;
}
