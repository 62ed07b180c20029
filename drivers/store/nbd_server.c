#include "drivers/store/nbd_server.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include "common/json.h"
#include "drivers/store/child.h"

#define PROGRAM          "qemu-storage-daemon"
#define START_TIMEOUT_MS 30000
#define STOP_TIMEOUT_MS  5000
#define TLS_ID           "tls"
/* Nothing older: all clients that know NBD with certificates know it. */
#define TLS_PRIORITY "NORMAL:-VERS-ALL:+VERS-TLS1.3"

/* Two arguments for each disk, and at most these besides. */
#define MAX_OTHER_ARGUMENTS 16

struct nbd_server {
    struct child child;
    pid_t pid;
    int monitor; /* closed by its end */
};

/* --- the command line ---------------------------------------------------------- */

/* Options as JSON: in QEMU's own syntax a comma in a path would end it. */
struct command {
    const char **argv; /* ends with NULL */
    struct json_object **options;
    size_t n_argv, n_options;
};

static void
command_add(struct command *c, const char *option, struct json_object *value)
{
    c->options[c->n_options++] = value;
    c->argv[c->n_argv++] = option;
    c->argv[c->n_argv++] = json_text(value);
}

static void
command_clear(struct command *c)
{
    for (size_t i = 0; i < c->n_options; i++)
        json_object_put(c->options[i]);
    free(c->options);
    free(c->argv);
}

static struct json_object *
credentials_option(const char *folder)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "qom-type", "tls-creds-x509");
    json_set_string(o, "id", TLS_ID);
    json_set_string(o, "endpoint", "server");
    json_set_string(o, "dir", folder);
    json_set_bool(o, "verify-peer", true);
    json_set_string(o, "priority", TLS_PRIORITY);
    return o;
}

static struct json_object *
server_option(bool tls)
{
    struct json_object *o = json_object_new_object();
    struct json_object *address = json_object_new_object();

    json_set_string(address, "type", "fd");
    json_set_string(address, "str", "3"); /* CHILD_FIRST_FD */
    json_set(o, "addr", address);
    json_set_int(o, "max-connections", NBD_SERVER_MAX_CONNECTIONS);
    if (tls)
        json_set_string(o, "tls-creds", TLS_ID);
    return o;
}

static struct json_object *
image_option(const struct nbd_server_disk *disk, const char *node)
{
    struct json_object *o = json_object_new_object();
    struct json_object *file = json_object_new_object();

    json_set_string(file, "driver", "file");
    json_set_string(file, "filename", disk->path);
    json_set_string(o, "driver", "qcow2");
    json_set_string(o, "node-name", node);
    json_set_bool(o, "read-only", true);
    json_set(o, "file", file);
    return o;
}

static struct json_object *
export_option(const struct nbd_server_disk *disk, const char *node)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "type", "nbd");
    json_set_string(o, "id", node);
    json_set_string(o, "node-name", node);
    json_set_string(o, "name", disk->name);
    json_set_bool(o, "writable", false);
    return o;
}

/* The monitor comes last: its greeting says that all before it was done. */
static void
command_build(struct command *c, const struct nbd_server_settings *s)
{
    size_t max = MAX_OTHER_ARGUMENTS + 4 * s->n_disks;

    c->argv = mem_alloc(max, sizeof *c->argv);
    c->options = mem_alloc(max, sizeof *c->options);
    c->argv[c->n_argv++] = PROGRAM;
    if (s->credentials != NULL)
        command_add(c, "--object", credentials_option(s->credentials));
    command_add(c, "--nbd-server", server_option(s->credentials != NULL));
    for (size_t i = 0; i < s->n_disks; i++) {
        AUTOFREE(char) *node = mem_printf("disk%zu", i); /* names of ours are too long */

        command_add(c, "--blockdev", image_option(&s->disks[i], node));
        command_add(c, "--export", export_option(&s->disks[i], node));
    }
    c->argv[c->n_argv++] = "--chardev";
    c->argv[c->n_argv++] = "socket,id=virt-dr,fd=4";
    c->argv[c->n_argv++] = "--monitor";
    c->argv[c->n_argv++] = "chardev=virt-dr";
}

/* --- life ---------------------------------------------------------------------- */

/* What a guest's disk holds goes over no network unencrypted. */
static bool
check_listener(const struct nbd_server_settings *s, struct error **err)
{
    int family = -1;
    socklen_t n = sizeof family;

    if (getsockopt(s->listener, SOL_SOCKET, SO_DOMAIN, &family, &n) < 0)
        return error_errno(err, ERROR_STORE, "look at the listening socket");
    if (family != AF_UNIX && s->credentials == NULL)
        return error_set(err, ERROR_USAGE, "NBD over a network is served by TLS only");
    return true;
}

static bool
ended(const struct nbd_server *s, struct error **err)
{
    AUTOFREE(char) *output = nbd_server_output(s);

    return error_set(err, ERROR_STORE, "%s failed: %s", PROGRAM,
                     *output != '\0' ? output : "it gave no reason");
}

/* The first byte of its monitor's greeting, or the end of the monitor. */
static bool
await_greeting(const struct nbd_server *s, struct error **err)
{
    struct pollfd p = { .fd = s->monitor, .events = POLLIN };
    char byte;
    int n;

    while ((n = poll(&p, 1, START_TIMEOUT_MS)) < 0 && errno == EINTR)
        ;
    if (n == 0)
        return error_set(err, ERROR_TIMEOUT, "%s did not start within %d s", PROGRAM,
                         START_TIMEOUT_MS / 1000);
    if (recv(s->monitor, &byte, 1, MSG_DONTWAIT) == 1)
        return true;
    (void)child_ended(s->child.pidfd, STOP_TIMEOUT_MS); /* its last words come first */
    return ended(s, err);
}

static bool
launch(struct nbd_server *s, const struct nbd_server_settings *settings, int monitor,
       struct error **err)
{
    struct command c = { 0 };
    struct child_request request = { .folder = settings->folder,
                                     .fds = { settings->listener, monitor },
                                     .n_fds = 2 };
    bool ok;

    command_build(&c, settings);
    request.argv = c.argv;
    ok = child_start(&request, &s->child, err);
    command_clear(&c);
    s->pid = s->child.pid;
    return ok;
}

bool
nbd_server_start(const struct nbd_server_settings *settings, struct nbd_server **ret,
                 struct error **err)
{
    struct nbd_server *s;
    int pair[2];
    bool ok;

    if (!check_listener(settings, err))
        return false;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return error_errno(err, ERROR_STORE, "start %s", PROGRAM);
    s = NEW(struct nbd_server);
    *s = (struct nbd_server){ .child = { -1, -1, -1 }, .monitor = pair[0] };
    ok = launch(s, settings, pair[1], err);
    close(pair[1]); /* else its end would not be seen */
    if (!ok || !await_greeting(s, err)) {
        nbd_server_stop(s);
        return false;
    }
    *ret = s;
    return true;
}

bool
nbd_server_is_alive(const struct nbd_server *s)
{
    return !child_ended(s->child.pidfd, 0);
}

char *
nbd_server_output(const struct nbd_server *s)
{
    return child_output(&s->child);
}

pid_t
nbd_server_pid(const struct nbd_server *s)
{
    return s->pid;
}

void
nbd_server_stop(struct nbd_server *s)
{
    int status;

    if (s == NULL)
        return;
    if (s->child.pid > 0 && child_signal(s->child.pidfd, SIGTERM) == 0)
        (void)child_wait(&s->child, STOP_TIMEOUT_MS, &status, NULL);
    child_end(&s->child);
    close(s->monitor);
    free(s);
}
