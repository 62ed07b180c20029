#include "drivers/store/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "common/units.h"

#define OUTPUT_SHOWN    2000
#define FIRST_SAFE_FD   16 /* above every number that a child's descriptors get */
#define KILL_TIMEOUT_MS 10000
#define TERM_TIMEOUT_MS 5000
#define STOP_POLL_MS    20 /* how soon a stop is seen: somebody may wait for it */

int
child_pidfd(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

int
child_signal(int pidfd, int signal)
{
    return (int)syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0);
}

bool
child_ended(int pidfd, int timeout_ms)
{
    struct pollfd p = { .fd = pidfd, .events = POLLIN };
    int64_t end = units_monotonic_ms() + timeout_ms;
    int64_t left = timeout_ms;
    int n;

    while ((n = poll(&p, 1, (int)left)) < 0 && errno == EINTR)
        left = MAX(0, end - units_monotonic_ms());
    return n > 0;
}

/* --- starting ------------------------------------------------------------------- */

/* In the order in which the child does it; each move must not hit a later source. */
static int
plan_descriptors(posix_spawn_file_actions_t *actions, const struct child_request *r,
                 const int *safe, int output)
{
    int failed = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);

    failed |= posix_spawn_file_actions_adddup2(actions, output, 1);
    failed |= posix_spawn_file_actions_adddup2(actions, output, 2);
    failed |= posix_spawn_file_actions_addfchdir_np(actions, r->folder);
    for (size_t i = 0; i < r->n_fds; i++)
        failed |=
            posix_spawn_file_actions_adddup2(actions, safe[i], CHILD_FIRST_FD + (int)i);
    failed |=
        posix_spawn_file_actions_addclosefrom_np(actions, CHILD_FIRST_FD + (int)r->n_fds);
    return failed;
}

static int
plan_attributes(posix_spawnattr_t *attributes)
{
    sigset_t none, all;

    sigemptyset(&none);
    sigfillset(&all);
    return posix_spawnattr_setsigmask(attributes, &none) |
           posix_spawnattr_setsigdefault(attributes, &all) |
           posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK |
                                                    POSIX_SPAWN_SETSIGDEF |
                                                    POSIX_SPAWN_SETSID);
}

static bool
is_ours_to_set(const char *setting)
{
    return strncmp(setting, "LC_ALL=", 7) == 0 || strncmp(setting, "MALLOC_", 7) == 0;
}

/*
 * Our mark first, then messages in English (some are looked into for a reason),
 * then our environment. QEMU takes memory for each request and gives it back:
 * without the limits, each would be mapped, faulted in and unmapped anew.
 */
static char **
child_environment(void)
{
    static char mark[] = CHILD_MARK, locale[] = "LC_ALL=C";
    static char map[] = "MALLOC_MMAP_THRESHOLD_=2097152";
    static char trim[] = "MALLOC_TRIM_THRESHOLD_=4194304";
    char *const own[] = { mark, locale, map, trim };
    size_t n = 0, kept = N_ELEMENTS(own);
    char **copy;

    while (environ[n] != NULL)
        n++;
    copy = mem_alloc(kept + n + 1, sizeof *copy);
    memcpy(copy, own, sizeof own);
    for (size_t i = 0; i < n; i++)
        if (!is_ours_to_set(environ[i]))
            copy[kept++] = environ[i];
    return copy;
}

static bool
spawn(const struct child_request *r, const int *safe, int output, pid_t *ret,
      struct error **err)
{
    AUTOFREE(char *) *ours = child_environment();
    char *const *environment = r->environment != NULL ? r->environment : ours;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int failed;

    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    failed = plan_descriptors(&actions, r, safe, output) | plan_attributes(&attributes);
    if (failed == 0)
        failed = posix_spawnp(ret, r->argv[0], &actions, &attributes,
                              (char *const *)r->argv, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    errno = failed;
    return failed == 0 ||
           error_errno(err, ERROR_STORE, "start %s (is QEMU installed?)", r->argv[0]);
}

/* Nobody else waits for it, so its number cannot be another's yet. */
static bool
hold(struct child *c, const char *name, struct error **err)
{
    c->pidfd = child_pidfd(c->pid);
    if (c->pidfd >= 0)
        return true;
    error_errno(err, ERROR_STORE, "start %s: pidfd_open", name);
    kill(c->pid, SIGKILL);
    while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    return false;
}

bool
child_start(const struct child_request *request, struct child *ret, struct error **err)
{
    struct child c = { .pid = -1, .pidfd = -1, .output = -1 };
    int safe[CHILD_MAX_FDS];
    AUTOFD(output) = memfd_create("output", MFD_CLOEXEC);
    AUTOFD(safe_output) = fcntl(output, F_DUPFD_CLOEXEC, FIRST_SAFE_FD);
    bool ok = safe_output >= 0;

    for (size_t i = 0; i < CHILD_MAX_FDS; i++)
        safe[i] = -1;
    for (size_t i = 0; ok && i < request->n_fds; i++)
        ok = (safe[i] = fcntl(request->fds[i], F_DUPFD_CLOEXEC, FIRST_SAFE_FD)) >= 0;
    if (!ok)
        error_errno(err, ERROR_STORE, "start %s: descriptors", request->argv[0]);
    ok = ok && spawn(request, safe, safe_output, &c.pid, err);
    for (size_t i = 0; i < request->n_fds; i++)
        if (safe[i] >= 0)
            close(safe[i]);
    if (!ok || !hold(&c, request->argv[0], err))
        return false;
    c.output = TAKE_FD(output);
    *ret = c;
    return true;
}

/* --- its end -------------------------------------------------------------------- */

bool
child_wait(struct child *c, int timeout_ms, int *ret_status, struct error **err)
{
    int status = 0;

    if (!child_ended(c->pidfd, timeout_ms))
        return error_set(err, ERROR_TIMEOUT, "process %d did not end within %d ms",
                         (int)c->pid, timeout_ms);
    while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
        ;
    c->pid = -1;
    *ret_status = status;
    return true;
}

void
child_end(struct child *c)
{
    if (c->pid > 0) {
        child_signal(c->pidfd, SIGKILL);

        /* One that is stuck in its storage stays unreaped: better than to hang too. */
        if (child_ended(c->pidfd, KILL_TIMEOUT_MS))
            while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
                ;
        c->pid = -1;
    }
    if (c->pidfd >= 0)
        close(TAKE_FD(c->pidfd));
    if (c->output >= 0)
        close(TAKE_FD(c->output));
}

char *
child_output(const struct child *c)
{
    char text[OUTPUT_SHOWN + 1];
    off_t size = lseek(c->output, 0, SEEK_END);
    off_t from = MAX(0, size - OUTPUT_SHOWN);
    ssize_t n = pread(c->output, text, OUTPUT_SHOWN, from);

    if (n < 0)
        n = 0;
    while (n > 0 && strchr(" \t\r\n", text[n - 1]) != NULL)
        n--;
    return mem_memdup(text, (size_t)n);
}

/* What qemu-img rebase says of a file system without space, too: paths of ours fit. */
#define HEADER_FULL "No space left in the file header"

bool
child_was_full(const char *words)
{
    return strstr(words, HEADER_FULL) != NULL ||
           strstr(words, strerrordesc_np(ENOSPC)) != NULL ||
           strstr(words, strerrordesc_np(EDQUOT)) != NULL;
}

bool
child_verdict(const struct child *c, const char *name, int status, struct error **err)
{
    AUTOFREE(char) *output = NULL;

    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    output = child_output(c);
    return error_set(err, child_was_full(output) ? ERROR_NO_SPACE : ERROR_STORE,
                     "%s failed: %s", name,
                     *output != '\0' ? output : "it gave no reason");
}

bool
child_run(const struct child_request *request, int timeout_ms, struct error **err)
{
    struct child c;
    int status = 0;
    bool ok;

    if (!child_start(request, &c, err))
        return false;
    ok = child_wait(&c, timeout_ms, &status, err);
    if (!ok)
        error_prefix(err, "%s", request->argv[0]);
    ok = ok && child_verdict(&c, request->argv[0], status, err);
    child_end(&c);
    return ok;
}

bool
child_run_paced(const struct child_request *request, struct pace *pace, int *ret_exit,
                struct error **err)
{
    struct child c;
    int status = 0;
    bool ok = true;

    if (!child_start(request, &c, err))
        return false;
    while (ok && !child_ended(c.pidfd, STOP_POLL_MS))
        ok = pace_check(pace, err);
    if (!ok) {
        child_signal(c.pidfd, SIGTERM);
        child_ended(c.pidfd, TERM_TIMEOUT_MS); /* else child_end() kills it */
    }
    ok = ok && child_wait(&c, 0, &status, err);
    if (ok && ret_exit != NULL && WIFEXITED(status))
        *ret_exit = WEXITSTATUS(status);
    ok = ok && child_verdict(&c, request->argv[0], status, err);
    child_end(&c);
    return ok;
}
