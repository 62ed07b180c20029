/* The document of a task, as it begins: what is stored and, but for "data", shown. */
#ifndef DAEMON_TASK_DOC_H
#define DAEMON_TASK_DOC_H

#include <json-c/json.h>

#include "daemon/tasks.h"

/* With an id of its own, in state RUNNING, all steps pending; the caller's to put. */
struct json_object *task_doc_new(const char *site, const struct op_kind *kind,
                                 const struct tasks_request *request);

#endif
