/*
 * What is asked of the guest of a test failover, one after the other, and its picture.
 *
 * "running" or "running:10s": the guest runs for so long without a break; "agent": its
 * agent answers; "tcp:PORT": a connection to its address can be made; "script:PATH": a
 * program of the operator, below [test] scripts, ends with 0 (77: it could not tell).
 * Each ends as "passed", "failed" or "not-done", with a sentence, stored as it comes.
 */
#ifndef DAEMON_TESTRUN_CHECKS_H
#define DAEMON_TESTRUN_CHECKS_H

#include "daemon/op.h"
#include "daemon/testruns.h"

#define TESTRUN_CHECKS_MAX 32

/* An array of such texts; NULL: "running" alone. *ret is the document's "checks", the
   caller's to put. ERROR_USAGE, ERROR_PERMISSION (a script that may not be run). */
bool testrun_checks_parse(struct json_object *texts, const struct config *config,
                          struct json_object **ret, struct error **err);

/*
 * Runs those that have no result yet; all together may take the document's "timeout".
 * False only if the operation was stopped, or nothing can be stored.
 */
bool testrun_checks_run(struct op *op, const char *id, struct error **err);

/* "passed" if all of them have. */
const char *testrun_checks_result(struct json_object *doc);

/* The picture beside the document; one that cannot be had is noted there, and no error.
 */
bool testrun_screenshot(struct op *op, const char *id, struct error **err);

#endif
