/* The completion for bash, made of the command table. */
#ifndef CLIENT_COMPLETION_H
#define CLIENT_COMPLETION_H

#include <stdio.h>

void completion_print(FILE *out);

#endif
