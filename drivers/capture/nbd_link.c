#include "drivers/capture/nbd_link.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/units.h"

#define NO_PROGRESS_MS 30000
#define TURN_MS        200 /* a cancel by another thread is seen after this */

void
nbd_link_init(struct nbd_link *l, const char *socket, const char *export,
              struct cancel *cancel)
{
    *l = (struct nbd_link){ .cancel = cancel };
    l->socket = mem_strdup(socket);
    l->export = mem_strdup(export);
}

void
nbd_link_reset(struct nbd_link *l)
{
    while (l->n > 0)
        nbd_close(l->handles[--l->n]);
}

void
nbd_link_clear(struct nbd_link *l)
{
    nbd_link_reset(l);
    free(l->socket);
    free(l->export);
}

void
nbd_link_touch(struct nbd_link *l)
{
    l->progress_ms = units_monotonic_ms();
}

bool
nbd_link_error(const struct nbd_link *l, struct error **err, const char *what)
{
    const char *reason = nbd_get_error();

    return error_set(err, ERROR_HYPERVISOR, "%s of disk '%s' at '%s': %s", what,
                     l->export, l->socket, reason != NULL ? reason : "no reason given");
}

static bool
notify(struct nbd_handle *h, short revents)
{
    unsigned direction = nbd_aio_get_direction(h);

    if ((revents & (POLLIN | POLLHUP | POLLERR)) != 0 &&
        (direction & LIBNBD_AIO_DIRECTION_READ) != 0)
        return nbd_aio_notify_read(h) == 0;
    if ((revents & (POLLOUT | POLLHUP | POLLERR)) != 0 &&
        (direction & LIBNBD_AIO_DIRECTION_WRITE) != 0)
        return nbd_aio_notify_write(h) == 0;
    return true;
}

static bool
fill(struct nbd_link *l, struct pollfd *fds, struct error **err)
{
    for (size_t i = 0; i < l->n; i++) {
        unsigned direction = nbd_aio_get_direction(l->handles[i]);

        fds[i] = (struct pollfd){ .fd = nbd_aio_get_fd(l->handles[i]) };
        if (fds[i].fd < 0 || nbd_aio_is_dead(l->handles[i]) > 0 ||
            nbd_aio_is_closed(l->handles[i]) > 0)
            return error_set(err, ERROR_HYPERVISOR,
                             "the connection to disk '%s' at '%s' was closed", l->export,
                             l->socket);
        if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0)
            fds[i].events |= POLLIN;
        if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0)
            fds[i].events |= POLLOUT;
    }
    return true;
}

static bool
turn(struct nbd_link *l, int limit_ms, struct error **err)
{
    struct pollfd fds[NBD_LINK_MAX];
    int64_t idle_ms = units_monotonic_ms() - l->progress_ms;
    int n;

    if (!cancel_check(l->cancel, err) || !fill(l, fds, err))
        return false;
    if (idle_ms >= NO_PROGRESS_MS)
        return error_set(err, ERROR_TIMEOUT,
                         "QEMU sent nothing for %d s while disk '%s' was read at '%s'",
                         NO_PROGRESS_MS / 1000, l->export, l->socket);
    n = poll(fds, l->n, limit_ms);
    if (n < 0 && errno != EINTR)
        return error_errno(err, ERROR_INTERNAL, "poll");
    if (n <= 0)
        return true;
    nbd_link_touch(l);
    for (size_t i = 0; i < l->n; i++)
        if (fds[i].revents != 0 && !notify(l->handles[i], fds[i].revents))
            return nbd_link_error(l, err, "reading");
    return true;
}

bool
nbd_link_turn(struct nbd_link *l, struct error **err)
{
    return turn(l, cancel_remaining_ms(l->cancel, TURN_MS), err);
}

bool
nbd_link_glance(struct nbd_link *l, struct error **err)
{
    return turn(l, 0, err);
}

/* Nobody looks into the buffer of a read that failed: it need not be cleared before. */
static bool
prepare(struct nbd_link *l, struct nbd_handle *h, const char *context)
{
    return nbd_set_export_name(h, l->export) == 0 &&
           nbd_set_pread_initialize(h, false) == 0 &&
           nbd_add_meta_context(h, context) == 0;
}

/* What libnbd gets is its own, also if it fails. */
static bool
connect_kept(struct nbd_link *l, struct nbd_handle *h, struct error **err)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    AUTOFD(fd) = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s", l->socket);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return error_errno(err, ERROR_HYPERVISOR, "connect to '%s'", l->socket);
    if (!l->keeper.keep(l->keeper.opaque, fd, err))
        return false;
    return nbd_aio_connect_socket(h, TAKE_FD(fd)) == 0 ||
           nbd_link_error(l, err, "connecting");
}

static bool
connect_to(struct nbd_link *l, struct nbd_handle *h, struct error **err)
{
    if (l->keeper.keep != NULL)
        return connect_kept(l, h, err);
    return nbd_aio_connect_unix(h, l->socket) == 0 ||
           nbd_link_error(l, err, "connecting");
}

/*
 * A connection that somebody keeps a duplicate of is not broken off half way: its
 * server would wait for ever for what comes next.
 */
static bool
await_connected(struct nbd_link *l, struct nbd_handle *h, struct error **err)
{
    struct cancel *cancel = l->cancel;
    bool ok = true;

    if (l->keeper.keep != NULL)
        l->cancel = NULL;
    while (ok && nbd_aio_is_connecting(h) > 0)
        ok = nbd_link_turn(l, err);
    l->cancel = cancel;
    return ok;
}

bool
nbd_link_connect(struct nbd_link *l, const char *context, struct nbd_handle **ret,
                 struct error **err)
{
    struct nbd_handle *h;

    assert(l->n < NBD_LINK_MAX);
    h = nbd_create();
    if (h == NULL)
        return nbd_link_error(l, err, "connecting");
    l->handles[l->n++] = h;
    nbd_link_touch(l);
    if (!prepare(l, h, context))
        return nbd_link_error(l, err, "connecting");
    if (!connect_to(l, h, err))
        return false;
    if (!await_connected(l, h, err))
        return false;
    if (nbd_aio_is_ready(h) <= 0 && nbd_aio_is_processing(h) <= 0)
        return nbd_link_error(l, err, "connecting");
    if (nbd_can_meta_context(h, context) <= 0)
        return error_set(err, ERROR_HYPERVISOR,
                         "the server of disk '%s' at '%s' does not offer '%s'", l->export,
                         l->socket, context);
    *ret = h;
    return true;
}
