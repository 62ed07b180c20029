/*
 * What a command works with: the connection to virtdrd, the writer, and the
 * switches that hold for all commands. Belongs to one thread.
 */
#ifndef CLIENT_SESSION_H
#define CLIENT_SESSION_H

#include "client/invocation.h"
#include "client/progress.h"
#include "client/writer.h"
#include "common/http.h"
#include "common/json.h"

#define SESSION_DEFAULT_URI "unix:///run/virt-dr/virtdrd.sock"
#define SESSION_URI_ENV     "VIRT_DR_CONNECT"

struct session {
    struct writer *out;
    enum progress_style progress;
    bool quiet;
    struct http_settings settings; /* its strings are borrowed from the invocation */
    struct http_client *http;      /* NULL until the first call */
};

/* Does not connect: help and version work without virtdrd. */
struct session *session_new(const struct invocation *inv);
void session_free(struct session *s);
DEFINE_AUTOPTR(session);

/*
 * One call of the API. path is behind /api/v1. *ret (may be NULL) is an object,
 * which the caller puts: an answer without one is ERROR_PROTOCOL.
 */
bool session_call(struct session *s, const char *method, const char *path,
                  struct json_object *body, struct json_object **ret, struct error **err);
bool session_get(struct session *s, const char *path, struct json_object **ret,
                 struct error **err);

/* The same for the path KIND/NAME[REST] with NAME encoded: ("GET", "/tasks/", id, ""). */
bool
session_call_on(struct session *s, const char *method, const char *const path[3],
                struct json_object *body, struct json_object **ret, struct error **err);

/* s as one segment of a path or one value of a query (RFC 3986); the caller frees. */
char *session_encode(const char *s);

/* The array "items" of an answer, borrowed. ERROR_PROTOCOL. */
bool
session_items(struct json_object *answer, struct json_object **ret, struct error **err);

/* Follows the events; path is behind /api/v1. */
bool session_follow(struct session *s, const char *path, http_event_fn fn, void *opaque,
                    struct cancel *stop, struct error **err);

/* Writes out what is buffered. False: nobody could read it. */
bool session_finish(struct error **err);

#endif
