/* A small guest agent; see agent.h. A request is one line of JSON, and so is an answer.
 */

#include "agent.h"
#include "files.h"
#include "machine.h"

#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LINE_MAX_BYTES 4096
#define PAUSE_NS       20000000ULL
#define LATE_NS        12000000000ULL
#define SLOW_NS        6000000000ULL
#define AWAY_NS        3000000000ULL

struct agent {
    struct agent_settings settings;
    int fd;
    bool frozen;
    time_t frozen_at;
    bool thaw_refused;
};

struct command {
    const char *name;
    void (*run)(struct agent *agent, const char *request);
};

static void
answer(struct agent *agent, const char *text)
{
    dprintf(agent->fd, "%s\n", text);
}

static void
answer_error(struct agent *agent, const char *class, const char *why)
{
    dprintf(agent->fd, "{\"error\": {\"class\": \"%s\", \"desc\": \"%s\"}}\n", class,
            why);
}

static void
run_ping(struct agent *agent, const char *request)
{
    (void)request;
    answer(agent, "{\"return\": {}}");
}

static void
run_sync(struct agent *agent, const char *request)
{
    const char *id = strstr(request, "\"id\"");
    int64_t value = 0;

    if (id != NULL && sscanf(id + 4, " : %" SCNd64, &value) != 1)
        value = 0;
    dprintf(agent->fd, "{\"return\": %" PRId64 "}\n", value);
}

static void
run_time(struct agent *agent, const char *request)
{
    (void)request;
    dprintf(agent->fd, "{\"return\": %" PRIu64 "}\n", machine_time_ns());
}

static void
run_shutdown(struct agent *agent, const char *request)
{
    (void)request;
    agent->settings.shutdown();
}

static void
run_status(struct agent *agent, const char *request)
{
    (void)request;
    answer(agent,
           agent->frozen ? "{\"return\": \"frozen\"}" : "{\"return\": \"thawed\"}");
}

static int open_port(void);

static void
wait_ns(uint64_t ns)
{
    machine_wait_until_ns(machine_ticks_ns() + ns);
}

/* All of it or nothing. */
static bool
freeze(struct agent *agent)
{
    pthread_mutex_lock(agent->settings.writing);
    if (!files_freeze()) {
        pthread_mutex_unlock(agent->settings.writing);
        return false;
    }
    agent->frozen = true;
    agent->frozen_at = machine_rtc();
    agent->thaw_refused = false;
    printf("frozen\n");
    return true;
}

static void
go_away(struct agent *agent)
{
    close(agent->fd);
    wait_ns(AWAY_NS);
    agent->fd = open_port();
}

static void
run_freeze(struct agent *agent, const char *request)
{
    (void)request;
    if (agent->frozen) {
        answer_error(agent, "GenericError", "already frozen");
        return;
    }
    if (agent->settings.fault == AGENT_SILENT)
        return;
    if (agent->settings.fault == AGENT_FREEZE_SLOW)
        wait_ns(SLOW_NS);
    if (agent->settings.fault == AGENT_FREEZE_FAILS || !freeze(agent)) {
        answer_error(agent, "GenericError", "failing on purpose");
        return;
    }
    while (agent->settings.fault == AGENT_FREEZE_HANGS)
        pause();
    if (agent->settings.fault == AGENT_FREEZE_LATE)
        wait_ns(LATE_NS);
    if (agent->settings.fault == AGENT_DIES)
        go_away(agent);
    else
        answer(agent, "{\"return\": 1}");
}

static void
run_thaw(struct agent *agent, const char *request)
{
    (void)request;
    if (!agent->frozen) {
        answer(agent, "{\"return\": 0}");
        return;
    }
    if (agent->settings.fault == AGENT_THAW_FAILS && !agent->thaw_refused) {
        agent->thaw_refused = true;
        answer_error(agent, "GenericError", "failing on purpose");
        return;
    }
    files_thaw();
    agent->frozen = false;
    pthread_mutex_unlock(agent->settings.writing);
    printf("thawed %lld\n", (long long)(machine_rtc() - agent->frozen_at));
    answer(agent, "{\"return\": 1}");
}

static void run_info(struct agent *agent, const char *request);

static const struct command commands[] = {
    { "guest-ping", run_ping },
    { "guest-sync", run_sync },
    { "guest-info", run_info },
    { "guest-get-time", run_time },
    { "guest-shutdown", run_shutdown },
    { "guest-fsfreeze-status", run_status },
    { "guest-fsfreeze-freeze", run_freeze },
    { "guest-fsfreeze-freeze-list", run_freeze },
    { "guest-fsfreeze-thaw", run_thaw },
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void
run_info(struct agent *agent, const char *request)
{
    (void)request;
    dprintf(agent->fd, "{\"return\": {\"version\": \"7.2.0\", \"supported_commands\": [");
    for (size_t i = 0; i < N_COMMANDS; i++)
        dprintf(agent->fd,
                "%s{\"name\": \"%s\", \"enabled\": true, \"success-response\": true}",
                i == 0 ? "" : ", ", commands[i].name);
    dprintf(agent->fd, "]}}\n");
}

static void
take_request(struct agent *agent, const char *line)
{
    const char *execute = strstr(line, "\"execute\"");
    char name[64];

    if (execute == NULL || sscanf(execute + 9, " : \"%63[^\"]", name) != 1) {
        answer_error(agent, "GenericError", "not a request");
        return;
    }
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(name, commands[i].name) == 0) {
            commands[i].run(agent, line);
            return;
        }
    }
    answer_error(agent, "CommandNotFound", "the lab's agent does not know this command");
}

/* The port's device, by the name that libvirt gave it; there is no udev here to make
 * links. */
static int
open_port(void)
{
    char path[256] = "", name[64];
    glob_t found;

    if (glob("/sys/class/virtio-ports/*/name", 0, NULL, &found) != 0)
        return -1;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        FILE *file = fopen(found.gl_pathv[i], "re");

        if (file == NULL)
            continue;
        if (fscanf(file, "%63s", name) == 1 &&
            strcmp(name, "org.qemu.guest_agent.0") == 0 &&
            sscanf(found.gl_pathv[i], "/sys/class/virtio-ports/%63[^/]", name) == 1)
            snprintf(path, sizeof(path), "/dev/%s", name);
        fclose(file);
    }
    globfree(&found);
    return path[0] == '\0' ? -1 : open(path, O_RDWR | O_CLOEXEC);
}

static void *
agent_thread(void *arg)
{
    struct agent *agent = arg;
    char line[LINE_MAX_BYTES];
    size_t used = 0;

    for (;;) {
        char c;

        if (read(agent->fd, &c, 1) != 1) { /* nobody is connected on the host's side */
            machine_wait_until_ns(machine_ticks_ns() + PAUSE_NS);
            used = 0;
        } else if (c == '\n') {
            line[used] = '\0';
            if (used > 0)
                take_request(agent, line);
            used = 0;
        } else if (used < sizeof(line) - 1) {
            line[used++] = c;
        }
    }
    return NULL;
}

void
agent_start(const struct agent_settings *settings)
{
    static struct agent agent;
    pthread_t thread;

    agent.settings = *settings;
    agent.fd = open_port();
    if (agent.fd < 0)
        return;
    if (pthread_create(&thread, NULL, agent_thread, &agent) == 0)
        pthread_detach(thread);
}
