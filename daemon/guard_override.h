/*
 * An operator's word against the guard's record: RECORDS/UUID.override.
 *
 * It says whether the VM may start on this host, until when, who said so, and why. What
 * allows a start holds for the epoch that the guard knew then: a newer one, which is
 * another host's, ends it. What denies one holds for every epoch. virtdrd writes it, or,
 * while that is down, root by the hook's program; the hook obeys it in both cases.
 * Any thread; durable when it returns true.
 */
#ifndef DAEMON_GUARD_OVERRIDE_H
#define DAEMON_GUARD_OVERRIDE_H

#include <json-c/json.h>
#include <stdint.h>

#include "daemon/guard.h"

#define GUARD_REASON_MAX 500 /* bytes of a reason */

struct guard_override {
    bool allow; /* else: it denies */
    uint64_t epoch;
    int64_t since_ms, until_ms; /* wall clock; until 0: until it is ended */
    char *by;
    char *reason;
};

void guard_override_free(struct guard_override *o);
DEFINE_AUTOPTR(guard_override);

/* The epoch is taken from the record. ERROR_NOT_FOUND: that VM has none, so nothing
   keeps it from starting; ERROR_USAGE: no reason, or a time that is over. */
bool guard_override_set(const struct guard_folders *f, const char *uuid,
                        const struct guard_override *o, struct error **err);

/* ERROR_NOT_FOUND if there is none, ERROR_GUARD if it cannot be understood. */
bool guard_override_read(const struct guard_folders *f, const char *uuid,
                         struct guard_override **ret, struct error **err);

/* True as well if there is none. */
bool
guard_override_end(const struct guard_folders *f, const char *uuid, struct error **err);

/* Does it hold now, for a VM whose record has this epoch? */
bool guard_override_holds(const struct guard_override *o, uint64_t epoch, int64_t now_ms);

/* {allow, epoch, by, reason, since, until} */
struct json_object *guard_override_json(const struct guard_override *o);

#endif
