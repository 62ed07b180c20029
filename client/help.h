/* The help, made of the command table. */
#ifndef CLIENT_HELP_H
#define CLIENT_HELP_H

#include <stdio.h>

#include "client/command.h"

void help_overview(FILE *out);
void help_command(const struct command *c, FILE *out);

/* "protect DOMAIN --to PEER [--rpo DURATION] ..."; the caller frees. */
char *help_synopsis(const struct command *c);

#endif
