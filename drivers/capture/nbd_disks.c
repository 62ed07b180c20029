#include "drivers/capture/nbd_disks.h"

#include "drivers/capture/request.h"

struct nbd_disk {
    char *target;
    struct nbd_reader *changed;
    struct nbd_reader *whole; /* made when it is first asked for */
};

struct nbd_disks {
    char *socket;
    struct cancel *cancel;
    struct nbd_keeper keeper;
    struct nbd_disk *disks;
    size_t n;
};

struct nbd_disks *
nbd_disks_new(const struct capture_request *request, const char *socket,
              char *(*bitmap)(const char *target))
{
    struct nbd_disks *d = NEW(struct nbd_disks);

    d->socket = mem_strdup(socket);
    d->cancel = request->cancel;
    d->n = request->n_disks;
    d->disks = mem_alloc(d->n, sizeof *d->disks);
    for (size_t i = 0; i < d->n; i++) {
        const char *target = request->disks[i].target;
        AUTOFREE(char) *name = bitmap(target);
        bool whole = capture_request_is_whole(request, i);

        d->disks[i].target = mem_strdup(target);
        d->disks[i].changed =
            nbd_reader_new(socket, target, whole ? NULL : name, request->cancel);
    }
    return d;
}

void
nbd_disks_set_keeper(struct nbd_disks *d, struct nbd_keeper keeper)
{
    d->keeper = keeper;
    for (size_t i = 0; i < d->n; i++)
        nbd_reader_set_keeper(d->disks[i].changed, keeper);
}

void
nbd_disks_free(struct nbd_disks *d)
{
    if (d == NULL)
        return;
    for (size_t i = 0; i < d->n; i++) {
        nbd_reader_free(d->disks[i].changed);
        nbd_reader_free(d->disks[i].whole);
        free(d->disks[i].target);
    }
    free(d->disks);
    free(d->socket);
    free(d);
}

struct nbd_reader *
nbd_disks_at(struct nbd_disks *d, size_t disk)
{
    return d->disks[disk].changed;
}

struct nbd_reader *
nbd_disks_whole(struct nbd_disks *d, size_t disk)
{
    struct nbd_disk *of = &d->disks[disk];

    if (of->whole == NULL) {
        of->whole = nbd_reader_new(d->socket, of->target, NULL, d->cancel);
        nbd_reader_set_keeper(of->whole, d->keeper);
    }
    return of->whole;
}
