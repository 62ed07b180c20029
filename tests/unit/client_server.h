/*
 * A small virtdrd for testing the client: evhttp on a unix socket that answers
 * what a test told it to, remembers what was asked, and runs the real virt-dr
 * against itself. Failures are test failures (fail_msg()).
 */
#ifndef TESTS_UNIT_CLIENT_SERVER_H
#define TESTS_UNIT_CLIENT_SERVER_H

#include <stdbool.h>
#include <stddef.h>

#include "common/mem.h"

#define CLIENT_SERVER_HOLD    0 /* as a status: no answer at all, the connection stays */
#define CLIENT_SERVER_STREAM  1 /* as a status: events, and the stream stays open */
#define CLIENT_SERVER_HANG_UP 3 /* as a status: the connection is closed instead */
#define CLIENT_SERVER_ENDING  2 /* as a status: events, and the stream ends */

struct client_server;

struct client_server *client_server_new(void);
void client_server_free(struct client_server *cs);
DEFINE_AUTOPTR(client_server);

/* "unix:///..." */
const char *client_server_address(const struct client_server *cs);

/*
 * What "METHOD /path" (with the query) is answered. Several answers to one
 * question are given one after the other, the last one again and again.
 */
void client_server_answer(struct client_server *cs, const char *question, int status,
                          const char *body);

/* "METHOD /path BODY" of the request number i; NULL behind the last. */
const char *client_server_asked(const struct client_server *cs, size_t i);

/* How virt-dr is run, and what came of it. */
struct client_run {
    bool on_terminal;            /* stdout and stderr are one */
    const char *interrupt_at;    /* SIGINT when this text has been printed; NULL: never */
    const char *without_connect; /* not NULL: no --connect is given */

    int exit_status; /* -1: a signal ended it */
    char *out;
    char *err; /* on a terminal all is in out */
};

void client_run_clear(struct client_run *run);

/* The words of the command line, the last one NULL. */
void client_server_run(struct client_server *cs, const char *const *words,
                       struct client_run *run);

#endif
