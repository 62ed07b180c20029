#include "common/json.h"

#include <math.h>
#include <string.h>

#include "common/text.h"

#ifndef JSON_TOKENER_VALIDATE_UTF8
#define JSON_TOKENER_VALIDATE_UTF8 0
#endif

static bool
parse_with(struct json_tokener *tok, const char *text, size_t n, struct json_object **ret,
           struct error **err)
{
    AUTOJSON *o = NULL;

    json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    o = json_tokener_parse_ex(tok, text, (int)n);
    if (json_tokener_get_error(tok) == json_tokener_continue)
        return error_set(err, ERROR_PROTOCOL, "the JSON text ends too early");
    if (json_tokener_get_error(tok) != json_tokener_success)
        return error_set(err, ERROR_PROTOCOL, "not a JSON text: %s",
                         json_tokener_error_desc(json_tokener_get_error(tok)));
    if (!json_object_is_type(o, json_type_object))
        return error_set(err, ERROR_PROTOCOL, "the JSON text is no object");
    *ret = TAKE(o);
    return true;
}

bool
json_parse(const char *text, size_t n, struct json_object **ret, struct error **err)
{
    struct json_tokener *tok;
    bool ok;

    if (n > JSON_MAX_BYTES)
        return error_set(err, ERROR_PROTOCOL,
                         "the JSON text has %zu bytes; %u are allowed", n,
                         JSON_MAX_BYTES);
    if (n == 0)
        return error_set(err, ERROR_PROTOCOL, "the JSON text is empty");
    /* json-c takes a NUL for the end, and would not see what is behind it. */
    if (memchr(text, '\0', n) != NULL)
        return error_set(err, ERROR_PROTOCOL, "the JSON text has a NUL in it");
    tok = json_tokener_new_ex(JSON_MAX_DEPTH);
    if (tok == NULL)
        abort();
    ok = parse_with(tok, text, n, ret, err);
    json_tokener_free(tok);
    return ok;
}

/* The member, NULL if it is absent or null: a peer may write either. */
static struct json_object *
member(struct json_object *o, const char *key)
{
    struct json_object *value = NULL;

    json_object_object_get_ex(o, key, &value);
    return value;
}

static bool
missing(const char *key, struct error **err)
{
    return error_set(err, ERROR_PROTOCOL, "member '%s' is missing", key);
}

static bool
check_type(struct json_object *value, enum json_type type, const char *key,
           struct error **err)
{
    if (json_object_is_type(value, type))
        return true;
    return error_set(err, ERROR_PROTOCOL, "member '%s' is of type %s; it must be %s", key,
                     json_type_to_name(json_object_get_type(value)),
                     json_type_to_name(type));
}

bool
json_opt_string(struct json_object *o, const char *key, const char **ret,
                struct error **err)
{
    struct json_object *value = member(o, key);
    const char *s;

    if (value == NULL)
        return true;
    if (!check_type(value, json_type_string, key, err))
        return false;
    s = json_object_get_string(value);
    /* Else a name that we compare would be another than the one that was sent. */
    if (strlen(s) != (size_t)json_object_get_string_len(value))
        return error_set(err, ERROR_PROTOCOL, "member '%s' has a NUL in it", key);
    *ret = s;
    return true;
}

bool
json_opt_int(struct json_object *o, const char *key, int64_t min, int64_t max,
             int64_t *ret, struct error **err)
{
    struct json_object *value = member(o, key);
    int64_t n;

    if (value == NULL)
        return true;
    if (!check_type(value, json_type_int, key, err))
        return false;
    n = json_object_get_int64(value);
    /* json-c turns what is above INT64_MAX into INT64_MAX. */
    if (n < min || n > max || (n > 0 && json_object_get_uint64(value) > INT64_MAX))
        return error_set(err, ERROR_PROTOCOL,
                         "member '%s' is %s; it must be between %lld and %lld", key,
                         json_object_get_string(value), (long long)min, (long long)max);
    *ret = n;
    return true;
}

bool
json_opt_u64(struct json_object *o, const char *key, uint64_t max, uint64_t *ret,
             struct error **err)
{
    struct json_object *value = member(o, key);
    uint64_t n;

    if (value == NULL)
        return true;
    if (!check_type(value, json_type_int, key, err))
        return false;
    n = json_object_get_uint64(value);
    if (json_object_get_int64(value) < 0 || n > max)
        return error_set(err, ERROR_PROTOCOL,
                         "member '%s' is %s; it must be between 0 and %llu", key,
                         json_object_get_string(value), (unsigned long long)max);
    *ret = n;
    return true;
}

bool
json_opt_bool(struct json_object *o, const char *key, bool *ret, struct error **err)
{
    struct json_object *value = member(o, key);

    if (value == NULL)
        return true;
    if (!check_type(value, json_type_boolean, key, err))
        return false;
    *ret = json_object_get_boolean(value);
    return true;
}

bool
json_get_string(struct json_object *o, const char *key, const char **ret,
                struct error **err)
{
    return member(o, key) == NULL ? missing(key, err) : json_opt_string(o, key, ret, err);
}

bool
json_get_int(struct json_object *o, const char *key, int64_t min, int64_t max,
             int64_t *ret, struct error **err)
{
    return member(o, key) == NULL ? missing(key, err)
                                  : json_opt_int(o, key, min, max, ret, err);
}

bool
json_get_u64(struct json_object *o, const char *key, uint64_t max, uint64_t *ret,
             struct error **err)
{
    return member(o, key) == NULL ? missing(key, err)
                                  : json_opt_u64(o, key, max, ret, err);
}

bool
json_get_bool(struct json_object *o, const char *key, bool *ret, struct error **err)
{
    return member(o, key) == NULL ? missing(key, err) : json_opt_bool(o, key, ret, err);
}

/* A whole number will do: writers of JSON say 2 for 2.0. */
bool
json_get_double(struct json_object *o, const char *key, double *ret, struct error **err)
{
    struct json_object *value = member(o, key);
    double n;

    if (value == NULL)
        return missing(key, err);
    if (!json_object_is_type(value, json_type_int) &&
        !check_type(value, json_type_double, key, err))
        return false;
    n = json_object_get_double(value);
    if (!isfinite(n))
        return error_set(err, ERROR_PROTOCOL, "member '%s' is not a finite number", key);
    *ret = n;
    return true;
}

static bool
get_typed(struct json_object *o, const char *key, enum json_type type,
          struct json_object **ret, struct error **err)
{
    struct json_object *value = member(o, key);

    if (value == NULL)
        return missing(key, err);
    if (!check_type(value, type, key, err))
        return false;
    *ret = value;
    return true;
}

bool
json_get_object(struct json_object *o, const char *key, struct json_object **ret,
                struct error **err)
{
    return get_typed(o, key, json_type_object, ret, err);
}

bool
json_get_array(struct json_object *o, const char *key, struct json_object **ret,
               struct error **err)
{
    return get_typed(o, key, json_type_array, ret, err);
}

const char *
json_string_or(struct json_object *o, const char *key, const char *fallback)
{
    struct json_object *value = member(o, key);

    return json_object_is_type(value, json_type_string) ? json_object_get_string(value)
                                                        : fallback;
}

int64_t
json_int_or(struct json_object *o, const char *key, int64_t fallback)
{
    struct json_object *value = member(o, key);

    return json_object_is_type(value, json_type_int) ? json_object_get_int64(value)
                                                     : fallback;
}

double
json_double_or(struct json_object *o, const char *key, double fallback)
{
    struct json_object *value = member(o, key);

    if (!json_object_is_type(value, json_type_double) &&
        !json_object_is_type(value, json_type_int))
        return fallback;
    return json_object_get_double(value);
}

bool
json_bool_or(struct json_object *o, const char *key, bool fallback)
{
    struct json_object *value = member(o, key);

    return json_object_is_type(value, json_type_boolean) ? json_object_get_boolean(value)
                                                         : fallback;
}

struct json_object *
json_object_or_null(struct json_object *o, const char *key)
{
    struct json_object *value = member(o, key);

    return json_object_is_type(value, json_type_object) ? value : NULL;
}

struct json_object *
json_array_or_null(struct json_object *o, const char *key)
{
    struct json_object *value = member(o, key);

    return json_object_is_type(value, json_type_array) ? value : NULL;
}

/* Words of the system may be in any charset; a peer would refuse the whole text then. */
static struct json_object *
new_string(const char *value)
{
    AUTOFREE(char) *clean = mem_strdup(value);
    struct json_object *o;

    text_make_utf8(clean);
    o = json_object_new_string(clean);
    if (o == NULL)
        abort();
    return o;
}

void
json_set(struct json_object *o, const char *key, struct json_object *value)
{
    if (json_object_object_add(o, key, value) < 0)
        abort();
}

void
json_set_string(struct json_object *o, const char *key, const char *value)
{
    json_set(o, key, value == NULL ? NULL : new_string(value));
}

void
json_set_int(struct json_object *o, const char *key, int64_t value)
{
    json_set(o, key, json_object_new_int64(value));
}

void
json_set_u64(struct json_object *o, const char *key, uint64_t value)
{
    json_set(o, key, json_object_new_uint64(value));
}

void
json_set_bool(struct json_object *o, const char *key, bool value)
{
    json_set(o, key, json_object_new_boolean(value));
}

void
json_set_double(struct json_object *o, const char *key, double value)
{
    json_set(o, key, json_object_new_double(value));
}

void
json_append_string(struct json_object *array, const char *value)
{
    if (json_object_array_add(array, value == NULL ? NULL : new_string(value)) < 0)
        abort();
}

const char *
json_text(struct json_object *o)
{
    const char *text = json_object_to_json_string_ext(
        o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);

    if (text == NULL)
        abort();
    return text;
}

struct json_object *
json_from_error(const struct error *e)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "code", error_code_string(error_code(e)));
    json_set_string(o, "message", error_message(e));
    return o;
}

bool
json_to_error(struct json_object *o, struct error **err)
{
    const char *code, *message;

    if (!json_get_string(o, "code", &code, err) ||
        !json_get_string(o, "message", &message, err))
        return error_prefix(err, "an error answer that is not valid");
    return error_set(err, error_code_from_string(code), "%s", message);
}
