/*
 * The REST server: evhttp on the unix socket and on TLS with client certificates.
 *
 * Requests arrive on the loop thread and are answered by a handler on a worker,
 * which may block. A route says who may call it. Callers are recognised by how
 * they come: the unix socket (its file mode decides who can) is an admin; a TLS
 * client is what its certificate's fingerprint says (rest_identify_fn). Errors
 * become {code, message} with the code's HTTP status.
 */
#ifndef DAEMON_REST_H
#define DAEMON_REST_H

#include <event2/event.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "daemon/tls.h"
#include "daemon/workers.h"

#define REST_MAX_BODY   (1u << 20)
#define REST_MAX_PARAMS 4

/* A set of these may call a route. */
enum rest_role {
    REST_ROLE_ANYONE = 1 << 0, /* any TLS client that shows a certificate at all */
    REST_ROLE_PEER = 1 << 1,
    REST_ROLE_VIEWER = 1 << 2,
    REST_ROLE_ADMIN = 1 << 3,
};

struct rest_caller {
    unsigned roles;   /* of enum rest_role */
    char name[64];    /* for tasks and the log: "root", peer's or client's name */
    char peer_id[40]; /* if REST_ROLE_PEER */
    char
        fingerprint[TLS_FINGERPRINT_TEXT]; /* of the certificate; "" on the unix socket */
    char address[64];                      /* where from; "" on the unix socket */
};

struct rest_request {
    const char *params[REST_MAX_PARAMS]; /* the path's {..} parts, decoded */
    struct json_object *query;           /* {"wait": "30"}; never NULL */
    struct json_object *body;            /* NULL if there was none */
    struct rest_caller caller;
    void *opaque; /* of rest_new() */

    /* Answers: */
    int status;                /* 200 unless changed */
    struct json_object *reply; /* the server puts it; NULL: an empty object */
    char *text;                /* instead of reply: text/plain, freed by the server */
};

/* On a worker. False answers with the error. */
typedef bool (*rest_handler_fn)(struct rest_request *request, struct error **err);

struct rest_route {
    const char *method;
    const char *path; /* "/api/v1/tasks/{id}" */
    unsigned roles;   /* who may: any of enum rest_role */
    rest_handler_fn handler;
    const char *summary; /* for the documentation test */
};

/*
 * On the loop thread; adds to roles and fills name and peer_id by the fingerprint
 * or by whom a CA vouches for (tls_peer_vouched()); must not block.
 */
typedef void (*rest_identify_fn)(struct rest_caller *caller, const SSL *ssl,
                                 void *opaque);

struct rest_settings {
    const struct rest_route *routes; /* ends with a NULL method */
    rest_identify_fn identify;
    void *opaque;
    struct workers *workers;
    int timeout_s; /* for a client to send its request and take the answer; 0: 60 */
};

struct rest;

struct rest *rest_new(struct event_base *base, const struct rest_settings *settings);

/* Loop thread, after its workers were freed: their handlers use what it owns. */
void rest_free(struct rest *r);
DEFINE_AUTOPTR(rest);

/* A listening socket as rest_listen_unix() makes it. Any thread. */
bool
rest_unix_socket(const char *path, const char *group, int *ret_fd, struct error **err);

/* Mode 0660, group by name if it exists; a stale socket file is replaced, a live one is
 * ERROR_EXISTS. */
bool
rest_listen_unix(struct rest *r, const char *path, const char *group, struct error **err);

/* address is "HOST:PORT" or "[V6]:PORT". */
bool
rest_listen_tls(struct rest *r, const char *address, struct tls *tls, struct error **err);

/*
 * Server-sent events for everybody who follows GET /api/v1/events: "id: <id>",
 * "event: <type>", "data: <body>". Any thread. A follower that says
 * Last-Event-ID or ?since=ID first gets what rest keeps of the last 1000. Ids
 * rise. Viewers and admins may follow. A follower that is so slow that it would
 * miss an event is cut off instead, and can come back with its last id.
 */
void
rest_publish(struct rest *r, uint64_t id, const char *type, struct json_object *body);

#endif
