/* The manual, openapi.yaml and the completion say what the tables say, both ways. */
#include "tests/unit/unit.h"

#include <ctype.h>
#include <stdio.h>

#include "client/command.h"
#include "client/completion.h"

#define MAX_FILE (1u << 20)

static char *
read_file(const char *path)
{
    const char *folder = getenv("top_srcdir");
    AUTOFREE(char) *whole = mem_printf("%s/%s", folder == NULL ? "." : folder, path);
    char *text = mem_alloc(MAX_FILE, 1);
    FILE *f = fopen(whole, "r");

    if (f == NULL)
        fail_msg("open '%s'", whole);
    assert_true(fread(text, 1, MAX_FILE - 1, f) < MAX_FILE - 1);
    fclose(f);
    return text;
}

/* The word at text, without what can follow it in the sources. */
static char *
word_at(const char *text)
{
    return mem_memdup(text, strcspn(text, " \n"));
}

/* Every "Fl Fl NAME" of an item's line is an option; counts it. */
static size_t
options_of_line(const char *line, const struct command *c)
{
    const struct param *known = c == NULL ? command_global_options() : c->options;
    const char *flag = strstr(line, "Fl Fl ");
    AUTOFREE(char) *name = NULL;
    const struct param *p;

    assert_non_null(flag);
    name = word_at(flag + strlen("Fl Fl "));
    p = param_find(known, name);
    if (p == NULL)
        fail_msg("the manual has the option '%s' of '%s'", name,
                 c == NULL ? "virt-dr" : c->name);
    if (p->short_name != '\0') {
        AUTOFREE(char) *both = mem_printf(".It Fl %c , Fl Fl %s", p->short_name, name);

        assert_int_equal(strncmp(line, both, strlen(both)), 0);
    }
    if (p->value != NULL) {
        AUTOFREE(char) *value = mem_printf("Ar %s", p->value);

        assert_non_null(strstr(line, value));
    }
    return 1;
}

static size_t
count_params(const struct param *params)
{
    size_t n = 0;

    while (params != NULL && params[n].name != NULL)
        n++;
    return n;
}

static const struct command *
command_of_line(const char *line)
{
    AUTOFREE(char) *name = word_at(line + strlen(".It Ic "));
    const struct command *c = command_find(name);

    if (c == NULL)
        fail_msg("the manual has the command '%s'", name);
    for (size_t i = 0; i < count_params(c->arguments); i++) {
        AUTOFREE(char) *argument = mem_printf("Ar %s", c->arguments[i].name);

        assert_non_null(strstr(line, argument));
    }
    return c;
}

static void
the_manual_has_the_commands_and_options_of_the_table(void **state UNUSED)
{
    AUTOFREE(char) *manual = read_file("docs/virt-dr.1");
    const struct command *command = NULL;
    size_t n_commands = 0, n_options = 0, wanted_commands = 0;
    size_t wanted_options = count_params(command_global_options());
    char *rest = manual;
    char *line;

    while ((line = strsep(&rest, "\n")) != NULL) {
        if (strncmp(line, ".It Ic ", 7) == 0) {
            command = command_of_line(line);
            n_commands++;
        } else if (strncmp(line, ".It Fl ", 7) == 0) {
            n_options += options_of_line(line, command);
        }
    }
    for (const struct command *c = command_table(); c->name != NULL; c++) {
        wanted_commands++;
        wanted_options += count_params(c->options);
    }
    assert_int_equal(n_commands, wanted_commands);
    assert_int_equal(n_options, wanted_options);
}

/* Lines and runs of spaces become one space. */
static void
squeeze(char *text)
{
    char *out = text;

    for (const char *p = text; *p != '\0'; p++) {
        if (!isspace((unsigned char)*p))
            *out++ = *p;
        else if (out > text && out[-1] != ' ')
            *out++ = ' ';
    }
    *out = '\0';
}

static size_t
count(const char *text, const char *word)
{
    size_t n = 0;

    while ((text = strstr(text, word)) != NULL) {
        n++;
        text += strlen(word);
    }
    return n;
}

static void
the_manual_has_the_exit_statuses_of_the_list(void **state UNUSED)
{
    AUTOFREE(char) *manual = read_file("docs/virt-dr.1");

    squeeze(manual);
    for (int i = 0; i < ERROR_N_CODES; i++) {
        enum error_code code = (enum error_code)i;
        AUTOFREE(char) *row = mem_printf(".It %d Pq Li %s %s", error_code_exit(code),
                                         error_code_string(code), error_code_text(code));

        if (strstr(manual, row) == NULL)
            fail_msg("the manual lacks: %s", row);
    }
    assert_int_equal(count(manual, " Pq Li "), ERROR_N_CODES);
}

static void
the_manual_is_clean_for_mandoc(void **state UNUSED)
{
    const char *folder = getenv("top_srcdir");
    AUTOFREE(char) *check = mem_printf("mandoc -T lint -W warning %s/docs/virt-dr.1 2>&1",
                                       folder == NULL ? "." : folder);
    char line[512] = "";
    FILE *mandoc;

    if (access("/usr/bin/mandoc", X_OK) < 0) {
        print_message("# skipped: mandoc is not installed\n");
        skip();
    }
    mandoc = popen(check, "r");
    assert_non_null(mandoc);
    if (fgets(line, sizeof line, mandoc) != NULL)
        fail_msg("%s", line);
    assert_int_equal(pclose(mandoc), 0);
}

static void
openapi_has_the_codes_of_the_list(void **state UNUSED)
{
    AUTOFREE(char) *yaml = read_file("docs/openapi.yaml");
    char *from = strstr(yaml, "        code:\n          type: string\n          enum:\n");
    char *to;

    assert_non_null(from);
    to = strstr(from, "        message:\n");
    assert_non_null(to);
    *to = '\0';
    for (int i = 0; i < ERROR_N_CODES; i++) {
        AUTOFREE(char) *row =
            mem_printf("            - %s\n", error_code_string((enum error_code)i));

        if (strstr(from, row) == NULL)
            fail_msg("openapi.yaml lacks the code: %s", row);
    }
    assert_int_equal(count(from, "            - "), ERROR_N_CODES);
}

static void
the_completion_is_what_the_table_makes(void **state UNUSED)
{
    AUTOFREE(char) *file = read_file("conf/completion/virt-dr.bash");
    AUTOFREE(char) *made = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&made, &size);

    completion_print(out);
    fclose(out);
    assert_string_equal(file, made);
}

/* Completes the line's last word in a real bash; checks the first offer. */
static void
assert_completes(const char *words, const char *offer)
{
    const char *folder = getenv("top_srcdir");
    AUTOFREE(char) *script = mem_printf(
        "bash --norc -c 'source %s/conf/completion/virt-dr.bash; virt-dr() { "
        "[[ $2 == list ]] && echo web01; [[ $2 == peer-list ]] && echo b; }; "
        "COMP_WORDS=(virt-dr %s); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _virt_dr; "
        "echo \"${COMPREPLY[0]}\"'",
        folder == NULL ? "." : folder, words);
    char line[256] = "";
    FILE *bash = popen(script, "r");

    assert_non_null(bash);
    assert_non_null(fgets(line, sizeof line, bash));
    assert_int_equal(pclose(bash), 0);
    line[strcspn(line, "\n")] = '\0';
    assert_string_equal(line, offer);
}

static void
bash_completes_commands_options_and_names(void **state UNUSED)
{
    assert_completes("fail", "failover");
    assert_completes("-o js", "json");
    assert_completes("--quiet protect x --rp", "--rpo");
    assert_completes("protect x --to \"\"", "b");
    assert_completes("-c uri info we", "web01");
    assert_completes("help eve", "events");
    assert_completes("list --out", "--output");
}

static void
every_row_of_the_tables_is_whole(void **state UNUSED)
{
    for (const struct command *c = command_table(); c->name != NULL; c++) {
        assert_ptr_equal(command_find(c->name), c);
        assert_true(c->help[strlen(c->help) - 1] == '.');
        assert_non_null(c->run);
        for (size_t i = 0; i < count_params(c->options); i++) {
            const struct param *p = &c->options[i];

            assert_null(param_find(command_global_options(), p->name));
            assert_null(param_find_short(command_global_options(), p->short_name));
            assert_true((p->value == NULL) == (p->type == PARAM_FLAG));
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_manual_has_the_commands_and_options_of_the_table),
        cmocka_unit_test(the_manual_has_the_exit_statuses_of_the_list),
        cmocka_unit_test(the_manual_is_clean_for_mandoc),
        cmocka_unit_test(openapi_has_the_codes_of_the_list),
        cmocka_unit_test(the_completion_is_what_the_table_makes),
        cmocka_unit_test(bash_completes_commands_options_and_names),
        cmocka_unit_test(every_row_of_the_tables_is_whole),
    };

    return cmocka_run_group_tests_name("client docs", tests, NULL, NULL);
}
