/*
 * The parts of one running daemon, for those who need several of them.
 *
 * Made by main.c in the order of the fields and taken apart in the reverse
 * order. The pointers never change while threads run.
 */
#ifndef DAEMON_DAEMON_H
#define DAEMON_DAEMON_H

#include <event2/event.h>
#include <stdint.h>

#include "common/id.h"
#include "daemon/config.h"
#include "daemon/guard.h"

struct daemon {
    struct event_base *base;
    struct config *config;
    struct state *state;
    char host_id[ID_TEXT];
    struct guard_folders guard;
    _Atomic uint64_t
        event_id;    /* of the next event; begins with the time, so it never falls */
    struct tls *tls; /* NULL: no peers, unix socket only */

    /* One pool for each kind of waiting, so that none starves another. */
    struct workers *requests; /* REST handlers */
    struct workers *cycles;   /* the source's side of cycles */
    struct workers *receives; /* the target's side */
    struct workers *applies;  /* journals into tips */
    struct workers *steps;    /* operations */
    struct workers *contacts; /* heartbeats */

    struct hypervisor *hypervisor;
    struct capture_driver *capture;
    struct replications *replications;
    struct peers *peers;
    struct tasks *tasks;
    struct rest *rest;
    struct stream_listener *listener;
    struct scheduler *scheduler;
};

#endif
