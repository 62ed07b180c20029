#include "client/help.h"

#include <string.h>

#define HELP_COLUMN 28

static void
append(char **text, const char *more)
{
    char *longer = mem_printf("%s%s", *text, more);

    free(*text);
    *text = longer;
}

static void
append_param(char **text, const struct param *p, const char *dashes)
{
    AUTOFREE(char) *word =
        mem_printf("%s%s%s%s", dashes, p->name, p->value == NULL ? "" : " ",
                   p->value == NULL ? "" : p->value);
    AUTOFREE(char) *whole = p->required
                                ? mem_printf(" %s", word)
                                : mem_printf(" [%s]%s", word, p->repeated ? "..." : "");

    append(text, whole);
}

char *
help_synopsis(const struct command *c)
{
    char *text = mem_strdup(c->name);

    for (const struct param *p = c->arguments; p != NULL && p->name != NULL; p++)
        append_param(&text, p, "");
    for (const struct param *p = c->options; p != NULL && p->name != NULL; p++)
        append_param(&text, p, "--");
    return text;
}

static void
print_params(const struct param *params, const char *dashes, FILE *out)
{
    for (const struct param *p = params; p != NULL && p->name != NULL; p++) {
        char short_name[] = { '-', p->short_name, ',', ' ', '\0' };
        AUTOFREE(char) *word = mem_printf(
            "%s%s%s%s%s", p->short_name == '\0' ? "" : short_name, dashes, p->name,
            p->value == NULL ? "" : " ", p->value == NULL ? "" : p->value);

        fprintf(out, "  %-*s %s\n", HELP_COLUMN, word, p->help);
    }
}

void
help_command(const struct command *c, FILE *out)
{
    AUTOFREE(char) *synopsis = help_synopsis(c);

    fprintf(out, "virt-dr %s\n\n%s\n", synopsis, c->help);
    if (c->arguments != NULL) {
        fprintf(out, "\nArguments:\n");
        print_params(c->arguments, "", out);
    }
    if (c->options != NULL) {
        fprintf(out, "\nOptions:\n");
        print_params(c->options, "--", out);
    }
    fprintf(out, "\nThe options of every command: virt-dr help\n");
}

void
help_overview(FILE *out)
{
    const char *group = "";

    fprintf(out, "virt-dr [OPTION]... COMMAND [ARGUMENT]...\n");
    for (const struct command *c = command_table(); c->name != NULL; c++) {
        if (strcmp(c->group, group) != 0)
            fprintf(out, "\n%s:\n", c->group);
        group = c->group;
        fprintf(out, "  %-14s %s\n", c->name, c->help);
    }
    fprintf(out, "\nOptions of every command:\n");
    print_params(command_global_options(), "--", out);
    fprintf(out, "\nvirt-dr help COMMAND shows a command's own options.\n");
}
