/* Connections to peers: clients for calls, streams for points; idle ones are kept. */
#include "daemon/peers_private.h"

#include <string.h>

#include "common/units.h"

/* --- calls ---------------------------------------------------------------------- */

bool
peers_client_new(struct peers *p, const struct peer_identity *who, int timeout_ms,
                 struct http_client **ret, struct error **err)
{
    AUTOFREE(char) *address = mem_printf("https://%s", who->address);
    struct http_settings settings = {
        .address = address,
        .fingerprint = who->vouched ? NULL : who->fingerprint,
        .ca = who->vouched ? p->d->config->ca : NULL,
        .connect_timeout_ms = timeout_ms,
        .timeout_ms = timeout_ms,
    };

    if (p->d->tls == NULL)
        return error_set(
            err, ERROR_CONFIG,
            "this host talks to no peers: set 'tls' and 'stream' in [listen]");
    settings.certificate = tls_certificate_path(p->d->tls);
    settings.key = tls_key_path(p->d->tls);
    return http_client_new(&settings, ret, err);
}

/* Whom to talk to, and a kept client if there is one. */
static bool
begin_call(struct peers *p, const char *id, struct peer_identity *ret_who,
           unsigned *ret_generation, struct http_client **ret_client, struct error **err)
{
    struct peer *peer;

    pthread_mutex_lock(&p->lock);
    peer = peers_by_id(p, id);
    if (peer != NULL) {
        peers_copy(p, peer, ret_who);
        *ret_generation = peer->generation;
        *ret_client = peer->n_clients > 0 ? peer->clients[--peer->n_clients] : NULL;
    }
    pthread_mutex_unlock(&p->lock);
    if (peer == NULL)
        return error_set(err, ERROR_PEER_NOT_FOUND, "no peer has the id '%.64s'", id);
    return true;
}

static void
keep_client(struct peers *p, const char *id, unsigned generation,
            struct http_client *client)
{
    struct peer *peer;

    pthread_mutex_lock(&p->lock);
    peer = peers_by_id(p, id);
    if (peer != NULL && peer->generation == generation && peer->n_clients < PEERS_IDLE)
        peer->clients[peer->n_clients++] = TAKE(client);
    pthread_mutex_unlock(&p->lock);
    http_client_free(client);
}

/* A contact has just found nobody, and none was made for some time: no need to ask again.
 */
static bool
is_surely_away(const struct peer *peer)
{
    int64_t now_ms = units_monotonic_ms();

    return peer != NULL && peer->failures > 0 &&
           now_ms - peer->failed_at_ms < PEERS_PROBE_TRUST_MS &&
           now_ms - peer->heard_at_ms > 3 * PEERS_CONTACT_MS;
}

bool
peers_probe(struct peers *p, const char *id, const char *path, struct json_object **ret,
            struct error **err)
{
    AUTOPTR(http_client) *client = NULL;
    struct peer_identity who = { 0 };
    struct peer *peer;
    bool away;

    pthread_mutex_lock(&p->lock);
    peer = peers_by_id(p, id);
    away = is_surely_away(peer);
    if (peer != NULL)
        peers_copy(p, peer, &who);
    pthread_mutex_unlock(&p->lock);
    if (peer == NULL)
        return error_set(err, ERROR_PEER_NOT_FOUND, "no peer has the id '%.64s'", id);
    if (away)
        return error_set(err, ERROR_CONNECT, "peer '%s' does not answer for some time",
                         who.name.name);
    if (!peers_client_new(p, &who, PEERS_PROBE_MS, &client, err) ||
        !http_call(client, "GET", path, NULL, ret, err))
        return error_prefix(err, "peer '%s'", who.name.name);
    return true;
}

bool
peers_call(struct peers *p, const char *id, const char *method, const char *path,
           struct json_object *body, struct json_object **ret, struct error **err)
{
    AUTOPTR(http_client) *client = NULL;
    struct peer_identity who;
    unsigned generation = 0;

    if (!begin_call(p, id, &who, &generation, &client, err))
        return false;
    if (client == NULL && !peers_client_new(p, &who, 0, &client, err))
        return error_prefix(err, "peer '%s'", who.name.name);
    if (!http_call(client, method, path, body, ret, err))
        return error_prefix(err, "peer '%s'", who.name.name);
    keep_client(p, id, generation, TAKE(client));
    peers_heard(p, id);
    return true;
}

/* --- streams --------------------------------------------------------------------- */

/* Takes those out that are too old; the oldest are in front. Under the lock. */
static unsigned
take_old(struct peer *peer, struct stream *ret[PEERS_IDLE])
{
    int64_t limit_ms = units_monotonic_ms() - PEERS_IDLE_MS;
    unsigned n = 0;

    while (n < peer->n_streams && peer->streams[n].since_ms < limit_ms) {
        ret[n] = peer->streams[n].stream;
        n++;
    }
    peer->n_streams -= n;
    memmove(peer->streams, peer->streams + n, peer->n_streams * sizeof peer->streams[0]);
    return n;
}

void
peers_reap_streams(struct peers *p, unsigned serial)
{
    struct stream *old[PEERS_IDLE];
    struct peer *peer;
    unsigned n;

    pthread_mutex_lock(&p->lock);
    peer = peers_by_serial(p, serial);
    n = peer != NULL ? take_old(peer, old) : 0;
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < n; i++)
        stream_free(old[i]);
}

/* The one that was used last: the others may get old. */
static struct stream *
take_newest(struct peer *peer)
{
    struct idle_stream *newest;

    if (peer->n_streams == 0)
        return NULL;
    newest = &peer->streams[peer->n_streams - 1];
    if (units_monotonic_ms() - newest->since_ms > PEERS_IDLE_MS)
        return NULL;
    peer->n_streams--;
    return newest->stream;
}

static bool
connect_stream(struct peers *p, const struct peer_identity *who, struct cancel *cancel,
               struct stream **ret, struct error **err)
{
    struct stream_target target = {
        .address = who->stream,
        .fingerprint = who->vouched ? NULL : who->fingerprint,
        .vouched_name = who->vouched ? who->name.name : NULL,
        .host_id = p->d->host_id,
        .cancel = cancel,
    };

    if (p->d->tls == NULL)
        return error_set(
            err, ERROR_CONFIG,
            "this host talks to no peers: set 'tls' and 'stream' in [listen]");
    return stream_connect(p->d->tls, &target, ret, err);
}

bool
peers_stream_take(struct peers *p, const char *id, struct cancel *cancel, bool fresh,
                  struct stream **ret, struct error **err)
{
    struct peer_identity who;
    struct stream *idle = NULL;
    struct peer *peer;

    pthread_mutex_lock(&p->lock);
    peer = peers_by_id(p, id);
    if (peer != NULL) {
        peers_copy(p, peer, &who);
        /* Clocks are compared when a stream begins: one of before does not tell. */
        idle = fresh || peer->is_skewed ? NULL : take_newest(peer);
    }
    pthread_mutex_unlock(&p->lock);
    if (peer == NULL)
        return error_set(err, ERROR_PEER_NOT_FOUND, "no peer has the id '%.64s'", id);
    if (idle != NULL) {
        stream_set_cancel(idle, cancel);
        *ret = idle;
        return true;
    }
    if (!connect_stream(p, &who, cancel, ret, err))
        return error_prefix(err, "peer '%s'", who.name.name);
    return true;
}

/* Is it still the peer that this stream was made to? Under the lock. */
static bool
may_keep(const struct peer *peer, const struct stream *stream)
{
    if (peer == NULL || peer->n_streams == PEERS_IDLE)
        return false;
    return peer->who.vouched ||
           strcmp(peer->who.fingerprint, stream_peer_fingerprint(stream)) == 0;
}

void
peers_stream_put(struct peers *p, const char *id, struct stream *stream)
{
    struct peer *peer;

    stream_set_cancel(stream, NULL);
    pthread_mutex_lock(&p->lock);
    peer = peers_by_id(p, id);
    if (may_keep(peer, stream)) {
        peer->streams[peer->n_streams].stream = TAKE(stream);
        peer->streams[peer->n_streams++].since_ms = units_monotonic_ms();
    }
    pthread_mutex_unlock(&p->lock);
    stream_free(stream);
}
