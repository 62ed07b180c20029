/*
 * Errors: a code from error_codes.def and one message for a person.
 *
 * A function that can fail returns bool and takes `struct error **err` last.
 * All error_* setters return false, so that they can be returned:
 *
 *     return error_set(err, ERROR_USAGE, "rpo '%s' is below 1 s", text);
 *
 * On the way up add what you were doing with error_prefix(). Log where the
 * error stops and nowhere below. err may be NULL when the caller ignores the
 * reason. A set error is never overwritten: that would be our own bug.
 * Errors belong to one thread at a time.
 */
#ifndef COMMON_ERROR_H
#define COMMON_ERROR_H

#include <stdbool.h>

#include "common/mem.h"

enum error_code {
#define ERROR_CODE(name, string, http, exit, text) ERROR_##name,
#include "common/error_codes.def"
#undef ERROR_CODE
    ERROR_N_CODES,
};

struct error;

bool
error_set(struct error **err, enum error_code code, const char *format, ...) PRINTF(3, 4);

/* As error_set(), with ": <strerror(errno)>" behind it. */
bool error_errno(struct error **err, enum error_code code, const char *format, ...)
    PRINTF(3, 4);

/* Puts "<format>: " in front of the message; the code stays. */
bool error_prefix(struct error **err, const char *format, ...) PRINTF(2, 3);

/* Moves an error on: *err takes over `from`. NULL err frees it. */
bool error_propagate(struct error **err, struct error *from);

enum error_code error_code(const struct error *e);
const char *error_message(const struct error *e);
void error_free(struct error *e);
DEFINE_AUTOPTR(error);

/* Frees *err and makes it NULL: the failure was handled. */
void error_clear(struct error **err);

bool error_is(const struct error *e, enum error_code code);

/* The row of a code in the list. */
const char *error_code_string(enum error_code code);
int error_code_http(enum error_code code);
int error_code_exit(enum error_code code);
const char *error_code_text(enum error_code code);

/* The code of a string from a peer or the API; INTERNAL if it is unknown. */
enum error_code error_code_from_string(const char *string);

#endif
