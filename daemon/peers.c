#include "daemon/peers_private.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/events.h"
#include "daemon/replication.h"

static void
copy_text(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from);
}

/* --- what comes from outside ------------------------------------------------- */

/* As in the configuration: names become file names and parts of URLs. */
bool
peers_check_name(const char *what, const char *text, struct error **err)
{
    size_t n = strlen(text);

    if (n == 0 || n >= sizeof((struct peer_name *)0)->name)
        return error_set(err, ERROR_PROTOCOL,
                         "the %s has %zu characters; 1 to 63 are taken", what, n);
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)text[i]) &&
            (i == 0 || strchr("._-", text[i]) == NULL))
            return error_set(err, ERROR_PROTOCOL,
                             "the %s '%s' is not made of letters, digits and . _ -", what,
                             text);
    return true;
}

bool
peers_read_name(struct json_object *o, struct peer_name *ret, struct error **err)
{
    const char *id, *name, *site;

    if (!json_get_string(o, "id", &id, err) || !json_get_string(o, "name", &name, err) ||
        !json_get_string(o, "site", &site, err))
        return false;
    if (!id_is_valid(id))
        return error_set(err, ERROR_PROTOCOL, "the host's id '%.64s' is no UUID", id);
    if (!peers_check_name("host's name", name, err) ||
        !peers_check_name("site", site, err))
        return false;
    copy_text(ret->id, sizeof ret->id, id);
    copy_text(ret->name, sizeof ret->name, name);
    copy_text(ret->site, sizeof ret->site, site);
    return true;
}

static bool
host_is_valid(const char *host, size_t n)
{
    static const char digits[] = "0123456789";
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    bool v6 = n > 2 && host[0] == '[' && host[n - 1] == ']';

    if (v6)
        host++, n -= 2;
    for (size_t i = 0; i < n; i++)
        if (strchr(digits, host[i]) == NULL && strchr(letters, host[i]) == NULL &&
            strchr(v6 ? ":.%" : ".-_", host[i]) == NULL)
            return false;
    return n > 0;
}

bool
peers_check_address(const char *text, struct error **err)
{
    const char *colon = strrchr(text, ':');
    uint64_t port;

    if (strlen(text) >= PEERS_ADDRESS_TEXT)
        return error_set(err, ERROR_PROTOCOL, "the address '%.64s...' is too long", text);
    if (colon == NULL || !host_is_valid(text, (size_t)(colon - text)) ||
        !units_parse_u64(colon + 1, 1, 65535, &port, NULL))
        return error_set(err, ERROR_PROTOCOL, "the address '%s' is not HOST:PORT", text);
    return true;
}

bool
peers_check_fingerprint(const char *text, struct error **err)
{
    if (strlen(text) != TLS_FINGERPRINT_TEXT - 1 ||
        strspn(text, "0123456789abcdef") != TLS_FINGERPRINT_TEXT - 1)
        return error_set(err, ERROR_PROTOCOL,
                         "the fingerprint '%.80s' is not 64 lower-case hex digits", text);
    return true;
}

/* --- the peers in memory ----------------------------------------------------- */

struct peer *
peers_by_id(struct peers *p, const char *id)
{
    for (size_t i = 0; i < p->n; i++)
        if (id[0] != '\0' && strcmp(p->all[i]->who.name.id, id) == 0)
            return p->all[i];
    return NULL;
}

struct peer *
peers_by_serial(struct peers *p, unsigned serial)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->all[i]->serial == serial)
            return p->all[i];
    return NULL;
}

static struct peer *
by_name(struct peers *p, const char *name)
{
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->all[i]->who.name.name, name) == 0)
            return p->all[i];
    return NULL;
}

/* The section of the configuration that lets the CA vouch for this name; or NULL. */
static const struct config_peer *
vouching_section(struct peers *p, const char *name)
{
    const struct config_peer *section = config_peer(p->d->config, name);

    if (p->d->config->ca == NULL || section == NULL || section->address == NULL ||
        section->stream == NULL)
        return NULL;
    return section;
}

void
peers_copy(struct peers *p, const struct peer *peer, struct peer_identity *ret)
{
    const struct config_peer *section = config_peer(p->d->config, peer->who.name.name);

    *ret = peer->who;
    if (section != NULL && section->address != NULL)
        copy_text(ret->address, sizeof ret->address, section->address);
    if (section != NULL && section->stream != NULL)
        copy_text(ret->stream, sizeof ret->stream, section->stream);
}

static struct peer *
add_peer(struct peers *p, const struct peer_identity *who)
{
    struct peer *peer = NEW(struct peer);

    peer->serial = ++p->next_serial;
    peer->who = *who;
    p->all = mem_realloc(p->all, p->n + 1, sizeof(struct peer *));
    p->all[p->n++] = peer;
    return peer;
}

/* What a peer owns and what may wait when it is closed: taken out under the lock, freed
 * after. */
struct connections {
    struct http_client *clients[PEERS_IDLE + 1];
    struct stream *streams[PEERS_IDLE];
};

static void
take_connections(struct peer *peer, struct connections *ret)
{
    *ret = (struct connections){ 0 };
    for (unsigned i = 0; i < peer->n_clients; i++)
        ret->clients[i] = peer->clients[i];
    ret->clients[PEERS_IDLE] = TAKE(peer->contact_client);
    for (unsigned i = 0; i < peer->n_streams; i++)
        ret->streams[i] = peer->streams[i].stream;
    peer->n_clients = peer->n_streams = 0;
}

static void
close_connections(struct connections *c)
{
    for (size_t i = 0; i < N_ELEMENTS(c->clients); i++)
        http_client_free(c->clients[i]);
    for (size_t i = 0; i < N_ELEMENTS(c->streams); i++)
        stream_free(c->streams[i]);
}

static void
peer_free(struct peer *peer)
{
    struct connections old;

    if (peer == NULL)
        return;
    take_connections(peer, &old);
    close_connections(&old);
    error_free(peer->error);
    free(peer);
}

/* --- documents ---------------------------------------------------------------- */

static struct json_object *
identity_to_document(const struct peer_identity *who)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "id", who->name.id);
    json_set_string(o, "name", who->name.name);
    json_set_string(o, "site", who->name.site);
    json_set_string(o, "address", who->address);
    json_set_string(o, "stream", who->stream);
    json_set_string(o, "fingerprint", who->fingerprint);
    json_set_bool(o, "vouched", who->vouched);
    json_set_int(o, "pairedAt", who->paired_ms);
    return o;
}

static bool
read_document(struct json_object *o, struct peer_identity *ret, struct error **err)
{
    const char *address, *stream, *fingerprint;

    if (!peers_read_name(o, &ret->name, err) ||
        !json_get_string(o, "address", &address, err) ||
        !json_get_string(o, "stream", &stream, err) ||
        !json_get_string(o, "fingerprint", &fingerprint, err) ||
        !json_get_bool(o, "vouched", &ret->vouched, err) ||
        !json_get_int(o, "pairedAt", 0, INT64_MAX, &ret->paired_ms, err))
        return false;
    if (!peers_check_address(address, err) || !peers_check_address(stream, err) ||
        !peers_check_fingerprint(fingerprint, err))
        return false;
    copy_text(ret->address, sizeof ret->address, address);
    copy_text(ret->stream, sizeof ret->stream, stream);
    copy_text(ret->fingerprint, sizeof ret->fingerprint, fingerprint);
    return true;
}

static bool
load_document(struct peers *p, struct json_object *o, struct error **err)
{
    struct peer_identity who = { 0 };
    struct log_ctx ctx = { .peer = who.name.name };

    if (!read_document(o, &who, err))
        return error_prefix(err, "stored peer '%s'", json_string_or(o, "name", "?"));
    if (who.vouched && vouching_section(p, who.name.name) == NULL) {
        log_warn(&ctx, "peer-not-vouched",
                 "it was known by its CA certificate alone, and the configuration has no "
                 "complete section [peer %s], or no CA, any more: not a peer now",
                 who.name.name);
        return true;
    }
    add_peer(p, &who);
    return true;
}

static bool
load_documents(struct peers *p, struct error **err)
{
    struct state *state = p->d->state;
    AUTOJSON *list = NULL;

    if (!state->ops->list(state, "peer", "", &list, err))
        return error_prefix(err, "load peers");
    for (size_t i = 0; i < json_object_array_length(list); i++)
        if (!load_document(p, json_object_array_get_idx(list, i), err))
            return false;
    return true;
}

/* Peers that are only in the configuration are met when they answer. */
static void
add_configured(struct peers *p)
{
    const struct config *c = p->d->config;

    for (size_t i = 0; i < c->n_peers; i++) {
        const struct config_peer *section = &c->peers[i];
        struct peer_identity who = { .vouched = true };

        if (vouching_section(p, section->name) == NULL || by_name(p, section->name))
            continue;
        copy_text(who.name.name, sizeof who.name.name, section->name);
        copy_text(who.address, sizeof who.address, section->address);
        copy_text(who.stream, sizeof who.stream, section->stream);
        add_peer(p, &who);
    }
}

bool
peers_load(struct daemon *d, struct peers **ret, struct error **err)
{
    struct peers *p = NEW(struct peers);

    p->d = d;
    pthread_mutex_init(&p->writing, NULL);
    pthread_mutex_init(&p->lock, NULL);
    if (!load_documents(p, err) || !peers_load_invites(p, err)) {
        peers_free(p);
        return false;
    }
    add_configured(p);
    *ret = p;
    return true;
}

void
peers_free(struct peers *p)
{
    if (p == NULL)
        return;
    if (p->timer != NULL)
        event_free(p->timer);
    for (size_t i = 0; i < p->n; i++)
        peer_free(p->all[i]);
    pthread_mutex_destroy(&p->lock);
    pthread_mutex_destroy(&p->writing);
    free(p->all);
    free(p->invites);
    free(p);
}

/* --- who is who ---------------------------------------------------------------- */

static struct peer *
by_key(struct peers *p, const char *key, struct error **err)
{
    struct peer *peer = peers_by_id(p, key);

    if (peer == NULL)
        peer = by_name(p, key);
    if (peer == NULL) {
        error_set(err, ERROR_PEER_NOT_FOUND,
                  "no peer has the name or id '%.64s'; 'virt-dr peers' lists them", key);
        return NULL;
    }
    return peer;
}

bool
peers_find(struct peers *p, const char *key, struct peer_name *ret, struct error **err)
{
    const struct peer *peer;
    bool ok = false;

    pthread_mutex_lock(&p->lock);
    peer = by_key(p, key, err);
    if (peer != NULL && peer->who.name.id[0] == '\0')
        error_set(err, ERROR_PEER_NOT_FOUND,
                  "peer '%s' of the configuration has not answered yet, so its id is not "
                  "known",
                  peer->who.name.name);
    else if (peer != NULL) {
        *ret = peer->who.name;
        ok = true;
    }
    pthread_mutex_unlock(&p->lock);
    return ok;
}

static const struct peer *
by_fingerprint(struct peers *p, const char *fingerprint)
{
    for (size_t i = 0; i < p->n; i++)
        if (fingerprint[0] != '\0' &&
            strcmp(p->all[i]->who.fingerprint, fingerprint) == 0)
            return p->all[i];
    return NULL;
}

static bool
identify_by_fingerprint(struct peers *p, const char *fingerprint, bool or_vouched,
                        struct peer_name *ret)
{
    const struct peer *peer;

    pthread_mutex_lock(&p->lock);
    peer = by_fingerprint(p, fingerprint);
    if (peer != NULL && peer->who.vouched && !or_vouched)
        peer = NULL;
    if (peer != NULL)
        *ret = peer->who.name;
    pthread_mutex_unlock(&p->lock);
    return peer != NULL;
}

/* A pinned peer is its certificate, whatever a CA says of the name. */
static bool
identify_by_name(struct peers *p, const char *name, struct peer_name *ret)
{
    const struct peer *peer;

    pthread_mutex_lock(&p->lock);
    peer = by_name(p, name);
    if (peer != NULL && (!peer->who.vouched || peer->who.name.id[0] == '\0'))
        peer = NULL;
    if (peer != NULL)
        *ret = peer->who.name;
    pthread_mutex_unlock(&p->lock);
    return peer != NULL;
}

bool
peers_identify(struct peers *p, const SSL *ssl, const char *fingerprint,
               struct peer_name *ret)
{
    char name[TLS_NAME_MAX];

    /* Whom the CA vouches for is asked of the CA, so that its expiry counts. */
    if (identify_by_fingerprint(p, fingerprint, ssl == NULL, ret))
        return true;
    return ssl != NULL && p->d->tls != NULL && tls_peer_vouched(p->d->tls, ssl, name) &&
           identify_by_name(p, name, ret);
}

/* --- as the API shows them ------------------------------------------------------- */

static const char *
state_name(const struct peer *peer)
{
    switch (peer->outcome) {
    case PEER_UNKNOWN:
        return "unknown";
    case PEER_CONNECTED:
        /* A contact that hangs is an answer as well. */
        if (units_monotonic_ms() - peer->heard_at_ms > 3 * PEERS_CONTACT_MS)
            return "away";
        return "connected";
    case PEER_AWAY:
        return "away";
    case PEER_REFUSED:
        return "refused";
    }
    return "unknown";
}

static const char *
or_null(const char *text)
{
    return text[0] != '\0' ? text : NULL;
}

static struct json_object *
show(struct peers *p, const struct peer *peer)
{
    struct json_object *o = json_object_new_object();
    struct peer_identity who;

    peers_copy(p, peer, &who);
    json_set_string(o, "id", or_null(who.name.id));
    json_set_string(o, "name", who.name.name);
    json_set_string(o, "site", or_null(who.name.site));
    json_set_string(o, "address", who.address);
    json_set_string(o, "streamAddress", who.stream);
    json_set_string(o, "fingerprint", or_null(who.fingerprint));
    json_set_string(o, "state", state_name(peer));
    json_set_int(o, "lastContact", peer->heard_ms);
    json_set_int(o, "clockSkew", peer->skew_ms);
    json_set(o, "error", peer->error != NULL ? json_from_error(peer->error) : NULL);
    return o;
}

struct json_object *
peers_list(struct peers *p)
{
    struct json_object *list = json_object_new_array();

    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < p->n; i++)
        json_object_array_add(list, show(p, p->all[i]));
    pthread_mutex_unlock(&p->lock);
    return list;
}

bool
peers_show(struct peers *p, const char *key, struct json_object **ret, struct error **err)
{
    const struct peer *peer;

    pthread_mutex_lock(&p->lock);
    peer = by_key(p, key, err);
    if (peer != NULL)
        *ret = show(p, peer);
    pthread_mutex_unlock(&p->lock);
    return peer != NULL;
}

/* --- new peers and old ones -------------------------------------------------------- */

static bool
check_against(const struct peer_identity *other, const struct peer_identity *who,
              struct error **err)
{
    if (other->name.id[0] == '\0' || strcmp(other->name.id, who->name.id) == 0)
        return true;
    if (strcmp(other->name.name, who->name.name) == 0)
        return error_set(
            err, ERROR_EXISTS,
            "another peer is named '%s' already (id %s); give one of the two "
            "another name: 'name' in [host] of its configuration",
            other->name.name, other->name.id);
    if (strcmp(other->fingerprint, who->fingerprint) == 0)
        return error_set(
            err, ERROR_EXISTS,
            "peer '%s' (id %s) has the same certificate; give each host a key "
            "of its own, or remove that peer first",
            other->name.name, other->name.id);
    return true;
}

bool
peers_check_unique(struct peers *p, const struct peer_identity *who, struct error **err)
{
    bool ok = true;

    if (strcmp(who->name.name, p->d->config->host_name) == 0)
        return error_set(err, ERROR_EXISTS,
                         "both hosts are named '%s'; give one of the two another name: "
                         "'name' in [host] of its configuration",
                         who->name.name);
    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; ok && i < p->n; i++)
        ok = check_against(&p->all[i]->who, who, err);
    pthread_mutex_unlock(&p->lock);
    return ok;
}

/* Out of the list, if it is there. Under the lock. */
static struct peer *
take_peer(struct peers *p, struct peer *peer)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->all[i] == peer) {
            p->all[i] = p->all[--p->n];
            return peer;
        }
    return NULL;
}

/* The entry of the configuration for a peer that has got this name just now. */
static struct peer *
take_unmet(struct peers *p, const struct peer *peer, const char *name)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->all[i] != peer && strcmp(p->all[i]->who.name.name, name) == 0)
            return take_peer(p, p->all[i]);
    return NULL;
}

/* A peer that was only configured becomes the one that was met under its name. */
static void
know(struct peers *p, const struct peer_identity *who)
{
    struct connections old = { 0 };
    struct peer *peer, *unmet;

    pthread_mutex_lock(&p->lock);
    peer = peers_by_id(p, who->name.id);
    if (peer == NULL)
        peer = by_name(p, who->name.name);
    if (peer == NULL)
        peer = add_peer(p, who);
    else
        take_connections(peer, &old);
    unmet = take_unmet(p, peer, who->name.name);
    peer->who = *who;
    peer->generation++;
    peer->failures = 0;
    peer->next_contact_ms = 0;
    pthread_mutex_unlock(&p->lock);
    close_connections(&old);
    peer_free(unmet);
}

bool
peers_pin(struct peers *p, const struct peer_identity *who,
          const struct state_write *more, struct error **err)
{
    struct state *state = p->d->state;
    AUTOJSON *document = identity_to_document(who);
    struct state_write writes[2] = {
        { .kind = "peer", .id = who->name.id, .body = document },
    };

    if (more != NULL)
        writes[1] = *more;
    if (!state->ops->commit(state, writes, more != NULL ? 2 : 1, err))
        return error_prefix(err, "store peer '%s'", who->name.name);
    know(p, who);
    return true;
}

bool
peers_check_unused(struct peers *p, const struct peer_name *name, struct error **err)
{
    struct replication **all;
    size_t n = replications_all(p->d->replications, &all);
    AUTOFREE(char) *user = NULL;

    for (size_t i = 0; i < n; i++) {
        pthread_mutex_lock(&all[i]->lock);
        if (user == NULL && strcmp(all[i]->peer_id, name->id) == 0)
            user = mem_strdup(all[i]->vm_name);
        pthread_mutex_unlock(&all[i]->lock);
        replication_unref(all[i]);
    }
    free(all);
    if (user != NULL)
        return error_set(err, ERROR_INVALID_STATE,
                         "peer '%s' is used by the replication of '%s'; a peer can be "
                         "removed when no replication uses it (virt-dr unprotect)",
                         name->name, user);
    return true;
}

static void
forget(struct peers *p, const char *id)
{
    struct peer *gone;

    pthread_mutex_lock(&p->lock);
    gone = take_peer(p, peers_by_id(p, id));
    pthread_mutex_unlock(&p->lock);
    peer_free(gone);
}

/* Under `writing`. */
static bool
remove_named(struct peers *p, const struct peer_name *name, struct error **err)
{
    struct state *state = p->d->state;
    struct state_write write = { .kind = "peer", .id = name->id };

    if (!peers_check_unused(p, name, err))
        return false;
    if (!state->ops->commit(state, &write, 1, err))
        return error_prefix(err, "remove peer '%s'", name->name);
    forget(p, name->id);
    return true;
}

bool
peers_remove(struct peers *p, const char *key, struct error **err)
{
    struct peer_name name = { 0 };
    struct log_ctx ctx = { .peer = name.name };
    bool ok;

    pthread_mutex_lock(&p->writing);
    ok = peers_find(p, key, &name, err);
    if (ok && vouching_section(p, name.name) != NULL)
        ok = error_set(err, ERROR_INVALID_STATE,
                       "peer '%s' comes from the configuration; take out the section "
                       "[peer %s] first",
                       name.name, name.name);
    ok = ok && remove_named(p, &name, err);
    pthread_mutex_unlock(&p->writing);
    if (ok)
        events_emit(p->d, EVENT_INFO, &ctx, "peer-removed",
                    "peer '%s' was removed; it cannot call this host any more",
                    name.name);
    return ok;
}
