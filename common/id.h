/* Random identifiers in the form of a UUID (version 4, RFC 4122). Any thread. */
#ifndef COMMON_ID_H
#define COMMON_ID_H

#include <stdbool.h>

#define ID_TEXT 37 /* with the NUL */

void id_new(char ret[ID_TEXT]);

/* Is it 8-4-4-4-12 lower-case hex digits? Ids from outside become file names. */
bool id_is_valid(const char *text);

#endif
