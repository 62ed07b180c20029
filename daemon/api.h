/*
 * The routes of the REST API and who may call them. docs/openapi.yaml
 * describes the same routes (a test compares). Handlers run on workers.
 */
#ifndef DAEMON_API_H
#define DAEMON_API_H

#include "daemon/rest.h"

/* Ends with a NULL method; a handler's request->opaque is the struct daemon. */
extern const struct rest_route api_routes[];

#endif
