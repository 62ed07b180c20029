/*
 * The parts of one running daemon, for those who need several of them.
 *
 * Made in the order of the fields and taken apart in the reverse order. The
 * pointers never change while threads run; only `config` is replaced by a
 * reload, and the ones before it stay valid until the end.
 */
#ifndef DAEMON_DAEMON_H
#define DAEMON_DAEMON_H

#include <event2/event.h>
#include <stdint.h>

#include "common/id.h"
#include "daemon/capture_choice.h"
#include "daemon/config.h"
#include "daemon/guard.h"

struct daemon {
    struct event_base *base;
    struct config *_Atomic config; /* borrowed */
    struct state *state;
    int lock_fd; /* held as long as the state is ours */
    char host_id[ID_TEXT];
    struct guard_folders guard; /* borrows the two below */
    char *guard_records;
    char *guard_confirmations;
    _Atomic uint64_t
        event_id;    /* of the next event; begins with the time, so it never falls */
    struct tls *tls; /* NULL: no peers, unix socket only */

    /* One pool for each kind of waiting, so that none starves another. */
    struct workers *requests;   /* REST handlers */
    struct workers *cycles;     /* the source's side of cycles */
    struct workers *receives;   /* the target's side */
    struct workers *applies;    /* journals into tips */
    struct workers *steps;      /* operations */
    struct workers *contacts;   /* heartbeats */
    struct workers *background; /* operations that take long and nobody waits for */
    struct workers *upkeeps;    /* retention, folds and checksums of replicas */

    struct hypervisor *hypervisor;
    struct capture_driver *captures[CAPTURE_N_KINDS];
    struct replications *replications;
    struct peers *peers;
    struct exports *exports;
    struct testruns *testruns;
    struct freezes *freezes;
    struct traffic *traffic;
    struct tasks *tasks;
    struct rest *rest;
    struct stream_listener *listener;
    struct scheduler *scheduler;
    struct upkeep *upkeep;
    struct leftovers *leftovers;
    bool is_recovered; /* what the last run left has been looked at */
};

/*
 * Everything up to listening; what the last run left half done is then looked
 * at on a worker, and cycles begin after that. evthread_use_pthreads() comes
 * before; base and config are borrowed.
 */
bool daemon_open(struct config *config, struct event_base *base, struct daemon **ret,
                 struct error **err);

/* Loop thread, when the loop has ended. Operations under way go on at the next start. */
void daemon_free(struct daemon *d);
DEFINE_AUTOPTR(daemon);

#endif
