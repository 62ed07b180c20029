/* What replica.c and replica_serve.c share. */
#ifndef DAEMON_REPLICA_PRIVATE_H
#define DAEMON_REPLICA_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "daemon/exchange.h"
#include "daemon/replica.h"

struct replica {
    pthread_mutex_t open; /* while the store is being opened or closed */
    struct store *store;
    struct points *points; /* NULL until they are asked for */
    pthread_mutex_t tip;   /* who writes the tip */
    atomic_bool applying;  /* a job waits to apply */
};

/* Made when it is first asked for; lives as long as the replication. */
struct replica *replica_get(struct replication *r);

/* A point's document id: sorts by sequence. */
char *replica_point_key(const struct replication *r, uint64_t sequence);

#endif
