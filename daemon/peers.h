/*
 * Peers: the hosts that this one has been paired with.
 *
 * Owns their documents (kinds "peer", "invite"), the pinned fingerprints, the
 * connections to them, and the contact that is made with each of them every
 * PEERS_CONTACT_MS. A peer is known by its host id; its certificate's SHA-256
 * is pinned when it is paired, or the configured CA vouches for its name. The
 * address it was seen under means nothing.
 *
 * A host that was never invited is a peer too if the configuration has a CA and
 * a section [peer NAME] with address and stream. The CA must vouch for the host
 * in that address, and the first DNS name of its certificate (else CN) be NAME. It is met
 * at the first contact: GET /api/v1/host over TLS that the CA vouched for says its id,
 * its name, which must be NAME, and its fingerprint; they are stored then, and asked for
 * again from time to time, so that a renewed certificate is followed. Until then it has
 * no id and cannot be found by peers_find(). (So GET /host must answer {id, name, site,
 * time, fingerprint} to everybody who shows a certificate.) When the section is taken
 * out, such a host is no peer any more; one that was paired stays one.
 *
 * A contact tells the other side which VMs the two share, with epoch and
 * state, and hears the same: that is how a returning host learns that it was
 * superseded, and how guards are confirmed. Any thread unless said otherwise.
 */
#ifndef DAEMON_PEERS_H
#define DAEMON_PEERS_H

#include <json-c/json.h>
#include <openssl/ssl.h>

#include "common/cancel.h"
#include "common/error.h"
#include "common/id.h"
#include "daemon/daemon.h"

#define PEERS_CONTACT_MS    2000
#define PEERS_INVITE_MS     (15 * 60 * 1000) /* default life of a token */
#define PEERS_INVITE_MAX_MS (24 * 3600 * 1000)

struct peers;
struct stream;

struct peer_name {
    char id[ID_TEXT];
    char name[64];
    char site[64];
};

bool peers_load(struct daemon *d, struct peers **ret, struct error **err);

/* After the loop and the workers have ended: a contact that runs uses it. */
void peers_free(struct peers *p);

/* By id or name. ERROR_PEER_NOT_FOUND. */
bool
peers_find(struct peers *p, const char *key, struct peer_name *ret, struct error **err);

/*
 * Who shows this certificate? Does not block: for the loop thread. Without ssl
 * (NULL) the fingerprint alone counts, for those that the CA vouches for as well.
 */
bool peers_identify(struct peers *p, const SSL *ssl, const char *fingerprint,
                    struct peer_name *ret);

/* As the API shows them; the caller's to put. */
struct json_object *peers_list(struct peers *p);
bool peers_show(struct peers *p, const char *key, struct json_object **ret,
                struct error **err);

/* {token, expires, fingerprint}; life_ms is checked. */
bool peers_invite(struct peers *p, int64_t life_ms, struct json_object **ret,
                  struct error **err);

/* This side has a token: asks the one that made it, pins it. *ret as peers_show(). */
bool peers_join(struct peers *p, const char *token, struct json_object **ret,
                struct error **err);

/*
 * The other side of join: body is {secret, id, name, site, address, stream, time},
 * the answer {id, name, site, address, stream, fingerprint, time}; fingerprint is
 * what the caller's certificate showed. The invite is used up only if it succeeds.
 * ERROR_NOT_AUTHENTICATED (the token), ERROR_CLOCK, ERROR_EXISTS (another peer of
 * that name or certificate), ERROR_USAGE (this host itself), ERROR_CONFIG.
 */
bool peers_accept(struct peers *p, const char *fingerprint, struct json_object *body,
                  struct json_object **ret, struct error **err);

/* ERROR_INVALID_STATE while a replication uses it, or the configuration vouches for it.
 */
bool peers_remove(struct peers *p, const char *key, struct error **err);

/* A REST call to a peer. Blocks. */
bool peers_call(struct peers *p, const char *id, const char *method, const char *path,
                struct json_object *body, struct json_object **ret, struct error **err);

/*
 * The same for somebody who cannot wait: a failover that asks whether the source
 * lives. Short limits (PEERS_PROBE_MS); a peer whose last contacts failed is not
 * asked again.
 */
#define PEERS_PROBE_MS       2000
#define PEERS_PROBE_TRUST_MS 15000
bool peers_probe(struct peers *p, const char *id, const char *path,
                 struct json_object **ret, struct error **err);

/*
 * A stream to a peer: one that is idle, or a new one. peers_stream_put() gives
 * it back after a whole exchange; after a failure free it.
 */
bool peers_stream_take(struct peers *p, const char *id, struct cancel *cancel, bool fresh,
                       struct stream **ret, struct error **err);
void peers_stream_put(struct peers *p, const char *id, struct stream *stream);

/* Has the peer answered lately (three contacts)? *ret_ms: when last, wall clock, 0 never.
 */
bool peers_connected(struct peers *p, const char *id, int64_t *ret_ms);

/* The peer was heard of just now, by whatever way. */
void peers_heard(struct peers *p, const char *id);

/* The loop's timer that makes contacts; on the loop thread. */
void peers_start(struct peers *p);

#endif
