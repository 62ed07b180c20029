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

/* The parts of an exchange: tells what is here; takes frames until END, which *ret holds
   then, and answers WANT; did as many come as END says? */
typedef bool (*replica_take_fn)(struct incoming *in, const struct wire_frame *f,
                                const void *payload, struct error **err);
bool replica_send_ready(struct incoming *in, struct error **err);
bool replica_receive(struct incoming *in, replica_take_fn take, struct exchange_end *ret,
                     struct error **err);
bool replica_check_end(const struct incoming *in, const struct exchange_end *end,
                       struct error **err);
bool replica_send_ack(struct incoming *in, struct error **err);

/* The exchange "verify". */
bool replica_verify(struct incoming *in, struct error **err);

/* Is what the replica stands on still what it was? Before anything is said or compared.
 */
bool replica_check_ground(struct incoming *in, struct error **err);

/* Answers WANT with the hashes of what the tip shows. */
bool replica_answer(struct incoming *in, const struct wire_frame *want,
                    const void *payload, struct error **err);

#endif
