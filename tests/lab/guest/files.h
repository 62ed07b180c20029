/* A file system in which files come and go all the time, and which can be frozen.
 *
 * It is at FILES_FOLDER if the guest has one. Owns one thread. Nothing is ever
 * synchronised, so that its journal is hardly ever empty while it runs. */

#ifndef LAB_FILES_H
#define LAB_FILES_H

#include <stdbool.h>

#define FILES_FOLDER "/fs"

/* Begins to write, if there is one. */
void files_start(void);

/* True as well if there is none. */
bool files_freeze(void);
bool files_thaw(void);

#endif
