/*
 * Events: what happened, for the log and for everybody who follows /events.
 * Any thread. Types are stable words ("rpo-violated", "superseded").
 */
#ifndef DAEMON_EVENTS_H
#define DAEMON_EVENTS_H

#include "common/log.h"
#include "daemon/daemon.h"

enum event_severity {
    EVENT_INFO,
    EVENT_WARNING,
    EVENT_CRITICAL,
};

void
events_emit(struct daemon *d, enum event_severity severity, const struct log_ctx *ctx,
            const char *type, const char *format, ...) PRINTF(5, 6);

#endif
