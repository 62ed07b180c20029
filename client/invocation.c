#include "client/invocation.h"

#include <string.h>

#define MAX_VALUES 128 /* parameters on one command line */

struct value {
    const struct param *param;
    const char *text; /* "" for a flag */
    int64_t number;
};

struct invocation {
    const struct command *command;
    struct value values[MAX_VALUES];
    size_t n_values;
};

/* The words of the command line that are still to be read. */
struct words {
    char **next;
    char **end;
    const struct param *argument; /* the next positional one; NULL before the command */
    bool only_arguments;          /* "--" was met */
};

void
invocation_free(struct invocation *inv)
{
    free(inv);
}

const struct command *
invocation_command(const struct invocation *inv)
{
    return inv->command;
}

const char *
invocation_nth(const struct invocation *inv, const char *name, size_t index)
{
    for (size_t i = 0; i < inv->n_values; i++)
        if (strcmp(inv->values[i].param->name, name) == 0 && index-- == 0)
            return inv->values[i].text;
    return NULL;
}

bool
invocation_has(const struct invocation *inv, const char *name)
{
    return invocation_nth(inv, name, 0) != NULL;
}

const char *
invocation_text(const struct invocation *inv, const char *name, const char *fallback)
{
    const char *text = invocation_nth(inv, name, 0);

    return text == NULL ? fallback : text;
}

int64_t
invocation_number(const struct invocation *inv, const char *name, int64_t fallback)
{
    for (size_t i = 0; i < inv->n_values; i++)
        if (strcmp(inv->values[i].param->name, name) == 0)
            return inv->values[i].number;
    return fallback;
}

static bool
add_value(struct invocation *inv, const struct param *p, const char *text,
          struct error **err)
{
    struct value *v = &inv->values[inv->n_values];

    if (inv->n_values == MAX_VALUES)
        return error_set(err, ERROR_USAGE, "more than %d parameters", MAX_VALUES);
    if (!p->repeated && p->type != PARAM_FLAG && invocation_has(inv, p->name))
        return error_set(err, ERROR_USAGE, "'%s' is given twice", p->name);
    v->param = p;
    v->text = text;
    if (p->type != PARAM_FLAG && !param_check(p, text, &v->number, err))
        return false;
    inv->n_values++;
    return true;
}

/* text is the value in the same word ("--name=value", "-nvalue"), or NULL. */
static bool
add_option(struct invocation *inv, const struct param *p, const char *text,
           struct words *words, struct error **err)
{
    if (p->type == PARAM_FLAG) {
        if (text != NULL)
            return error_set(err, ERROR_USAGE, "'--%s' takes no value", p->name);
        return add_value(inv, p, "", err);
    }
    if (text == NULL) {
        if (words->next == words->end)
            return error_set(err, ERROR_USAGE, "'--%s' needs a %s", p->name, p->value);
        text = *words->next++;
    }
    return add_value(inv, p, text, err);
}

static const struct param *
own_options(const struct invocation *inv)
{
    return inv->command == NULL ? NULL : inv->command->options;
}

static bool
unknown_option(const struct invocation *inv, const char *word, struct error **err)
{
    if (inv->command == NULL)
        return error_set(err, ERROR_USAGE, "unknown option '%s'", word);
    return error_set(err, ERROR_USAGE, "'%s' has no option '%s'", inv->command->name,
                     word);
}

static bool
parse_long(struct invocation *inv, const char *word, struct words *words,
           struct error **err)
{
    const char *equals = strchr(word, '=');
    size_t length = equals == NULL ? strlen(word) : (size_t)(equals - word);
    AUTOFREE(char) *name = mem_memdup(word + 2, length - 2);
    const struct param *p = param_find(own_options(inv), name);

    if (p == NULL)
        p = param_find(command_global_options(), name);
    if (p == NULL)
        return unknown_option(inv, word, err);
    return add_option(inv, p, equals == NULL ? NULL : equals + 1, words, err);
}

static bool
parse_short(struct invocation *inv, const char *word, struct words *words,
            struct error **err)
{
    const struct param *p = param_find_short(own_options(inv), word[1]);

    if (p == NULL)
        p = param_find_short(command_global_options(), word[1]);
    if (p == NULL)
        return unknown_option(inv, word, err);
    return add_option(inv, p, word[2] == '\0' ? NULL : word + 2, words, err);
}

static bool
parse_argument(struct invocation *inv, const char *word, struct words *words,
               struct error **err)
{
    if (inv->command == NULL) {
        inv->command = command_find(word);
        if (inv->command == NULL)
            return error_set(err, ERROR_USAGE, "there is no command '%s'", word);
        words->argument = inv->command->arguments;
        return true;
    }
    if (words->argument == NULL || words->argument->name == NULL)
        return error_set(err, ERROR_USAGE, "'%s' does not take the argument '%s'",
                         inv->command->name, word);
    return add_value(inv, words->argument++, word, err);
}

static bool
parse_word(struct invocation *inv, const char *word, struct words *words,
           struct error **err)
{
    if (words->only_arguments || word[0] != '-' || word[1] == '\0')
        return parse_argument(inv, word, words, err);
    if (strcmp(word, "--") == 0) {
        words->only_arguments = true;
        return true;
    }
    if (word[1] == '-')
        return parse_long(inv, word, words, err);
    return parse_short(inv, word, words, err);
}

static bool
check_required(const struct invocation *inv, const struct param *params,
               const char *dashes, struct error **err)
{
    for (const struct param *p = params; p != NULL && p->name != NULL; p++)
        if (p->required && !invocation_has(inv, p->name))
            return error_set(err, ERROR_USAGE, "'%s' needs %s%s", inv->command->name,
                             dashes, p->name);
    return true;
}

/* "protect --help" asks for the help about protect, whatever else is missing. */
static bool
redirect(struct invocation *inv, struct error **err)
{
    const struct command *about = inv->command;

    if (invocation_has(inv, "version"))
        inv->command = command_find("version");
    if (!invocation_has(inv, "help"))
        return true;
    inv->command = command_find("help");
    if (about == NULL || about == inv->command)
        return true;
    inv->n_values = 0;
    return add_value(inv, inv->command->arguments, about->name, err);
}

bool
invocation_parse(int argc, char **argv, struct invocation **ret, struct error **err)
{
    AUTOPTR(invocation) *inv = NEW(struct invocation);
    struct words words = { .next = argv + MIN(argc, 1), .end = argv + argc };

    while (words.next < words.end) {
        const char *word = *words.next++;

        if (!parse_word(inv, word, &words, err))
            return false;
    }
    if (!redirect(inv, err))
        return false;
    if (inv->command == NULL)
        return error_set(err, ERROR_USAGE, "no command was given");
    if (!check_required(inv, inv->command->arguments, "", err) ||
        !check_required(inv, inv->command->options, "--", err))
        return false;
    *ret = TAKE(inv);
    return true;
}
