#include "client/report.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "client/session.h"
#include "client/human.h"

static const struct {
    enum error_code code;
    const char *hint;
} hints[] = {
    { ERROR_CONNECT, "is virtdrd running on that host, and the port open?" },
    { ERROR_TIMEOUT, "virt-dr events tells what virtdrd last did" },
    { ERROR_DOMAIN_NOT_FOUND, "virsh list --all shows the domains of this host" },
    { ERROR_PEER_NOT_FOUND, "virt-dr peer-list shows the peers" },
    { ERROR_REPLICATION_NOT_FOUND, "virt-dr list shows what is protected" },
    { ERROR_TASK_NOT_FOUND, "virt-dr task-list shows the tasks" },
    { ERROR_STORAGE_NOT_FOUND, "virt-dr host-info on the peer shows its storages" },
    { ERROR_POINT_NOT_FOUND, "virt-dr points VM shows the recovery points" },
    { ERROR_NOT_AUTHENTICATED,
      "is this certificate known there, or the token still valid? "
      "virt-dr peer-invite makes a new token" },
    { ERROR_EXISTS, "virt-dr list shows what is protected already" },
    { ERROR_INVALID_STATE, "virt-dr info VM shows the state" },
    { ERROR_IN_PROGRESS, "virt-dr task-list shows what is running" },
    { ERROR_JOB_BUSY, "virsh domjobinfo DOMAIN shows the job" },
    { ERROR_JOB_LOST,
      "shut the VM down, restart libvirtd, start the VM: libvirt forgets the job then" },
    { ERROR_NO_SPACE, "virt-dr host-info shows the free space of each storage" },
    { ERROR_CLOCK, "is the time of both hosts synchronised (timedatectl)?" },
    { ERROR_SOURCE_ALIVE,
      "shut the VM down on the source, or use --force if it is cut off" },
    { ERROR_TLS, "virt-dr host-info on that host shows its fingerprint" },
};

/* The connection that failed may also be one that virtdrd made to a peer. */
static const char *
unix_socket_hint(const char *path, const char *otherwise)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    AUTOFD(fd) = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0 || strlen(path) >= sizeof address.sun_path)
        return otherwise;
    memcpy(address.sun_path, path, strlen(path));
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 || errno == EAGAIN)
        return otherwise;
    if (errno == EACCES)
        return "the socket is not open to you: use sudo, or join the socket's group";
    return "is virtdrd running? systemctl status virtdrd";
}

static const char *
hint_for(const char *address, enum error_code code)
{
    bool is_local = address != NULL && strncmp(address, "unix://", 7) == 0;
    const char *hint = NULL;

    for (size_t i = 0; i < N_ELEMENTS(hints); i++)
        if (hints[i].code == code)
            hint = hints[i].hint;
    if (is_local && (code == ERROR_CONNECT || code == ERROR_PERMISSION))
        return unix_socket_hint(address + 7, hint);
    return hint;
}

static int
report(const struct error *e, const char *hint, const char *subject)
{
    AUTOFREE(char) *message = human_clean(error_message(e));

    fprintf(stderr, "virt-dr: error: %s\n", message);
    if (hint != NULL)
        fprintf(stderr, "virt-dr: hint: %s%s\n", hint, subject);
    return error_code_exit(error_code(e));
}

int
report_usage(int argc, char **argv, const struct error *e)
{
    const struct command *about = NULL;

    for (int i = 1; i < argc && about == NULL; i++)
        about = command_find(argv[i]);
    return report(e, "virt-dr help ", about == NULL ? "" : about->name);
}

int
report_error(const struct command *about, const char *address, const struct error *e)
{
    if (error_is(e, ERROR_USAGE))
        return report(e, "virt-dr help ", about->name);
    return report(e, hint_for(address, error_code(e)), "");
}
