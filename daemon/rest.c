#include "daemon/rest.h"

#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "common/json.h"
#include "common/log.h"
#include "common/units.h"
#include "daemon/address.h"
#include "daemon/rest_private.h"

#define MAX_HEADERS_BYTES (64 * 1024)
#define MAX_OPERATION_ID  128
#define METHODS                                                              \
    (EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE | \
     EVHTTP_REQ_PATCH)

struct server {
    TAILQ_ENTRY(server) link;
    struct rest *rest;
    struct evhttp *http;
    struct tls *tls; /* NULL: the unix socket */
    char *path;      /* the unix socket's */
};

/* A request from its arrival to its answer. A worker sees only what is its own. */
struct job {
    TAILQ_ENTRY(job) link;
    struct rest *rest;
    struct evhttp_request *req; /* loop thread only */
    const struct rest_route *route;
    struct rest_request request;
    char *params[REST_MAX_PARAMS];
    uid_t uid; /* of a caller on the unix socket */
    bool ok;
    struct error *failure;
};

TAILQ_HEAD(job_list, job);

struct rest {
    struct event_base *base;
    struct rest_settings set;
    struct rest_events *events;
    TAILQ_HEAD(, server) servers;
    struct job_list jobs;
};

/* --- answering ---------------------------------------------------------------------- */

static void
job_free(struct job *j)
{
    TAILQ_REMOVE(&j->rest->jobs, j, link);
    for (unsigned i = 0; i < REST_MAX_PARAMS; i++)
        free(j->params[i]);
    json_object_put(j->request.query);
    json_object_put(j->request.body);
    json_object_put(j->request.reply);
    free(j->request.text);
    error_free(j->failure);
    free(j);
}

static void
echo_operation_id(struct evhttp_request *req)
{
    const char *id =
        evhttp_find_header(evhttp_request_get_input_headers(req), "X-Operation-Id");

    if (id != NULL && strlen(id) <= MAX_OPERATION_ID)
        evhttp_add_header(evhttp_request_get_output_headers(req), "X-Operation-Id", id);
}

/* If the client has gone meanwhile, evhttp only frees the request. */
static void
send_text(struct evhttp_request *req, int status, const char *type, const char *text)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(req);
    struct evbuffer *buf = evbuffer_new();

    evhttp_add_header(headers, "Content-Type", type);
    evhttp_add_header(headers, "Cache-Control", "no-store");
    evbuffer_add(buf, text, strlen(text));
    evhttp_send_reply(req, status, NULL, buf);
    evbuffer_free(buf);
}

static void
send_error(struct evhttp_request *req, int status, const struct error *e)
{
    AUTOJSON *body = json_from_error(e);

    send_text(req, status, "application/json", json_text(body));
}

static void
answer(struct job *j)
{
    struct rest_request *r = &j->request;
    AUTOJSON *empty = json_object_new_object();

    if (!j->ok) {
        int status = error_code_http(error_code(j->failure));

        if (status >= HTTP_INTERNAL)
            log_failure(NULL, "request-failed", j->failure);
        send_error(j->req, status, j->failure);
    } else if (r->text != NULL) {
        send_text(j->req, r->status, "text/plain; charset=utf-8", r->text);
    } else {
        send_text(j->req, r->status, "application/json",
                  json_text(r->reply != NULL ? r->reply : empty));
    }
    job_free(j);
}

static void
job_done(void *opaque)
{
    struct job *j = opaque;

    if (!j->ok && j->failure == NULL) /* dropped */
        error_set(&j->failure, ERROR_CONNECT, "virtdrd is being stopped; try again");
    answer(j);
}

/* --- on a worker ---------------------------------------------------------------------
 */

/* Here, because asking for a name may ask the network. */
static void
name_local_caller(struct job *j)
{
    char buffer[4096];
    struct passwd entry, *found = NULL;
    struct rest_caller *c = &j->request.caller;

    if (getpwuid_r(j->uid, &entry, buffer, sizeof buffer, &found) == 0 && found != NULL)
        snprintf(c->name, sizeof c->name, "%s", found->pw_name);
    else
        snprintf(c->name, sizeof c->name, "uid %u", (unsigned)j->uid);
}

static void
job_run(void *opaque)
{
    struct job *j = opaque;

    if (j->request.caller.fingerprint[0] == '\0')
        name_local_caller(j);
    j->ok = j->route->handler(&j->request, &j->failure);
}

/* --- taking requests in
 * ----------------------------------------------------------------- */

static bool
identify_local(struct job *j, struct bufferevent *bev, struct error **err)
{
    struct ucred who;
    socklen_t n = sizeof who;

    if (getsockopt(bufferevent_getfd(bev), SOL_SOCKET, SO_PEERCRED, &who, &n) < 0)
        return error_errno(err, ERROR_NOT_AUTHENTICATED, "ask who the caller is");
    j->uid = who.uid;
    j->request.caller.roles = REST_ROLE_ANYONE | REST_ROLE_VIEWER | REST_ROLE_ADMIN;
    return true;
}

static bool
identify_remote(struct job *j, struct evhttp_connection *connection,
                struct bufferevent *bev, struct error **err)
{
    const SSL *ssl = bufferevent_openssl_get_ssl(bev);
    struct rest_caller *c = &j->request.caller;
    char *host = NULL;
    ev_uint16_t port = 0;

    if (ssl == NULL)
        return error_set(err, ERROR_INTERNAL, "a connection without TLS");
    if (!tls_peer_fingerprint(ssl, c->fingerprint, err))
        return false;
    evhttp_connection_get_peer(connection, &host, &port);
    snprintf(c->address, sizeof c->address, "%s", host != NULL ? host : "");
    c->roles = REST_ROLE_ANYONE;
    j->rest->set.identify(c, ssl, j->rest->set.opaque);
    return true;
}

static bool
identify(struct job *j, const struct server *s, struct error **err)
{
    struct evhttp_connection *connection = evhttp_request_get_connection(j->req);
    struct bufferevent *bev = evhttp_connection_get_bufferevent(connection);

    return s->tls == NULL ? identify_local(j, bev, err)
                          : identify_remote(j, connection, bev, err);
}

static bool
read_body(struct job *j, int *ret_status, struct error **err)
{
    struct evbuffer *input = evhttp_request_get_input_buffer(j->req);
    size_t n = evbuffer_get_length(input);
    const char *type =
        evhttp_find_header(evhttp_request_get_input_headers(j->req), "Content-Type");

    if (n == 0)
        return true;
    if (type == NULL || strncasecmp(type, "application/json", 16) != 0 ||
        (type[16] != '\0' && type[16] != ';' && type[16] != ' ')) {
        *ret_status = REST_STATUS_MEDIA_TYPE;
        return error_set(err, ERROR_USAGE, "the body must be application/json");
    }
    *ret_status = HTTP_BADREQUEST;
    if (json_parse((const char *)evbuffer_pullup(input, -1), n, &j->request.body, NULL))
        return true;
    return error_set(err, ERROR_USAGE, "the body is no JSON object");
}

static const char *
method_name(struct evhttp_request *req)
{
    static const struct {
        enum evhttp_cmd_type command;
        const char *name;
    } names[] = { { EVHTTP_REQ_GET, "GET" },
                  { EVHTTP_REQ_POST, "POST" },
                  { EVHTTP_REQ_PUT, "PUT" },
                  { EVHTTP_REQ_DELETE, "DELETE" },
                  { EVHTTP_REQ_PATCH, "PATCH" } };

    for (size_t i = 0; i < N_ELEMENTS(names); i++)
        if (names[i].command == evhttp_request_get_command(req))
            return names[i].name;
    return "this method";
}

static bool
read_since(struct job *j, uint64_t *ret, bool *ret_given, struct error **err)
{
    const char *header =
        evhttp_find_header(evhttp_request_get_input_headers(j->req), "Last-Event-ID");
    const char *text = json_string_or(j->request.query, "since", header);

    *ret_given = text != NULL && text[0] != '\0';
    return !*ret_given || units_parse_u64(text, 0, UINT64_MAX, ret, err);
}

/* The one route that is our own: its answer has no end. */
static bool
follow(struct job *j, struct error **err)
{
    uint64_t since = 0;
    bool given = false;

    if (!rest_route_may(&j->request.caller, REST_ROLE_VIEWER | REST_ROLE_ADMIN, err) ||
        !read_since(j, &since, &given, err))
        return false;
    rest_events_follow(j->rest->events, j->req, given ? &since : NULL);
    return true;
}

/* Everything up to the handler; false answers with the error at once. */
static bool
prepare(struct job *j, const char *path, int *ret_status, struct error **err)
{
    const struct rest_settings *set = &j->rest->set;

    return rest_route_find(set->routes, method_name(j->req), path, j->params, &j->route,
                           ret_status, err) &&
           rest_route_may(&j->request.caller, j->route->roles, err) &&
           read_body(j, ret_status, err);
}

static void
start(struct job *j)
{
    for (unsigned i = 0; i < REST_MAX_PARAMS; i++)
        j->request.params[i] = j->params[i];
    j->request.opaque = j->rest->set.opaque;
    workers_submit(j->rest->set.workers, 0, job_run, job_done, j);
}

static void
refuse(struct job *j, int status, struct error *e)
{
    send_error(j->req, status > 0 ? status : error_code_http(error_code(e)), e);
    error_free(e);
    job_free(j);
}

static void
on_request(struct evhttp_request *req, void *opaque)
{
    struct server *s = opaque;
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(req);
    const char *path = uri != NULL ? evhttp_uri_get_path(uri) : NULL;
    struct job *j = NEW(struct job);
    struct error *e = NULL;
    int status = 0;

    j->rest = s->rest;
    j->req = req;
    j->request.status = HTTP_OK;
    TAILQ_INSERT_TAIL(&s->rest->jobs, j, link);
    echo_operation_id(req);
    if (path == NULL)
        path = "";
    if (!identify(j, s, &e) ||
        !rest_route_query(uri != NULL ? evhttp_uri_get_query(uri) : NULL,
                          &j->request.query, &e)) {
        refuse(j, 0, e);
    } else if (strcmp(path, REST_EVENTS_PATH) == 0 &&
               evhttp_request_get_command(req) == EVHTTP_REQ_GET) {
        if (follow(j, &e))
            job_free(j);
        else
            refuse(j, 0, e);
    } else if (prepare(j, path, &status, &e)) {
        start(j);
    } else {
        refuse(j, status, e);
    }
}

/* --- servers
 * ------------------------------------------------------------------------------ */

static struct bufferevent *
tls_connection(struct event_base *base, void *opaque)
{
    struct server *s = opaque;
    SSL *ssl = SSL_new(tls_server_context(s->tls));
    struct bufferevent *bev =
        ssl == NULL
            ? NULL
            : bufferevent_openssl_socket_new(base, -1, ssl, BUFFEREVENT_SSL_ACCEPTING,
                                             BEV_OPT_CLOSE_ON_FREE);

    /* With NULL evhttp would go on in plain text. */
    if (bev == NULL)
        abort();
    bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
    return bev;
}

static void
server_free(struct server *s)
{
    TAILQ_REMOVE(&s->rest->servers, s, link);
    evhttp_free(s->http);
    if (s->path != NULL)
        (void)unlink(s->path);
    free(s->path);
    free(s);
}

static bool
server_start(struct rest *r, int fd, struct tls *tls, struct server **ret,
             struct error **err)
{
    struct server *s = NEW(struct server);

    s->rest = r;
    s->tls = tls;
    s->http = evhttp_new(r->base);
    if (s->http == NULL)
        abort();
    TAILQ_INSERT_TAIL(&r->servers, s, link);
    evhttp_set_max_body_size(s->http, REST_MAX_BODY);
    evhttp_set_max_headers_size(s->http, MAX_HEADERS_BYTES);
    evhttp_set_timeout(s->http, r->set.timeout_s);
    evhttp_set_allowed_methods(s->http, METHODS);
    evhttp_set_gencb(s->http, on_request, s);
    if (tls != NULL)
        evhttp_set_bevcb(s->http, tls_connection, s);
    if (evhttp_accept_socket_with_handle(s->http, fd) == NULL) {
        server_free(s);
        close(fd);
        return error_set(err, ERROR_INTERNAL, "start the HTTP server");
    }
    *ret = s;
    return true;
}

bool
rest_listen_unix(struct rest *r, const char *path, const char *group, struct error **err)
{
    struct server *s;
    int fd;

    if (!rest_unix_socket(path, group, &fd, err) || !server_start(r, fd, NULL, &s, err))
        return false;
    s->path = mem_strdup(path);
    return true;
}

bool
rest_listen_tls(struct rest *r, const char *address, struct tls *tls, struct error **err)
{
    struct server *s;
    int fd;

    return address_listen(address, &fd, err) && server_start(r, fd, tls, &s, err);
}

struct rest *
rest_new(struct event_base *base, const struct rest_settings *settings)
{
    struct rest *r = NEW(struct rest);

    r->base = base;
    r->set = *settings;
    if (r->set.timeout_s <= 0)
        r->set.timeout_s = REST_TIMEOUT_S;
    TAILQ_INIT(&r->servers);
    TAILQ_INIT(&r->jobs);
    r->events = rest_events_new(base, r->set.timeout_s);
    return r;
}

void
rest_free(struct rest *r)
{
    struct server *s;
    struct job *j;

    if (r == NULL)
        return;
    /* Those that the pool dropped. Without a connection nobody else frees the request. */
    while ((j = TAILQ_FIRST(&r->jobs)) != NULL) {
        if (evhttp_request_get_connection(j->req) == NULL)
            evhttp_request_free(j->req);
        job_free(j);
    }
    while ((s = TAILQ_FIRST(&r->servers)) != NULL)
        server_free(s);
    rest_events_free(r->events);
    free(r);
}

void
rest_publish(struct rest *r, uint64_t id, const char *type, struct json_object *body)
{
    rest_events_publish(r->events, id, type, body);
}
