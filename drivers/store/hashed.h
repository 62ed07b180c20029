/*
 * JSON files that carry a hash of themselves: a bit that flips in one is told, also
 * when it makes of a name or a number another one that is valid.
 *
 * The last member is "hash", the XXH3-64 of the file's bytes in 16 hex digits, with
 * zeroes in the place of these digits. Any thread.
 */
#ifndef DRIVERS_STORE_HASHED_H
#define DRIVERS_STORE_HASHED_H

#include <json-c/json.h>

#include "common/error.h"

/* Adds the hash to o and replaces the file; durable when it returns true. */
bool hashed_save(int at, const char *name, struct json_object *o, struct error **err);

/* ERROR_STORE: it cannot be read, or is not what was written. */
bool hashed_load(int at, const char *name, struct json_object **ret, struct error **err);

/* Writes the right hash into a text that has a place for it; false if it has none. */
bool hashed_put(char *text, size_t n);

#endif
