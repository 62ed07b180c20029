/* Two hosts in one process: real TLS, REST, streams and databases; one loop for both. */
#include "tests/unit/net.h"

#include <dirent.h>
#include <event2/thread.h>
#include <openssl/evp.h>
#include <poll.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/contact.h"
#include "daemon/peers.h"
#include "daemon/rest.h"
#include "daemon/stream.h"
#include "drivers/state/sqlite.h"

#define DEADLINE_MS 20000

struct host {
    struct daemon d; /* first: the stand-ins find the host by it */
    struct config config;
    struct config_peer section;
    struct net_identity own;
    char address[32];
    char stream[32];
    char database[96];
    _Atomic int64_t clock_off_ms; /* of what it says in contacts */
    _Atomic unsigned heard;
    _Atomic unsigned streams; /* that were made to it */
    char heard_id[40];        /* written before `heard` */
};

struct fixture {
    struct net_loop loop;
    struct host a, b;
};

/* --- stand-ins ------------------------------------------------------------------ */

struct json_object *
contact_say(struct daemon *d, const char *peer_id UNUSED)
{
    struct host *h = (struct host *)d;
    struct json_object *o = json_object_new_object();

    json_set_int(o, "time", units_now_ms() + h->clock_off_ms);
    return o;
}

void
contact_hear(struct daemon *d, const char *peer_id, struct json_object *said)
{
    struct host *h = (struct host *)d;

    assert_non_null(said);
    snprintf(h->heard_id, sizeof h->heard_id, "%s", peer_id);
    h->heard++;
}

void
contact_superseded(struct daemon *d UNUSED, struct replication *r UNUSED,
                   uint64_t epoch UNUSED)
{
    fail();
}

/* --- a host ----------------------------------------------------------------------- */

static bool
on_accept(struct rest_request *request, struct error **err)
{
    struct host *h = request->opaque;

    return peers_accept(h->d.peers, request->caller.fingerprint, request->body,
                        &request->reply, err);
}

static bool
on_contact(struct rest_request *request, struct error **err UNUSED)
{
    struct host *h = request->opaque;

    peers_heard(h->d.peers, request->caller.peer_id);
    contact_hear(&h->d, request->caller.peer_id, request->body);
    request->reply = contact_say(&h->d, request->caller.peer_id);
    return true;
}

static bool
on_host(struct rest_request *request, struct error **err UNUSED)
{
    struct host *h = request->opaque;
    struct json_object *o = json_object_new_object();

    json_set_string(o, "id", h->d.host_id);
    json_set_string(o, "name", h->config.host_name);
    json_set_string(o, "site", h->config.site);
    json_set_string(o, "fingerprint", tls_fingerprint(h->d.tls));
    request->reply = o;
    return true;
}

static bool
on_who(struct rest_request *request, struct error **err UNUSED)
{
    request->reply = json_object_new_object();
    json_set_string(request->reply, "peer", request->caller.peer_id);
    return true;
}

static const struct rest_route routes[] = {
    { "POST", "/api/v1/peers/accept", REST_ROLE_ANYONE, on_accept, "" },
    { "POST", "/api/v1/peers/contact", REST_ROLE_PEER, on_contact, "" },
    { "GET", "/api/v1/host", REST_ROLE_ANYONE, on_host, "" },
    { "GET", "/api/v1/who", REST_ROLE_PEER, on_who, "" },
    { NULL, NULL, 0, NULL, NULL },
};

static void
identify_caller(struct rest_caller *caller, const SSL *ssl, void *opaque)
{
    struct host *h = opaque;
    struct peer_name name;

    caller->roles |= REST_ROLE_ANYONE;
    if (!peers_identify(h->d.peers, ssl, caller->fingerprint, &name))
        return;
    caller->roles |= REST_ROLE_PEER;
    snprintf(caller->name, sizeof caller->name, "%s", name.name);
    snprintf(caller->peer_id, sizeof caller->peer_id, "%s", name.id);
}

static bool
identify_stream(const SSL *ssl, const char *fingerprint, char ret_peer_id[40],
                void *opaque)
{
    struct host *h = opaque;
    struct peer_name name;

    if (!peers_identify(h->d.peers, ssl, fingerprint, &name))
        return false;
    snprintf(ret_peer_id, 40, "%s", name.id);
    h->streams++;
    return true;
}

static bool
serve_stream(struct stream *s UNUSED, const char *peer_id UNUSED, void *opaque UNUSED)
{
    return false;
}

/* What the network sees of it. */
static void
open_doors(struct host *h)
{
    struct rest_settings settings = { .routes = routes,
                                      .identify = identify_caller,
                                      .opaque = h };
    struct stream_listener_settings listener = {
        .base = h->d.base,
        .tls = h->d.tls,
        .address = h->stream,
        .host_id = h->d.host_id,
        .max_connections = 16,
        .identify = identify_stream,
        .serve = serve_stream,
        .opaque = h,
    };
    struct error *err = NULL;

    settings.workers = h->d.requests = workers_new(h->d.base, "requests", 2);
    listener.workers = h->d.receives = workers_new(h->d.base, "receives", 2);
    h->d.rest = rest_new(h->d.base, &settings);
    assert_ok(rest_listen_tls(h->d.rest, h->address, h->d.tls, &err), err);
    assert_ok(stream_listener_new(&listener, &h->d.listener, &err), err);
}

/* On the loop thread, and while it makes no contacts: they publish events. */
static void
close_doors(struct host *h)
{
    stream_listener_free(TAKE(h->d.listener));
    workers_free(TAKE(h->d.receives));
    workers_free(TAKE(h->d.requests));
    rest_free(TAKE(h->d.rest));
}

static void
host_up(struct host *h, struct event_base *base, char *name)
{
    struct error *err = NULL;

    net_identity_make(&h->own, name);
    net_free_address(h->address);
    net_free_address(h->stream);
    snprintf(h->database, sizeof h->database, "%s/state.db", h->own.folder);
    h->config.host_name = name;
    h->config.site = (char *)(uintptr_t) "lab";
    h->config.listen_tls = h->address;
    h->config.listen_stream = h->stream;
    h->config.advertise = (char *)(uintptr_t) "127.0.0.1";
    h->d.base = base;
    h->d.config = &h->config;
    h->d.tls = h->own.tls;
    id_new(h->d.host_id);
    assert_ok(state_sqlite_open(h->database, &h->d.state, &err), err);
    assert_ok(replications_load(h->d.state, &h->d.replications, &err), err);
    assert_ok(peers_load(&h->d, &h->d.peers, &err), err);
    h->d.contacts = workers_new(base, "contacts", 2);
    open_doors(h);
}

static void
remove_folder(const char *folder)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;

    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL)
        unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    rmdir(folder);
}

static void
host_down(struct host *h)
{
    workers_free(h->d.contacts);
    close_doors(h);
    peers_free(h->d.peers);
    replications_free(h->d.replications);
    h->d.state->ops->close(h->d.state);
    tls_free(h->own.tls);
    remove_folder(h->own.folder);
}

static void
note_running(evutil_socket_t fd UNUSED, short what UNUSED, void *opaque)
{
    *(_Atomic bool *)opaque = true;
}

static bool
pause_until(int64_t deadline_ms)
{
    poll(NULL, 0, 10);
    return units_monotonic_ms() < deadline_ms;
}

/* A loop that has not begun yet does not notice that it shall stop. */
static void
loop_start(struct fixture *f)
{
    int64_t deadline_ms = units_monotonic_ms() + DEADLINE_MS;
    _Atomic bool running = false;

    event_base_once(f->loop.base, -1, EV_TIMEOUT, note_running, &running,
                    &(struct timeval){ 0 });
    net_loop_start(&f->loop);
    while (!running)
        assert_true(pause_until(deadline_ms));
}

static int
setup(void **state)
{
    static char kilo[] = "kilo", lima[] = "lima";
    struct fixture *f = NEW(struct fixture);

    f->loop.base = event_base_new();
    assert_non_null(f->loop.base);
    host_up(&f->a, f->loop.base, kilo);
    host_up(&f->b, f->loop.base, lima);
    loop_start(f);
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;

    net_loop_stop(&f->loop);
    host_down(&f->a);
    host_down(&f->b);
    net_loop_free(&f->loop);
    free(f);
    return 0;
}

/* --- what the tests say ----------------------------------------------------------------
 */

static char *
invite(struct host *h, int64_t life_ms)
{
    AUTOJSON *o = NULL;
    struct error *err = NULL;

    assert_ok(peers_invite(h->d.peers, life_ms, &o, &err), err);
    assert_string_equal(json_string_or(o, "fingerprint", ""), tls_fingerprint(h->d.tls));
    return mem_strdup(json_string_or(o, "token", NULL));
}

static bool
join(struct host *h, const char *token, struct error **err)
{
    AUTOJSON *o = NULL;

    return peers_join(h->d.peers, token, &o, err);
}

static void
pair_hosts(struct fixture *f)
{
    AUTOFREE(char) *token = invite(&f->a, PEERS_INVITE_MS);
    struct error *err = NULL;

    assert_ok(join(&f->b, token, &err), err);
}

static size_t
count_peers(struct host *h)
{
    AUTOJSON *list = peers_list(h->d.peers);

    return json_object_array_length(list);
}

static bool
has_state(struct host *h, const char *key, const char *wanted)
{
    AUTOJSON *o = NULL;
    struct error *err = NULL;

    assert_ok(peers_show(h->d.peers, key, &o, &err), err);
    return strcmp(json_string_or(o, "state", ""), wanted) == 0;
}

static void
wait_state(struct host *h, const char *key, const char *wanted)
{
    int64_t deadline_ms = units_monotonic_ms() + DEADLINE_MS;

    while (!has_state(h, key, wanted))
        if (!pause_until(deadline_ms)) {
            AUTOJSON *list = peers_list(h->d.peers);

            fail_msg("'%s' did not become %s: %s", key, wanted, json_text(list));
        }
}

static bool
call_who(struct host *h, const char *id, struct error **err)
{
    AUTOJSON *answer = NULL;

    if (!peers_call(h->d.peers, id, "GET", "/api/v1/who", NULL, &answer, err))
        return false;
    assert_string_equal(json_string_or(answer, "peer", ""), h->d.host_id);
    return true;
}

/* What is in a token, and a token with something in it. */
static struct json_object *
open_token(const char *token)
{
    struct json_object *o = NULL;
    struct error *err = NULL;
    char base64[1024], text[1024];
    size_t n = strlen(token + 5);
    int length;

    assert_true(n < sizeof base64 - 4);
    for (size_t i = 0; i < n; i++)
        base64[i] = token[5 + i] == '-' ? '+' : token[5 + i] == '_' ? '/' : token[5 + i];
    for (; n % 4 != 0; n++)
        base64[n] = '=';
    length = EVP_DecodeBlock((unsigned char *)text, (unsigned char *)base64, (int)n);
    assert_true(length > 0);
    while (text[length - 1] == '\0')
        length--;
    assert_ok(json_parse(text, (size_t)length, &o, &err), err);
    return o;
}

static char *
close_token(const char *text)
{
    char base64[2048];
    int n = EVP_EncodeBlock((unsigned char *)base64, (const unsigned char *)text,
                            (int)strlen(text));

    while (n > 0 && base64[n - 1] == '=')
        n--;
    base64[n] = '\0';
    for (int i = 0; i < n; i++)
        base64[i] = base64[i] == '+' ? '-' : base64[i] == '/' ? '_' : base64[i];
    return mem_printf("vdr1-%s", base64);
}

/* What host h would send, with the secret of this token. */
static struct json_object *
accept_body(struct host *h, const char *token, int64_t clock_off_ms)
{
    AUTOJSON *inside = open_token(token);
    struct json_object *o = json_object_new_object();

    json_set_string(o, "secret", json_string_or(inside, "s", NULL));
    json_set_string(o, "id", h->d.host_id);
    json_set_string(o, "name", h->config.host_name);
    json_set_string(o, "site", h->config.site);
    json_set_string(o, "address", h->address);
    json_set_string(o, "stream", h->stream);
    json_set_int(o, "time", units_now_ms() + clock_off_ms);
    return o;
}

/* --- pairing
 * ------------------------------------------------------------------------------ */

static void
two_hosts_pair_and_each_knows_the_other(void **state)
{
    struct fixture *f = *state;
    AUTOFREE(char) *token = invite(&f->a, PEERS_INVITE_MS);
    AUTOJSON *peer = NULL;
    struct error *err = NULL;
    struct peer_name name;

    assert_ok(peers_join(f->b.d.peers, token, &peer, &err), err);
    assert_string_equal(json_string_or(peer, "id", ""), f->a.d.host_id);
    assert_string_equal(json_string_or(peer, "name", ""), "kilo");
    assert_string_equal(json_string_or(peer, "site", ""), "lab");
    assert_string_equal(json_string_or(peer, "address", ""), f->a.address);
    assert_string_equal(json_string_or(peer, "streamAddress", ""), f->a.stream);
    assert_string_equal(json_string_or(peer, "fingerprint", ""),
                        tls_fingerprint(f->a.d.tls));
    assert_string_equal(json_string_or(peer, "state", ""), "unknown");
    assert_int_equal(json_int_or(peer, "lastContact", -1), 0);

    assert_ok(peers_find(f->a.d.peers, "lima", &name, &err), err);
    assert_string_equal(name.id, f->b.d.host_id);
    assert_ok(peers_find(f->a.d.peers, f->b.d.host_id, &name, &err), err);
    assert_string_equal(name.name, "lima");
    assert_fails(peers_find(f->a.d.peers, "mike", &name, &err), err,
                 ERROR_PEER_NOT_FOUND);
    assert_ok(call_who(&f->a, f->b.d.host_id, &err), err);
    assert_ok(call_who(&f->b, f->a.d.host_id, &err), err);
}

static void
a_token_is_good_for_one_use(void **state)
{
    struct fixture *f = *state;
    AUTOFREE(char) *token = invite(&f->a, PEERS_INVITE_MS);
    struct error *err = NULL;

    assert_ok(join(&f->b, token, &err), err);
    assert_false(join(&f->b, token, &err));
    assert_non_null(strstr(error_message(err), "used already"));
    assert_int_equal(error_code(err), ERROR_NOT_AUTHENTICATED);
    error_clear(&err);
    assert_int_equal(count_peers(&f->a), 1);
}

static void
an_expired_token_is_refused_by_the_host_that_made_it(void **state)
{
    struct fixture *f = *state;
    AUTOFREE(char) *token = invite(&f->a, 1000);
    int64_t deadline_ms = units_monotonic_ms() + DEADLINE_MS;
    int64_t expired_ms = units_now_ms() + 1000;
    struct error *err = NULL;

    while (units_now_ms() <= expired_ms)
        assert_true(pause_until(deadline_ms));
    assert_false(join(&f->b, token, &err));
    assert_non_null(strstr(error_message(err), "expired at"));
    assert_int_equal(error_code(err), ERROR_NOT_AUTHENTICATED);
    error_clear(&err);
    assert_int_equal(count_peers(&f->a) + count_peers(&f->b), 0);
}

static void
a_token_of_another_secret_is_refused(void **state)
{
    struct fixture *f = *state;
    AUTOFREE(char) *token = invite(&f->a, PEERS_INVITE_MS);
    AUTOJSON *inside = open_token(token);
    AUTOFREE(char) *forged = NULL;
    struct error *err = NULL;

    json_set_string(inside, "s", "00112233445566778899aabbccddeeff");
    forged = close_token(json_text(inside));
    assert_fails(join(&f->b, forged, &err), err, ERROR_NOT_AUTHENTICATED);
    assert_int_equal(count_peers(&f->a) + count_peers(&f->b), 0);
}

static void
a_token_with_another_fingerprint_never_gives_its_secret_away(void **state)
{
    struct fixture *f = *state;
    AUTOFREE(char) *token = invite(&f->a, PEERS_INVITE_MS);
    AUTOJSON *inside = open_token(token);
    AUTOFREE(char) *forged = NULL;
    struct error *err = NULL;
    char fingerprint[TLS_FINGERPRINT_TEXT];

    snprintf(fingerprint, sizeof fingerprint, "%s", tls_fingerprint(f->a.d.tls));
    fingerprint[0] = fingerprint[0] == '0' ? '1' : '0';
    json_set_string(inside, "f", fingerprint);
    forged = close_token(json_text(inside));
    assert_fails(join(&f->b, forged, &err), err, ERROR_TLS);
    assert_int_equal(count_peers(&f->a) + count_peers(&f->b), 0);
    assert_ok(join(&f->b, token, &err), err);
}

static void
what_is_no_token_is_a_usage_error(void **state)
{
    struct fixture *f = *state;
    AUTOFREE(char) *token = invite(&f->a, PEERS_INVITE_MS);
    AUTOFREE(char) *cut = mem_memdup(token, strlen(token) - 7);
    AUTOFREE(char) *list = close_token("[]");
    AUTOFREE(char) *empty = close_token("{}");
    AUTOFREE(char) *url = NULL, *id = NULL;
    AUTOFREE(char) *lengthy = mem_alloc(1, 5000);
    AUTOJSON *inside = open_token(token);
    struct error *err = NULL;

    json_set_string(inside, "a", "127.0.0.1:1/path?");
    url = close_token(json_text(inside));
    json_set_string(inside, "a", "127.0.0.1:1");
    json_set_string(inside, "i", "../../etc");
    id = close_token(json_text(inside));
    snprintf(lengthy, 5000, "vdr1-%04900d", 0);
    const char *const wrong[] = {
        "",   "vdr1-", "vdr1-a", "vdr1-????", "vdr2-e30", cut,
        list, empty,   url,      id,          lengthy,
    };

    for (size_t i = 0; i < N_ELEMENTS(wrong); i++)
        assert_fails(join(&f->b, wrong[i], &err), err, ERROR_USAGE);
}

static void
a_host_does_not_join_itself(void **state)
{
    struct fixture *f = *state;
    AUTOFREE(char) *token = invite(&f->a, PEERS_INVITE_MS);
    AUTOJSON *body = accept_body(&f->a, token, 0);
    AUTOJSON *answer = NULL;
    struct error *err = NULL;

    assert_fails(join(&f->a, token, &err), err, ERROR_USAGE);
    /* A copy of the state folder: the same id behind another certificate. */
    assert_fails(
        peers_accept(f->a.d.peers, tls_fingerprint(f->b.d.tls), body, &answer, &err), err,
        ERROR_USAGE);
    assert_ok(join(&f->b, token, &err), err);
}

static void
hosts_of_one_name_are_not_paired_and_the_token_stays_good(void **state)
{
    struct fixture *f = *state;
    AUTOFREE(char) *token = invite(&f->a, PEERS_INVITE_MS);
    AUTOJSON *body = accept_body(&f->b, token, 0);
    AUTOJSON *answer = NULL;
    struct error *err = NULL;
    char *name = f->b.config.host_name;

    f->b.config.host_name = f->a.config.host_name;
    assert_fails(join(&f->b, token, &err), err, ERROR_EXISTS);
    json_set_string(body, "name", f->a.config.host_name);
    assert_fails(
        peers_accept(f->a.d.peers, tls_fingerprint(f->b.d.tls), body, &answer, &err), err,
        ERROR_EXISTS);
    f->b.config.host_name = name;
    assert_ok(join(&f->b, token, &err), err);
}

static void
a_name_or_certificate_of_another_peer_is_refused(void **state)
{
    struct fixture *f = *state;
    AUTOFREE(char) *token = NULL;
    AUTOJSON *body = NULL;
    AUTOJSON *answer = NULL;
    struct error *err = NULL;
    char id[ID_TEXT];

    pair_hosts(f);
    token = invite(&f->a, PEERS_INVITE_MS);
    body = accept_body(&f->b, token, 0);
    id_new(id);
    json_set_string(body, "id", id);
    assert_fails(peers_accept(f->a.d.peers,
                              "00112233445566778899aabbccddeeff"
                              "00112233445566778899aabbccddeeff",
                              body, &answer, &err),
                 err, ERROR_EXISTS);
    json_set_string(body, "name", "mike");
    assert_fails(
        peers_accept(f->a.d.peers, tls_fingerprint(f->b.d.tls), body, &answer, &err), err,
        ERROR_EXISTS);
}

static void
a_clock_that_is_off_pairs_nobody_and_uses_no_token(void **state)
{
    struct fixture *f = *state;
    AUTOFREE(char) *token = invite(&f->a, PEERS_INVITE_MS);
    AUTOJSON *late = accept_body(&f->b, token, -5000);
    AUTOJSON *early = accept_body(&f->b, token, 5000);
    AUTOJSON *answer = NULL;
    struct error *err = NULL;
    const char *fingerprint = tls_fingerprint(f->b.d.tls);

    assert_fails(peers_accept(f->a.d.peers, fingerprint, late, &answer, &err), err,
                 ERROR_CLOCK);
    assert_fails(peers_accept(f->a.d.peers, fingerprint, early, &answer, &err), err,
                 ERROR_CLOCK);
    assert_int_equal(count_peers(&f->a), 0);
    assert_ok(join(&f->b, token, &err), err);
}

static void
a_request_to_be_paired_is_checked_field_by_field(void **state)
{
    static const struct {
        const char *key, *value;
    } wrong[] = {
        { "secret", "short" },
        { "id", "../x" },
        { "name", "two words" },
        { "name", "" },
        { "site", "\x1b[31m" },
        { "address", "nowhere" },
        { "address", "h:1@evil:443" },
        { "stream", "127.0.0.1:99999" },
        { "time", "noon" },
    };
    struct fixture *f = *state;
    AUTOFREE(char) *token = invite(&f->a, PEERS_INVITE_MS);
    struct error *err = NULL;

    for (size_t i = 0; i < N_ELEMENTS(wrong); i++) {
        AUTOJSON *body = accept_body(&f->b, token, 0);
        AUTOJSON *answer = NULL;

        json_set_string(body, wrong[i].key, wrong[i].value);
        assert_fails(
            peers_accept(f->a.d.peers, tls_fingerprint(f->b.d.tls), body, &answer, &err),
            err, ERROR_PROTOCOL);
    }
    assert_ok(join(&f->b, token, &err), err);
}

static void
a_host_that_does_not_listen_cannot_invite(void **state)
{
    struct fixture *f = *state;
    AUTOJSON *o = NULL;
    struct error *err = NULL;

    assert_fails(peers_invite(f->a.d.peers, 999, &o, &err), err, ERROR_USAGE);
    assert_fails(peers_invite(f->a.d.peers, PEERS_INVITE_MAX_MS + 1, &o, &err), err,
                 ERROR_USAGE);
    f->a.config.listen_tls = NULL;
    assert_fails(peers_invite(f->a.d.peers, PEERS_INVITE_MS, &o, &err), err,
                 ERROR_CONFIG);
    f->a.config.listen_tls = f->a.address;
}

static void
peers_and_used_tokens_are_known_after_a_restart(void **state)
{
    struct fixture *f = *state;
    AUTOFREE(char) *used = invite(&f->a, PEERS_INVITE_MS);
    AUTOFREE(char) *unused = invite(&f->a, PEERS_INVITE_MS);
    AUTOJSON *again = NULL, *more = NULL, *answer = NULL;
    struct peers *p = NULL;
    struct peer_name name;
    struct error *err = NULL;
    const char *fingerprint = tls_fingerprint(f->b.d.tls);

    assert_ok(join(&f->b, used, &err), err);
    assert_ok(peers_load(&f->a.d, &p, &err), err);
    assert_true(peers_identify(p, NULL, fingerprint, &name));
    assert_string_equal(name.id, f->b.d.host_id);
    again = accept_body(&f->b, used, 0);
    more = accept_body(&f->b, unused, 0);
    assert_fails(peers_accept(p, fingerprint, again, &answer, &err), err,
                 ERROR_NOT_AUTHENTICATED);
    assert_ok(peers_accept(p, fingerprint, more, &answer, &err), err);
    peers_free(p);
}

/* --- contacts
 * --------------------------------------------------------------------------------- */

static void
start_contacts(struct fixture *f)
{
    peers_start(f->a.d.peers);
    peers_start(f->b.d.peers);
}

static void
contacts_connect_both_sides(void **state)
{
    struct fixture *f = *state;
    AUTOJSON *peer = NULL;
    struct error *err = NULL;
    int64_t heard_ms = -1;

    pair_hosts(f);
    assert_false(peers_connected(f->a.d.peers, f->b.d.host_id, &heard_ms));
    start_contacts(f);
    wait_state(&f->a, "lima", "connected");
    wait_state(&f->b, "kilo", "connected");
    assert_true(peers_connected(f->a.d.peers, f->b.d.host_id, &heard_ms));
    assert_true(units_now_ms() - heard_ms < DEADLINE_MS);
    assert_true(f->a.heard >= 1 && f->b.heard >= 1);
    assert_string_equal(f->a.heard_id, f->b.d.host_id);
    assert_ok(peers_show(f->a.d.peers, "lima", &peer, &err), err);
    assert_true(llabs(json_int_or(peer, "clockSkew", -9999)) < 1000);
    assert_null(json_object_or_null(peer, "error"));
}

static void
a_clock_that_goes_wrong_is_measured(void **state)
{
    struct fixture *f = *state;
    int64_t deadline_ms = units_monotonic_ms() + DEADLINE_MS, skew_ms = 0;

    pair_hosts(f);
    f->b.clock_off_ms = -60000;
    start_contacts(f);
    wait_state(&f->a, "lima", "connected");
    while (skew_ms == 0) {
        AUTOJSON *peer = NULL;

        assert_ok(peers_show(f->a.d.peers, "lima", &peer, &(struct error *){ NULL }),
                  (struct error *)NULL);
        skew_ms = json_int_or(peer, "clockSkew", 0);
        assert_true(skew_ms != 0 || pause_until(deadline_ms));
    }
    assert_in_range(-skew_ms, 50000, 70000);
}

static void
a_host_that_went_away_comes_back(void **state)
{
    struct fixture *f = *state;
    AUTOJSON *peer = NULL;
    struct error *err = NULL;

    pair_hosts(f);
    peers_start(f->a.d.peers);
    wait_state(&f->a, "lima", "connected");
    net_loop_stop(&f->loop);
    close_doors(&f->b);
    loop_start(f);
    wait_state(&f->a, "lima", "away");
    assert_ok(peers_show(f->a.d.peers, "lima", &peer, &err), err);
    assert_string_equal(json_string_or(json_object_or_null(peer, "error"), "code", ""),
                        "ConnectionFailed");
    net_loop_stop(&f->loop);
    open_doors(&f->b);
    loop_start(f);
    wait_state(&f->a, "lima", "connected");
}

static void
another_key_at_the_same_address_is_refused(void **state)
{
    struct fixture *f = *state;
    struct net_identity real = f->b.own, other;
    AUTOJSON *peer = NULL;
    struct error *err = NULL;

    pair_hosts(f);
    peers_start(f->a.d.peers);
    wait_state(&f->a, "lima", "connected");
    net_identity_make(&other, "lima");
    net_loop_stop(&f->loop);
    close_doors(&f->b);
    f->b.d.tls = other.tls;
    open_doors(&f->b);
    loop_start(f);

    wait_state(&f->a, "lima", "refused");
    assert_ok(peers_show(f->a.d.peers, "lima", &peer, &err), err);
    assert_string_equal(json_string_or(json_object_or_null(peer, "error"), "code", ""),
                        "TlsError");
    assert_fails(call_who(&f->a, f->b.d.host_id, &err), err, ERROR_TLS);
    assert_fails(call_who(&f->b, f->a.d.host_id, &err), err, ERROR_NOT_AUTHENTICATED);

    net_loop_stop(&f->loop);
    close_doors(&f->b);
    f->b.d.tls = real.tls;
    open_doors(&f->b);
    loop_start(f);
    net_identity_drop(&other);
}

/* After a new key the hosts are paired again: same id, new certificate. */
static void
pairing_again_takes_the_new_certificate(void **state)
{
    struct fixture *f = *state;
    struct net_identity real = f->b.own, other;
    AUTOFREE(char) *token = NULL;
    struct error *err = NULL;

    pair_hosts(f);
    assert_ok(call_who(&f->a, f->b.d.host_id, &err), err);
    net_identity_make(&other, "lima");
    net_loop_stop(&f->loop);
    close_doors(&f->b);
    f->b.d.tls = other.tls;
    open_doors(&f->b);
    loop_start(f);
    token = invite(&f->a, PEERS_INVITE_MS);
    assert_ok(join(&f->b, token, &err), err);
    assert_int_equal(count_peers(&f->a), 1);
    assert_ok(call_who(&f->a, f->b.d.host_id, &err), err);
    assert_ok(call_who(&f->b, f->a.d.host_id, &err), err);

    net_loop_stop(&f->loop);
    close_doors(&f->b);
    f->b.d.tls = real.tls;
    open_doors(&f->b);
    loop_start(f);
    net_identity_drop(&other);
}

static void
a_removed_peer_cannot_call_any_more(void **state)
{
    struct fixture *f = *state;
    struct error *err = NULL;

    pair_hosts(f);
    peers_start(f->b.d.peers);
    wait_state(&f->b, "kilo", "connected");
    assert_ok(call_who(&f->b, f->a.d.host_id, &err), err);
    assert_ok(peers_remove(f->a.d.peers, "lima", &err), err);
    assert_fails(call_who(&f->b, f->a.d.host_id, &err), err, ERROR_NOT_AUTHENTICATED);
    assert_fails(call_who(&f->a, f->b.d.host_id, &err), err, ERROR_PEER_NOT_FOUND);
    assert_fails(peers_remove(f->a.d.peers, "lima", &err), err, ERROR_PEER_NOT_FOUND);
    wait_state(&f->b, "kilo", "refused");
}

static void
a_peer_that_a_replication_uses_is_not_removed(void **state)
{
    struct fixture *f = *state;
    AUTOPTR(replication) *r = NULL;
    struct error *err = NULL;
    char id[ID_TEXT], vm[ID_TEXT];

    pair_hosts(f);
    id_new(id);
    id_new(vm);
    r = replication_new(SIDE_SOURCE, id, vm, "web01", f->b.d.host_id);
    assert_ok(replications_add(f->a.d.replications, r, &err), err);
    assert_false(peers_remove(f->a.d.peers, "lima", &err));
    assert_non_null(strstr(error_message(err), "web01"));
    assert_int_equal(error_code(err), ERROR_INVALID_STATE);
    error_clear(&err);
    assert_ok(replications_remove(f->a.d.replications, r, &err), err);
    assert_ok(peers_remove(f->a.d.peers, "lima", &err), err);
}

/* --- streams
 * -------------------------------------------------------------------------------------
 */

static void
an_idle_stream_is_used_again(void **state)
{
    struct fixture *f = *state;
    struct stream *first = NULL, *second = NULL, *third = NULL;
    const char *id = f->b.d.host_id;
    struct error *err = NULL;

    pair_hosts(f);
    assert_ok(peers_stream_take(f->a.d.peers, id, NULL, false, &first, &err), err);
    peers_stream_put(f->a.d.peers, id, first);
    assert_ok(peers_stream_take(f->a.d.peers, id, NULL, false, &second, &err), err);
    assert_ptr_equal(first, second);
    assert_int_equal(f->b.streams, 1);
    assert_ok(peers_stream_take(f->a.d.peers, id, NULL, true, &third, &err), err);
    assert_int_equal(f->b.streams, 2);
    peers_stream_put(f->a.d.peers, id, second);
    /* What comes back from a peer that was removed is closed. */
    assert_ok(peers_remove(f->a.d.peers, id, &err), err);
    peers_stream_put(f->a.d.peers, id, third);
    assert_fails(peers_stream_take(f->a.d.peers, id, NULL, false, &first, &err), err,
                 ERROR_PEER_NOT_FOUND);
}

static void
a_stream_to_a_host_that_removed_us_is_refused(void **state)
{
    struct fixture *f = *state;
    struct stream *s = NULL;
    struct error *err = NULL;

    pair_hosts(f);
    assert_ok(peers_remove(f->b.d.peers, "kilo", &err), err);
    assert_false(peers_stream_take(f->a.d.peers, f->b.d.host_id, NULL, false, &s, &err));
    assert_non_null(strstr(error_message(err), "peer 'lima'"));
    error_clear(&err);
    assert_int_equal(f->b.streams, 0);
}

/* --- peers of the configuration
 * ------------------------------------------------------------------- */

static void
append_file(FILE *out, const char *path)
{
    FILE *in = fopen(path, "re");
    char line[256];

    assert_non_null(in);
    while (fgets(line, sizeof line, in) != NULL)
        fputs(line, out);
    fclose(in);
}

/*
 * Both trust a file with both certificates, so each is vouched for by itself.
 * The name in the certificate must be that in the address: "localhost" and
 * "127.0.0.1" are two names of this machine.
 */
static void
configure_each_other(struct fixture *f, char *ca, char address[32], char stream[32])
{
    struct host *hosts[] = { &f->a, &f->b };
    FILE *out = fopen(ca, "we");

    assert_non_null(out);
    append_file(out, f->a.own.certificate);
    append_file(out, f->b.own.certificate);
    fclose(out);
    snprintf(address, 32, "localhost%s", strrchr(f->b.address, ':'));
    snprintf(stream, 32, "localhost%s", strrchr(f->b.stream, ':'));
    f->a.section = (struct config_peer){ .name = f->b.config.host_name,
                                         .address = address,
                                         .stream = stream };
    f->b.section = (struct config_peer){ .name = f->a.config.host_name,
                                         .address = f->a.address,
                                         .stream = f->a.stream };
    for (size_t i = 0; i < N_ELEMENTS(hosts); i++) {
        struct tls_settings settings = { hosts[i]->own.certificate, hosts[i]->own.key,
                                         ca };
        struct error *err = NULL;

        hosts[i]->config.ca = ca;
        hosts[i]->config.peers = &hosts[i]->section;
        hosts[i]->config.n_peers = 1;
        tls_free(hosts[i]->own.tls);
        assert_ok(tls_new(&settings, &hosts[i]->own.tls, &err), err);
        hosts[i]->d.tls = hosts[i]->own.tls;
        peers_free(hosts[i]->d.peers);
        assert_ok(peers_load(&hosts[i]->d, &hosts[i]->d.peers, &err), err);
    }
}

static int
setup_vouched(void **state)
{
    static char ip[] = "127.0.0.1", name[] = "localhost";
    struct fixture *f = NEW(struct fixture);

    f->loop.base = event_base_new();
    assert_non_null(f->loop.base);
    host_up(&f->a, f->loop.base, ip);
    host_up(&f->b, f->loop.base, name);
    loop_start(f);
    *state = f;
    return 0;
}

static void
hosts_that_the_ca_vouches_for_meet_without_a_token(void **state)
{
    struct fixture *f = *state;
    char ca[96], address[32], stream_address[32];
    struct stream *s = NULL;
    struct peer_name name;
    struct error *err = NULL;

    snprintf(ca, sizeof ca, "%s/ca.crt", f->a.own.folder);
    net_loop_stop(&f->loop);
    close_doors(&f->a);
    close_doors(&f->b);
    configure_each_other(f, ca, address, stream_address);
    open_doors(&f->a);
    open_doors(&f->b);
    loop_start(f);

    assert_true(has_state(&f->a, "localhost", "unknown"));
    assert_fails(peers_find(f->a.d.peers, "localhost", &name, &err), err,
                 ERROR_PEER_NOT_FOUND);
    start_contacts(f);
    wait_state(&f->a, "localhost", "connected");
    wait_state(&f->b, "127.0.0.1", "connected");
    assert_ok(peers_find(f->a.d.peers, "localhost", &name, &err), err);
    assert_string_equal(name.id, f->b.d.host_id);
    assert_ok(call_who(&f->b, f->a.d.host_id, &err), err);
    assert_ok(peers_stream_take(f->a.d.peers, f->b.d.host_id, NULL, false, &s, &err),
              err);
    peers_stream_put(f->a.d.peers, f->b.d.host_id, s);
    assert_fails(peers_remove(f->a.d.peers, "localhost", &err), err, ERROR_INVALID_STATE);
}

/* The section was taken out of the configuration. */
static void
a_host_that_is_configured_no_more_is_no_peer(void **state)
{
    struct fixture *f = *state;
    char ca[96], address[32], stream_address[32];
    struct peers *p = NULL;
    struct peer_name name;
    struct error *err = NULL;

    snprintf(ca, sizeof ca, "%s/ca.crt", f->a.own.folder);
    net_loop_stop(&f->loop);
    close_doors(&f->a);
    close_doors(&f->b);
    configure_each_other(f, ca, address, stream_address);
    open_doors(&f->a);
    open_doors(&f->b);
    loop_start(f);
    start_contacts(f);
    wait_state(&f->a, "localhost", "connected");

    assert_ok(peers_load(&f->a.d, &p, &err), err);
    assert_true(peers_identify(p, NULL, tls_fingerprint(f->b.d.tls), &name));
    peers_free(p);
    net_loop_stop(&f->loop);
    f->a.config.n_peers = 0;
    assert_ok(peers_load(&f->a.d, &p, &err), err);
    assert_false(peers_identify(p, NULL, tls_fingerprint(f->b.d.tls), &name));
    peers_free(p);
    loop_start(f);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(two_hosts_pair_and_each_knows_the_other),
        TEST(a_token_is_good_for_one_use),
        TEST(an_expired_token_is_refused_by_the_host_that_made_it),
        TEST(a_token_of_another_secret_is_refused),
        TEST(a_token_with_another_fingerprint_never_gives_its_secret_away),
        TEST(what_is_no_token_is_a_usage_error),
        TEST(a_host_does_not_join_itself),
        TEST(hosts_of_one_name_are_not_paired_and_the_token_stays_good),
        TEST(a_name_or_certificate_of_another_peer_is_refused),
        TEST(a_clock_that_is_off_pairs_nobody_and_uses_no_token),
        TEST(a_request_to_be_paired_is_checked_field_by_field),
        TEST(a_host_that_does_not_listen_cannot_invite),
        TEST(peers_and_used_tokens_are_known_after_a_restart),
        TEST(contacts_connect_both_sides),
        TEST(a_clock_that_goes_wrong_is_measured),
        TEST(a_host_that_went_away_comes_back),
        TEST(another_key_at_the_same_address_is_refused),
        TEST(pairing_again_takes_the_new_certificate),
        TEST(a_removed_peer_cannot_call_any_more),
        TEST(a_peer_that_a_replication_uses_is_not_removed),
        TEST(an_idle_stream_is_used_again),
        TEST(a_stream_to_a_host_that_removed_us_is_refused),
        cmocka_unit_test_setup_teardown(
            hosts_that_the_ca_vouches_for_meet_without_a_token, setup_vouched, teardown),
        cmocka_unit_test_setup_teardown(a_host_that_is_configured_no_more_is_no_peer,
                                        setup_vouched, teardown),
    };

    evthread_use_pthreads();
    return cmocka_run_group_tests_name("peers", tests, NULL, NULL);
}
