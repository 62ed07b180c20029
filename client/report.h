/* The end of a command that failed: the message, a hint, the exit status. */
#ifndef CLIENT_REPORT_H
#define CLIENT_REPORT_H

#include "client/command.h"

/* Both print to stderr and return the exit status. */

/* A command line that could not be parsed. */
int report_usage(int argc, char **argv, const struct error *e);

/* A command that failed while it used virtdrd at that address. */
int report_error(const struct command *about, const char *address, const struct error *e);

#endif
