/*
 * A blocking HTTP client for JSON over libcurl: unix socket or TLS 1.3.
 *
 * An http_client belongs to one thread at a time and keeps its connection.
 * The program must ignore SIGPIPE: a library does not touch its signals.
 * Nothing in plain text goes over TCP: "http://" addresses are refused.
 * Peers are recognised by the SHA-256 of their certificate (DER), not by a
 * CA: the connection fails with ERROR_TLS when the other side shows another
 * one; the check is made within the handshake, before a request is sent.
 */
#ifndef COMMON_HTTP_H
#define COMMON_HTTP_H

#include <json-c/json.h>
#include <stdint.h>

#include "common/cancel.h"
#include "common/error.h"

struct http_settings {
    const char *address; /* "unix:///run/virt-dr/virtdrd.sock" or "https://HOST:PORT" */
    const char *certificate; /* PEM file of our own certificate; NULL for unix */
    const char *key;         /* PEM file */
    const char *fingerprint; /* of the other side, 64 hex digits; NULL: use ca */
    const char *ca;          /* PEM file; the name in address must match then */
    int connect_timeout_ms;  /* 0: 10 s */
    int timeout_ms;          /* of a whole call; 0: 60 s */
};

struct http_client;

/* Copies all it needs; does not connect yet. */
bool http_client_new(const struct http_settings *settings, struct http_client **ret,
                     struct error **err);
void http_client_free(struct http_client *c);
DEFINE_AUTOPTR(http_client);

/*
 * One call. body may be NULL. A status below 400 is success; *ret_body (may be
 * NULL) is the answer's object, NULL if it had none, the caller's to put. An
 * answer {code, message} with a status of 400 or more becomes that error.
 * ERROR_CONNECT, ERROR_TLS, ERROR_TIMEOUT, ERROR_PROTOCOL otherwise, and
 * ERROR_PERMISSION if the unix socket may not be used.
 */
bool
http_call(struct http_client *c, const char *method, const char *path,
          struct json_object *body, struct json_object **ret_body, struct error **err);

/*
 * Follows a stream of server-sent events until the callback returns false,
 * `stop` (may be NULL) is requested or past its deadline, which is noticed
 * within a second, or the other side ends the stream: true. Events are limited
 * as sse.h says. id is the last "id:" seen.
 */
typedef bool (*http_event_fn)(const char *id, const char *event, struct json_object *data,
                              void *opaque);
bool http_follow(struct http_client *c, const char *path, http_event_fn fn, void *opaque,
                 struct cancel *stop, struct error **err);

#endif
