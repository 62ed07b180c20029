/* What the files of the REST server share; nobody else includes this. */
#ifndef DAEMON_REST_PRIVATE_H
#define DAEMON_REST_PRIVATE_H

#include <event2/http.h>

#include "daemon/rest.h"

#define REST_TIMEOUT_S   60
#define REST_EVENTS_PATH "/api/v1/events"

/* --- rest_route.c: what a request asks for; no state, any thread ------------------ */

/* A response that is not the error's own status. */
#define REST_STATUS_METHOD     405
#define REST_STATUS_MEDIA_TYPE 415

/*
 * The route for method and path (as it came, still encoded). params are the
 * caller's to free, also on failure. *ret_status is that of the failure.
 */
bool rest_route_find(const struct rest_route *routes, const char *method,
                     const char *path, char *params[REST_MAX_PARAMS],
                     const struct rest_route **ret, int *ret_status, struct error **err);
/* {"name": "value"} of what follows the "?"; text may be NULL. */
bool rest_route_query(const char *text, struct json_object **ret, struct error **err);
bool rest_route_may(const struct rest_caller *caller, unsigned roles, struct error **err);

/* --- rest_events.c: loop thread but for publish ------------------------------------ */

struct rest_events;

struct rest_events *rest_events_new(struct event_base *base, int timeout_s);
/* After the connections are gone. */
void rest_events_free(struct rest_events *e);
void rest_events_publish(struct rest_events *e, uint64_t id, const char *type,
                         struct json_object *body);
/* The request is the follower's from now on. since NULL: only what is new. */
void rest_events_follow(struct rest_events *e, struct evhttp_request *req,
                        const uint64_t *since);

#endif
