#include "daemon/op.h"

#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/tasks_private.h"

void
tasks_touch(struct task *task)
{
    task->version++;
    json_set_int(task->doc, "lastUpdated", units_now_ms());
    pthread_cond_broadcast(&task->owner->changed);
}

struct json_object *
tasks_step(struct task *task, size_t i)
{
    return json_object_array_get_idx(json_array_or_null(task->doc, "steps"), i);
}

bool
tasks_step_is(struct task *task, size_t i, const char *state)
{
    return strcmp(json_string_or(tasks_step(task, i), "state", ""), state) == 0;
}

void
op_warn(struct op *op, const char *format, ...)
{
    AUTOFREE(char) *text = NULL;
    va_list args;

    va_start(args, format);
    text = mem_vprintf(format, args);
    va_end(args);
    log_warn(&op->log, "task-warning", "%s", text);
    pthread_mutex_lock(&op->task->owner->lock);
    json_append_string(json_array_or_null(op->task->doc, "warnings"), text);
    tasks_touch(op->task);
    pthread_mutex_unlock(&op->task->owner->lock);
}

const char *
op_id(const struct op *op)
{
    return op->task->id;
}

struct json_object *
op_steps(struct op *op)
{
    struct json_object *array = json_object_new_array();

    pthread_mutex_lock(&op->task->owner->lock);
    for (size_t i = 0; op->kind->steps[i].name != NULL; i++) {
        struct json_object *o;

        if (!tasks_step_is(op->task, i, "done"))
            continue;
        o = json_object_new_object();
        json_set_string(o, "name", op->kind->steps[i].name);
        json_set_int(o, "ms", json_int_or(tasks_step(op->task, i), "ms", 0));
        json_object_array_add(array, o);
    }
    pthread_mutex_unlock(&op->task->owner->lock);
    return array;
}

void
op_transfer(struct op *op, uint64_t done_bytes, uint64_t total_bytes)
{
    struct task *task = op->task;
    struct json_object *transfer = json_object_new_object();
    int64_t now_ms = units_monotonic_ms();
    double rate = 0;

    pthread_mutex_lock(&task->owner->lock);
    if (task->transfer_started_ms == 0)
        task->transfer_started_ms = now_ms;
    if (now_ms > task->transfer_started_ms)
        rate = (double)done_bytes * 1000 / (double)(now_ms - task->transfer_started_ms);
    json_set_u64(transfer, "bytesTransferred", done_bytes);
    json_set_u64(transfer, "bytesToTransfer", total_bytes);
    json_set_int(transfer, "rate", (int64_t)rate);
    json_set_int(transfer, "remaining",
                 rate > 0 && total_bytes >= done_bytes
                     ? (int64_t)((double)(total_bytes - done_bytes) * 1000 / rate)
                     : -1);
    json_set(task->doc, "transfer", transfer);
    tasks_touch(task);
    pthread_mutex_unlock(&task->owner->lock);
}
