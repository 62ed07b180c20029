/*
 * Helpers over json-c: typed, checked reading and short writing.
 *
 * Readers: the member must exist and have the type, else ERROR_PROTOCOL
 * naming the member. The _opt variants leave
 * *ret untouched when the member is absent or null; a wrong type is an error
 * still. Strings returned are borrowed from the object. Objects follow json-c's
 * reference counting; AUTOJSON puts one reference at the end of the scope.
 */
#ifndef COMMON_JSON_H
#define COMMON_JSON_H

#include <json-c/json.h>
#include <stdint.h>

#include "common/error.h"

#define JSON_MAX_BYTES (4u << 20) /* texts above are refused before parsing */
#define JSON_MAX_DEPTH 16

/* AUTOJSON *o = ...; puts the reference at the end of the scope. */
#define AUTOJSON CLEANUP(json_putp) struct json_object

static inline void
json_putp(struct json_object **p)
{
    json_object_put(*p);
}

/* Parses a whole text of n bytes; the result must be an object. */
bool json_parse(const char *text, size_t n, struct json_object **ret, struct error **err);

bool json_get_string(struct json_object *o, const char *key, const char **ret,
                     struct error **err);
bool json_get_int(struct json_object *o, const char *key, int64_t min, int64_t max,
                  int64_t *ret, struct error **err);
bool json_get_u64(struct json_object *o, const char *key, uint64_t max, uint64_t *ret,
                  struct error **err);
bool json_get_bool(struct json_object *o, const char *key, bool *ret, struct error **err);
bool
json_get_double(struct json_object *o, const char *key, double *ret, struct error **err);
bool json_get_object(struct json_object *o, const char *key, struct json_object **ret,
                     struct error **err);
bool json_get_array(struct json_object *o, const char *key, struct json_object **ret,
                    struct error **err);

bool json_opt_string(struct json_object *o, const char *key, const char **ret,
                     struct error **err);
bool json_opt_int(struct json_object *o, const char *key, int64_t min, int64_t max,
                  int64_t *ret, struct error **err);
bool json_opt_u64(struct json_object *o, const char *key, uint64_t max, uint64_t *ret,
                  struct error **err);
bool json_opt_bool(struct json_object *o, const char *key, bool *ret, struct error **err);

/* Quiet readers for objects that we wrote ourselves and for display. */
const char *json_string_or(struct json_object *o, const char *key, const char *fallback);
int64_t json_int_or(struct json_object *o, const char *key, int64_t fallback);
double json_double_or(struct json_object *o, const char *key, double fallback);
bool json_bool_or(struct json_object *o, const char *key, bool fallback);
struct json_object *json_object_or_null(struct json_object *o, const char *key);
struct json_object *json_array_or_null(struct json_object *o, const char *key);

/* Writers; a NULL string stores null. json_set() takes over value. */
void json_set_string(struct json_object *o, const char *key, const char *value);
void json_set_int(struct json_object *o, const char *key, int64_t value);
void json_set_u64(struct json_object *o, const char *key, uint64_t value);
void json_set_bool(struct json_object *o, const char *key, bool value);
void json_set_double(struct json_object *o, const char *key, double value);
void json_set(struct json_object *o, const char *key, struct json_object *value);
void json_append_string(struct json_object *array, const char *value);

/* The text of o, borrowed from it, without spaces. */
const char *json_text(struct json_object *o);

/* {"code": ..., "message": ...} of an error, and the way back (always false). */
struct json_object *json_from_error(const struct error *e);
bool json_to_error(struct json_object *o, struct error **err);

#endif
