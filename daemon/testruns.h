/*
 * Test failovers: those that go on, and the results of those that have been.
 *
 * Each is a document (kind "test") from before anything of it is made until its result
 * is forgotten: {id, replication, vmName, state, task, domain: {name, uuid, memory},
 * overlay, network: {name, isolated, uuid, bridge, subnet}, point, checks, result, ...}.
 * All that a test makes on this host is named in it first (I6). States: "starting" (its
 * task makes it), "running", "cleaning-up", "ended". What is left undone is cleaned up
 * by testruns_start()'s timer, also after a restart.
 *
 * Any thread, unless it says else. Takes no other lock while it holds its own, so that
 * it may be asked under a replication's.
 */
#ifndef DAEMON_TESTRUNS_H
#define DAEMON_TESTRUNS_H

#include <json-c/json.h>

#include "daemon/daemon.h"
#include "daemon/subnet.h"

struct testruns;

bool testruns_load(struct daemon *d, struct testruns **ret, struct error **err);

/* Loop thread; cleans up what has expired or was left, from now on. */
void testruns_start(struct testruns *t);

/* A domain has ended, perhaps that of a test: which then ends too. */
void testruns_wake(struct testruns *t);
void testruns_stop(struct testruns *t);

/* Loop thread, after the workers. Guests of tests go on: they outlive virtdrd. */
void testruns_free(struct testruns *t);
DEFINE_AUTOPTR(testruns);

/* --- admission -----------------------------------------------------------------------
 */

/* ERROR_INVALID_STATE if there are as many as [test] allows. */
bool testruns_check_room(struct testruns *t, struct error **err);

/* Stores a new one if there is room. Known already: true. ERROR_EXISTS: the name. */
bool testruns_add(struct testruns *t, struct json_object *doc, struct error **err);

/* Its guest takes so much; ERROR_INVALID_STATE if that is too much for all together. */
bool
testruns_reserve(struct testruns *t, const char *id, uint64_t bytes, struct error **err);

/* A subnet for its network that no route of this host knows; stored. The same again. */
bool testruns_take_subnet(struct testruns *t, const char *id, struct subnet *ret,
                          struct error **err);

/* --- the documents -------------------------------------------------------------------
 */

/* Changes and stores it, both or none. `change` is called under the lock. */
typedef void (*testruns_change_fn)(struct json_object *doc, void *opaque);
bool testruns_change(struct testruns *t, const char *id, testruns_change_fn change,
                     void *opaque, struct error **err);

/* By id or the domain's name; a copy, the caller's to put. ERROR_NOT_FOUND. */
bool testruns_get(struct testruns *t, const char *key, struct json_object **ret,
                  struct error **err);

/* Copies, the newest first; replication NULL: all. */
struct json_object *testruns_list(struct testruns *t, const char *replication);

/* All that it made is gone: it has ended, and old results are forgotten. */
bool testruns_close(struct testruns *t, const char *id, struct error **err);

/* With its screenshot. True if there is none. */
bool testruns_forget(struct testruns *t, const char *id, struct error **err);

/* --- what others want to know ----------------------------------------------------------
 */

/* Is it the domain of a test? */
bool testruns_is_domain(struct testruns *t, const char *uuid);

/* How many of a VM go on, and its newest result {id, time, result, ...}; NULL: none. */
unsigned testruns_count(struct testruns *t, const char *replication);
struct json_object *testruns_last(struct testruns *t, const char *replication);

/* Why the VM's tests are a fault, NULL if they are none; the caller's to free. */
char *testruns_complaint(struct testruns *t, const char *replication,
                         int64_t protected_since_ms);

/* Blocks: ends all tests of a VM and forgets them and their results (unprotect). */
bool testruns_remove_all(struct testruns *t, const char *replication, struct error **err);

/* The operator's verdict stands above that of the checks; "" as long as there is none. */
const char *testruns_result(struct json_object *doc);

/* The caller frees. */
char *testruns_screenshot_path(struct daemon *d, const char *id);

#endif
