#include "client/session.h"

#include <stdio.h>
#include <string.h>

#define API "/api/v1"

static const char *
address_of(const struct invocation *inv)
{
    const char *env = getenv(SESSION_URI_ENV);

    return invocation_text(inv, "connect",
                           env != NULL && env[0] != '\0' ? env : SESSION_DEFAULT_URI);
}

struct session *
session_new(const struct invocation *inv)
{
    struct session *s = NEW(struct session);
    const char *format = invocation_text(inv, "output", "table");

    s->quiet = invocation_has(inv, "quiet");
    s->out = writer_new(writer_ops_find(format), stdout, s->quiet,
                        isatty(STDOUT_FILENO) == 1 && getenv("NO_COLOR") == NULL);
    s->progress = s->quiet || invocation_has(inv, "no-progress")
                      ? PROGRESS_NONE
                      : progress_style_of_stderr();
    s->settings = (struct http_settings){
        .address = address_of(inv),
        .certificate = invocation_text(inv, "cert", NULL),
        .key = invocation_text(inv, "key", NULL),
        .fingerprint = invocation_text(inv, "fingerprint", NULL),
        .ca = invocation_text(inv, "ca", NULL),
    };
    return s;
}

void
session_free(struct session *s)
{
    if (s == NULL)
        return;
    http_client_free(s->http);
    writer_free(s->out);
    free(s);
}

static bool
check_settings(const struct http_settings *h, struct error **err)
{
    if (strncmp(h->address, "unix://", 7) == 0)
        return true;
    if (strncmp(h->address, "https://", 8) != 0)
        return error_set(err, ERROR_USAGE,
                         "'%s' is no address: use unix:///PATH or https://HOST:PORT",
                         h->address);
    if (h->certificate == NULL || h->key == NULL)
        return error_set(err, ERROR_USAGE, "'%s' needs --cert and --key", h->address);
    if ((h->fingerprint == NULL) == (h->ca == NULL))
        return error_set(err, ERROR_USAGE, "'%s' needs either --fingerprint or --ca",
                         h->address);
    return true;
}

static bool
connection(struct session *s, struct error **err)
{
    if (s->http != NULL)
        return true;
    return check_settings(&s->settings, err) &&
           http_client_new(&s->settings, &s->http, err);
}

bool
session_call(struct session *s, const char *method, const char *path,
             struct json_object *body, struct json_object **ret, struct error **err)
{
    AUTOFREE(char) *whole = mem_printf(API "%s", path);
    AUTOJSON *answer = NULL;

    if (!connection(s, err) || !http_call(s->http, method, whole, body, &answer, err))
        return false;
    if (ret == NULL)
        return true;
    if (!json_object_is_type(answer, json_type_object))
        return error_set(err, ERROR_PROTOCOL, "%s %s: the answer is no object", method,
                         whole);
    *ret = TAKE(answer);
    return true;
}

bool
session_get(struct session *s, const char *path, struct json_object **ret,
            struct error **err)
{
    return session_call(s, "GET", path, NULL, ret, err);
}

char *
session_encode(const char *s)
{
    static const char kept[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                               "0123456789-._~";
    static const char hex[] = "0123456789ABCDEF";
    /* A segment of dots alone would be taken for a way up or nowhere. */
    bool only_dots = s[strspn(s, ".")] == '\0';
    char *encoded = mem_alloc(strlen(s) * 3 + 1, 1);
    char *out = encoded;

    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;

        if (strchr(kept, *s) != NULL && !only_dots) {
            *out++ = *s;
            continue;
        }
        *out++ = '%';
        *out++ = hex[c >> 4];
        *out++ = hex[c & 15];
    }
    return encoded;
}

bool
session_call_on(struct session *s, const char *method, const char *const path[3],
                struct json_object *body, struct json_object **ret, struct error **err)
{
    AUTOFREE(char) *name = session_encode(path[1]);
    AUTOFREE(char) *whole = mem_printf("%s%s%s", path[0], name, path[2]);

    return session_call(s, method, whole, body, ret, err);
}

bool
session_items(struct json_object *answer, struct json_object **ret, struct error **err)
{
    return json_get_array(answer, "items", ret, err) ||
           error_prefix(err, "the answer of virtdrd");
}

bool
session_follow(struct session *s, const char *path, http_event_fn fn, void *opaque,
               struct cancel *stop, struct error **err)
{
    AUTOFREE(char) *whole = mem_printf(API "%s", path);

    return connection(s, err) && http_follow(s->http, whole, fn, opaque, stop, err);
}

bool
session_finish(struct error **err)
{
    if (fflush(stdout) != 0)
        return error_errno(err, ERROR_INTERNAL, "write to stdout");
    if (ferror(stdout) != 0)
        return error_set(err, ERROR_INTERNAL, "stdout could not be written");
    return true;
}
