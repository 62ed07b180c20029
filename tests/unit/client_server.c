#include "tests/unit/client_server.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "tests/unit/unit.h"

#define MAX_ANSWERS 64
#define MAX_ASKED   256
#define MAX_OUTPUT  (256u << 10)
#define DEADLINE_S  60 /* of one run of virt-dr, also under valgrind */

struct answer {
    char *question;
    int status;
    char *body;
    bool given;
};

struct held {
    struct evhttp_request *request;
    bool is_stream; /* its answer was begun */
};

struct client_server {
    char folder[64];
    char path[96];
    char address[112];
    struct event_base *base;
    struct evhttp *http;
    struct answer answers[MAX_ANSWERS];
    size_t n_answers;
    char *asked[MAX_ASKED];
    size_t n_asked;
    struct held held[MAX_ANSWERS]; /* not answered to the end; ours */
    size_t n_held;
};

/* One output of the child. */
struct output {
    struct client_server *cs;
    struct event *event;
    int fd;
    char *text;
    size_t used;
    pid_t child;
    const char *interrupt_at;
    int *n_open;
};

static struct answer *
find_answer(struct client_server *cs, const char *question)
{
    struct answer *last = NULL;

    for (size_t i = 0; i < cs->n_answers; i++) {
        if (strcmp(cs->answers[i].question, question) != 0)
            continue;
        last = &cs->answers[i];
        if (!last->given)
            break;
    }
    return last;
}

static const char *
method_name(struct evhttp_request *request)
{
    enum evhttp_cmd_type method = evhttp_request_get_command(request);

    if (method == EVHTTP_REQ_POST)
        return "POST";
    if (method == EVHTTP_REQ_PUT)
        return "PUT";
    if (method == EVHTTP_REQ_DELETE)
        return "DELETE";
    return method == EVHTTP_REQ_GET ? "GET" : "?";
}

static void
remember(struct client_server *cs, const char *question, struct evhttp_request *request)
{
    struct evbuffer *input = evhttp_request_get_input_buffer(request);
    size_t n = evbuffer_get_length(input);
    AUTOFREE(char) *body =
        mem_memdup(n == 0 ? "" : (const char *)evbuffer_pullup(input, -1), n);

    assert_true(cs->n_asked < MAX_ASKED);
    cs->asked[cs->n_asked++] = mem_printf("%s%s%s", question, n == 0 ? "" : " ", body);
}

static void
keep(struct client_server *cs, struct evhttp_request *request, bool is_stream)
{
    assert_true(cs->n_held < MAX_ANSWERS);
    cs->held[cs->n_held++] = (struct held){ request, is_stream };
}

static void
send_stream(struct client_server *cs, struct evhttp_request *request,
            const struct answer *a)
{
    struct evbuffer *chunk = evbuffer_new();

    evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type",
                      "text/event-stream");
    evhttp_send_reply_start(request, 200, "OK");
    evbuffer_add_printf(chunk, "%s", a->body);
    evhttp_send_reply_chunk(request, chunk);
    if (a->status == CLIENT_SERVER_ENDING)
        evhttp_send_reply_end(request);
    else
        keep(cs, request, true);
    evbuffer_free(chunk);
}

static void
hold(struct client_server *cs, struct evhttp_request *request, bool hang_up)
{
    struct evhttp_connection *c = evhttp_request_get_connection(request);

    keep(cs, request, false);
    if (hang_up)
        shutdown(bufferevent_getfd(evhttp_connection_get_bufferevent(c)), SHUT_RDWR);
}

static void
on_request(struct evhttp_request *request, void *opaque)
{
    struct client_server *cs = opaque;
    AUTOFREE(char) *question =
        mem_printf("%s %s", method_name(request), evhttp_request_get_uri(request));
    struct answer *a = find_answer(cs, question);
    struct evbuffer *body;

    remember(cs, question, request);
    if (a != NULL)
        a->given = true;
    if (a != NULL &&
        (a->status == CLIENT_SERVER_HOLD || a->status == CLIENT_SERVER_HANG_UP)) {
        hold(cs, request, a->status == CLIENT_SERVER_HANG_UP);
        return;
    }
    if (a != NULL &&
        (a->status == CLIENT_SERVER_STREAM || a->status == CLIENT_SERVER_ENDING)) {
        send_stream(cs, request, a);
        return;
    }
    body = evbuffer_new();
    evbuffer_add_printf(body, "%s",
                        a != NULL ? a->body
                                  : "{\"code\":\"NotFound\",\"message\":\"unforeseen\"}");
    evhttp_send_reply(request, a != NULL ? a->status : 404, "", body);
    evbuffer_free(body);
}

static void
listen_on(struct client_server *cs)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct evconnlistener *listener;

    snprintf(address.sun_path, sizeof address.sun_path, "%s", cs->path);
    listener = evconnlistener_new_bind(cs->base, NULL, NULL,
                                       LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 16,
                                       (struct sockaddr *)&address, sizeof address);
    assert_non_null(listener);
    assert_non_null(evhttp_bind_listener(cs->http, listener));
}

struct client_server *
client_server_new(void)
{
    struct client_server *cs = NEW(struct client_server);

    signal(SIGPIPE, SIG_IGN);
    snprintf(cs->folder, sizeof cs->folder, "/tmp/virt-dr-client-XXXXXX");
    assert_non_null(mkdtemp(cs->folder));
    snprintf(cs->path, sizeof cs->path, "%s/sock", cs->folder);
    snprintf(cs->address, sizeof cs->address, "unix://%s", cs->path);
    cs->base = event_base_new();
    cs->http = evhttp_new(cs->base);
    evhttp_set_allowed_methods(cs->http, EVHTTP_REQ_GET | EVHTTP_REQ_POST |
                                             EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE);
    evhttp_set_gencb(cs->http, on_request, cs);
    listen_on(cs);
    return cs;
}

void
client_server_free(struct client_server *cs)
{
    if (cs == NULL)
        return;
    /* An answer frees a request whose connection is gone. */
    for (size_t i = 0; i < cs->n_held; i++) {
        if (cs->held[i].is_stream)
            evhttp_send_reply_end(cs->held[i].request);
        else
            evhttp_send_reply(cs->held[i].request, 503, "", NULL);
    }
    evhttp_free(cs->http);
    event_base_free(cs->base);
    unlink(cs->path);
    rmdir(cs->folder);
    for (size_t i = 0; i < cs->n_answers; i++) {
        free(cs->answers[i].question);
        free(cs->answers[i].body);
    }
    for (size_t i = 0; i < cs->n_asked; i++)
        free(cs->asked[i]);
    free(cs);
}

const char *
client_server_address(const struct client_server *cs)
{
    return cs->address;
}

void
client_server_answer(struct client_server *cs, const char *question, int status,
                     const char *body)
{
    assert_true(cs->n_answers < MAX_ANSWERS);
    cs->answers[cs->n_answers++] =
        (struct answer){ mem_strdup(question), status, mem_strdup(body), false };
}

const char *
client_server_asked(const struct client_server *cs, size_t i)
{
    return i < cs->n_asked ? cs->asked[i] : NULL;
}

void
client_run_clear(struct client_run *run)
{
    free(run->out);
    free(run->err);
    *run = (struct client_run){ 0 };
}

/* --- the child -------------------------------------------------------------- */

static void
exec_client(struct client_server *cs, const char *const *words,
            const struct client_run *run)
{
    const char *folder = getenv("top_builddir");
    AUTOFREE(char) *program =
        mem_printf("%s/client/virt-dr", folder == NULL ? "." : folder);
    const char *arguments[64] = { "virt-dr", "-c", cs->address };
    size_t n = run->without_connect != NULL ? 1 : 3;

    while (*words != NULL && n + 1 < N_ELEMENTS(arguments))
        arguments[n++] = *words++;
    arguments[n] = NULL;
    signal(SIGINT, SIG_DFL);
    execv(program, (char *const *)(uintptr_t)arguments);
    _exit(127);
}

static pid_t
fork_on_pipes(struct client_server *cs, const char *const *words,
              const struct client_run *run, int fds[2])
{
    int out[2], errors[2];
    pid_t child;

    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    assert_int_equal(pipe2(errors, O_CLOEXEC), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(out[1], STDOUT_FILENO);
        dup2(errors[1], STDERR_FILENO);
        exec_client(cs, words, run);
    }
    close(out[1]);
    close(errors[1]);
    fds[0] = out[0];
    fds[1] = errors[0];
    return child;
}

static pid_t
fork_on_terminal(struct client_server *cs, const char *const *words,
                 const struct client_run *run, int fds[2])
{
    struct winsize size = { .ws_row = 24, .ws_col = 100 };
    pid_t child = forkpty(&fds[0], NULL, NULL, &size);

    assert_true(child >= 0);
    if (child == 0) {
        setenv("TERM", "xterm", 1);
        unsetenv("NO_COLOR");
        exec_client(cs, words, run);
    }
    fds[1] = -1;
    return child;
}

static void
interrupt_child(struct output *o)
{
    if (o->interrupt_at == NULL || strstr(o->text, o->interrupt_at) == NULL)
        return;
    o->interrupt_at = NULL;
    kill(o->child, SIGINT);
}

static void
on_output(evutil_socket_t fd, short what UNUSED, void *opaque)
{
    struct output *o = opaque;
    ssize_t n = read(fd, o->text + o->used, MAX_OUTPUT - o->used - 1);

    if (n > 0) {
        o->used += (size_t)n;
        interrupt_child(o);
        return;
    }
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    /* A terminal that nobody has open any more answers EIO. */
    event_del(o->event);
    if (--*o->n_open == 0)
        event_base_loopbreak(o->cs->base);
}

static void
output_open(struct output *o, int fd)
{
    o->text = mem_alloc(MAX_OUTPUT, 1);
    o->fd = fd;
    if (fd < 0)
        return;
    ++*o->n_open;
    o->event = event_new(o->cs->base, fd, EV_READ | EV_PERSIST, on_output, o);
    event_add(o->event, NULL);
}

static char *
output_close(struct output *o)
{
    if (o->fd >= 0) {
        event_free(o->event);
        close(o->fd);
    }
    return o->text;
}

static void
on_deadline(evutil_socket_t fd UNUSED, short what UNUSED, void *opaque)
{
    event_base_loopbreak(opaque);
}

static void
collect(struct client_server *cs, pid_t child, const int fds[2], struct client_run *run)
{
    const struct timeval deadline = { .tv_sec = DEADLINE_S };
    int n_open = 0, status = 0;
    struct output out = {
        .cs = cs, .child = child, .interrupt_at = run->interrupt_at, .n_open = &n_open
    };
    struct output errors = out;
    struct event *timer;

    output_open(&out, fds[0]);
    output_open(&errors, fds[1]);
    timer = evtimer_new(cs->base, on_deadline, cs->base);
    evtimer_add(timer, &deadline);
    event_base_dispatch(cs->base);
    event_free(timer);
    if (n_open > 0)
        kill(child, SIGKILL);
    waitpid(child, &status, 0);
    run->out = output_close(&out);
    run->err = output_close(&errors);
    run->exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (n_open > 0)
        fail_msg("virt-dr was still running after %d s: %s%s", DEADLINE_S, run->out,
                 run->err);
}

void
client_server_run(struct client_server *cs, const char *const *words,
                  struct client_run *run)
{
    int fds[2];
    pid_t child = run->on_terminal ? fork_on_terminal(cs, words, run, fds)
                                   : fork_on_pipes(cs, words, run, fds);

    free(run->out);
    free(run->err);
    collect(cs, child, fds, run);
}
