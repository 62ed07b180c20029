#include "tests/faults/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "drivers/store/child.h"

#define MEMORY             "/dev/shm"
#define IMAGE_BYTES        (320ll << 20) /* the least that mkfs.xfs takes is 300 MiB */
#define COMMAND_TIMEOUT_MS 60000
#define RUN_TIMEOUT_MS     120000
#define UNMOUNT_TRIES      500
#define MAX_MESSAGES       4000

/* --- files ----------------------------------------------------------------------------
 */

static int
remove_entry(const char *path, const struct stat *st UNUSED, int type UNUSED,
             struct FTW *ftw)
{
    return ftw->level == 0 ? 0 : remove(path);
}

/* All that is in a folder. */
static void
empty_folder(const char *path)
{
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

static bool
run_tool(const char *const *argv, struct error **err)
{
    AUTOFD(root) = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct child_request request = { .argv = argv, .folder = root };

    return child_run(&request, COMMAND_TIMEOUT_MS, err);
}

static bool
mount_files(struct arena *a, struct error **err)
{
    AUTOFREE(char) *image = mem_printf("%s/image", a->base);
    AUTOFREE(char) *files = mem_printf("%s/files", a->base);
    const char *const argv[] = { "mount", "-t", a->fs, "-o", "loop", image, files, NULL };

    return a->fs == NULL || run_tool(argv, err);
}

/* A process that is just ending may hold it for a moment. */
static bool
unmount_files(struct arena *a, struct error **err)
{
    AUTOFREE(char) *files = mem_printf("%s/files", a->base);

    for (int i = 0; a->fs != NULL && umount(files) < 0; i++) {
        if (errno != EBUSY || i >= UNMOUNT_TRIES)
            return error_errno(err, ERROR_STORE, "unmount '%s'", files);
        poll(NULL, 0, 10);
    }
    return true;
}

/*
 * Mounts of our own: a namespace that somebody else makes meanwhile would keep a
 * copy of them, and with it the file system alive, after its power was cut.
 */
static bool
leave_namespace(struct error **err)
{
    return (unshare(CLONE_NEWNS) == 0 &&
            mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0) ||
           error_errno(err, ERROR_STORE, "make a mount namespace");
}

static bool
make_file_system(struct arena *a, struct error **err)
{
    AUTOFREE(char) *image = mem_printf("%s/image", a->base);
    const char *const xfs[] = { "mkfs.xfs", "-q", "-f", image, NULL };
    const char *const ext4[] = { "mkfs.ext4", "-q", "-F", image, NULL };
    AUTOFD(fd) = -1;

    if (a->fs == NULL)
        return true;
    if (!leave_namespace(err))
        return false;
    fd = open(image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, IMAGE_BYTES) < 0)
        return error_errno(err, ERROR_STORE, "make '%s'", image);
    return run_tool(strcmp(a->fs, "xfs") == 0 ? xfs : ext4, err) && mount_files(a, err);
}

/* --- the arena ------------------------------------------------------------------------
 */

static bool
map_state(struct arena *a, struct error **err)
{
    AUTOFD(fd) = open(a->state_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    void *map = MAP_FAILED;

    if (fd >= 0 && ftruncate(fd, sizeof *a->state) == 0)
        map = mmap(NULL, sizeof *a->state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return error_errno(err, ERROR_STORE, "map '%s'", a->state_path);
    a->state = map;
    return true;
}

static bool
make_base(struct arena *a, struct error **err)
{
    const char *under = access(MEMORY, W_OK) == 0 ? MEMORY : "/tmp";
    AUTOFREE(char) *files = NULL;
    AUTOFREE(char) *saved = NULL;

    a->base = mem_printf("%s/virt-dr-faults-XXXXXX", under);
    if (mkdtemp(a->base) == NULL)
        return error_errno(err, ERROR_STORE, "make '%s'", a->base);
    files = mem_printf("%s/files", a->base);
    saved = mem_printf("%s/saved", a->base);
    a->store = mem_printf("%s/store", files);
    a->scratch = mem_printf("%s/scratch", a->base);
    a->state_path = mem_printf("%s/state", a->base);
    if (mkdir(files, 0755) < 0 || mkdir(a->scratch, 0755) < 0 || mkdir(saved, 0755) < 0)
        return error_errno(err, ERROR_STORE, "make folders in '%s'", a->base);
    return true;
}

void
arena_take_over(void)
{
    prctl(PR_SET_CHILD_SUBREAPER, 1);
}

bool
arena_open(const char *tools, const char *fs, struct arena *ret, struct error **err)
{
    struct arena a = { .fs = fs,
                       .program = mem_printf("%s/store_scenario", tools),
                       .preload = mem_printf("%s/faultline.so", tools) };

    arena_take_over();
    if (!make_base(&a, err) || !map_state(&a, err) || !make_file_system(&a, err)) {
        arena_close(&a);
        return false;
    }
    *ret = a;
    return true;
}

void
arena_close(struct arena *a)
{
    if (a->state != NULL)
        munmap(a->state, sizeof *a->state);
    if (a->store != NULL) {
        arena_end_helpers();
        (void)unmount_files(a, NULL);
        empty_folder(a->base);
        rmdir(a->base);
    }
    free(a->base);
    free(a->store);
    free(a->scratch);
    free(a->state_path);
    free(a->program);
    free(a->preload);
}

static bool
sync_files(struct arena *a, struct error **err)
{
    AUTOFREE(char) *files = mem_printf("%s/files", a->base);
    AUTOFD(fd) = open(files, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return (fd >= 0 && syncfs(fd) == 0) ||
           error_errno(err, ERROR_STORE, "sync '%s'", files);
}

/* Durably: else a power cut would bring back what was there before. */
static bool
empty_files(struct arena *a, struct error **err)
{
    AUTOFREE(char) *files = mem_printf("%s/files", a->base);

    empty_folder(files);
    return sync_files(a, err) &&
           (access(a->store, F_OK) < 0 ||
            error_set(err, ERROR_STORE, "'%s' cannot be emptied", files));
}

bool
arena_clear(struct arena *a, struct error **err)
{
    arena_end_helpers();
    empty_folder(a->scratch);
    memset(a->state, 0, offsetof(struct faultline_state, steps));

    /* The power may still be off after something went wrong. */
    return empty_files(a, NULL) || (arena_power_on(a, err) && empty_files(a, err));
}

/* --- what it was like ---------------------------------------------------------------
 */

/* The folder's times and holes are kept. */
static bool
copy_store(const char *from, const char *to, struct error **err)
{
    const char *const argv[] = { "cp", "-a", "-T", "--", from, to, NULL };

    return run_tool(argv, err);
}

bool
arena_save(struct arena *a, const char *name, struct error **err)
{
    AUTOFREE(char) *folder = mem_printf("%s/saved/%s", a->base, name);
    AUTOFREE(char) *store = mem_printf("%s/store", folder);
    AUTOFREE(char) *scratch = mem_printf("%s/scratch", folder);

    empty_folder(folder);
    if (mkdir(folder, 0755) < 0 && errno != EEXIST)
        return error_errno(err, ERROR_STORE, "make '%s'", folder);
    return copy_store(a->store, store, err) && copy_store(a->scratch, scratch, err);
}

bool
arena_restore(struct arena *a, const char *name, struct error **err)
{
    AUTOFREE(char) *store = mem_printf("%s/saved/%s/store", a->base, name);
    AUTOFREE(char) *scratch = mem_printf("%s/saved/%s/scratch", a->base, name);

    return copy_store(store, a->store, err) && copy_store(scratch, a->scratch, err) &&
           sync_files(a, err);
}

/* --- processes ------------------------------------------------------------------------
 */

static void
become_subject(struct arena *a, const char *command, enum arena_fault fault)
{
    AUTOFREE(char) *messages = mem_printf("%s/messages", a->scratch);
    int fd = open(messages, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 || dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0)
        _exit(127);
    if (fault != ARENA_NO_FAULT)
        setenv(FAULTLINE_STATE, a->state_path, 1);
    if (fault == ARENA_PLANNED) {
        setenv("LD_PRELOAD", a->preload, 1);
        setenv(FAULTLINE_ROOT, a->store, 1);

        /* A sanitizer wants to be the first library. */
        setenv("ASAN_OPTIONS", "verify_asan_link_order=0:detect_leaks=0", 1);
    }
    execl(a->program, a->program, command, a->store, a->scratch, (char *)NULL);
    _exit(127);
}

bool
arena_run(struct arena *a, const char *command, enum arena_fault fault, int *ret_status,
          struct error **err)
{
    pid_t pid = fork();
    AUTOFD(pidfd) = -1;
    bool ended;

    if (pid < 0)
        return error_errno(err, ERROR_STORE, "fork");
    if (pid == 0)
        become_subject(a, command, fault);
    pidfd = child_pidfd(pid);
    ended = child_ended(pidfd, RUN_TIMEOUT_MS);
    if (!ended)
        kill(pid, SIGKILL);
    while (waitpid(pid, ret_status, 0) < 0 && errno == EINTR)
        ;
    return ended || error_set(err, ERROR_TIMEOUT, "'%s' hangs in phase '%s'", command,
                              a->state->phase);
}

char *
arena_messages(struct arena *a)
{
    AUTOFREE(char) *path = mem_printf("%s/messages", a->scratch);
    AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC);
    char text[MAX_MESSAGES];
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);

    return mem_memdup(text, n > 0 ? (size_t)n : 0);
}

static void
kill_child(const char *pids)
{
    char *end;

    for (long pid = strtol(pids, &end, 10); end != pids; pid = strtol(pids, &end, 10)) {
        if (pid > 1)
            kill((pid_t)pid, SIGKILL);
        pids = end;
    }
}

void
arena_end_helpers(void)
{
    AUTOFREE(char) *path = mem_printf("/proc/self/task/%d/children", (int)getpid());
    char pids[4096];
    ssize_t n;

    /* One that ends may hand over children of its own: until there are none. */
    do {
        AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC);

        n = fd < 0 ? -1 : read(fd, pids, sizeof pids - 1);
        pids[n > 0 ? n : 0] = '\0';
        kill_child(pids);
        while (n > 0 && waitpid(-1, NULL, 0) > 0)
            ;
    } while (n > 0);
}

bool
arena_power_on(struct arena *a, struct error **err)
{
    arena_end_helpers();
    return unmount_files(a, err) && mount_files(a, err);
}

bool
arena_cut_power(struct arena *a, struct error **err)
{
    AUTOFREE(char) *files = mem_printf("%s/files", a->base);
    AUTOFD(fd) = open(files, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    uint32_t how = FAULTLINE_NO_LOGFLUSH;

    return (fd >= 0 && ioctl(fd, FAULTLINE_GOING_DOWN, &how) == 0) ||
           error_errno(err, ERROR_STORE, "shut down the file system");
}

static bool
write_file(const char *path, const char *data, bool synced, struct error **err)
{
    AUTOFD(fd) = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    size_t n = strlen(data);

    return (fd >= 0 && write(fd, data, n) == (ssize_t)n && (!synced || fsync(fd) == 0)) ||
           error_errno(err, ERROR_STORE, "write '%s'", path);
}

/* How much of a file is there; -1: not even its name. */
static long long
size_of(const char *path)
{
    struct stat st;

    return stat(path, &st) < 0 ? -1 : (long long)st.st_size;
}

bool
arena_check_cut(struct arena *a, struct error **err)
{
    AUTOFREE(char) *kept = mem_printf("%s/files/kept", a->base);
    AUTOFREE(char) *grown = mem_printf("%s/files/grown", a->base);
    AUTOFREE(char) *lost = mem_printf("%s/files/lost", a->base);

    if (!arena_clear(a, err) || !write_file(grown, "1234", true, err) ||
        !write_file(kept, "1234", true, err) || !write_file(lost, "1234", false, err) ||
        !write_file(grown, "12345678", false, err) || !arena_cut_power(a, err) ||
        !arena_power_on(a, err))
        return false;
    if (size_of(kept) != 4 || size_of(grown) != 4 || size_of(lost) != -1)
        return error_set(err, ERROR_INTERNAL,
                         "synced: %lld bytes, half synced: %lld, not synced: %lld",
                         size_of(kept), size_of(grown), size_of(lost));
    return true;
}
