#include <event2/keyvalq_struct.h>
#include <string.h>
#include <sys/queue.h>

#include "common/json.h"
#include "common/text.h"
#include "daemon/rest_private.h"

static bool
decode(const char *text, size_t n, char **ret)
{
    AUTOFREE(char) *copy = mem_memdup(text, n);
    size_t length = 0;
    char *decoded = evhttp_uridecode(copy, 0, &length);

    if (decoded == NULL)
        return false;
    if (length == 0 || strlen(decoded) != length) {
        free(decoded);
        return false;
    }
    text_make_utf8(decoded);
    *ret = decoded;
    return true;
}

static void
forget(char *params[REST_MAX_PARAMS])
{
    for (unsigned i = 0; i < REST_MAX_PARAMS; i++) {
        free(params[i]);
        params[i] = NULL;
    }
}

/* "/a/{x}" against "/a/b%20c", part by part. */
static bool
match(const char *pattern, const char *path, char *params[REST_MAX_PARAMS])
{
    unsigned n_params = 0;

    while (*pattern == '/' && *path == '/') {
        size_t n_pattern = strcspn(++pattern, "/");
        size_t n_path = strcspn(++path, "/");

        if (*pattern == '{') {
            if (n_params == REST_MAX_PARAMS || !decode(path, n_path, &params[n_params]))
                return false;
            n_params++;
        } else if (n_pattern != n_path || memcmp(pattern, path, n_path) != 0) {
            return false;
        }
        pattern += n_pattern;
        path += n_path;
    }
    return *pattern == '\0' && *path == '\0';
}

bool
rest_route_find(const struct rest_route *routes, const char *method, const char *path,
                char *params[REST_MAX_PARAMS], const struct rest_route **ret,
                int *ret_status, struct error **err)
{
    bool other_method = false;

    for (const struct rest_route *r = routes; r->method != NULL; r++) {
        forget(params);
        if (!match(r->path, path, params))
            continue;
        if (strcmp(r->method, method) == 0) {
            *ret = r;
            return true;
        }
        other_method = true;
    }
    if (other_method) {
        *ret_status = REST_STATUS_METHOD;
        return error_set(err, ERROR_USAGE, "'%s' does not take %s", path, method);
    }
    *ret_status = error_code_http(ERROR_NOT_FOUND);
    return error_set(err, ERROR_NOT_FOUND, "the API has no '%s'", path);
}

bool
rest_route_query(const char *text, struct json_object **ret, struct error **err)
{
    struct evkeyvalq all;
    const struct evkeyval *one;
    struct json_object *o;

    TAILQ_INIT(&all);
    if (text != NULL && text[0] != '\0' && evhttp_parse_query_str(text, &all) != 0)
        return error_set(err, ERROR_USAGE, "the query '%s' is malformed", text);
    o = json_object_new_object();
    for (one = TAILQ_FIRST(&all); one != NULL; one = TAILQ_NEXT(one, next)) {
        text_make_utf8(one->key);
        text_make_utf8(one->value);
        json_set_string(o, one->key, one->value);
    }
    evhttp_clear_headers(&all);
    *ret = o;
    return true;
}

bool
rest_route_may(const struct rest_caller *caller, unsigned roles, struct error **err)
{
    if ((caller->roles & roles) != 0)
        return true;
    if ((caller->roles & ~(unsigned)REST_ROLE_ANYONE) == 0)
        return error_set(err, ERROR_NOT_AUTHENTICATED,
                         "this host does not know the certificate %s; pair the host, or "
                         "add it as a client",
                         caller->fingerprint);
    return error_set(err, ERROR_FORBIDDEN, "'%s' may not do this", caller->name);
}
