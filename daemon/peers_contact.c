/* The contact with each peer every PEERS_CONTACT_MS, and what is known from it. */
#include "daemon/peers_private.h"

#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/contact.h"
#include "daemon/events.h"

#define TICK_MS  250
#define LEARN_MS 60000 /* a vouched peer may renew its certificate at any time */

/* One contact under way; the job's. Each peer has at most one (is_contacting). */
struct contact {
    struct peers *p;
    unsigned serial;
    unsigned generation;
    struct peer_identity who;
    struct http_client *client;
    bool must_learn;
    int64_t began_ms; /* monotonic */
    int64_t skew_ms;
    bool is_skewed;
};

/* --- heard of ------------------------------------------------------------------- */

static void
note_heard(struct peer *peer)
{
    peer->heard_ms = units_now_ms();
    peer->heard_at_ms = units_monotonic_ms();
}

void
peers_heard(struct peers *p, const char *id)
{
    struct peer *peer;

    pthread_mutex_lock(&p->lock);
    peer = peers_by_id(p, id);
    if (peer != NULL) {
        note_heard(peer);
        /* It is back: do not wait for the back-off. */
        if (peer->outcome != PEER_CONNECTED)
            peer->next_contact_ms = 0;
    }
    pthread_mutex_unlock(&p->lock);
}

bool
peers_connected(struct peers *p, const char *id, int64_t *ret_ms)
{
    int64_t heard_ms = 0;
    const struct peer *peer;
    bool connected = false;

    pthread_mutex_lock(&p->lock);
    peer = peers_by_id(p, id);
    if (peer != NULL && peer->heard_ms != 0) {
        heard_ms = peer->heard_ms;
        connected = units_monotonic_ms() - peer->heard_at_ms <= 3 * PEERS_CONTACT_MS;
    }
    pthread_mutex_unlock(&p->lock);
    if (ret_ms != NULL)
        *ret_ms = heard_ms;
    return connected;
}

/* --- meeting a peer that the CA vouches for ---------------------------------------- */

/* Has another entry this id already? Then one host stands in two sections. */
static bool
is_another(struct peers *p, unsigned serial, const char *id)
{
    const struct peer *other;
    bool another;

    pthread_mutex_lock(&p->lock);
    other = peers_by_id(p, id);
    another = other != NULL && other->serial != serial;
    pthread_mutex_unlock(&p->lock);
    return another;
}

/* Under `writing`. */
static bool
pin_learned(const struct contact *c, const struct peer_identity *who, struct error **err)
{
    const struct peer_name *old = &c->who.name;
    struct state_write forget_old = { .kind = "peer", .id = old->id };
    bool replaced = old->id[0] != '\0' && strcmp(old->id, who->name.id) != 0;

    if (strcmp(who->name.name, old->name) != 0)
        return error_set(
            err, ERROR_CONFIG,
            "it calls itself '%s'; the name in [peer %s] and 'name' in [host] "
            "of the other side must be the same",
            who->name.name, old->name);
    if (strcmp(who->name.id, c->p->d->host_id) == 0 ||
        is_another(c->p, c->serial, who->name.id))
        return error_set(err, ERROR_EXISTS, "its host id %s is in use already",
                         who->name.id);
    if (!peers_check_unique(c->p, who, err))
        return false;
    /* A host that was installed anew; its replications could not be served. */
    if (replaced && !peers_check_unused(c->p, old, err))
        return error_prefix(err, "its host id changed to %s", who->name.id);
    return peers_pin(c->p, who, replaced ? &forget_old : NULL, err);
}

/* GET /host over TLS that the CA vouched for says which id and certificate it has. */
static bool
learn(struct contact *c, struct error **err)
{
    struct peer_identity who = c->who;
    AUTOJSON *answer = NULL;
    const char *fingerprint;
    bool ok;

    if (!http_call(c->client, "GET", "/api/v1/host", NULL, &answer, err))
        return false;
    if (answer == NULL)
        return error_set(err, ERROR_PROTOCOL, "it did not say who it is");
    if (!peers_read_name(answer, &who.name, err) ||
        !json_get_string(answer, "fingerprint", &fingerprint, err) ||
        !peers_check_fingerprint(fingerprint, err))
        return error_prefix(err, "who it is");
    snprintf(who.fingerprint, sizeof who.fingerprint, "%s", fingerprint);
    if (memcmp(&who, &c->who, sizeof who) == 0)
        return true;
    if (who.paired_ms == 0)
        who.paired_ms = units_now_ms();
    pthread_mutex_lock(&c->p->writing);
    ok = pin_learned(c, &who, err);
    pthread_mutex_unlock(&c->p->writing);
    if (ok)
        c->who = who;
    return ok;
}

/* --- one contact -------------------------------------------------------------------- */

/* Under the lock. */
static struct peer *
find_contacted(const struct contact *c)
{
    return peers_by_serial(c->p, c->serial);
}

/* False: the peer was removed meanwhile. */
static bool
contact_begin(struct contact *c)
{
    struct peer *peer;

    pthread_mutex_lock(&c->p->lock);
    peer = find_contacted(c);
    if (peer != NULL) {
        peers_copy(c->p, peer, &c->who);
        c->generation = peer->generation;
        c->client = TAKE(peer->contact_client);
        c->must_learn =
            c->who.vouched &&
            (peer->learned_ms == 0 || units_monotonic_ms() - peer->learned_ms > LEARN_MS);
    }
    pthread_mutex_unlock(&c->p->lock);
    c->began_ms = units_monotonic_ms();
    return peer != NULL;
}

static void
contact_end(struct contact *c)
{
    struct peer *peer;

    pthread_mutex_lock(&c->p->lock);
    peer = find_contacted(c);
    if (peer != NULL) {
        peer->is_contacting = false;
        if (peer->generation == c->generation)
            peer->contact_client = TAKE(c->client);
        else
            peer->next_contact_ms = 0;
    }
    pthread_mutex_unlock(&c->p->lock);
    http_client_free(TAKE(c->client));
}

static bool
exchange(struct contact *c, struct json_object **ret, struct error **err)
{
    AUTOJSON *said = NULL;
    AUTOJSON *answer = NULL;
    int64_t began_ms, trip_ms, time_ms;

    if (c->client == NULL &&
        !peers_client_new(c->p, &c->who, PEERS_CONTACT_LIMIT_MS, &c->client, err))
        return false;
    if (c->must_learn && !learn(c, err))
        return false;
    said = contact_say(c->p->d, c->who.name.id);
    began_ms = units_now_ms();
    trip_ms = units_monotonic_ms();
    if (!http_call(c->client, "POST", "/api/v1/peers/contact", said, &answer, err))
        return false;
    trip_ms = units_monotonic_ms() - trip_ms;
    if (answer == NULL)
        return error_set(err, ERROR_PROTOCOL, "it answered the contact with nothing");
    if (!json_get_int(answer, "time", 0, INT64_MAX / 2, &time_ms, err))
        return error_prefix(err, "its answer to the contact");
    c->skew_ms = time_ms - (began_ms + trip_ms / 2);
    c->is_skewed = llabs(c->skew_ms) > PEERS_MAX_SKEW_MS + trip_ms / 2;
    *ret = TAKE(answer);
    return true;
}

static void
tell_skew(const struct contact *c, bool was_skewed)
{
    struct log_ctx ctx = { .peer = c->who.name.name };
    char text[UNITS_TEXT_MAX];

    if (c->is_skewed && !was_skewed)
        events_emit(
            c->p->d, EVENT_WARNING, &ctx, "clock-skew",
            "the clock of peer '%s' is %s %s this host's; synchronise both (NTP), "
            "or nothing can be replicated",
            c->who.name.name, units_format_duration_ms(llabs(c->skew_ms), text),
            c->skew_ms > 0 ? "ahead of" : "behind");
    else if (!c->is_skewed && was_skewed)
        log_info(&ctx, "clock-skew-over", "the clocks agree again");
}

/* False: the peer was removed meanwhile, so what it says does not count. */
static bool
contact_succeeded(struct contact *c)
{
    struct log_ctx ctx = { .peer = c->who.name.name };
    bool was_connected = true, was_skewed = false;
    struct peer *peer;

    pthread_mutex_lock(&c->p->lock);
    peer = find_contacted(c);
    if (peer != NULL) {
        was_connected = peer->outcome == PEER_CONNECTED;
        was_skewed = peer->is_skewed;
        note_heard(peer);
        peer->outcome = PEER_CONNECTED;
        error_clear(&peer->error);
        peer->failures = 0;
        peer->skew_ms = c->skew_ms;
        peer->is_skewed = c->is_skewed;
        peer->next_contact_ms = c->began_ms + PEERS_CONTACT_MS;
        if (c->must_learn)
            peer->learned_ms = c->began_ms;
    }
    pthread_mutex_unlock(&c->p->lock);
    if (peer == NULL)
        return false;
    if (!was_connected)
        events_emit(c->p->d, EVENT_INFO, &ctx, "peer-connected", "peer '%s' answers",
                    c->who.name.name);
    tell_skew(c, was_skewed);
    return true;
}

static enum peer_outcome
outcome_of(const struct error *e)
{
    if (error_is(e, ERROR_NOT_AUTHENTICATED) || error_is(e, ERROR_FORBIDDEN) ||
        error_is(e, ERROR_TLS))
        return PEER_REFUSED;
    return PEER_AWAY;
}

/* Two, four, eight seconds, then every ten. */
static int64_t
back_off_ms(unsigned failures)
{
    return failures > 3 ? PEERS_BACKOFF_MAX_MS
                        : MIN(PEERS_CONTACT_MS << (failures - 1), PEERS_BACKOFF_MAX_MS);
}

static void
tell_failure(const struct contact *c, enum peer_outcome outcome, bool is_new,
             const char *reason)
{
    struct log_ctx ctx = { .peer = c->who.name.name };
    const char *what = outcome == PEER_REFUSED ? "refuses this host, or is not who it was"
                                               : "does not answer";

    if (is_new)
        events_emit(c->p->d, EVENT_WARNING, &ctx, "peer-away", "peer '%s' %s: %s",
                    c->who.name.name, what, reason);
    else
        log_debug(&ctx, "contact-failed", "%s", reason);
}

/* Takes e over. */
static void
contact_failed(struct contact *c, struct error *e)
{
    AUTOFREE(char) *reason = mem_strdup(error_message(e));
    enum peer_outcome outcome = outcome_of(e);
    bool counts, is_new = false;
    struct peer *peer;

    /* What was wrong with this connection must not be inherited by the next one. */
    http_client_free(TAKE(c->client));
    error_prefix(&e, "peer '%s'", c->who.name.name);
    pthread_mutex_lock(&c->p->lock);
    peer = find_contacted(c);
    /* An answer to who it was before it was paired anew says nothing. */
    counts = peer != NULL && peer->generation == c->generation;
    if (counts) {
        is_new = peer->outcome != outcome;
        peer->outcome = outcome;
        error_free(peer->error);
        peer->error = TAKE(e);
        peer->failures++;
        peer->failed_at_ms = units_monotonic_ms();
        peer->learned_ms = 0;
        peer->next_contact_ms = units_monotonic_ms() + back_off_ms(peer->failures);
    }
    pthread_mutex_unlock(&c->p->lock);
    error_free(e);
    if (counts)
        tell_failure(c, outcome, is_new, reason);
}

static void
run_contact(void *opaque)
{
    struct contact *c = opaque;
    AUTOJSON *answer = NULL;
    struct error *err = NULL;

    peers_reap_streams(c->p, c->serial);
    if (contact_begin(c)) {
        if (!exchange(c, &answer, &err))
            contact_failed(c, err);
        else if (contact_succeeded(c))
            contact_hear(c->p->d, c->who.name.id, answer);
    }
    contact_end(c);
}

/* --- the timer -------------------------------------------------------------------------
 */

static void
submit(struct peers *p, struct peer *peer, int64_t now_ms)
{
    struct contact *c = NEW(struct contact);

    c->p = p;
    c->serial = peer->serial;
    peer->is_contacting = true;
    /* free() by the pool: it also drops contacts that never ran. */
    workers_submit(p->d->contacts, now_ms, run_contact, free, c);
}

static void
on_tick(evutil_socket_t fd UNUSED, short what UNUSED, void *opaque)
{
    struct peers *p = opaque;
    int64_t now_ms = units_monotonic_ms();

    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < p->n; i++)
        if (!p->all[i]->is_contacting && p->all[i]->next_contact_ms <= now_ms)
            submit(p, p->all[i], now_ms);
    pthread_mutex_unlock(&p->lock);
}

void
peers_start(struct peers *p)
{
    struct timeval interval = { .tv_usec = TICK_MS * 1000 };

    if (p->d->tls == NULL || p->timer != NULL)
        return;
    p->timer = event_new(p->d->base, -1, EV_PERSIST, on_tick, p);
    if (p->timer == NULL || event_add(p->timer, &interval) < 0)
        abort();
}
