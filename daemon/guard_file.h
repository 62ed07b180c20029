/*
 * Small files of the guard, one for each VM: read whole, written aside, fsynced and
 * renamed. For guard.c and what is kept beside its records; any thread, and the hook.
 */
#ifndef DAEMON_GUARD_FILE_H
#define DAEMON_GUARD_FILE_H

#include "common/error.h"

#define GUARD_UUID_TEXT 37 /* 36 characters and the NUL */

/* In lower case. A UUID becomes a file's name: anything else is ERROR_USAGE. */
bool guard_file_uuid(const char *uuid, char ret[GUARD_UUID_TEXT], struct error **err);

/* All of a file without NULs. errno tells why not. */
bool guard_file_read(const char *path, char **ret);

/* Whole or not at all under its name, and durable; the folder is made. ERROR_STATE. */
bool guard_file_write(const char *folder, const char *name, const char *text,
                      struct error **err);

/* True as well if there is none. ERROR_STATE. */
bool guard_file_remove(const char *folder, const char *name, struct error **err);

#endif
