#include "daemon/events.h"

#include <stdatomic.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/rest.h"

void
events_emit(struct daemon *d, enum event_severity severity, const struct log_ctx *ctx,
            const char *type, const char *format, ...)
{
    static const char *const names[] = { "info", "warning", "critical" };
    static const enum log_level levels[] = { LOG_LEVEL_INFO, LOG_LEVEL_WARN,
                                             LOG_LEVEL_ERROR };
    AUTOJSON *body = json_object_new_object();
    AUTOFREE(char) *message = NULL;
    uint64_t id;
    va_list args;

    va_start(args, format);
    message = mem_vprintf(format, args);
    va_end(args);
    log_write(levels[severity], ctx, type, "%s", message);
    if (d->rest == NULL)
        return;
    id = atomic_fetch_add(&d->event_id, 1);
    json_set_u64(body, "id", id);
    json_set_int(body, "time", units_now_ms());
    json_set_string(body, "type", type);
    json_set_string(body, "severity", names[severity]);
    if (ctx != NULL && ctx->vm != NULL)
        json_set_string(body, "vmName", ctx->vm);
    if (ctx != NULL && ctx->replication != NULL)
        json_set_string(body, "replication", ctx->replication);
    if (ctx != NULL && ctx->task != NULL)
        json_set_string(body, "task", ctx->task);
    if (ctx != NULL && ctx->peer != NULL)
        json_set_string(body, "peer", ctx->peer);
    json_set_string(body, "message", message);
    rest_publish(d->rest, id, type, body);
}
