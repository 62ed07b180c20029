/*
 * One command line, parsed and checked against the command's table.
 *
 * Options may stand before and after the command's name; "--" ends them.
 * Borrows argv, which must outlive it.
 */
#ifndef CLIENT_INVOCATION_H
#define CLIENT_INVOCATION_H

#include "client/command.h"

struct invocation;

/*
 * argv[0] is skipped. "--help" and "--version" become the commands help and
 * version; no command at all becomes ERROR_USAGE. Every error is ERROR_USAGE
 * and one line.
 */
bool invocation_parse(int argc, char **argv, struct invocation **ret, struct error **err);
void invocation_free(struct invocation *inv);
DEFINE_AUTOPTR(invocation);

const struct command *invocation_command(const struct invocation *inv);

/* Was the flag or parameter given? */
bool invocation_has(const struct invocation *inv, const char *name);

/* The first value of an option or argument; the fallback if it was not given. */
const char *
invocation_text(const struct invocation *inv, const char *name, const char *fallback);
int64_t
invocation_number(const struct invocation *inv, const char *name, int64_t fallback);

/* The value number `index` of a repeated parameter; NULL behind the last. */
const char *invocation_nth(const struct invocation *inv, const char *name, size_t index);

#endif
