#include "client/guard_offline.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/json.h"
#include "common/mem.h"

/* Where it is installed for libvirt, which has no other place for it. */
#define HOOK_PROGRAM "/etc/libvirt/hooks/qemu.d/virt-dr"

#define MAX_ARGUMENTS 8

extern char **environ;

static bool
start(const char *const *arguments, int answer_fd, pid_t *ret, struct error **err)
{
    char *argv[MAX_ARGUMENTS + 2] = { (char *)HOOK_PROGRAM };
    posix_spawn_file_actions_t actions;
    int status;

    for (size_t i = 0; arguments[i] != NULL && i < MAX_ARGUMENTS; i++)
        argv[i + 1] = (char *)arguments[i];
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, answer_fd, STDOUT_FILENO);
    status = posix_spawn(ret, HOOK_PROGRAM, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    errno = status;
    if (status == ENOENT)
        return error_set(err, ERROR_CONFIG,
                         "virtdrd does not answer, and libvirt's hook '%s' is not "
                         "installed: nothing keeps a VM from running twice",
                         HOOK_PROGRAM);
    return status == 0 || error_errno(err, ERROR_INTERNAL, "run '%s'", HOOK_PROGRAM);
}

/* To its end. */
static bool
read_answer(int fd, char **ret, size_t *ret_n, struct error **err)
{
    AUTOFREE(char) *text = mem_alloc(JSON_MAX_BYTES, 1);
    size_t n = 0;

    while (n < JSON_MAX_BYTES) {
        ssize_t got = read(fd, text + n, JSON_MAX_BYTES - n);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_errno(err, ERROR_INTERNAL, "read the answer of the hook");
        if (got == 0)
            break;
        n += (size_t)got;
    }
    *ret = TAKE(text);
    *ret_n = n;
    return true;
}

static bool
run(const char *const *arguments, char **ret, size_t *ret_n, int *ret_status,
    struct error **err)
{
    int ends[2];
    pid_t pid;
    bool ok;

    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_errno(err, ERROR_INTERNAL, "make a pipe");
    ok = start(arguments, ends[1], &pid, err);
    close(ends[1]);
    if (ok) {
        ok = read_answer(ends[0], ret, ret_n, err);
        while (waitpid(pid, ret_status, 0) < 0 && errno == EINTR)
            continue;
    }
    close(ends[0]);
    return ok;
}

bool
guard_offline(const char *const *arguments, struct json_object **ret, struct error **err)
{
    AUTOFREE(char) *text = NULL;
    AUTOJSON *answer = NULL;
    int status = -1;
    size_t n = 0;

    if (geteuid() != 0)
        return error_set(err, ERROR_PERMISSION,
                         "virtdrd does not answer; without it only root can see and "
                         "change what the guard does");
    if (!run(arguments, &text, &n, &status, err) || !json_parse(text, n, &answer, err))
        return error_prefix(err, "the guard, while virtdrd is down");
    if (status != 0) {
        json_to_error(answer, err);
        return false;
    }
    *ret = TAKE(answer);
    return true;
}
