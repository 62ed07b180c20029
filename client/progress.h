/*
 * Progress on stderr: a bar that is redrawn on a terminal, else plain lines
 * every few seconds. Belongs to one thread.
 */
#ifndef CLIENT_PROGRESS_H
#define CLIENT_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/mem.h"

enum progress_style {
    PROGRESS_NONE,
    PROGRESS_BAR,
    PROGRESS_LINES,
};

struct progress_state {
    const char *what; /* "first sync", "stop-source" */
    double percent;   /* 0 to 100 */
    uint64_t done_bytes;
    uint64_t total_bytes; /* 0: no transfer is going on */
    uint64_t rate;        /* bytes/s */
    int64_t left_ms;      /* -1: unknown */
};

struct progress;

/* A bar if stderr is a terminal that can, else lines. */
enum progress_style progress_style_of_stderr(void);

struct progress *progress_new(enum progress_style style);

/* Ends the bar's line, if there is one. */
void progress_free(struct progress *p);
DEFINE_AUTOPTR(progress);

void progress_show(struct progress *p, const struct progress_state *state);

/* The line for `columns` columns; 0: without a bar. The caller frees. */
char *progress_line(const struct progress_state *state, unsigned columns);

#endif
