/* Files and programs for tests: short, and any failure fails the test. */
#ifndef TESTS_SIM_FILES_H
#define TESTS_SIM_FILES_H

#include <stddef.h>

void file_write(const char *path, const char *text);
void file_append(const char *path, const char *text);

/* With a NUL behind it, the caller's to free; NULL if there is none. */
char *file_read(const char *path);
char *file_read_bytes(const char *path, size_t *ret_n);

/* A folder and all that is in it; nothing if it does not exist. */
void files_remove(const char *path);

/* The running program, to be started once more; the caller's to free. */
char *file_of_this_program(void);

/* Must end with status 0. argv ends with NULL. */
void run_program(const char *const *argv);

#endif
