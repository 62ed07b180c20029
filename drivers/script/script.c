#include "drivers/script/script.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/text.h"
#include "common/units.h"

#define OUTPUT_SHOWN  2000
#define POLL_MS       20
#define END_MS        2000 /* between the asking and the killing */
#define FIRST_CLOSED  3
#define STATUS_SIGNAL 128

/* --- may it be run?
 * ---------------------------------------------------------------------- */

static bool
is_trusted(const struct stat *st)
{
    return (st->st_uid == 0 || st->st_uid == geteuid()) &&
           (st->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

/* Who can write the folder can put another file there. */
static bool
check_folder(const char *path, struct error **err)
{
    const char *slash = strrchr(path, '/');
    AUTOFREE(char) *folder = mem_memdup(path, slash == path ? 1 : (size_t)(slash - path));
    struct stat st;

    if (stat(folder, &st) < 0)
        return error_errno(err, ERROR_PERMISSION, "look at folder '%s'", folder);
    return is_trusted(&st) ||
           error_set(err, ERROR_PERMISSION,
                     "'%s' is not run: others than root may write its folder", path);
}

bool
script_check(const char *path, struct error **err)
{
    struct stat st;

    if (path[0] != '/')
        return error_set(err, ERROR_USAGE, "'%s' is no absolute path", path);
    if (stat(path, &st) < 0)
        return error_errno(err, ERROR_PERMISSION, "look at script '%s'", path);
    if (!S_ISREG(st.st_mode) || (st.st_mode & S_IXUSR) == 0)
        return error_set(err, ERROR_PERMISSION, "'%s' is no program (chmod +x?)", path);
    if (!is_trusted(&st))
        return error_set(err, ERROR_PERMISSION,
                         "'%s' is not run: others than root own it or may write it",
                         path);
    return check_folder(path, err);
}

/* --- running
 * ------------------------------------------------------------------------------ */

static int
plan(posix_spawn_file_actions_t *actions, posix_spawnattr_t *attributes, int output)
{
    sigset_t none, all;
    int failed = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);

    sigemptyset(&none);
    sigfillset(&all);
    failed |= posix_spawn_file_actions_adddup2(actions, output, 1);
    failed |= posix_spawn_file_actions_adddup2(actions, output, 2);
    failed |= posix_spawn_file_actions_addchdir_np(actions, "/");
    failed |= posix_spawn_file_actions_addclosefrom_np(actions, FIRST_CLOSED);
    failed |= posix_spawnattr_setsigmask(attributes, &none);
    failed |= posix_spawnattr_setsigdefault(attributes, &all);
    failed |= posix_spawnattr_setflags(
        attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
    return failed;
}

/* Nothing of ours goes to it but what was said. */
static char **
make_environment(const char *const *given)
{
    static char path[] =
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    static char locale[] = "LC_ALL=C";
    size_t n = 0;
    char **all;

    while (given[n] != NULL)
        n++;
    all = mem_alloc(n + 3, sizeof *all);
    all[0] = path;
    all[1] = locale;
    memcpy(all + 2, given, n * sizeof *all);
    return all;
}

static bool
start(const struct script *script, int output, pid_t *ret, struct error **err)
{
    AUTOFREE(char *) *environment = make_environment(script->environment);
    char *const argv[] = { (char *)(uintptr_t)script->path, NULL };
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int failed;

    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    failed = plan(&actions, &attributes, output);
    if (failed == 0)
        failed = posix_spawn(ret, script->path, &actions, &attributes, argv, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    errno = failed;
    return failed == 0 ||
           error_errno(err, ERROR_PERMISSION, "start script '%s'", script->path);
}

/* It is not reaped by that: until then its number, and its session's, are nobody else's.
 */
static bool
has_ended(pid_t pid)
{
    siginfo_t info = { .si_pid = 0 };

    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == pid;
}

static bool
ends_within(pid_t pid, int ms)
{
    int64_t until_ms = units_monotonic_ms() + ms;

    while (!has_ended(pid)) {
        if (units_monotonic_ms() >= until_ms)
            return false;
        poll(NULL, 0, POLL_MS);
    }
    return true;
}

/* The session as a whole: what it has started, too. */
static int
end_session(pid_t pid)
{
    int status = 0;

    kill(-pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return WIFEXITED(status) ? WEXITSTATUS(status) : STATUS_SIGNAL + WTERMSIG(status);
}

static bool
wait_for_end(const struct script *script, pid_t pid, int *ret_status, struct error **err)
{
    bool stopped = false;

    while (!stopped && !has_ended(pid)) {
        poll(NULL, 0, cancel_remaining_ms(script->cancel, POLL_MS));
        stopped = !cancel_check(script->cancel, err);
    }
    if (stopped) {
        kill(-pid, SIGTERM);
        ends_within(pid, END_MS);
    }
    *ret_status = end_session(pid);
    return !stopped || error_prefix(err, "script '%s'", script->path);
}

static char *
read_end(int output)
{
    off_t size = lseek(output, 0, SEEK_END);
    off_t from = size > OUTPUT_SHOWN ? size - OUTPUT_SHOWN : 0;
    char *text = mem_alloc(OUTPUT_SHOWN + 1, 1);
    ssize_t n = pread(output, text, OUTPUT_SHOWN, from);

    text[MAX(n, 0)] = '\0';
    for (char *p = text; *p != '\0'; p++)
        if (*p == '\n')
            *p = ' ';
    text_make_printable(text);
    for (size_t k = strlen(text); k > 0 && text[k - 1] == ' '; k--)
        text[k - 1] = '\0';
    return text;
}

bool
script_run(const struct script *script, int *ret_status, char **ret_output,
           struct error **err)
{
    AUTOFD(output) = memfd_create("script", MFD_CLOEXEC);
    pid_t pid;

    if (output < 0)
        return error_errno(err, ERROR_INTERNAL, "make room for a script's output");
    if (!script_check(script->path, err) || !start(script, output, &pid, err) ||
        !wait_for_end(script, pid, ret_status, err))
        return false;
    *ret_output = read_end(output);
    return true;
}
