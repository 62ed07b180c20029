#include "tests/unit/net.h"

#include <event2/thread.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "common/http.h"
#include "common/json.h"
#include "common/units.h"
#include "daemon/rest.h"

struct server {
    struct net_identity own;
    struct net_identity peer;
    struct net_identity viewer;
    struct net_identity stranger;
    struct net_loop loop;
    struct workers *workers;
    struct rest *rest;
    char path[100];
    char address[32];
    atomic_int handled; /* of GET /slow, at its end */
    atomic_int entered; /* of GET /slow, at its start */
    atomic_bool release;
};

/* --- routes --------------------------------------------------------------------------
 */

static bool
who(struct rest_request *r, struct error **err UNUSED)
{
    r->reply = json_object_new_object();
    json_set_string(r->reply, "name", r->caller.name);
    json_set_string(r->reply, "peer", r->caller.peer_id);
    json_set_string(r->reply, "address", r->caller.address);
    json_set_int(r->reply, "roles", r->caller.roles);
    return true;
}

static bool
echo(struct rest_request *r, struct error **err)
{
    if (strcmp(r->params[0], "missing") == 0)
        return error_set(err, ERROR_TASK_NOT_FOUND, "no task '%s'", r->params[0]);
    r->reply = json_object_new_object();
    json_set_string(r->reply, "first", r->params[0]);
    json_set_string(r->reply, "second", r->params[1]);
    json_set(r->reply, "query", json_object_get(r->query));
    json_set(r->reply, "body", json_object_get(r->body));
    r->status = 202;
    return true;
}

static bool
slow(struct rest_request *r, struct error **err UNUSED)
{
    struct server *s = r->opaque;
    int64_t until_ms = units_monotonic_ms() + 10000;

    s->entered++;
    while (!s->release && units_monotonic_ms() < until_ms)
        nanosleep(&(struct timespec){ 0, 5000000 }, NULL);
    s->handled++;
    return true;
}

static bool
metrics(struct rest_request *r, struct error **err UNUSED)
{
    r->text = mem_strdup("virt_dr_up 1\n");
    return true;
}

#define EVERYBODY (REST_ROLE_ANYONE | REST_ROLE_PEER | REST_ROLE_VIEWER | REST_ROLE_ADMIN)

static const struct rest_route routes[] = {
    { "GET", "/who", EVERYBODY, who, "who am I" },
    { "GET", "/things/{a}/parts/{b}", REST_ROLE_VIEWER | REST_ROLE_ADMIN, echo, "echo" },
    { "POST", "/things/{a}/parts/{b}", REST_ROLE_ADMIN, echo, "echo" },
    { "GET", "/slow", REST_ROLE_ADMIN, slow, "wait" },
    { "GET", "/metrics", REST_ROLE_ADMIN, metrics, "text" },
    { "POST", "/peers-only", REST_ROLE_PEER, who, "for peers" },
    { NULL, NULL, 0, NULL, NULL },
};

static void
recognise(struct rest_caller *c, const SSL *ssl, void *opaque)
{
    struct server *s = opaque;

    assert_non_null(ssl);
    if (strcmp(c->fingerprint, tls_fingerprint(s->peer.tls)) == 0) {
        c->roles |= REST_ROLE_PEER;
        snprintf(c->name, sizeof c->name, "peer");
        snprintf(c->peer_id, sizeof c->peer_id, "peer-1");
    } else if (strcmp(c->fingerprint, tls_fingerprint(s->viewer.tls)) == 0) {
        c->roles |= REST_ROLE_VIEWER;
        snprintf(c->name, sizeof c->name, "viewer");
    }
}

static struct server *
server_new(int timeout_s)
{
    struct server *s = NEW(struct server);
    struct error *err = NULL;

    net_identity_make(&s->own, "server");
    net_identity_make(&s->peer, "peer");
    net_identity_make(&s->viewer, "viewer");
    net_identity_make(&s->stranger, "stranger");
    s->loop.base = event_base_new();
    s->workers = workers_new(s->loop.base, "rest", 4);
    s->rest = rest_new(s->loop.base, &(struct rest_settings){ .routes = routes,
                                                              .identify = recognise,
                                                              .opaque = s,
                                                              .workers = s->workers,
                                                              .timeout_s = timeout_s });
    snprintf(s->path, sizeof s->path, "%s/rest.sock", s->own.folder);
    net_free_address(s->address);
    assert_ok(rest_listen_unix(s->rest, s->path, NULL, &err), err);
    assert_ok(rest_listen_tls(s->rest, s->address, s->own.tls, &err), err);
    net_loop_start(&s->loop);
    return s;
}

static void
server_free(struct server *s)
{
    s->release = true;
    net_loop_stop(&s->loop);
    workers_free(s->workers);
    rest_free(s->rest);
    net_loop_free(&s->loop);
    assert_int_equal(access(s->path, F_OK), -1);
    net_identity_drop(&s->own);
    net_identity_drop(&s->peer);
    net_identity_drop(&s->viewer);
    net_identity_drop(&s->stranger);
    free(s);
}

static struct http_client *
local_client(struct server *s)
{
    AUTOFREE(char) *address = mem_printf("unix://%s", s->path);
    struct http_client *c = NULL;
    struct error *err = NULL;

    assert_ok(http_client_new(&(struct http_settings){ .address = address }, &c, &err),
              err);
    return c;
}

static struct http_client *
remote_client(struct server *s, const struct net_identity *id)
{
    AUTOFREE(char) *address = mem_printf("https://%s", s->address);
    struct http_settings settings = { .address = address,
                                      .certificate = id->certificate,
                                      .key = id->key,
                                      .fingerprint = tls_fingerprint(s->own.tls) };
    struct http_client *c = NULL;
    struct error *err = NULL;

    assert_ok(http_client_new(&settings, &c, &err), err);
    return c;
}

static void
wait_until(atomic_int *counter, int at_least)
{
    int64_t until_ms = units_monotonic_ms() + 10000;

    while (*counter < at_least && units_monotonic_ms() < until_ms)
        nanosleep(&(struct timespec){ 0, 2000000 }, NULL);
    assert_true(*counter >= at_least);
}

/* --- by hand: what no decent client sends
 * ----------------------------------------------- */

static int
raw_connect(struct server *s)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    struct timeval limit = { 20, 0 };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(un.sun_path, sizeof un.sun_path, "%s", s->path);
    assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof un), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

static void
raw_send(int fd, const char *text)
{
    size_t n = strlen(text);

    while (n > 0) {
        ssize_t part = send(fd, text, n, MSG_NOSIGNAL);

        if (part <= 0)
            return; /* they may hang up early */
        text += part;
        n -= (size_t)part;
    }
}

/* Everything up to the end of the connection. */
static char *
raw_answer(int fd)
{
    char *text = mem_alloc(1, 65536);
    size_t n = 0;
    ssize_t part;

    while (n < 65535 && (part = recv(fd, text + n, 65535 - n, 0)) > 0)
        n += (size_t)part;
    close(fd);
    return text;
}

static int
status_of(struct server *s, const char *request)
{
    int fd = raw_connect(s);
    AUTOFREE(char) *answer = NULL;
    uint64_t status = 0;
    struct error *err = NULL;

    raw_send(fd, request);
    answer = raw_answer(fd);
    assert_true(strlen(answer) > 12);
    answer[12] = '\0';
    assert_ok(units_parse_u64(answer + strlen("HTTP/1.1 "), 100, 599, &status, &err),
              err);
    return (int)status;
}

/* --- tests
 * ------------------------------------------------------------------------------- */

static void
the_unix_socket_makes_an_admin_by_its_user_name(void **state UNUSED)
{
    struct server *s = server_new(0);
    AUTOPTR(http_client) *c = local_client(s);
    AUTOJSON *reply = NULL;
    struct error *err = NULL;
    struct stat st;

    assert_ok(http_call(c, "GET", "/who", NULL, &reply, &err), err);
    if (getuid() == 0)
        assert_string_equal(json_string_or(reply, "name", ""), "root");
    assert_string_equal(json_string_or(reply, "address", "?"), "");
    assert_true((json_int_or(reply, "roles", 0) & REST_ROLE_ADMIN) != 0);
    assert_int_equal(stat(s->path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0660);
    server_free(s);
}

static void
a_certificate_makes_a_peer_a_viewer_or_a_stranger(void **state UNUSED)
{
    struct server *s = server_new(0);
    AUTOPTR(http_client) *peer = remote_client(s, &s->peer);
    AUTOPTR(http_client) *viewer = remote_client(s, &s->viewer);
    AUTOPTR(http_client) *stranger = remote_client(s, &s->stranger);
    AUTOJSON *reply = NULL;
    struct error *err = NULL;

    assert_ok(http_call(peer, "POST", "/peers-only", NULL, &reply, &err), err);
    assert_string_equal(json_string_or(reply, "peer", ""), "peer-1");
    assert_string_equal(json_string_or(reply, "address", ""), "127.0.0.1");
    assert_fails(http_call(viewer, "POST", "/peers-only", NULL, NULL, &err), err,
                 ERROR_FORBIDDEN);
    assert_fails(http_call(stranger, "POST", "/peers-only", NULL, NULL, &err), err,
                 ERROR_NOT_AUTHENTICATED);
    assert_ok(http_call(stranger, "GET", "/who", NULL, NULL, &err), err);
    assert_ok(http_call(viewer, "GET", "/things/a/parts/b", NULL, NULL, &err), err);
    assert_fails(http_call(viewer, "POST", "/things/a/parts/b", NULL, NULL, &err), err,
                 ERROR_FORBIDDEN);
    server_free(s);
}

static void
parameters_query_and_body_reach_the_handler(void **state UNUSED)
{
    struct server *s = server_new(0);
    AUTOPTR(http_client) *c = local_client(s);
    AUTOJSON *body = json_object_new_object();
    AUTOJSON *reply = NULL;
    struct error *err = NULL;

    json_set_int(body, "n", 42);
    assert_ok(http_call(c, "POST", "/things/a%20b%2Fc/parts/%C3%BC?wait=30&x=a%26b", body,
                        &reply, &err),
              err);
    assert_string_equal(json_string_or(reply, "first", ""), "a b/c");
    assert_string_equal(json_string_or(reply, "second", ""), "\xc3\xbc");
    assert_string_equal(json_string_or(json_object_or_null(reply, "query"), "wait", ""),
                        "30");
    assert_string_equal(json_string_or(json_object_or_null(reply, "query"), "x", ""),
                        "a&b");
    assert_int_equal(json_int_or(json_object_or_null(reply, "body"), "n", 0), 42);
    server_free(s);
}

static void
errors_carry_their_code_and_status(void **state UNUSED)
{
    struct server *s = server_new(0);
    AUTOPTR(http_client) *c = local_client(s);
    struct error *err = NULL;

    assert_fails(http_call(c, "GET", "/things/missing/parts/b", NULL, NULL, &err), err,
                 ERROR_TASK_NOT_FOUND);
    assert_fails(http_call(c, "GET", "/things", NULL, NULL, &err), err, ERROR_NOT_FOUND);
    assert_fails(http_call(c, "GET", "/things//parts/b", NULL, NULL, &err), err,
                 ERROR_NOT_FOUND);
    assert_int_equal(status_of(s, "GET /nothing HTTP/1.0\r\n\r\n"), 404);
    assert_int_equal(status_of(s, "GET /things/a%00b/parts/x HTTP/1.0\r\n\r\n"), 404);
    assert_int_equal(status_of(s, "DELETE /who HTTP/1.0\r\n\r\n"), 405);
    assert_int_equal(status_of(s,
                               "POST /things/a/parts/b HTTP/1.0\r\n"
                               "Content-Type: text/xml\r\nContent-Length: 4\r\n\r\n<a/>"),
                     415);
    assert_int_equal(status_of(s, "POST /things/a/parts/b HTTP/1.0\r\nContent-Type: "
                                  "application/json\r\nContent-Length: 4\r\n\r\n[1,]"),
                     400);
    assert_int_equal(status_of(s, "rubbish\r\n\r\n"), 400);
    server_free(s);
}

static void
text_and_the_operation_id_come_back(void **state UNUSED)
{
    struct server *s = server_new(0);
    int fd = raw_connect(s);
    AUTOFREE(char) *answer = NULL;

    raw_send(fd, "GET /metrics HTTP/1.0\r\nX-Operation-Id: op-7\r\n\r\n");
    answer = raw_answer(fd);
    assert_non_null(strstr(answer, "X-Operation-Id: op-7\r\n"));
    assert_non_null(strstr(answer, "Content-Type: text/plain"));
    assert_non_null(strstr(answer, "\r\n\r\nvirt_dr_up 1\n"));
    server_free(s);
}

static void
bodies_above_1_mib_are_refused(void **state UNUSED)
{
    struct server *s = server_new(0);
    AUTOFREE(char) *body = mem_alloc(1, REST_MAX_BODY + 200);
    AUTOFREE(char) *request = NULL;

    memset(body, ' ', REST_MAX_BODY + 1);
    body[0] = '{';
    body[REST_MAX_BODY] = '}';
    request = mem_printf("POST /things/a/parts/b HTTP/1.0\r\nContent-Type: "
                         "application/json\r\nContent-Length: %u\r\n\r\n%s",
                         REST_MAX_BODY + 1, body);
    assert_int_equal(status_of(s, request), 413);
    free(request);
    body[REST_MAX_BODY - 1] = '}';
    body[REST_MAX_BODY] = '\0';
    request = mem_printf("POST /things/a/parts/b HTTP/1.0\r\nContent-Type: "
                         "application/json\r\nContent-Length: %u\r\n\r\n%s",
                         REST_MAX_BODY, body);
    assert_int_equal(status_of(s, request), 202);
    server_free(s);
}

static void
a_handler_may_take_longer_than_the_timeout_of_clients(void **state UNUSED)
{
    struct server *s = server_new(1);
    int fd = raw_connect(s);
    AUTOFREE(char) *answer = NULL;

    raw_send(fd, "GET /slow HTTP/1.0\r\n\r\n");
    wait_until(&s->entered, 1);
    nanosleep(&(struct timespec){ 1, 500000000 }, NULL);
    s->release = true;
    answer = raw_answer(fd);
    assert_non_null(strstr(answer, "200 OK"));
    /* And one that never sends its request is not waited for. */
    fd = raw_connect(s);
    raw_send(fd, "GET /who HT");
    free(answer);
    answer = raw_answer(fd);
    assert_null(strstr(answer, "200"));
    server_free(s);
}

static void
clients_that_leave_while_their_handler_runs_harm_nobody(void **state UNUSED)
{
    struct server *s = server_new(0);
    AUTOPTR(http_client) *c = NULL;
    struct error *err = NULL;
    SSL *ssl;
    int fd;

    fd = raw_connect(s);
    raw_send(fd, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_until(&s->entered, 1);
    close(fd);
    ssl = SSL_new(tls_client_context(s->viewer.tls));
    fd = net_connect(s->address);
    SSL_set_fd(ssl, fd);
    assert_int_equal(SSL_connect(ssl), 1);
    assert_true(SSL_write(ssl, "GET /who HTTP/1.1\r\nHost: x\r\n\r\n", 30) > 0);
    SSL_free(ssl);
    close(fd);
    s->release = true;
    wait_until(&s->handled, 1);
    c = local_client(s);
    for (int i = 0; i < 20; i++)
        assert_ok(http_call(c, "GET", "/who", NULL, NULL, &err), err);
    server_free(s);
}

static void
stopping_with_requests_in_every_state_is_clean(void **state UNUSED)
{
    struct server *s = server_new(0);
    int fds[7], gone;

    for (size_t i = 0; i < N_ELEMENTS(fds); i++) {
        fds[i] = raw_connect(s);
        raw_send(fds[i], i == 6 ? "GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n"
                                : "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    gone = raw_connect(s);
    raw_send(gone, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_until(&s->entered, 4); /* the others wait for a worker */
    close(gone);
    server_free(s);
    for (size_t i = 0; i < N_ELEMENTS(fds); i++)
        close(fds[i]);
}

static void
no_certificate_no_conversation(void **state UNUSED)
{
    struct server *s = server_new(0);
    SSL_CTX *bare = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(bare);
    int fd = net_connect(s->address);
    char byte;

    SSL_set_fd(ssl, fd);
    if (SSL_connect(ssl) == 1) {
        SSL_write(ssl, "GET /who HTTP/1.0\r\n\r\n", 21);
        assert_true(SSL_read(ssl, &byte, 1) <= 0);
    }
    SSL_free(ssl);
    SSL_CTX_free(bare);
    close(fd);
    server_free(s);
}

static void
a_live_socket_is_kept_and_a_stale_one_replaced(void **state UNUSED)
{
    struct server *s = server_new(0);
    struct event_base *base = event_base_new();
    struct rest *other = rest_new(base, &(struct rest_settings){ .routes = routes });
    AUTOFREE(char) *stale = mem_printf("%s/stale.sock", s->own.folder);
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    struct error *err = NULL;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    assert_fails(rest_listen_unix(other, s->path, NULL, &err), err, ERROR_EXISTS);
    assert_fails(rest_listen_tls(other, s->address, s->own.tls, &err), err, ERROR_EXISTS);
    snprintf(un.sun_path, sizeof un.sun_path, "%s", stale);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    close(fd);
    assert_ok(rest_listen_unix(other, stale, "no-such-group", &err), err);
    rest_free(other);
    event_base_free(base);
    server_free(s);
}

/* --- events
 * ---------------------------------------------------------------------------------- */

static void
publish(struct server *s, uint64_t id, const char *text)
{
    AUTOJSON *body = json_object_new_object();

    json_set_string(body, "text", text);
    rest_publish(s->rest, id, "test", body);
}

struct heard {
    char ids[256];
    const char *last; /* stop there */
    atomic_int n;
};

static bool
hear(const char *id, const char *event, struct json_object *data, void *opaque)
{
    struct heard *h = opaque;
    size_t n = strlen(h->ids);

    assert_string_equal(event, "test");
    assert_non_null(json_string_or(data, "text", NULL));
    snprintf(h->ids + n, sizeof h->ids - n, "%s ", id);
    h->n++;
    return strcmp(id, h->last) != 0;
}

struct following {
    struct server *s;
    struct heard heard;
    const char *path;
    bool ok;
};

static void *
follow(void *opaque)
{
    struct following *f = opaque;
    AUTOPTR(http_client) *c = remote_client(f->s, &f->s->viewer);
    struct cancel stop = { 0 };

    cancel_set_timeout(&stop, 10000);
    f->ok = http_follow(c, f->path, hear, &f->heard, &stop, NULL);
    return NULL;
}

static void
a_follower_resumes_behind_an_id_and_hears_what_is_new(void **state UNUSED)
{
    struct server *s = server_new(1);
    struct following f = { .s = s,
                           .heard = { .last = "6" },
                           .path = "/api/v1/events?since=2" };
    pthread_t thread;

    for (uint64_t id = 1; id <= 4; id++)
        publish(s, id, "old");
    assert_int_equal(pthread_create(&thread, NULL, follow, &f), 0);
    wait_until(&f.heard.n, 2);
    /* Longer than the timeout for requests: followers have nothing to say. */
    nanosleep(&(struct timespec){ 1, 300000000 }, NULL);
    publish(s, 5, "new\nline");
    publish(s, 6, "new");
    pthread_join(thread, NULL);
    assert_true(f.ok);
    assert_string_equal(f.heard.ids, "3 4 5 6 ");
    server_free(s);
}

static void
only_the_last_1000_events_are_kept(void **state UNUSED)
{
    struct server *s = server_new(0);
    int fd = raw_connect(s);
    char text[64] = "";

    for (uint64_t id = 1; id <= 1010; id++)
        publish(s, id, "x");
    raw_send(fd, "GET /api/v1/events HTTP/1.0\r\nLast-Event-ID: 3\r\n\r\n");
    for (size_t n = 0;
         strstr(text, "id: ") == NULL || strlen(strstr(text, "id: ")) < 8;) {
        assert_int_equal(recv(fd, text + n, 1, 0), 1);
        n++;
        if (n == sizeof text - 1) {
            memmove(text, text + 32, sizeof text - 32);
            memset(text + n - 32, 0, 33);
            n -= 32;
        }
    }
    assert_non_null(strstr(text, "id: 11\n"));
    close(fd);
    server_free(s);
}

static void
strangers_and_peers_may_not_follow_and_a_bad_id_is_refused(void **state UNUSED)
{
    struct server *s = server_new(0);
    AUTOPTR(http_client) *stranger = remote_client(s, &s->stranger);
    AUTOPTR(http_client) *peer = remote_client(s, &s->peer);
    AUTOPTR(http_client) *local = local_client(s);
    struct error *err = NULL;

    assert_fails(http_call(stranger, "GET", "/api/v1/events", NULL, NULL, &err), err,
                 ERROR_NOT_AUTHENTICATED);
    assert_fails(http_call(peer, "GET", "/api/v1/events", NULL, NULL, &err), err,
                 ERROR_FORBIDDEN);
    assert_fails(http_call(local, "GET", "/api/v1/events?since=x", NULL, NULL, &err), err,
                 ERROR_USAGE);
    server_free(s);
}

static void
a_follower_that_does_not_read_is_cut_off(void **state UNUSED)
{
    struct server *s = server_new(0);
    AUTOFREE(char) *text = mem_alloc(1, 8192);
    AUTOPTR(http_client) *c = local_client(s);
    struct error *err = NULL;
    int fd = raw_connect(s);
    uint64_t total = 0;
    ssize_t part;

    memset(text, 'x', 8191);
    raw_send(fd, "GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(recv(fd, text + 8191, 1, 0), 1);
    text[8191] = '\0';
    for (uint64_t id = 1; id <= 2000; id++) {
        publish(s, id, text);
        /* Gives the loop its turns, as real events would. */
        if (id % 100 == 0)
            assert_ok(http_call(c, "GET", "/who", NULL, NULL, &err), err);
    }
    while ((part = recv(fd, text, 8191, 0)) > 0)
        total += (uint64_t)part;
    assert_int_equal(part, 0); /* the end, not our own time limit */
    assert_in_range(total, 1, 8 << 20);
    close(fd);
    server_free(s);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_unix_socket_makes_an_admin_by_its_user_name),
        cmocka_unit_test(a_certificate_makes_a_peer_a_viewer_or_a_stranger),
        cmocka_unit_test(parameters_query_and_body_reach_the_handler),
        cmocka_unit_test(errors_carry_their_code_and_status),
        cmocka_unit_test(text_and_the_operation_id_come_back),
        cmocka_unit_test(bodies_above_1_mib_are_refused),
        cmocka_unit_test(a_handler_may_take_longer_than_the_timeout_of_clients),
        cmocka_unit_test(clients_that_leave_while_their_handler_runs_harm_nobody),
        cmocka_unit_test(stopping_with_requests_in_every_state_is_clean),
        cmocka_unit_test(no_certificate_no_conversation),
        cmocka_unit_test(a_live_socket_is_kept_and_a_stale_one_replaced),
        cmocka_unit_test(a_follower_resumes_behind_an_id_and_hears_what_is_new),
        cmocka_unit_test(only_the_last_1000_events_are_kept),
        cmocka_unit_test(strangers_and_peers_may_not_follow_and_a_bad_id_is_refused),
        cmocka_unit_test(a_follower_that_does_not_read_is_cut_off),
    };

    evthread_use_pthreads();
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests_name("rest", tests, NULL, NULL);
}
