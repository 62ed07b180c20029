/*
 * faultline.so, for LD_PRELOAD: counts the calls that change what is stored
 * below a folder, and lets a fault happen at one of them (faultline.h).
 *
 * Each counted call goes through enter(), before it is made. Steps of the
 * subject and of qemu-img have the same numbers in each run; those of the
 * storage daemon nearly, since it works with several threads.
 */
#include "tests/faults/faultline.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

/* The call behind ours, of the same type. */
#define REAL(name) ((__typeof__(&name))real(#name))

static struct faultline_state *state;
static char root[PATH_MAX];
static size_t root_length;
static uint32_t process;

static void *
real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);

    if (found == NULL)
        abort();
    return found;
}

/* --- who we are --------------------------------------------------------------------- */

static void
register_helper(void)
{
    char name[PATH_MAX] = "";
    ssize_t n = readlink("/proc/self/exe", name, sizeof name - 1);
    uint32_t i;

    process = FAULTLINE_STORE;
    if (n <= 0)
        return;
    if (strstr(name, "qemu-storage-daemon") != NULL)
        process = FAULTLINE_DAEMON;
    else if (strstr(name, "qemu-img") != NULL)
        process = FAULTLINE_IMG;
    else
        return;
    i = atomic_fetch_add(&state->n_pids, 1);
    if (i < FAULTLINE_MAX_PIDS)
        atomic_store(&state->pids[i], getpid());
}

__attribute__((constructor)) static void
faultline_start(void)
{
    const char *path = getenv(FAULTLINE_STATE), *folder = getenv(FAULTLINE_ROOT);
    void *map;
    int fd;

    if (path == NULL || folder == NULL)
        return;
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
    fd = REAL(open)(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        abort();
    map = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED)
        abort();
    state = map;
    register_helper();
}

/* --- the faults --------------------------------------------------------------------- */

/* Its number may be another's by now. */
static bool
is_helper(pid_t pid)
{
    char link[64], folder[PATH_MAX];
    ssize_t n;

    snprintf(link, sizeof link, "/proc/%d/cwd", (int)pid);
    n = pid > 0 ? readlink(link, folder, sizeof folder - 1) : -1;
    if (n <= 0)
        return false;
    folder[n] = '\0';
    return strcmp(folder, root) == 0;
}

static void
kill_helpers(void)
{
    uint32_t n = atomic_load(&state->n_pids);
    pid_t own = getpid();

    for (uint32_t i = 0; i < n && i < FAULTLINE_MAX_PIDS; i++) {
        pid_t pid = atomic_load(&state->pids[i]);

        if (pid != own && is_helper(pid))
            kill(pid, SIGKILL);
    }
}

static void
kill_own_helper(void)
{
    if (process != FAULTLINE_STORE)
        kill(getpid(), SIGKILL);
}

static bool
has_helper(void)
{
    uint32_t n = atomic_load(&state->n_pids);

    for (uint32_t i = 0; i < n && i < FAULTLINE_MAX_PIDS; i++)
        if (is_helper(atomic_load(&state->pids[i])))
            return true;
    return false;
}

static void
kill_subject(void)
{
    pid_t subject = atomic_load(&state->subject);

    if (subject > 0)
        kill(subject, SIGKILL);
}

/*
 * The subject stands still until all helpers are gone, and dies last: its end is what the
 * runner waits for, who puts the plan of the next run into our memory then.
 */
static void
kill_all(void)
{
    pid_t subject = atomic_load(&state->subject);

    if (subject > 0 && process != FAULTLINE_STORE)
        kill(subject, SIGSTOP);
    kill_helpers();
    kill_subject();
    kill_own_helper();
}

static void
cut_power(void)
{
    uint32_t how = FAULTLINE_NO_LOGFLUSH;
    int fd = REAL(open)(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    /* The folder itself may not be there yet. */
    if (fd < 0) {
        char parent[PATH_MAX];

        memcpy(parent, root, root_length + 1);
        *strrchr(parent, '/') = '\0';
        fd = REAL(open)(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (fd < 0 || ioctl(fd, FAULTLINE_GOING_DOWN, &how) < 0)
        abort();
    close(fd);
}

static void
strike(void)
{
    switch ((enum faultline_action)state->action) {
    case FAULTLINE_COUNT:
    case FAULTLINE_N_ACTIONS:
        return;
    case FAULTLINE_KILL:
        kill_subject();
        return;
    case FAULTLINE_KILL_CHILD:
        kill_helpers();
        kill_own_helper();
        return;
    case FAULTLINE_CUT:
        cut_power();
        kill_all();
        return;
    case FAULTLINE_TORN:
    case FAULTLINE_KILL_ALL:
        kill_all();
        return;
    case FAULTLINE_FULL:
        atomic_store(&state->full, 1);
        return;
    }
}

/* --- counting ----------------------------------------------------------------------- */

static bool
is_below_root(const char *path)
{
    return strncmp(path, root, root_length) == 0 &&
           (path[root_length] == '/' || path[root_length] == '\0');
}

static bool
path_of_fd(int fd, char ret[PATH_MAX])
{
    char link[64];
    ssize_t n;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(fd == AT_FDCWD ? "/proc/self/cwd" : link, ret, PATH_MAX - 1);
    if (n <= 0)
        return false;
    ret[n] = '\0';
    return true;
}

/* QEMU's programs write to sockets and eventfds all the time: they are not looked up. */
static bool
is_stored(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode));
}

/* A file or folder below the root. */
static bool
is_ours(int fd, char ret_path[PATH_MAX])
{
    return is_stored(fd) && path_of_fd(fd, ret_path) && is_below_root(ret_path);
}

/* A name as it was given, seen from the folder at. */
static bool
path_of_name(int at, const char *name, char ret[PATH_MAX])
{
    size_t n;

    if (name[0] == '/') {
        snprintf(ret, PATH_MAX, "%s", name);
        return true;
    }
    if (!path_of_fd(at, ret))
        return false;
    n = strlen(ret);
    snprintf(ret + n, PATH_MAX - n, "/%s", name);
    return true;
}

static void
copy_name(char ret[FAULTLINE_NAME_MAX], const char *name)
{
    snprintf(ret, FAULTLINE_NAME_MAX, "%.*s", FAULTLINE_NAME_MAX - 1, name);
}

struct call {
    const char *name;
    const char *path;
    size_t bytes; /* that it writes */
};

static void
describe(struct faultline_step *step, const struct call *c, uint32_t number)
{
    const char *slash = strrchr(c->path, '/');

    memcpy(step->phase, state->phase, sizeof step->phase);
    copy_name(step->call, c->name);
    copy_name(step->file, slash != NULL ? slash + 1 : c->path);
    step->bytes = (uint32_t)c->bytes;
    step->process = process;
    step->number = number;
    step->promises = atomic_load(&state->promises);
    step->helped = state->action == FAULTLINE_COUNT && has_helper();
}

/* True if this call is the one. */
static bool
count(const struct call *c)
{
    uint32_t number = atomic_fetch_add(&state->counts[process], 1) + 1;
    uint32_t i = atomic_fetch_add(&state->n_steps, 1);

    if (i < FAULTLINE_MAX_STEPS)
        describe(&state->steps[i], c, number);
    if (state->at_process != process || state->at_number != number)
        return false;
    describe(&state->fired_at, c, number);
    atomic_store(&state->fired, 1);
    return true;
}

static bool
is_full(bool takes_space)
{
    if (!takes_space || atomic_load(&state->full) == 0)
        return false;
    errno = ENOSPC;
    return true;
}

/* Before each call; false: it fails, errno is set. */
static bool
enter_call(const struct call *c, bool takes_space)
{
    int saved = errno;

    if (count(c))
        strike();
    errno = saved;
    return !is_full(takes_space);
}

static bool
enter(const char *call, const char *path, bool takes_space)
{
    return enter_call(&(struct call){ call, path, 0 }, takes_space);
}

static bool
enter_name(const char *call, int at, const char *name, bool takes_space)
{
    char path[PATH_MAX];
    int saved = errno;

    if (state == NULL || !path_of_name(at, name, path) || !is_below_root(path)) {
        errno = saved;
        return true;
    }
    return enter(call, path, takes_space);
}

static bool
enter_fd(const char *call, int fd, bool takes_space)
{
    char path[PATH_MAX];
    int saved = errno;

    if (state == NULL || !is_ours(fd, path)) {
        errno = saved;
        return true;
    }
    return enter(call, path, takes_space);
}

/* --- writing: a part of it first if it shall be torn -------------------------------- */

static size_t
sum_bytes(const struct iovec *parts, int n)
{
    size_t total = 0;

    for (int i = 0; i < n; i++)
        total += parts[i].iov_len;
    return total;
}

/*
 * About half of it, up to the end of a sector: neither a kill, nor a disk that loses
 * power, leaves less than a whole one.
 */
static size_t
torn_bytes(size_t total, off_t at)
{
    size_t half = total / 2, over = ((size_t)at + half) % FAULTLINE_SECTOR;

    return half > over ? half - over : 0;
}

static void
write_torn(int fd, const struct iovec *parts, int n, off_t offset)
{
    off_t at = offset >= 0 ? offset : lseek(fd, 0, SEEK_CUR);
    size_t wanted = torn_bytes(sum_bytes(parts, n), at), done = 0;

    for (int i = 0; i < n && done < wanted; i++) {
        size_t now = parts[i].iov_len < wanted - done ? parts[i].iov_len : wanted - done;

        (void)!REAL(pwrite64)(fd, parts[i].iov_base, now, at + (off_t)done);
        done += now;
    }
}

/* Before a write; true: it fails. */
static bool
is_refused(const char *call, int fd, const struct iovec *parts, int n, off_t offset)
{
    struct call c = { .name = call };
    char path[PATH_MAX];
    int saved = errno;
    bool ours = state != NULL && is_ours(fd, path);

    errno = saved;
    if (!ours)
        return false;
    c.path = path;
    c.bytes = sum_bytes(parts, n);
    if (state->action != FAULTLINE_TORN)
        return !enter_call(&c, true);
    if (count(&c)) {
        write_torn(fd, parts, n, offset);
        strike();
    }
    errno = saved;
    return false;
}

ssize_t
write(int fd, const void *data, size_t n)
{
    struct iovec part = { .iov_base = (void *)(uintptr_t)data, .iov_len = n };

    return is_refused("write", fd, &part, 1, -1) ? -1 : REAL(write)(fd, data, n);
}

ssize_t
writev(int fd, const struct iovec *parts, int n)
{
    return is_refused("writev", fd, parts, n, -1) ? -1 : REAL(writev)(fd, parts, n);
}

#define PWRITE(name, type)                                                         \
    ssize_t name(int fd, const void *data, size_t n, type offset)                  \
    {                                                                              \
        struct iovec part = { .iov_base = (void *)(uintptr_t)data, .iov_len = n }; \
                                                                                   \
        return is_refused("pwrite", fd, &part, 1, offset)                          \
                   ? -1                                                            \
                   : REAL(name)(fd, data, n, offset);                              \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define PWRITEV(name, type)                                             \
    ssize_t name(int fd, const struct iovec *parts, int n, type offset) \
    {                                                                   \
        return is_refused("pwritev", fd, parts, n, offset)              \
                   ? -1                                                 \
                   : REAL(name)(fd, parts, n, offset);                  \
    }
PWRITEV(pwritev, off_t)
PWRITEV(pwritev64, off64_t)

#define FTRUNCATE(name, type)                                                 \
    int name(int fd, type length)                                             \
    {                                                                         \
        return enter_fd("ftruncate", fd, true) ? REAL(name)(fd, length) : -1; \
    }
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)

#define FALLOCATE(name, type)                                                \
    int name(int fd, int mode, type offset, type length)                     \
    {                                                                        \
        return enter_fd("fallocate", fd, (mode & FALLOC_FL_PUNCH_HOLE) == 0) \
                   ? REAL(name)(fd, mode, offset, length)                    \
                   : -1;                                                     \
    }
FALLOCATE(fallocate, off_t)
FALLOCATE(fallocate64, off64_t)

int
fsync(int fd)
{
    return enter_fd("fsync", fd, false) ? REAL(fsync)(fd) : -1;
}

int
fdatasync(int fd)
{
    return enter_fd("fdatasync", fd, false) ? REAL(fdatasync)(fd) : -1;
}

/* --- names ----------------------------------------------------------------------------
 */

/* Making a file or emptying it; opening an old one takes no space. */
static bool
enter_open(int at, const char *path, int flags)
{
    if ((flags & (O_CREAT | O_TRUNC)) == 0)
        return true;
    return enter_name("open", at, path, (flags & O_CREAT) != 0);
}

static mode_t
mode_argument(int flags, va_list args)
{
    return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(args, mode_t) : 0;
}

#define OPEN(name)                                                                     \
    int name(const char *path, int flags, ...)                                         \
    {                                                                                  \
        mode_t mode;                                                                   \
        va_list args;                                                                  \
                                                                                       \
        va_start(args, flags);                                                         \
        mode = mode_argument(flags, args);                                             \
        va_end(args);                                                                  \
        return enter_open(AT_FDCWD, path, flags) ? REAL(name)(path, flags, mode) : -1; \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                 \
    int name(int at, const char *path, int flags, ...)                               \
    {                                                                                \
        mode_t mode;                                                                 \
        va_list args;                                                                \
                                                                                     \
        va_start(args, flags);                                                       \
        mode = mode_argument(flags, args);                                           \
        va_end(args);                                                                \
        return enter_open(at, path, flags) ? REAL(name)(at, path, flags, mode) : -1; \
    }
OPENAT(openat)
OPENAT(openat64)

int
rename(const char *from, const char *to)
{
    return enter_name("rename", AT_FDCWD, to, false) ? REAL(rename)(from, to) : -1;
}

int
renameat(int from_at, const char *from, int to_at, const char *to)
{
    return enter_name("rename", to_at, to, false)
               ? REAL(renameat)(from_at, from, to_at, to)
               : -1;
}

int
renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags)
{
    return enter_name("rename", to_at, to, false)
               ? REAL(renameat2)(from_at, from, to_at, to, flags)
               : -1;
}

int
linkat(int from_at, const char *from, int to_at, const char *to, int flags)
{
    return enter_name("link", to_at, to, true)
               ? REAL(linkat)(from_at, from, to_at, to, flags)
               : -1;
}

int
unlink(const char *path)
{
    return enter_name("unlink", AT_FDCWD, path, false) ? REAL(unlink)(path) : -1;
}

int
unlinkat(int at, const char *path, int flags)
{
    return enter_name("unlink", at, path, false) ? REAL(unlinkat)(at, path, flags) : -1;
}

int
rmdir(const char *path)
{
    return enter_name("rmdir", AT_FDCWD, path, false) ? REAL(rmdir)(path) : -1;
}

int
mkdir(const char *path, mode_t mode)
{
    return enter_name("mkdir", AT_FDCWD, path, true) ? REAL(mkdir)(path, mode) : -1;
}

int
mkdirat(int at, const char *path, mode_t mode)
{
    return enter_name("mkdir", at, path, true) ? REAL(mkdirat)(at, path, mode) : -1;
}

int
fchmodat(int at, const char *path, mode_t mode, int flags)
{
    return enter_name("chmod", at, path, false) ? REAL(fchmodat)(at, path, mode, flags)
                                                : -1;
}

int
bind(int fd, const struct sockaddr *address, socklen_t length)
{
    const struct sockaddr_un *local = (const struct sockaddr_un *)(const void *)address;

    /* Through a descriptor's link, which is not looked behind: the folder's own socket.
     */
    if (state != NULL && address->sa_family == AF_UNIX &&
        strncmp(local->sun_path, "/proc/self/fd/", 14) == 0 &&
        !enter("bind", local->sun_path, true))
        return -1;
    return REAL(bind)(fd, address, length);
}

/* --- helpers: their start is a step of the subject ---------------------------------- */

int
posix_spawnp(pid_t *ret, const char *file, const posix_spawn_file_actions_t *actions,
             const posix_spawnattr_t *attributes, char *const argv[],
             char *const environment[])
{
    if (state != NULL)
        enter("spawn", file, false);
    return REAL(posix_spawnp)(ret, file, actions, attributes, argv, environment);
}
