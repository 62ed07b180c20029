#include "drivers/capture/nbd_disks.h"

#include "drivers/capture/request.h"

struct nbd_disks {
    struct nbd_reader **readers;
    size_t n;
};

struct nbd_disks *
nbd_disks_new(const struct capture_request *request, const char *socket,
              char *(*bitmap)(const char *target))
{
    struct nbd_disks *d = NEW(struct nbd_disks);

    d->n = request->n_disks;
    d->readers = mem_alloc(d->n, sizeof(struct nbd_reader *));
    for (size_t i = 0; i < d->n; i++) {
        const char *target = request->disks[i].target;
        AUTOFREE(char) *name = bitmap(target);
        bool whole = capture_request_is_whole(request, i);

        d->readers[i] =
            nbd_reader_new(socket, target, whole ? NULL : name, request->cancel);
    }
    return d;
}

void
nbd_disks_set_keeper(struct nbd_disks *d, struct nbd_keeper keeper)
{
    for (size_t i = 0; i < d->n; i++)
        nbd_reader_set_keeper(d->readers[i], keeper);
}

void
nbd_disks_free(struct nbd_disks *d)
{
    if (d == NULL)
        return;
    for (size_t i = 0; i < d->n; i++)
        nbd_reader_free(d->readers[i]);
    free(d->readers);
    free(d);
}

struct nbd_reader *
nbd_disks_at(struct nbd_disks *d, size_t disk)
{
    return d->readers[disk];
}
