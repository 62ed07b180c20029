/* What replica_serve.c and replica_compare.c share: one exchange that comes in. */
#ifndef DAEMON_REPLICA_SERVE_H
#define DAEMON_REPLICA_SERVE_H

#include "daemon/exchange.h"
#include "daemon/replica.h"

struct incoming {
    struct daemon *daemon;
    struct stream *stream;
    struct replication *r;
    struct store *store;
    struct points *points;
    struct exchange_begin begin;
    struct wire_frame begin_frame;
    char *begin_payload;
    struct journal *journal;
    void *unpacked;       /* WIRE_MAX_DATA bytes; NULL until needed */
    struct cancel cancel; /* a failover, or a newer exchange, stops this one */
    bool claimed;
    bool in_doubt; /* slice: the store failed; what is in the tip may not last */
    uint64_t unflushed_bytes; /* slice: written to the tip since the last flush */
    uint32_t frames;          /* BEGIN counted */
    uint64_t wire_bytes;      /* of them */
};

/* Is there content of the disks that is worth comparing with? Under r->lock. */
bool replica_comparable(const struct replication *r);

/* Answers WANT with the hashes of what the tip shows. */
bool replica_answer(struct incoming *in, const struct wire_frame *want,
                    const void *payload, struct error **err);

#endif
