/*
 * The commands of virt-dr, as data. A handler makes its requests through the
 * session and gives what it got to the session's writer.
 */
#ifndef CLIENT_COMMAND_H
#define CLIENT_COMMAND_H

#include "client/param.h"

struct invocation;
struct session;

/* False: the error decides about the exit status. */
typedef bool (*command_fn)(struct session *s, const struct invocation *inv,
                           struct error **err);

struct command {
    const char *name; /* NULL ends the table */
    const char *group;
    const char *help;              /* one sentence */
    const struct param *arguments; /* positional, in order; may be NULL */
    const struct param *options;   /* may be NULL */
    command_fn run;
};

/* All commands, group by group, in the order of the help. */
const struct command *command_table(void);

/* NULL: there is none of that name. */
const struct command *command_find(const char *name);

/* Options that every command takes. */
const struct param *command_global_options(void);

#endif
