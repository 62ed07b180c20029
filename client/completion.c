#include "client/completion.h"

#include "client/command.h"

static const char *
values_of(enum param_completer completer)
{
    switch (completer) {
    case COMPLETE_FILE:
        return "files";
    case COMPLETE_FORMAT:
        return "formats";
    case COMPLETE_COMMAND:
        return "commands";
    case COMPLETE_PEER:
        return "peers";
    case COMPLETE_DOMAIN:
        return "domains";
    case COMPLETE_VM:
        return "vms";
    case COMPLETE_TASK:
        return "tasks";
    case COMPLETE_NOTHING:
        break;
    }
    return "nothing";
}

static void
print_words(const struct param *params, FILE *out)
{
    for (const struct param *p = params; p != NULL && p->name != NULL; p++)
        fprintf(out, " --%s", p->name);
}

static void
print_commands(FILE *out)
{
    fprintf(out, "_virt_dr_commands=\"");
    for (const struct command *c = command_table(); c->name != NULL; c++)
        fprintf(out, "%s%s", c == command_table() ? "" : " ", c->name);
    fprintf(out, "\"\n_virt_dr_globals=\"");
    print_words(command_global_options(), out);
    fprintf(out, "\"\n\n");
}

/* "COMMAND) words=" for each command: its options. */
static void
print_options(FILE *out)
{
    fprintf(out, "_virt_dr_options() {\n    case $1 in\n");
    for (const struct command *c = command_table(); c->name != NULL; c++) {
        if (c->options == NULL)
            continue;
        fprintf(out, "    %s) echo \"", c->name);
        print_words(c->options, out);
        fprintf(out, "\" ;;\n");
    }
    fprintf(out, "    esac\n}\n\n");
}

static void
print_option_values(const char *command, const struct param *params, FILE *out)
{
    for (const struct param *p = params; p != NULL && p->name != NULL; p++) {
        if (p->type == PARAM_FLAG)
            continue;
        fprintf(out, "    %s,--%s", command, p->name);
        if (p->short_name != '\0')
            fprintf(out, " | %s,-%c", command, p->short_name);
        fprintf(out, ") echo %s ;;\n", values_of(p->completer));
    }
}

/* What follows an option (COMMAND,--OPTION), and what the command itself takes. */
static void
print_values(FILE *out)
{
    fprintf(out, "_virt_dr_kind() {\n    case $1,$2 in\n");
    for (const struct command *c = command_table(); c->name != NULL; c++)
        print_option_values(c->name, c->options, out);
    print_option_values("*", command_global_options(), out);
    for (const struct command *c = command_table(); c->name != NULL; c++)
        if (c->arguments != NULL)
            fprintf(out, "    %s,) echo %s ;;\n", c->name,
                    values_of(c->arguments->completer));
    fprintf(out, "    esac\n}\n\n");
}

static const char lookup[] =
    "_virt_dr_values() {\n"
    "    case $1 in\n"
    "    formats) echo \"table json\" ;;\n"
    "    commands) echo \"$_virt_dr_commands\" ;;\n"
    "    peers) virt-dr --quiet peer-list 2>/dev/null ;;\n"
    "    vms) virt-dr --quiet list 2>/dev/null ;;\n"
    "    tasks) virt-dr --quiet task-list 2>/dev/null ;;\n"
    "    domains) virsh --readonly list --all --name 2>/dev/null ;;\n"
    "    esac\n"
    "}\n"
    "\n";

/* Finds the command among the words before the cursor, then what can stand here. */
static const char complete[] =
    "_virt_dr() {\n"
    "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}\n"
    "    local command='' kind='' words='' skip='' i IFS=$' \\t\\n'\n"
    "\n"
    "    COMPREPLY=()\n"
    "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
    "        if [[ -n $skip ]]; then\n"
    "            skip=\n"
    "        elif [[ ${COMP_WORDS[i]} == -* ]]; then\n"
    "            [[ -n $(_virt_dr_kind \"$command\" \"${COMP_WORDS[i]}\") ]] && "
    "skip=yes\n"
    "        elif [[ -z $command ]]; then\n"
    "            command=${COMP_WORDS[i]}\n"
    "        fi\n"
    "    done\n"
    "    if [[ -n $skip ]]; then\n"
    "        kind=$(_virt_dr_kind \"$command\" \"$before\")\n"
    "    elif [[ $word == -* ]]; then\n"
    "        words=\"$(_virt_dr_options \"$command\")$_virt_dr_globals\"\n"
    "    elif [[ -z $command ]]; then\n"
    "        kind=commands\n"
    "    else\n"
    "        kind=$(_virt_dr_kind \"$command\" \"\")\n"
    "    fi\n"
    "    if [[ $kind == files ]]; then\n"
    "        mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n"
    "        return\n"
    "    fi\n"
    "    [[ -n $kind ]] && words=$(_virt_dr_values \"$kind\")\n"
    "    mapfile -t COMPREPLY < <(_virt_dr_match \"$word\" \"$words\")\n"
    "}\n"
    "\n"
    "complete -F _virt_dr virt-dr\n";

/* Names come from other hosts: they are compared and quoted, never expanded. */
static const char match[] =
    "_virt_dr_match() {\n"
    "    local candidate\n"
    "\n"
    "    set -f\n"
    "    for candidate in $2; do\n"
    "        [[ $candidate == \"$1\"* ]] && printf '%q\\n' \"$candidate\"\n"
    "    done\n"
    "}\n"
    "\n";

void
completion_print(FILE *out)
{
    fprintf(out, "# bash completion for virt-dr; printed by client/print-completion.\n"
                 "# shellcheck shell=bash\n\n");
    print_commands(out);
    print_options(out);
    print_values(out);
    fputs(lookup, out);
    fputs(match, out);
    fputs(complete, out);
}
