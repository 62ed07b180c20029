/*
 * Pairing: one host makes a token, the other one brings it back, both pin each other.
 *
 * The token is "vdr1-" and base64url of a JSON object: a (address of the REST
 * that made it), f (fingerprint), i (host id), n (its name), s (the secret), e
 * (when it expires). i and n let the joining side find clashes before anything
 * is pinned on the other. Only the SHA-256 of the secret is stored.
 */
#include "daemon/peers_private.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/events.h"

#define TOKEN_PREFIX    "vdr1-"
#define TOKEN_MAX       1024
#define KEEP_INVITE_MS  (24 * 3600 * 1000) /* so that "expired" can be said */
#define MIN_INVITE_MS   1000
#define JOIN_TIMEOUT_MS 15000

struct token {
    struct peer_identity who; /* id, name, address, fingerprint */
    char secret[PEERS_SECRET_TEXT];
    int64_t expires_ms;
};

static void
to_hex(const unsigned char *bytes, size_t n, char *ret)
{
    for (size_t i = 0; i < n; i++)
        snprintf(ret + 2 * i, 3, "%02x", bytes[i]);
}

static bool
hash_secret(const char *secret, char ret[PEERS_HASH_TEXT], struct error **err)
{
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned n = 0;

    if (EVP_Digest(secret, strlen(secret), hash, &n, EVP_sha256(), NULL) != 1 || n != 32)
        return error_set(err, ERROR_INTERNAL, "SHA-256: %s", tls_last_error());
    to_hex(hash, n, ret);
    return true;
}

static bool
check_secret(const char *text, struct error **err)
{
    if (strlen(text) != PEERS_SECRET_TEXT - 1 ||
        strspn(text, "0123456789abcdef") != PEERS_SECRET_TEXT - 1)
        return error_set(err, ERROR_PROTOCOL, "the secret is not 32 hex digits");
    return true;
}

/* --- this host, as it tells the other --------------------------------------------- */

static bool
own_address(const struct config *c, const char *listen, char ret[PEERS_ADDRESS_TEXT],
            struct error **err)
{
    const char *port = strrchr(listen, ':');
    int n =
        snprintf(ret, PEERS_ADDRESS_TEXT, "%s%s", c->advertise, port != NULL ? port : "");

    if (n >= PEERS_ADDRESS_TEXT || !peers_check_address(ret, NULL))
        return error_set(
            err, ERROR_CONFIG,
            "peers cannot reach this host at '%.64s': correct 'advertise' in "
            "[host]",
            ret);
    return true;
}

static bool
own_identity(struct peers *p, struct peer_identity *ret, struct error **err)
{
    const struct config *c = p->d->config;

    if (p->d->tls == NULL || c->listen_tls == NULL || c->listen_stream == NULL ||
        c->advertise == NULL)
        return error_set(err, ERROR_CONFIG,
                         "this host does not listen for peers: set 'tls' and 'stream' in "
                         "[listen] (and 'advertise' in [host] if peers reach it under "
                         "another name), then restart virtdrd");
    snprintf(ret->name.id, sizeof ret->name.id, "%s", p->d->host_id);
    snprintf(ret->name.name, sizeof ret->name.name, "%s", c->host_name);
    snprintf(ret->name.site, sizeof ret->name.site, "%s", c->site);
    snprintf(ret->fingerprint, sizeof ret->fingerprint, "%s", tls_fingerprint(p->d->tls));
    return own_address(c, c->listen_tls, ret->address, err) &&
           own_address(c, c->listen_stream, ret->stream, err);
}

static struct json_object *
introduce(const struct peer_identity *who)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "id", who->name.id);
    json_set_string(o, "name", who->name.name);
    json_set_string(o, "site", who->name.site);
    json_set_string(o, "address", who->address);
    json_set_string(o, "stream", who->stream);
    json_set_int(o, "time", units_now_ms());
    return o;
}

/* The other half of introduce(); the fingerprint is found out elsewhere. */
static bool
read_introduction(struct json_object *o, struct peer_identity *ret, int64_t *ret_time_ms,
                  struct error **err)
{
    const char *address, *stream;

    if (!peers_read_name(o, &ret->name, err) ||
        !json_get_string(o, "address", &address, err) ||
        !json_get_string(o, "stream", &stream, err) ||
        !json_get_int(o, "time", 0, INT64_MAX / 2, ret_time_ms, err) ||
        !peers_check_address(address, err) || !peers_check_address(stream, err))
        return false;
    snprintf(ret->address, sizeof ret->address, "%s", address);
    snprintf(ret->stream, sizeof ret->stream, "%s", stream);
    ret->paired_ms = units_now_ms();
    return true;
}

static bool
check_clock(int64_t skew_ms, int64_t tolerance_ms, struct error **err)
{
    char text[UNITS_TEXT_MAX];

    if (llabs(skew_ms) <= PEERS_MAX_SKEW_MS + tolerance_ms)
        return true;
    return error_set(
        err, ERROR_CLOCK,
        "the clocks of the two hosts differ by %s; synchronise them (NTP) and "
        "use the token again",
        units_format_duration_ms(llabs(skew_ms), text));
}

/* --- invites ------------------------------------------------------------------------ */

static struct json_object *
invite_to_document(const struct invite *invite)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "id", invite->hash);
    json_set_int(o, "expires", invite->expires_ms);
    json_set_bool(o, "used", invite->used);
    return o;
}

static void
add_invite(struct peers *p, const struct invite *invite)
{
    p->invites = mem_realloc(p->invites, p->n_invites + 1, sizeof *invite);
    p->invites[p->n_invites++] = *invite;
}

static bool
load_invite(struct peers *p, struct json_object *o, struct error **err)
{
    struct invite invite = { 0 };
    const char *hash;

    if (!json_get_string(o, "id", &hash, err) ||
        !json_get_int(o, "expires", 0, INT64_MAX, &invite.expires_ms, err) ||
        !json_get_bool(o, "used", &invite.used, err))
        return error_prefix(err, "stored invite");
    snprintf(invite.hash, sizeof invite.hash, "%s", hash);
    add_invite(p, &invite);
    return true;
}

bool
peers_load_invites(struct peers *p, struct error **err)
{
    struct state *state = p->d->state;
    AUTOJSON *list = NULL;

    if (!state->ops->list(state, "invite", "", &list, err))
        return error_prefix(err, "load invites");
    for (size_t i = 0; i < json_object_array_length(list); i++)
        if (!load_invite(p, json_object_array_get_idx(list, i), err))
            return false;
    return true;
}

/* Under `writing`. */
static bool
purge_invites(struct peers *p, struct error **err)
{
    struct state *state = p->d->state;
    int64_t limit_ms = units_now_ms() - KEEP_INVITE_MS;

    for (size_t i = p->n_invites; i-- > 0;) {
        struct state_write write = { .kind = "invite", .id = p->invites[i].hash };

        if (p->invites[i].expires_ms > limit_ms)
            continue;
        if (!state->ops->commit(state, &write, 1, err))
            return error_prefix(err, "forget old invites");
        p->invites[i] = p->invites[--p->n_invites];
    }
    return true;
}

/* Under `writing`. */
static bool
store_invite(struct peers *p, const struct invite *invite, struct error **err)
{
    struct state *state = p->d->state;
    AUTOJSON *document = invite_to_document(invite);
    struct state_write write = { .kind = "invite", .id = invite->hash, .body = document };

    if (!purge_invites(p, err))
        return false;
    if (!state->ops->commit(state, &write, 1, err))
        return error_prefix(err, "store the invite");
    add_invite(p, invite);
    return true;
}

/* --- the token ------------------------------------------------------------------------
 */

static char *
format_token(const struct token *t)
{
    AUTOJSON *o = json_object_new_object();
    AUTOFREE(char) *base64 = NULL;
    const char *text;
    int n;

    json_set_string(o, "a", t->who.address);
    json_set_string(o, "f", t->who.fingerprint);
    json_set_string(o, "i", t->who.name.id);
    json_set_string(o, "n", t->who.name.name);
    json_set_string(o, "s", t->secret);
    json_set_int(o, "e", t->expires_ms);
    text = json_text(o);
    base64 = mem_alloc(strlen(text) / 3 * 4 + 5, 1);
    n = EVP_EncodeBlock((unsigned char *)base64, (const unsigned char *)text,
                        (int)strlen(text));
    while (n > 0 && base64[n - 1] == '=')
        base64[--n] = '\0';
    for (char *c = base64; *c != '\0'; c++)
        *c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
    return mem_printf(TOKEN_PREFIX "%s", base64);
}

/* From base64url without padding; the length was checked. -1: not valid. */
static int
decode(const char *text, char ret[TOKEN_MAX])
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    char base64[TOKEN_MAX + 4];
    size_t n = strlen(text), padding = (4 - n % 4) % 4;
    int decoded;

    if (n == 0 || strspn(text, alphabet) != n || padding == 3)
        return -1;
    for (size_t i = 0; i < n; i++)
        base64[i] = (char)(text[i] == '-' ? '+' : text[i] == '_' ? '/' : text[i]);
    memset(base64 + n, '=', padding);
    decoded = EVP_DecodeBlock((unsigned char *)ret, (const unsigned char *)base64,
                              (int)(n + padding));
    return decoded < 0 ? -1 : decoded - (int)padding;
}

static bool
read_token(struct json_object *o, struct token *ret, struct error **err)
{
    const char *address, *fingerprint, *id, *name, *secret;

    if (!json_get_string(o, "a", &address, err) ||
        !json_get_string(o, "f", &fingerprint, err) ||
        !json_get_string(o, "i", &id, err) || !json_get_string(o, "n", &name, err) ||
        !json_get_string(o, "s", &secret, err) ||
        !json_get_int(o, "e", 0, INT64_MAX / 2, &ret->expires_ms, err))
        return false;
    if (!id_is_valid(id))
        return error_set(err, ERROR_PROTOCOL, "its host id is no UUID");
    if (!peers_check_name("host's name", name, err) ||
        !peers_check_address(address, err) ||
        !peers_check_fingerprint(fingerprint, err) || !check_secret(secret, err))
        return false;
    snprintf(ret->who.name.id, sizeof ret->who.name.id, "%s", id);
    snprintf(ret->who.name.name, sizeof ret->who.name.name, "%s", name);
    snprintf(ret->who.address, sizeof ret->who.address, "%s", address);
    snprintf(ret->who.fingerprint, sizeof ret->who.fingerprint, "%s", fingerprint);
    snprintf(ret->secret, sizeof ret->secret, "%s", secret);
    return true;
}

/* The errors never quote the token: it holds a secret. */
static bool
parse_token(const char *text, struct token *ret, struct error **err)
{
    AUTOPTR(error) *reason = NULL;
    AUTOJSON *o = NULL;
    char json[TOKEN_MAX];
    size_t n = strlen(text), prefix = strlen(TOKEN_PREFIX);
    int decoded;

    if (n > TOKEN_MAX || strncmp(text, TOKEN_PREFIX, prefix) != 0)
        return error_set(err, ERROR_USAGE,
                         "this is no token: it must begin with '" TOKEN_PREFIX
                         "' and have at most %d characters; copy what 'virt-dr "
                         "peer-invite' printed on the other host",
                         TOKEN_MAX);
    decoded = decode(text + prefix, json);
    if (decoded <= 0 || !json_parse(json, (size_t)decoded, &o, &reason) ||
        !read_token(o, ret, &reason))
        return error_set(
            err, ERROR_USAGE,
            "the token was cut or changed (%s); copy it whole, or make a new "
            "one with 'virt-dr peer-invite' on the other host",
            reason != NULL ? error_message(reason) : "not base64url");
    return true;
}

bool
peers_invite(struct peers *p, int64_t life_ms, struct json_object **ret,
             struct error **err)
{
    struct token t = { .expires_ms = units_now_ms() + life_ms };
    struct invite invite = { .expires_ms = t.expires_ms };
    AUTOFREE(char) *text = NULL;
    unsigned char random[(PEERS_SECRET_TEXT - 1) / 2];
    bool ok;

    if (life_ms < MIN_INVITE_MS || life_ms > PEERS_INVITE_MAX_MS)
        return error_set(err, ERROR_USAGE, "an invite lives from 1 s to 24 h");
    if (!own_identity(p, &t.who, err))
        return false;
    if (RAND_bytes(random, sizeof random) != 1)
        return error_set(err, ERROR_INTERNAL, "random numbers: %s", tls_last_error());
    to_hex(random, sizeof random, t.secret);
    if (!hash_secret(t.secret, invite.hash, err))
        return false;
    pthread_mutex_lock(&p->writing);
    ok = store_invite(p, &invite, err);
    pthread_mutex_unlock(&p->writing);
    if (!ok)
        return false;
    text = format_token(&t);
    *ret = json_object_new_object();
    json_set_string(*ret, "token", text);
    json_set_int(*ret, "expires", t.expires_ms);
    json_set_string(*ret, "fingerprint", t.who.fingerprint);
    return true;
}

/* --- the side that made the token
 * -------------------------------------------------------- */

/* Under `writing`. All are compared, so that the time taken tells nothing. */
static struct invite *
find_invite(struct peers *p, const char *hash)
{
    struct invite *found = NULL;

    for (size_t i = 0; i < p->n_invites; i++)
        if (CRYPTO_memcmp(p->invites[i].hash, hash, PEERS_HASH_TEXT) == 0)
            found = &p->invites[i];
    return found;
}

static bool
check_invite(struct peers *p, const char *hash, struct invite **ret, struct error **err)
{
    struct invite *invite = find_invite(p, hash);
    char when[UNITS_TEXT_MAX];

    if (invite == NULL)
        return error_set(err, ERROR_NOT_AUTHENTICATED,
                         "this host did not make that token, or has forgotten it; make a "
                         "new one with 'virt-dr peer-invite'");
    if (invite->used)
        return error_set(err, ERROR_NOT_AUTHENTICATED,
                         "the token was used already; make a new one with 'virt-dr "
                         "peer-invite'");
    if (units_now_ms() >= invite->expires_ms)
        return error_set(err, ERROR_NOT_AUTHENTICATED,
                         "the token expired at %s; make a new one with 'virt-dr "
                         "peer-invite'",
                         units_format_time_ms(invite->expires_ms, when));
    *ret = invite;
    return true;
}

static bool
check_not_self(struct peers *p, const struct peer_identity *who, struct error **err)
{
    if (strcmp(who->name.id, p->d->host_id) == 0)
        return error_set(
            err, ERROR_USAGE,
            "a host cannot be paired with itself: both sides have the host id "
            "%s (was the state folder copied from one to the other?)",
            who->name.id);
    if (strcmp(who->fingerprint, tls_fingerprint(p->d->tls)) == 0)
        return error_set(err, ERROR_USAGE,
                         "a host cannot be paired with itself: both sides show the same "
                         "certificate");
    return true;
}

/* Under `writing`: the invite is used up in the commit that pins the peer. */
static bool
accept_with(struct peers *p, const char *hash, const struct peer_identity *who,
            int64_t skew_ms, struct error **err)
{
    struct invite *invite = NULL, used;
    AUTOJSON *document = NULL;
    struct state_write write = { .kind = "invite", .id = hash };

    if (!check_invite(p, hash, &invite, err) || !check_not_self(p, who, err) ||
        !check_clock(skew_ms, 0, err) || !peers_check_unique(p, who, err))
        return false;
    used = *invite;
    used.used = true;
    document = invite_to_document(&used);
    write.body = document;
    if (!peers_pin(p, who, &write, err))
        return false;
    *invite = used;
    return true;
}

static void
tell_paired(struct peers *p, const struct peer_identity *who)
{
    struct log_ctx ctx = { .peer = who->name.name };

    events_emit(p->d, EVENT_INFO, &ctx, "peer-paired",
                "paired with '%s' (site '%s', %s, certificate %.16s...)", who->name.name,
                who->name.site, who->address, who->fingerprint);
}

bool
peers_accept(struct peers *p, const char *fingerprint, struct json_object *body,
             struct json_object **ret, struct error **err)
{
    struct peer_identity self = { 0 }, who = { 0 };
    char hash[PEERS_HASH_TEXT];
    const char *secret;
    int64_t time_ms;
    bool ok;

    if (!own_identity(p, &self, err))
        return false;
    if (body == NULL)
        return error_set(err, ERROR_PROTOCOL, "the request to be paired has no body");
    if (!json_get_string(body, "secret", &secret, err) || !check_secret(secret, err) ||
        !read_introduction(body, &who, &time_ms, err) ||
        !peers_check_fingerprint(fingerprint, err) || !hash_secret(secret, hash, err))
        return false;
    snprintf(who.fingerprint, sizeof who.fingerprint, "%s", fingerprint);
    pthread_mutex_lock(&p->writing);
    ok = accept_with(p, hash, &who, time_ms - units_now_ms(), err);
    pthread_mutex_unlock(&p->writing);
    if (!ok)
        return false;
    tell_paired(p, &who);
    *ret = introduce(&self);
    json_set_string(*ret, "fingerprint", self.fingerprint);
    return true;
}

/* --- the side that has the token
 * ------------------------------------------------------------ */

static bool
ask_once(struct http_client *client, const struct peer_identity *self,
         const struct token *t, struct json_object **ret, struct error **err)
{
    AUTOJSON *body = introduce(self);

    json_set_string(body, "secret", t->secret);
    return http_call(client, "POST", "/api/v1/peers/accept", body, ret, err);
}

/* Making the connection takes time that the other side sees as a difference of the
 * clocks; once it is there, the second try shows whether they differ. */
static bool
ask(struct http_client *client, const struct peer_identity *self, const struct token *t,
    struct json_object **ret, struct error **err)
{
    struct error *first = NULL;

    if (ask_once(client, self, t, ret, &first))
        return true;
    if (!error_is(first, ERROR_CLOCK))
        return error_propagate(err, first);
    error_free(first);
    return ask_once(client, self, t, ret, err);
}

static bool
read_answer(struct json_object *answer, const struct token *t, int64_t began_ms,
            struct peer_identity *ret, struct error **err)
{
    int64_t now_ms = units_now_ms(), time_ms;
    const char *fingerprint;

    if (answer == NULL)
        return error_set(err, ERROR_PROTOCOL, "it answered nothing");
    if (!read_introduction(answer, ret, &time_ms, err) ||
        !json_get_string(answer, "fingerprint", &fingerprint, err))
        return false;
    if (strcmp(fingerprint, t->who.fingerprint) != 0 ||
        strcmp(ret->name.id, t->who.name.id) != 0)
        return error_set(
            err, ERROR_PROTOCOL,
            "it answers as another host (%s) than the one that made the token",
            ret->name.name);
    snprintf(ret->fingerprint, sizeof ret->fingerprint, "%s", fingerprint);
    return check_clock(time_ms - (began_ms + now_ms) / 2, (now_ms - began_ms) / 2, err);
}

static bool
check_token(struct peers *p, const struct token *t, struct error **err)
{
    char when[UNITS_TEXT_MAX];

    if (!check_not_self(p, &t->who, err) || !peers_check_unique(p, &t->who, err))
        return false;
    /* With the other side's clock, so leave it the last word when it is close. */
    if (units_now_ms() > t->expires_ms + PEERS_MAX_SKEW_MS)
        return error_set(err, ERROR_NOT_AUTHENTICATED,
                         "the token expired at %s; make a new one with 'virt-dr "
                         "peer-invite' on the other host",
                         units_format_time_ms(t->expires_ms, when));
    return true;
}

static bool
pair(struct peers *p, const struct token *t, struct peer_identity *ret,
     struct error **err)
{
    AUTOPTR(http_client) *client = NULL;
    AUTOJSON *answer = NULL;
    struct peer_identity self = { 0 };
    int64_t began_ms;
    bool ok;

    if (!own_identity(p, &self, err) || !check_token(p, t, err) ||
        !peers_client_new(p, &t->who, JOIN_TIMEOUT_MS, &client, err))
        return false;
    began_ms = units_now_ms();
    if (!ask(client, &self, t, &answer, err) ||
        !read_answer(answer, t, began_ms, ret, err))
        return error_prefix(err, "host '%s'", t->who.name.name);
    pthread_mutex_lock(&p->writing);
    ok = peers_check_unique(p, ret, err) && peers_pin(p, ret, NULL, err);
    pthread_mutex_unlock(&p->writing);
    return ok;
}

bool
peers_join(struct peers *p, const char *token, struct json_object **ret,
           struct error **err)
{
    struct peer_identity who = { 0 };
    struct token t = { 0 };

    if (!parse_token(token, &t, err))
        return false;
    if (!pair(p, &t, &who, err))
        return error_prefix(err, "pair");
    tell_paired(p, &who);
    return peers_show(p, who.name.id, ret, err);
}
