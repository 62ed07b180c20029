#include "drivers/capture/nbd_disks.h"

#include "drivers/capture/request.h"

struct nbd_disk {
    char *target;
    struct nbd_reader *changed;
    struct nbd_reader *whole; /* made when it is first asked for */
    bool skip;
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

void
nbd_disks_skip(struct nbd_disks *d, size_t disk)
{
    d->disks[disk].skip = true;
}

/* --- captures ---------------------------------------------------------------------- */

static struct nbd_disk *
disk_of(struct capture *head, size_t disk)
{
    return &((struct nbd_capture *)head)->disks->disks[disk];
}

static struct nbd_reader *
whole_of(struct capture *head, size_t disk)
{
    struct nbd_disks *d = ((struct nbd_capture *)head)->disks;
    struct nbd_disk *of = &d->disks[disk];

    if (of->whole == NULL) {
        of->whole = nbd_reader_new(d->socket, of->target, NULL, d->cancel);
        nbd_reader_set_keeper(of->whole, d->keeper);
    }
    return of->whole;
}

/* What broke a connection is worth more than that it broke. */
static bool
explain(struct capture *head, struct error *cause, struct error **err)
{
    struct nbd_capture *c = (struct nbd_capture *)head;
    AUTOPTR(error) *better = NULL;

    if (error_code(cause) == ERROR_HYPERVISOR && !c->check(c, &better)) {
        error_free(cause);
        cause = TAKE(better);
    }
    return error_propagate(err, cause);
}

bool
nbd_capture_capacity(struct capture *head, size_t disk, uint64_t *ret_bytes,
                     struct error **err)
{
    struct nbd_disk *d = disk_of(head, disk);
    struct nbd_reader *reader = d->skip ? whole_of(head, disk) : d->changed;
    struct error *cause = NULL;

    return nbd_reader_size(reader, ret_bytes, &cause) || explain(head, cause, err);
}

bool
nbd_capture_measure(struct capture *head, size_t disk, uint64_t from, uint64_t to,
                    uint64_t *ret_bytes, struct error **err)
{
    struct nbd_disk *d = disk_of(head, disk);
    struct error *cause = NULL;

    if (d->skip) {
        *ret_bytes = 0;
        return true;
    }
    return nbd_reader_measure(d->changed, from, to, ret_bytes, &cause) ||
           explain(head, cause, err);
}

bool
nbd_capture_read(struct capture *head, size_t disk, uint64_t from, uint64_t to,
                 const struct capture_sink *sink, struct error **err)
{
    struct nbd_disk *d = disk_of(head, disk);
    struct error *cause = NULL;

    return d->skip || nbd_reader_read(d->changed, disk, from, to, sink, &cause) ||
           explain(head, cause, err);
}

/* The server shows the whole disk as it was, not only what the bitmap marks. */
bool
nbd_capture_content(struct capture *head, size_t disk, uint64_t from, uint64_t to,
                    const struct capture_sink *sink, struct error **err)
{
    struct error *cause = NULL;

    return nbd_reader_read(whole_of(head, disk), disk, from, to, sink, &cause) ||
           explain(head, cause, err);
}
