#include "drivers/store/qsd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "common/json.h"
#include "common/units.h"
#include "drivers/store/child.h"
#include "drivers/store/folder.h"

#define PROGRAM           "qemu-storage-daemon"
#define ANSWER_TIMEOUT_MS 60000
#define QUIT_TIMEOUT_MS   5000
#define KILL_TIMEOUT_MS   10000
#define START_TIMEOUT_MS  2000 /* from a child's first moment to its program's */
#define START_POLL_MS     5
#define END_TIMEOUT_MS    5000 /* from a kill to the end of the last thread */
#define COMM_BYTES        16   /* of a process's name and the end of its line, in /proc */
#define MAX_ANSWER_BYTES  (1u << 20)
#define BACKLOG           64

/*
 * QEMU reads QMP byte by byte, with seven system calls for each; its command line costs
 * nothing. But that has an end, and descriptors beyond the usual 1024 are there only when
 * it runs: what is more comes by QMP.
 */
#define MAX_OPTIONS       400
#define MAX_OPTIONS_BYTES (256u << 10)
#define MAX_OTHER_OPTIONS 16

struct qsd_item {
    const char *command;
    struct json_object *arguments;
};

struct qsd {
    struct child child;
    int folder;
    char *socket_name; /* its name in the folder */
    int qmp;
    char *buffer; /* what came and is not yet a whole line */
    size_t n;
};

/* --- QMP ---------------------------------------------------------------------------- */

static bool
gone(struct qsd *q, struct error **err)
{
    AUTOFREE(char) *output = child_output(&q->child);

    return error_set(err, child_was_full(output) ? ERROR_NO_SPACE : ERROR_STORE,
                     "%s (pid %d) ended unexpectedly: %s", PROGRAM, (int)q->child.pid,
                     *output != '\0' ? output : "it gave no reason");
}

static bool
receive(struct qsd *q, int64_t deadline_ms, struct error **err)
{
    struct pollfd p = { .fd = q->qmp, .events = POLLIN };
    int64_t left = deadline_ms - units_monotonic_ms();
    ssize_t n;

    if (left <= 0 || poll(&p, 1, (int)left) == 0)
        return error_set(err, ERROR_TIMEOUT, "%s (pid %d) does not answer", PROGRAM,
                         (int)q->child.pid);
    if (q->n >= MAX_ANSWER_BYTES)
        return error_set(err, ERROR_STORE, "%s: the answer is too long", PROGRAM);
    q->buffer = mem_realloc(q->buffer, q->n + 4096, 1);
    n = recv(q->qmp, q->buffer + q->n, 4096, MSG_DONTWAIT);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return true;
    if (n <= 0)
        return gone(q, err);
    q->n += (size_t)n;
    return true;
}

/* The next line as an object. */
static bool
next_message(struct qsd *q, int64_t deadline_ms, struct json_object **ret,
             struct error **err)
{
    char *end;
    size_t length;
    bool ok;

    while (q->n == 0 || (end = memchr(q->buffer, '\n', q->n)) == NULL)
        if (!receive(q, deadline_ms, err))
            return false;
    length = (size_t)(end - q->buffer);
    ok = json_parse(q->buffer, length, ret, err);
    q->n -= length + 1;
    memmove(q->buffer, end + 1, q->n);
    return ok;
}

static bool
refused(const char *command, struct json_object *why, struct error **err)
{
    const char *words = json_string_or(why, "desc", "no reason given");

    return error_set(err, child_was_full(words) ? ERROR_NO_SPACE : ERROR_STORE,
                     "%s refused %s: %s", PROGRAM, command, words);
}

static bool
await_return(struct qsd *q, const char *command, struct json_object **ret,
             struct error **err)
{
    int64_t deadline_ms = units_monotonic_ms() + ANSWER_TIMEOUT_MS;

    for (;;) {
        AUTOJSON *message = NULL;
        struct json_object *why, *result = NULL;

        if (!next_message(q, deadline_ms, &message, err))
            return error_prefix(err, "%s", command);
        why = json_object_or_null(message, "error");
        if (why != NULL)
            return refused(command, why, err);
        if (json_object_object_get_ex(message, "return", &result)) {
            if (ret != NULL)
                *ret = json_object_get(result);
            return true;
        }
        /* An event: nothing here depends on any. */
    }
}

static bool
send_all(struct qsd *q, const char *text, struct error **err)
{
    size_t left = strlen(text);

    while (left > 0) {
        ssize_t n = send(q->qmp, text, left, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return gone(q, err);
        text += n;
        left -= (size_t)n;
    }
    return true;
}

bool
qsd_ask(struct qsd *q, const char *command, struct json_object *arguments,
        struct json_object **ret, struct error **err)
{
    AUTOJSON *o = json_object_new_object();
    AUTOFREE(char) *line = NULL;

    json_set_string(o, "execute", command);
    if (arguments != NULL)
        json_set(o, "arguments", arguments);
    line = mem_printf("%s\n", json_text(o));
    return send_all(q, line, err) && await_return(q, command, ret, err);
}

bool
qsd_command(struct qsd *q, const char *command, struct json_object *arguments,
            struct error **err)
{
    return qsd_ask(q, command, arguments, NULL, err);
}

/* --- what it begins with ------------------------------------------------------------ */

void
qsd_list_add(struct qsd_list *l, const char *command, struct json_object *arguments)
{
    l->items = mem_realloc(l->items, l->n + 1, sizeof *l->items);
    l->items[l->n++] = (struct qsd_item){ .command = command, .arguments = arguments };
}

void
qsd_list_clear(struct qsd_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        json_object_put(l->items[i].arguments);
    free(l->items);
    *l = (struct qsd_list){ NULL, 0 };
}

/* --- life --------------------------------------------------------------------------- */

/* The folder's path may be longer than a socket address: go through its descriptor. */
static void
socket_address(int folder, const char *name, struct sockaddr_un *ret)
{
    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    snprintf(ret->sun_path, sizeof ret->sun_path, "/proc/self/fd/%d/%s", folder, name);
}

static bool
listen_in(int folder, const char *name, int *ret, struct error **err)
{
    AUTOFD(fd) = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address;

    if (!folder_unlink(folder, name, err))
        return false;
    socket_address(folder, name, &address);

    /* The mode is the socket's from its first moment, whatever the umask is. */
    if (fd < 0 || fchmod(fd, 0600) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(fd, BACKLOG) < 0)
        return folder_errno(err, "listen on '%s'", name);
    *ret = TAKE_FD(fd);
    return true;
}

/* A descriptor for each layer of each disk is more than the usual 1024. */
static void
raise_limit(pid_t pid)
{
    struct rlimit limit;

    if (prlimit(pid, RLIMIT_NOFILE, NULL, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)prlimit(pid, RLIMIT_NOFILE, &limit, NULL);
    }
}

/* How many of the list go onto the command line. */
static size_t
count_options(const struct qsd_list *l)
{
    size_t bytes = 0, n = 0;

    while (n < l->n && n < MAX_OPTIONS) {
        bytes += strlen(json_text(l->items[n].arguments));
        if (bytes > MAX_OPTIONS_BYTES)
            break;
        n++;
    }
    return n;
}

static const char *
option_of(const struct qsd_item *item)
{
    return strcmp(item->command, "blockdev-add") == 0 ? "--blockdev" : "--export";
}

/* The monitor comes last: its greeting says that all before it was done. */
static const char **
command_line(const struct qsd_list *l, size_t n)
{
    static const char *const first[] = { PROGRAM, "--nbd-server",
                                         "addr.type=fd,addr.str=4,max-connections=0" };
    static const char *const last[] = { "--chardev", "socket,id=virt-dr,fd=3",
                                        "--monitor", "chardev=virt-dr" };
    const char **argv = mem_alloc(MAX_OTHER_OPTIONS + 2 * n, sizeof *argv);
    size_t at = N_ELEMENTS(first);

    memcpy(argv, first, sizeof first);
    for (size_t i = 0; i < n; i++) {
        argv[at++] = option_of(&l->items[i]);
        argv[at++] = json_text(l->items[i].arguments);
    }
    memcpy(argv + at, last, sizeof last);
    return argv;
}

static bool
launch(struct qsd *q, int listener, int qmp, const struct qsd_list *l, struct error **err)
{
    AUTOFREE(const char *) *argv = command_line(l, count_options(l));
    struct child_request request = {
        .argv = argv, .folder = q->folder, .fds = { qmp, listener }, .n_fds = 2
    };

    if (!child_start(&request, &q->child, err))
        return false;
    raise_limit(q->child.pid);
    return true;
}

/* What was too much for the command line. */
static bool
add_rest(struct qsd *q, const struct qsd_list *l, struct error **err)
{
    for (size_t i = count_options(l); i < l->n; i++)
        if (!qsd_command(q, l->items[i].command, json_object_get(l->items[i].arguments),
                         err))
            return false;
    return true;
}

static bool
greet(struct qsd *q, struct error **err)
{
    AUTOJSON *greeting = NULL;

    return next_message(q, units_monotonic_ms() + ANSWER_TIMEOUT_MS, &greeting, err) &&
           qsd_command(q, "qmp_capabilities", NULL, err);
}

static void
qsd_free(struct qsd *q)
{
    child_end(&q->child);
    if (q->qmp >= 0)
        close(q->qmp);
    unlinkat(q->folder, q->socket_name, 0);
    free(q->socket_name);
    free(q->buffer);
    free(q);
}

bool
qsd_start_at(int folder, const char *socket_name, const struct qsd_list *list,
             struct qsd **ret, struct error **err)
{
    struct qsd *q = NEW(struct qsd);
    AUTOFD(listener) = -1;
    AUTOFD(theirs) = -1;
    int pair[2];
    bool ok;

    *q = (struct qsd){ .child = { -1, -1, -1 },
                       .folder = folder,
                       .socket_name = mem_strdup(socket_name),
                       .qmp = -1 };
    ok = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0 ||
         error_errno(err, ERROR_STORE, "start %s", PROGRAM);
    if (ok) {
        q->qmp = pair[0];
        theirs = pair[1];
    }
    ok = ok && listen_in(folder, socket_name, &listener, err) &&
         launch(q, listener, theirs, list, err);
    if (ok) {
        close(TAKE_FD(theirs)); /* else its end would not be seen */
        ok = greet(q, err) && add_rest(q, list, err);
    }
    if (!ok) {
        qsd_free(q);
        return false;
    }
    *ret = q;
    return true;
}

bool
qsd_start(int folder, struct qsd **ret, struct error **err)
{
    const struct qsd_list empty = { NULL, 0 };

    return qsd_start_at(folder, QSD_SOCKET, &empty, ret, err);
}

void
qsd_stop(struct qsd *q)
{
    int status;

    if (q == NULL)
        return;
    if (q->child.pid > 0 && send_all(q, "{\"execute\":\"quit\"}\n", NULL))
        (void)child_wait(&q->child, QUIT_TIMEOUT_MS, &status, NULL);
    qsd_free(q);
}

bool
qsd_explain(const struct qsd *q, struct error **err)
{
    AUTOFREE(char) *output = NULL;
    siginfo_t how = { .si_pid = 0 };

    if (waitid(P_PID, (id_t)q->child.pid, &how, WEXITED | WNOHANG | WNOWAIT) < 0 ||
        how.si_pid == 0)
        return false;
    output = child_output(&q->child);
    return error_prefix(err, "%s (pid %d) ended %s %d: %s", PROGRAM, (int)q->child.pid,
                        how.si_code == CLD_EXITED ? "with status" : "by signal",
                        how.si_status, *output != '\0' ? output : "it gave no reason");
}

int
qsd_pid(const struct qsd *q)
{
    return (int)q->child.pid;
}

bool
qsd_connect(struct qsd *q, int *ret_fd, struct error **err)
{
    AUTOFD(fd) = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address;

    socket_address(q->folder, q->socket_name, &address);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return folder_errno(err, "connect to '%s'", q->socket_name);
    *ret_fd = TAKE_FD(fd);
    return true;
}

/* --- what a crash left ---------------------------------------------------------------
 */

static bool
works_in(int proc, const char *pid, const struct stat *folder)
{
    AUTOFREE(char) *cwd = mem_printf("%s/cwd", pid);
    struct stat st;

    return fstatat(proc, cwd, &st, 0) == 0 && st.st_dev == folder->st_dev &&
           st.st_ino == folder->st_ino;
}

/* It runs our own program still: we were killed while we started it. */
static bool
is_our_program(int proc, const char *pid)
{
    AUTOFREE(char) *exe = mem_printf("%s/exe", pid);
    struct stat theirs, own;

    return fstatat(proc, exe, &theirs, 0) == 0 && stat("/proc/self/exe", &own) == 0 &&
           theirs.st_dev == own.st_dev && theirs.st_ino == own.st_ino;
}

/* *ret_starting: it does not run yet what it was started for, so that one cannot tell. */
static bool
has_mark(int proc, const char *pid, bool *ret_starting)
{
    AUTOFREE(char) *environment = mem_printf("%s/environ", pid);
    AUTOFD(fd) = openat(proc, environment, O_RDONLY | O_CLOEXEC);
    char text[sizeof CHILD_MARK];
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);

    *ret_starting = n == 0 || is_our_program(proc, pid);
    return n == sizeof text && memcmp(text, CHILD_MARK, sizeof text) == 0;
}

/*
 * Ours is who works in this folder and carries our mark: a storage daemon, or a
 * qemu-img that was at work when we were killed.
 */
static bool
is_ours(int proc, const char *pid, const struct stat *folder)
{
    int64_t end = units_monotonic_ms() + START_TIMEOUT_MS;
    bool starting = true;

    while (starting && units_monotonic_ms() < end && works_in(proc, pid, folder)) {
        if (has_mark(proc, pid, &starting))
            return true;
        if (starting)
            poll(NULL, 0, START_POLL_MS);
    }
    return false;
}

static bool
end_process(int pidfd, const char *pid, struct error **err)
{
    child_signal(pidfd, SIGTERM); /* as quit: it closes its images first */
    if (child_ended(pidfd, QUIT_TIMEOUT_MS))
        return true;
    child_signal(pidfd, SIGKILL);
    if (child_ended(pidfd, KILL_TIMEOUT_MS))
        return true;
    return error_set(
        err, ERROR_TIMEOUT,
        "%s (pid %s) of an earlier run holds the images and cannot be killed; "
        "is its storage stuck?",
        PROGRAM, pid);
}

/*
 * A helper, of whomever, that was killed just now: its folder is gone already, but some
 * of its threads are still to end, and with the last one go its locks on images.
 */
static bool
is_ending(int proc, const char *pid)
{
    AUTOFREE(char) *cwd = mem_printf("%s/cwd", pid);
    AUTOFREE(char) *comm = mem_printf("%s/comm", pid);
    char name[COMM_BYTES + 1] = "";
    struct stat st;
    AUTOFD(fd) = -1;

    if (fstatat(proc, cwd, &st, 0) == 0 || errno != ENOENT)
        return false;
    fd = openat(proc, comm, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, name, COMM_BYTES) <= 0)
        return false;
    return strncmp(name, PROGRAM, COMM_BYTES - 1) == 0 || strcmp(name, "qemu-img\n") == 0;
}

static bool
end_if_ours(int proc, const char *pid, void *opaque, struct error **err)
{
    uint64_t number;
    AUTOFD(pidfd) = -1;

    if (!units_parse_u64(pid, 1, INT32_MAX, &number, NULL))
        return true;
    if (is_ending(proc, pid)) {
        pidfd = child_pidfd((pid_t)number);
        if (pidfd >= 0)
            (void)child_ended(pidfd, END_TIMEOUT_MS);
        return true;
    }
    if (!is_ours(proc, pid, opaque))
        return true;

    /* Looked at again once it is held: the number may be another process' by now. */
    pidfd = child_pidfd((pid_t)number);
    if (pidfd < 0 || !is_ours(proc, pid, opaque))
        return true;
    return end_process(pidfd, pid, err);
}

bool
qsd_end_stale(int folder, struct error **err)
{
    struct stat st;

    if (fstat(folder, &st) < 0)
        return folder_errno(err, "look at the folder");
    return folder_each(AT_FDCWD, "/proc", end_if_ours, &st, err);
}
