/* What testruns.c and testruns_watch.c share. */
#ifndef DAEMON_TESTRUNS_PRIVATE_H
#define DAEMON_TESTRUNS_PRIVATE_H

#include <pthread.h>

#include "daemon/testruns.h"

struct testrun {
    struct testrun *next;
    struct json_object *doc; /* replaced, never changed */
};

struct testruns {
    struct daemon *daemon;
    pthread_mutex_t lock;
    struct testrun *all; /* the newest first */
    struct event *timer;
    bool started;
    bool working;                 /* the timer's job; loop thread */
    _Atomic bool look_for_guests; /* some may have ended, or the host was started anew */
};

#endif
