#include "drivers/fence/command.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "common/units.h"
#include "drivers/store/child.h"

#define LOOK_MS 100

/* Its own children, too: it leads a session. */
static void
end(struct child *c)
{
    if (c->pid > 0)
        kill(-c->pid, SIGKILL);
    child_end(c);
}

static bool
await(const struct fence_command *command, struct child *c, struct cancel *cancel,
      struct error **err)
{
    int64_t end_ms = units_monotonic_ms() + command->timeout_ms;
    char text[UNITS_TEXT_MAX];

    while (!child_ended(c->pidfd, LOOK_MS)) {
        if (!cancel_check(cancel, err))
            return false;
        if (units_monotonic_ms() >= end_ms)
            return error_set(err, ERROR_FENCE, "fence agent '%s' did not end within %s",
                             command->path,
                             units_format_duration_ms(command->timeout_ms, text));
    }
    return true;
}

static bool
judge(const struct fence_command *command, const struct child *c, int status,
      struct error **err)
{
    AUTOFREE(char) *output = child_output(c);
    const char *said = *output != '\0' ? output : "it printed nothing";

    if (WIFSIGNALED(status))
        return error_set(err, ERROR_FENCE, "fence agent '%s' ended by signal %d: %s",
                         command->path, WTERMSIG(status), said);
    if (WEXITSTATUS(status) == FENCE_IMPOSSIBLE)
        return error_set(err, ERROR_FENCE, "fence agent '%s' cannot fence that host: %s",
                         command->path, said);
    return WEXITSTATUS(status) == FENCE_DONE ||
           error_set(err, ERROR_FENCE, "fence agent '%s' failed (exit status %d): %s",
                     command->path, WEXITSTATUS(status), said);
}

bool
fence_command_run(const struct fence_command *command, struct cancel *cancel,
                  struct error **err)
{
    const char *const argv[] = { command->path, NULL };
    AUTOFD(root) = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct child_request request = { .argv = argv,
                                     .environment = command->environment,
                                     .folder = root };
    AUTOPTR(error) *e = NULL;
    struct child c;
    int status = 0;
    bool ok;

    if (!child_start(&request, &c, &e))
        return error_set(err, ERROR_FENCE, "fence agent '%s' cannot be started: %s",
                         command->path, error_message(e));
    ok = await(command, &c, cancel, err) && child_wait(&c, 0, &status, err) &&
         judge(command, &c, status, err);
    end(&c);
    return ok;
}
