/*
 * State drivers: the daemon's documents on stable storage.
 *
 * A document is a JSON object under a kind ("replication", "task", "point",
 * "peer", ...) and an id. The interface is this small so that a store shared
 * by many hosts can implement it as well (kind/id is a key, commit() a
 * transaction). Any thread; functions may block for an fsync.
 *
 * Errors: ERROR_STATE; ERROR_NOT_FOUND from get() alone.
 */
#ifndef DRIVERS_STATE_H
#define DRIVERS_STATE_H

#include <json-c/json.h>

#include "common/error.h"

struct state_write {
    const char *kind;
    const char *id;
    struct json_object *body; /* borrowed; NULL removes the document */
};

struct state;

struct state_ops {
    const char *name;

    void (*close)(struct state *s);

    /* A new reference to the document's body, the caller's to put. */
    bool (*get)(struct state *s, const char *kind, const char *id,
                struct json_object **ret, struct error **err);

    /* An array of the bodies whose id starts with prefix ("": all), by id. */
    bool (*list)(struct state *s, const char *kind, const char *prefix,
                 struct json_object **ret, struct error **err);

    /* All or nothing, and durable when it returns true. */
    bool (*commit)(struct state *s, const struct state_write *writes, size_t n,
                   struct error **err);
};

/* The head of each driver's own struct. */
struct state {
    const struct state_ops *ops;
};

#endif
