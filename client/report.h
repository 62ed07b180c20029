/* The end of a command that failed: the message, a hint, the exit status. */
#ifndef CLIENT_REPORT_H
#define CLIENT_REPORT_H

#include "client/invocation.h"

/* Prints to stderr; inv is NULL if the command line was wrong. The exit status. */
int
report_error(const struct invocation *inv, const char *address, const struct error *e);

#endif
