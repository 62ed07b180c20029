/*
 * What the files of the peers share; nobody else includes this.
 *
 * Two locks. `lock` guards everything in memory and is never held over
 * anything that waits: the loop thread takes it to identify callers. `writing`
 * is taken first, by those who change what is stored, and is held over the
 * commit; memory follows the commit. Who talks to a peer copies its identity,
 * lets go of the lock, and looks the peer up again when the answer is there: it
 * may have been removed or paired anew meanwhile (then `generation` differs).
 */
#ifndef DAEMON_PEERS_PRIVATE_H
#define DAEMON_PEERS_PRIVATE_H

#include <event2/event.h>
#include <pthread.h>

#include "common/http.h"
#include "daemon/peers.h"
#include "daemon/stream.h"
#include "daemon/tls.h"
#include "drivers/state.h"

#define PEERS_ADDRESS_TEXT 264 /* a DNS name, a colon, a port, the NUL */
#define PEERS_SECRET_TEXT  33  /* 128 bits in hex, and the NUL */
#define PEERS_HASH_TEXT    65
#define PEERS_IDLE         4
#define PEERS_IDLE_MS      60000

#define PEERS_MAX_SKEW_MS      2000
#define PEERS_CONTACT_LIMIT_MS 8000 /* of one contact */
#define PEERS_BACKOFF_MAX_MS   10000

/* What came of the last contact. */
enum peer_outcome {
    PEER_UNKNOWN,
    PEER_CONNECTED,
    PEER_AWAY,
    PEER_REFUSED,
};

/* Who a peer is and where; plain data, to be copied. */
struct peer_identity {
    struct peer_name name;
    char address[PEERS_ADDRESS_TEXT];
    char stream[PEERS_ADDRESS_TEXT];
    char fingerprint[TLS_FINGERPRINT_TEXT]; /* "": not known yet (vouched only) */
    bool vouched; /* never paired: the CA vouches for the section's name */
    int64_t paired_ms;
};

struct idle_stream {
    struct stream *stream;
    int64_t since_ms;
};

struct peer {
    unsigned serial;          /* its own as long as the daemon runs */
    struct peer_identity who; /* id "": of the configuration, not met yet */
    unsigned generation;      /* of `who` */

    enum peer_outcome outcome;
    struct error *error; /* of the last contact */
    int64_t heard_ms;    /* wall clock, 0 never */
    int64_t heard_at_ms; /* the same, monotonic */
    int64_t skew_ms;     /* its clock minus ours */
    bool is_skewed;
    bool is_contacting;
    int64_t learned_ms; /* vouched: when it was asked who it is; 0: since the last failure
                           not */
    unsigned failures;
    int64_t failed_at_ms;               /* the last of them, monotonic */
    int64_t next_contact_ms;            /* monotonic */
    struct http_client *contact_client; /* NULL while a contact has it */

    struct http_client *clients[PEERS_IDLE];
    unsigned n_clients;
    struct idle_stream streams[PEERS_IDLE];
    unsigned n_streams;
};

struct invite {
    char hash[PEERS_HASH_TEXT];
    int64_t expires_ms;
    bool used;
};

struct peers {
    struct daemon *d;
    struct event *timer;
    pthread_mutex_t writing;
    pthread_mutex_t lock; /* of everything below */
    struct peer **all;
    size_t n;
    struct invite *invites;
    size_t n_invites;
    unsigned next_serial;
};

/* Under `lock`. NULL if there is none. */
struct peer *peers_by_id(struct peers *p, const char *id);
struct peer *peers_by_serial(struct peers *p, unsigned serial);

/* A copy with the addresses that count: the configuration's go first. Under `lock`. */
void peers_copy(struct peers *p, const struct peer *peer, struct peer_identity *ret);

/* Does it clash with this host or another peer? ERROR_EXISTS. Takes `lock`. */
bool
peers_check_unique(struct peers *p, const struct peer_identity *who, struct error **err);

/* Stores the peer together with `more` (may be NULL), then knows it. Under `writing`. */
bool peers_pin(struct peers *p, const struct peer_identity *who,
               const struct state_write *more, struct error **err);

/* id, name, site of an object from a peer, checked. */
bool peers_read_name(struct json_object *o, struct peer_name *ret, struct error **err);
/* As in the configuration: letters, digits and . _ -; `what` is for the message. */
bool peers_check_name(const char *what, const char *text, struct error **err);
bool peers_check_address(const char *text, struct error **err);
bool peers_check_fingerprint(const char *text, struct error **err);

/* ERROR_INVALID_STATE while a replication uses it. */
bool
peers_check_unused(struct peers *p, const struct peer_name *name, struct error **err);

/* A client for this peer: pinned, or vouched for by the CA. */
bool peers_client_new(struct peers *p, const struct peer_identity *who, int timeout_ms,
                      struct http_client **ret, struct error **err);

/* Closes the streams that have been idle for too long. */
void peers_reap_streams(struct peers *p, unsigned serial);

bool peers_load_invites(struct peers *p, struct error **err);

#endif
