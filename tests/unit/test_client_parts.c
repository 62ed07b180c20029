#include "tests/unit/unit.h"

#include <stdio.h>

#include "client/human.h"
#include "client/invocation.h"
#include "client/progress.h"
#include "client/writer.h"
#include "common/json.h"

#define N_WORDS(words) ((int)N_ELEMENTS(words) - 1)

/* Parses "virt-dr WORDS...". */
#define PARSE(ret, err, ...)                                                     \
    __extension__({                                                              \
        const char *words_[] = { "virt-dr", __VA_ARGS__, NULL };                 \
        invocation_parse(N_WORDS(words_), (char **)(uintptr_t)words_, ret, err); \
    })

static void
options_may_stand_before_and_after_the_command(void **state UNUSED)
{
    AUTOPTR(invocation) *inv = NULL;
    struct error *err = NULL;

    assert_ok(PARSE(&inv, &err, "-o", "json", "protect", "web01", "--to=b", "--rpo",
                    "1m30s", "--exclude-disk", "vdb", "--exclude-disk=vdc", "-q", "-w"),
              err);
    assert_string_equal(invocation_command(inv)->name, "protect");
    assert_string_equal(invocation_text(inv, "DOMAIN", NULL), "web01");
    assert_string_equal(invocation_text(inv, "to", NULL), "b");
    assert_string_equal(invocation_text(inv, "output", NULL), "json");
    assert_int_equal(invocation_number(inv, "rpo", 0), 90000);
    assert_string_equal(invocation_nth(inv, "exclude-disk", 1), "vdc");
    assert_null(invocation_nth(inv, "exclude-disk", 2));
    assert_true(invocation_has(inv, "quiet"));
    assert_true(invocation_has(inv, "wait"));
    assert_false(invocation_has(inv, "storage"));
    assert_string_equal(invocation_text(inv, "storage", "none"), "none");
}

static void
two_dashes_end_the_options(void **state UNUSED)
{
    AUTOPTR(invocation) *inv = NULL;
    struct error *err = NULL;

    assert_ok(PARSE(&inv, &err, "info", "--", "--strange"), err);
    assert_string_equal(invocation_text(inv, "VM", NULL), "--strange");
}

static void
help_and_version_win_over_what_is_missing(void **state UNUSED)
{
    AUTOPTR(invocation) *about = NULL;
    AUTOPTR(invocation) *all = NULL;
    AUTOPTR(invocation) *version = NULL;
    struct error *err = NULL;

    assert_ok(PARSE(&about, &err, "protect", "--help"), err);
    assert_string_equal(invocation_command(about)->name, "help");
    assert_string_equal(invocation_text(about, "COMMAND", NULL), "protect");
    assert_ok(PARSE(&all, &err, "-h"), err);
    assert_string_equal(invocation_command(all)->name, "help");
    assert_false(invocation_has(all, "COMMAND"));
    assert_ok(PARSE(&version, &err, "--version"), err);
    assert_string_equal(invocation_command(version)->name, "version");
}

static void
what_is_no_command_line_is_a_usage_error(void **state UNUSED)
{
    struct invocation *inv = NULL;
    struct error *err = NULL;

    assert_fails(
        invocation_parse(1, (char *[]){ (char[]){ "virt-dr" }, NULL }, &inv, &err), err,
        ERROR_USAGE);
    assert_fails(invocation_parse(0, (char *[]){ NULL }, &inv, &err), err, ERROR_USAGE);
    assert_fails(PARSE(&inv, &err, "frobnicate"), err, ERROR_USAGE);
    assert_fails(PARSE(&inv, &err, "info"), err, ERROR_USAGE);
    assert_fails(PARSE(&inv, &err, "info", "a", "b"), err, ERROR_USAGE);
    assert_fails(PARSE(&inv, &err, "info", ""), err, ERROR_USAGE);
    assert_fails(PARSE(&inv, &err, "info", "a", "--force"), err, ERROR_USAGE);
    assert_fails(PARSE(&inv, &err, "info", "a", "-z"), err, ERROR_USAGE);
    assert_fails(PARSE(&inv, &err, "list", "-o"), err, ERROR_USAGE);
    assert_fails(PARSE(&inv, &err, "list", "-o", "xml"), err, ERROR_USAGE);
    assert_fails(PARSE(&inv, &err, "list", "--quiet=yes"), err, ERROR_USAGE);
    assert_fails(PARSE(&inv, &err, "list", "-o", "json", "-o", "json"), err, ERROR_USAGE);
    assert_fails(PARSE(&inv, &err, "protect", "a"), err, ERROR_USAGE);
    assert_fails(PARSE(&inv, &err, "protect", "a", "--to", "b", "--rpo", "5"), err,
                 ERROR_USAGE);
    assert_fails(PARSE(&inv, &err, "task-list", "--limit", "-1"), err, ERROR_USAGE);
    assert_null(inv);
}

static void
too_many_words_are_refused(void **state UNUSED)
{
    enum {
        N = 1000
    };
    AUTOFREE(char *) *words = mem_alloc(N + 1, sizeof(char *));
    char command[] = "protect", disk[] = "--exclude-disk=vdb";
    struct invocation *inv = NULL;
    struct error *err = NULL;

    for (int i = 0; i < N; i++)
        words[i] = i < 2 ? command : disk;
    assert_fails(invocation_parse(N, words, &inv, &err), err, ERROR_USAGE);
}

static void
a_value_is_checked_by_its_type(void **state UNUSED)
{
    const struct param size = { "size", 0, PARAM_SIZE, .value = "SIZE" };
    const struct param number = { "n", 0, PARAM_INT, .value = "N" };
    AUTOFREE(char) *longest = mem_alloc(5001, 1);
    struct error *err = NULL;
    int64_t value = 7;

    assert_ok(param_check(&size, "20GiB", &value, &err), err);
    assert_true(value == 20ll << 30);
    assert_ok(param_check(&number, "42", &value, &err), err);
    assert_true(value == 42);
    assert_fails(param_check(&number, "42x", &value, &err), err, ERROR_USAGE);
    assert_fails(param_check(&size, "much", &value, &err), err, ERROR_USAGE);
    assert_true(value == 42);
    memset(longest, '1', 5000);
    assert_fails(param_check(&number, longest, &value, &err), err, ERROR_USAGE);
}

static void
foreign_text_cannot_command_a_terminal(void **state UNUSED)
{
    static const char *const cases[][2] = {
        { "web01", "web01" },
        { "a\033[31mb", "a?[31mb" },
        { "two\nlines", "two lines" },
        { "tab\tdel\x7f", "tab?del?" },
        { "csi \xc2\x9b", "csi ??" },
        { "bad \xff\xfe", "bad ??" },
        { "over \u202egnp", "over ???gnp" },
        { "m\u00fcller \u4e16", "m\u00fcller \u4e16" },
    };

    for (size_t i = 0; i < N_ELEMENTS(cases); i++) {
        AUTOFREE(char) *clean = human_clean(cases[i][0]);

        assert_string_equal(clean, cases[i][1]);
    }
    assert_int_equal(human_width("m\u00fcller \u4e16"), 8);
}

static void
time_left_reads_like_a_clock(void **state UNUSED)
{
    static const struct {
        int64_t ms;
        const char *text;
    } cases[] = { { 0, "0:00" },
                  { 1, "0:01" },
                  { 2000, "0:02" },
                  { 61000, "1:01" },
                  { 3661000, "1:01:01" },
                  { -5, "0:00" },
                  { INT64_MAX, "2562047788015:12:56" } };

    for (size_t i = 0; i < N_ELEMENTS(cases); i++) {
        AUTOFREE(char) *left = human_left(cases[i].ms);

        assert_string_equal(left, cases[i].text);
    }
}

static void
a_progress_line_fits_its_columns(void **state UNUSED)
{
    const struct progress_state sync = {
        .what = "first sync",
        .percent = 52.3,
        .done_bytes = 1288490189,
        .total_bytes = 2ull << 30,
        .rate = 612ull << 20,
        .left_ms = 2000,
    };
    AUTOFREE(char) *wide = progress_line(&sync, 74);
    AUTOFREE(char) *narrow = progress_line(&sync, 20);

    assert_string_equal(wide, "first sync  [#####>    ]   52.3%  1.2 GiB/2.0 GiB  "
                              "612.0 MiB/s  0:02 left");
    assert_true(strlen(wide) < 74);
    assert_string_equal(narrow, "first sync   52.3%  1.2 GiB/2.0 GiB  612.0 MiB/s  "
                                "0:02 left");
    for (unsigned columns = 0; columns < 300; columns++) {
        AUTOFREE(char) *line = progress_line(&sync, columns);

        assert_true(strlen(line) < columns || strchr(line, '[') == NULL);
    }
}

static void
percentages_beyond_the_ends_stay_within_the_bar(void **state UNUSED)
{
    AUTOFREE(char) *over =
        progress_line(&(struct progress_state){ .what = "x", .percent = 1e9 }, 29);
    AUTOFREE(char) *under =
        progress_line(&(struct progress_state){ .what = "x", .percent = -3 }, 29);

    assert_string_equal(over, "x  [###############]  100.0%");
    assert_string_equal(under, "x  [>              ]    0.0%");
}

/* Writes one of each into memory. */
static char *
written(const char *format, bool quiet, bool colours)
{
    static const char *const columns[] = { "NAME", "STATE" };
    AUTOJSON *answer = json_object_new_object();
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    struct writer *w = writer_new(writer_ops_find(format), out, quiet, colours);

    json_set_string(answer, "name", "a\x7f\xc2\x9b");
    writer_answer(w, answer);
    writer_heading(w, "Group");
    writer_field(w, "Key", TONE_GOOD, "%s", "value\033");
    writer_table_start(w, columns, N_ELEMENTS(columns));
    writer_cell(w, TONE_PLAIN, "long-name");
    writer_cell(w, TONE_BAD, "red");
    writer_cell(w, TONE_PLAIN, "\u00fc");
    writer_cell(w, TONE_PLAIN, "%s", "");
    writer_table_end(w);
    writer_say(w, "said %d", 1);
    writer_bare(w, "bare");
    writer_item(w, answer);
    writer_free(w);
    fclose(out);
    return text;
}

static void
the_table_format_makes_pages(void **state UNUSED)
{
    AUTOFREE(char) *plain = written("table", false, false);
    AUTOFREE(char) *coloured = written("table", false, true);
    AUTOFREE(char) *quiet = written("table", true, false);

    assert_string_equal(plain, "Group\n"
                               "Key:              value?\n"
                               "NAME       STATE\n"
                               "long-name  red\n"
                               "\u00fc\n"
                               "said 1\n");
    assert_non_null(strstr(coloured, "\033[32mvalue?\033[0m\n"));
    assert_non_null(strstr(coloured, "long-name  \033[1;31mred\033[0m\n"));
    assert_string_equal(quiet, "Key:              value?\nlong-name\n\u00fc\nbare\n");
}

static void
the_json_format_prints_answers_alone(void **state UNUSED)
{
    AUTOFREE(char) *json = written("json", false, true);

    assert_string_equal(json, "{\n  \"name\": \"a\\u007f\\u009b\"\n}\n"
                              "{\"name\":\"a\\u007f\\u009b\"}\n");
}

static void
only_known_formats_are_found(void **state UNUSED)
{
    assert_non_null(writer_ops_find("table"));
    assert_non_null(writer_ops_find("json"));
    assert_null(writer_ops_find("xml"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_may_stand_before_and_after_the_command),
        cmocka_unit_test(two_dashes_end_the_options),
        cmocka_unit_test(help_and_version_win_over_what_is_missing),
        cmocka_unit_test(what_is_no_command_line_is_a_usage_error),
        cmocka_unit_test(too_many_words_are_refused),
        cmocka_unit_test(a_value_is_checked_by_its_type),
        cmocka_unit_test(foreign_text_cannot_command_a_terminal),
        cmocka_unit_test(time_left_reads_like_a_clock),
        cmocka_unit_test(a_progress_line_fits_its_columns),
        cmocka_unit_test(percentages_beyond_the_ends_stay_within_the_bar),
        cmocka_unit_test(the_table_format_makes_pages),
        cmocka_unit_test(the_json_format_prints_answers_alone),
        cmocka_unit_test(only_known_formats_are_found),
    };

    return cmocka_run_group_tests_name("client parts", tests, NULL, NULL);
}
