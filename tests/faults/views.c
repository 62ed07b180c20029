#include "tests/faults/views.h"

#include <fcntl.h>
#include <inttypes.h>
#include <libnbd.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "drivers/store/nbd_server.h"
#include "tests/faults/model.h"

void
views_add(struct views *v, const struct view *view)
{
    struct view *copy;

    v->items = mem_realloc(v->items, v->n + 1, sizeof *v->items);
    copy = &v->items[v->n++];
    *copy = *view;
    copy->path = mem_strdup(view->path);
    copy->name = mem_strdup(view->name);
}

void
views_clear(struct views *v)
{
    for (size_t i = 0; i < v->n; i++) {
        free(v->items[i].path);
        free(v->items[i].name);
    }
    free(v->items);
    *v = (struct views){ NULL, 0 };
}

/* --- one view ----------------------------------------------------------------------- */

static bool
compare(const struct view *view, const struct model *m, const uint8_t *bytes, uint64_t n,
        struct error **err)
{
    uint64_t at = 0;

    return model_is(m, view->disk, bytes, n, &at) ||
           error_set(err, ERROR_INTERNAL, "WRONG: disk '%s' differs at %" PRIu64,
                     m->disks[view->disk].target, at);
}

static bool
nbd_failed(struct error **err)
{
    return error_set(err, ERROR_STORE, "%s", nbd_get_error());
}

static bool
read_all(struct nbd_handle *nbd, const char *socket_path, const struct view *view,
         struct model *m, struct error **err)
{
    AUTOFREE(uint8_t) *bytes = NULL;
    int64_t n;

    if (nbd == NULL || nbd_set_export_name(nbd, view->name) < 0 ||
        nbd_connect_unix(nbd, socket_path) < 0)
        return nbd_failed(err);
    n = nbd_get_size(nbd);
    if (n < 0)
        return nbd_failed(err);
    bytes = mem_alloc((size_t)n, 1);
    if (nbd_pread(nbd, bytes, (size_t)n, 0, 0) < 0)
        return nbd_failed(err);
    if (view->written && view->disk == 0)
        memset(m->bytes[0], SUBJECT_GUEST_BYTE, SUBJECT_GUEST_BYTES);
    return compare(view, m, bytes, (uint64_t)n, err);
}

static bool
check(const struct view *view, const char *socket_path, struct error **err)
{
    struct nbd_handle *nbd = nbd_create();
    AUTOPTR(model) *m = model_new(view->seq);
    bool ok = read_all(nbd, socket_path, view, m, err);

    nbd_close(nbd);
    return ok || error_prefix(err, "point %" PRIu64 " (%s)", view->seq, view->name);
}

/* --- all ---------------------------------------------------------------------------- */

static bool
listen_at(const char *path, int *ret, struct error **err)
{
    AUTOFD(fd) = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    unlink(path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(fd, NBD_SERVER_MAX_CONNECTIONS) < 0)
        return error_errno(err, ERROR_STORE, "listen on '%s'", path);
    *ret = TAKE_FD(fd);
    return true;
}

static bool
serve(const struct views *v, int folder, int listener, struct nbd_server **ret,
      struct error **err)
{
    AUTOFREE(struct nbd_server_disk) *disks = mem_alloc(v->n, sizeof *disks);
    const struct nbd_server_settings settings = {
        .folder = folder, .listener = listener, .disks = disks, .n_disks = v->n
    };

    for (size_t i = 0; i < v->n; i++)
        disks[i] = (struct nbd_server_disk){ v->items[i].name, v->items[i].path };
    return nbd_server_start(&settings, ret, err);
}

bool
views_check(const struct views *v, const char *scratch, struct error **err)
{
    AUTOFREE(char) *socket_path = mem_printf("%s/views.sock", scratch);
    AUTOFD(folder) = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTOFD(listener) = -1;
    struct nbd_server *server = NULL;
    bool ok;

    if (v->n == 0)
        return true;
    ok = listen_at(socket_path, &listener, err) &&
         serve(v, folder, listener, &server, err);
    for (size_t i = 0; ok && i < v->n; i++)
        ok = check(&v->items[i], socket_path, err);
    nbd_server_stop(server);
    return ok;
}
