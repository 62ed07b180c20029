/*
 * Logging: a stable event name, a sentence, and the subject's fields.
 *
 *     log_info(&ctx, "cycle-durable", "%u bytes in %u ms", bytes, ms);
 *
 * Under systemd (JOURNAL_STREAM is set) lines go to journald with the fields
 * VIRT_DR_EVENT, VIRT_DR_VM, ...; otherwise to stderr as one line each. The
 * same event of the same subject is throttled: after LOG_BURST lines within
 * ten seconds the rest are counted and the count is told once they pass.
 * Foreign strings are printed with control characters replaced. Secrets never.
 * Any thread may call everything here.
 */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include <stdbool.h>

#include "common/error.h"

#define LOG_BURST 20

enum log_level {
    LOG_LEVEL_ERROR,
    LOG_LEVEL_WARN,
    LOG_LEVEL_INFO,
    LOG_LEVEL_DEBUG,
};

/* What a line is about. All may be NULL; the strings are borrowed. */
struct log_ctx {
    const char *vm;          /* the domain's name */
    const char *replication; /* its id */
    const char *task;        /* the task's id */
    const char *step;        /* the step's name */
    const char *peer;        /* the peer's name */
};

/* Once, before threads: lowest level that is written. */
void log_init(enum log_level level);
void log_set_level(enum log_level level);

void log_write(enum log_level level, const struct log_ctx *ctx, const char *event,
               const char *format, ...) PRINTF(4, 5);

#define log_error(ctx, event, ...) log_write(LOG_LEVEL_ERROR, ctx, event, __VA_ARGS__)
#define log_warn(ctx, event, ...)  log_write(LOG_LEVEL_WARN, ctx, event, __VA_ARGS__)
#define log_info(ctx, event, ...)  log_write(LOG_LEVEL_INFO, ctx, event, __VA_ARGS__)
#define log_debug(ctx, event, ...) log_write(LOG_LEVEL_DEBUG, ctx, event, __VA_ARGS__)

/* One line at LOG_LEVEL_ERROR with the error's code and message, which stays. */
void log_failure(const struct log_ctx *ctx, const char *event, const struct error *e);

/* A failure that changes nothing: one line at WARN that says "ignoring". Frees *err. */
void log_ignore(const struct log_ctx *ctx, const char *event, struct error **err);

#endif
