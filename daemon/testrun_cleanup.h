/*
 * Removes what a test failover has made on this host: only what its document names (I6).
 *
 * Each part can be done again, and is true if there is nothing left to do, in whatever
 * state a crash has left it; in this order, for a guest that runs has its files open.
 * Worker threads.
 */
#ifndef DAEMON_TESTRUN_CLEANUP_H
#define DAEMON_TESTRUN_CLEANUP_H

#include "daemon/testruns.h"

/* It is stored that it goes, and why; from here on it only goes on. */
bool testrun_cleanup_begin(struct daemon *d, const char *id, const char *why,
                           struct error **err);
bool
testrun_cleanup_domain(struct daemon *d, struct json_object *doc, struct error **err);
bool
testrun_cleanup_network(struct daemon *d, struct json_object *doc, struct error **err);
bool testrun_cleanup_files(struct daemon *d, struct json_object *doc, struct error **err);
bool
testrun_cleanup_overlay(struct daemon *d, struct json_object *doc, struct error **err);

/* All of them, and testruns_close(). True if there is no such test. */
bool
testrun_clean_up(struct daemon *d, const char *id, const char *why, struct error **err);

#endif
