/*
 * Operations: tables of steps that the engine (tasks.h) runs, stores, undoes.
 *
 * A step is a blocking function on a worker thread. It may be run twice (after
 * a crash it is), so it looks first whether its work is done. It reads its
 * arguments and earlier steps' findings from op->data, puts its own there, and
 * leaves waiting to functions that take &op->cancel. The engine stores data and
 * the step's name before the step runs and again after it.
 *
 * When a step fails or the operator cancels: before a step that commits, the
 * steps that were started are undone, the last first, beginning with the one
 * that failed; after it the way is only forward, and the task fails where it
 * stands, to be run again.
 */
#ifndef DAEMON_OP_H
#define DAEMON_OP_H

#include <json-c/json.h>

#include "common/cancel.h"
#include "common/error.h"
#include "common/log.h"

struct daemon;
struct task;
struct op;

typedef bool (*op_step_fn)(struct op *op, struct error **err);

struct op_step {
    const char *name;
    op_step_fn run;
    op_step_fn undo;    /* NULL: nothing to undo */
    unsigned timeout_s; /* 0: none */
    bool commits;       /* once it is done, only forward */
};

/* Which tasks of one replication go on at the same time. */
enum op_company {
    OP_EXCLUSIVE, /* one of these; the usual kind */
    OP_BESIDE, /* any number, beside an exclusive one: they change no state of the VM */
    OP_ALONE,  /* none beside it: it removes what the others work with */
};

struct op_kind {
    const char *name; /* "failover" */
    enum op_company company;
    const char *result_type;     /* of the task's result, for the API */
    const struct op_step *steps; /* ends with a NULL name */
    /* When the task has ended, on the same thread; may be NULL. */
    void (*ended)(struct op *op, const struct error *failure);
};

struct op {
    struct daemon *daemon;
    const struct op_kind *kind;
    struct json_object *data;   /* arguments and findings; stored with the task */
    struct json_object *result; /* what the API shows once it succeeded; may be NULL */
    const char *resource_id;    /* the replication's id */
    struct cancel cancel;
    struct log_ctx log;
    struct task *task;
};

/* A sentence that the task shows although it went on. */
void op_warn(struct op *op, const char *format, ...) PRINTF(2, 3);

/* Bytes of the step under way, for the progress bar; rate and rest are derived. */
void op_transfer(struct op *op, uint64_t done_bytes, uint64_t total_bytes);

/* The id of the task that it is; borrowed. */
const char *op_id(const struct op *op);

/* What each step that is done took: [{name, ms}], the caller's to put. */
struct json_object *op_steps(struct op *op);

#endif
