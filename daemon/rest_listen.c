#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "daemon/rest_private.h"

#define BACKLOG            128
#define GROUP_BUFFER_BYTES 16384

static bool
address_of(const char *path, struct sockaddr_un *ret, struct error **err)
{
    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof ret->sun_path)
        return error_set(err, ERROR_CONFIG,
                         "the socket path '%s' is longer than the %zu bytes that the "
                         "system allows",
                         path, sizeof ret->sun_path - 1);
    memcpy(ret->sun_path, path, strlen(path));
    return true;
}

/* Somebody who answers keeps the path. */
static bool
refuse_live(const char *path, const struct sockaddr_un *un, struct error **err)
{
    AUTOFD(fd) = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return error_errno(err, ERROR_CONNECT, "socket");
    /* EAGAIN: its queue is full, so somebody is there. */
    if (connect(fd, (const struct sockaddr *)un, sizeof *un) == 0 || errno == EAGAIN)
        return error_set(err, ERROR_EXISTS,
                         "another process listens on '%s'; is virtdrd running already?",
                         path);
    return true;
}

static bool
set_access(const char *path, const char *group, struct error **err)
{
    AUTOFREE(char) *buffer = mem_alloc(1, GROUP_BUFFER_BYTES);
    struct group entry, *found = NULL;

    if (group != NULL)
        (void)getgrnam_r(group, &entry, buffer, GROUP_BUFFER_BYTES, &found);
    if (found != NULL && chown(path, (uid_t)-1, found->gr_gid) < 0)
        return error_errno(err, ERROR_PERMISSION, "give '%s' to group '%s'", path, group);
    if (chmod(path, 0660) < 0)
        return error_errno(err, ERROR_PERMISSION, "chmod '%s'", path);
    return true;
}

/* Made aside and renamed, so nobody can use it before its mode is set. */
bool
rest_unix_socket(const char *path, const char *group, int *ret_fd, struct error **err)
{
    AUTOFREE(char) *aside = mem_printf("%s.new", path);
    AUTOFD(fd) = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_un un, un_aside;

    if (fd < 0)
        return error_errno(err, ERROR_CONNECT, "socket");
    if (!address_of(path, &un, err) || !address_of(aside, &un_aside, err) ||
        !refuse_live(path, &un, err))
        return false;
    (void)unlink(aside);
    if (bind(fd, (struct sockaddr *)&un_aside, sizeof un_aside) < 0)
        return error_errno(err, ERROR_CONNECT, "make the socket '%s'", path);
    if (!set_access(aside, group, err)) {
        (void)unlink(aside);
        return false;
    }
    if (listen(fd, BACKLOG) < 0 || rename(aside, path) < 0) {
        error_errno(err, ERROR_CONNECT, "listen on '%s'", path);
        (void)unlink(aside);
        return false;
    }
    *ret_fd = fd;
    fd = -1;
    return true;
}
