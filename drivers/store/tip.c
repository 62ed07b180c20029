#include "drivers/store/tip.h"

#include <errno.h>
#include <libnbd.h>
#include <stdio.h>
#include <string.h>

#include "common/units.h"
#include "drivers/store/qsd.h"

#define NO_PROGRESS_MS 60000
#define POLL_MS        200 /* how soon a cancel is seen */
#define REQUEST_BYTES  (256u << 10)
#define ZERO_BYTES     (1ull << 30) /* the protocol's length has 32 bits */
#define WRITTEN_BYTES  (1u << 20)   /* of the disk, for each bit of what was written */

struct tip_disk {
    struct nbd_handle *nbd;
    char target[STORE_TARGET_MAX];
    uint64_t capacity_bytes;
    size_t n_in_flight;
    uint8_t *written; /* since the last flush; whole clusters are told */
};

struct request {
    struct tip *tip;
    struct tip_disk *disk; /* NULL: this slot is free */
    uint64_t offset;
    uint64_t length;
    void *data;                      /* NULL: zeroes, a flush or a look at zeroes */
    const struct tip_reader *reader; /* NULL: nothing is read */
};

/* Buffers that were used and will be again, until the next flush. */
struct spares {
    void *buffers[TIP_MAX_IN_FLIGHT];
    size_t n;
};

struct tip {
    struct qsd *qsd;
    struct tip_disk *disks;
    size_t n_disks;
    struct request requests[TIP_MAX_IN_FLIGHT];
    size_t n_in_flight;
    uint64_t bytes_in_flight;
    struct spares spares;
    struct cancel *cancel;
    struct error *failure; /* of a request, not told yet */
};

/* --- requests ----------------------------------------------------------------------- */

static bool
request_failed(struct request *r, int number)
{
    bool full = number == ENOSPC || number == EDQUOT;
    struct tip *t = r->tip;

    /* The first reason is the one that counts; those behind it follow from it. */
    if (t->failure != NULL)
        return false;
    errno = number;
    return error_errno(&t->failure, full ? ERROR_NO_SPACE : ERROR_STORE,
                       "%s disk '%s' at %llu", r->reader != NULL ? "read" : "write",
                       r->disk->target, (unsigned long long)r->offset);
}

static int
request_completed(void *opaque, int *error)
{
    const struct request *r = opaque;

    if (*error != 0)
        request_failed(opaque, *error);
    else if (r->reader != NULL)
        r->reader->data(r->reader->opaque, r->offset, r->data, r->length);
    return 1; /* libnbd forgets it */
}

/*
 * Memory of this size that is freed goes back to the kernel, and is faulted in
 * page by page when it is asked for again: a fifth of a write's cost.
 */
static void *
spare_take(struct tip *t)
{
    return t->spares.n > 0 ? t->spares.buffers[--t->spares.n]
                           : mem_alloc(1, REQUEST_BYTES);
}

static void
spares_free(struct tip *t)
{
    while (t->spares.n > 0)
        free(t->spares.buffers[--t->spares.n]);
}

/* Called once for each request, however it ends. */
static void
request_released(void *opaque)
{
    struct request *r = opaque;
    struct tip *t = r->tip;

    t->n_in_flight--;
    r->disk->n_in_flight--;
    if (r->data != NULL) {
        t->bytes_in_flight -= r->length;
        t->spares.buffers[t->spares.n++] = TAKE(r->data);
    }
    r->disk = NULL;
}

static bool
take_failure(struct tip *t, struct error **err)
{
    if (t->failure == NULL)
        return true;
    error_propagate(err, TAKE(t->failure));
    return qsd_explain(t->qsd, err);
}

/* Lets the connection of d work until one of its requests has ended. */
static bool
await_one(struct tip *t, struct tip_disk *d, struct error **err)
{
    size_t before = d->n_in_flight;
    int64_t end = units_monotonic_ms() + NO_PROGRESS_MS;

    while (d->n_in_flight == before) {
        if (!cancel_check(t->cancel, err))
            return false;
        if (units_monotonic_ms() > end)
            return error_set(err, ERROR_TIMEOUT,
                             "disk '%s': no write ended for %d s; is the storage stuck?",
                             d->target, NO_PROGRESS_MS / 1000);
        if (nbd_poll(d->nbd, POLL_MS) < 0 && d->n_in_flight == before)
            return error_set(err, ERROR_STORE, "disk '%s': %s", d->target,
                             nbd_get_error());
    }
    return take_failure(t, err);
}

static bool
await_any(struct tip *t, struct error **err)
{
    struct tip_disk *busiest = &t->disks[0];

    for (size_t i = 1; i < t->n_disks; i++)
        if (t->disks[i].n_in_flight > busiest->n_in_flight)
            busiest = &t->disks[i];
    return await_one(t, busiest, err);
}

static bool
await_all(struct tip *t, struct error **err)
{
    while (t->n_in_flight > 0)
        if (!await_any(t, err))
            return false;
    return take_failure(t, err);
}

static bool
overlaps(const struct tip *t, const struct tip_disk *d, uint64_t offset, uint64_t length)
{
    for (size_t i = 0; i < TIP_MAX_IN_FLIGHT; i++) {
        const struct request *r = &t->requests[i];

        if (r->disk == d && offset < r->offset + r->length && r->offset < offset + length)
            return true;
    }
    return false;
}

/* A slot for a request that may be sent now: within the limits, overlapping none. */
static bool
reserve(struct tip *t, struct tip_disk *d, uint64_t offset, uint64_t length,
        struct error **err)
{
    if (!take_failure(t, err) || !cancel_check(t->cancel, err))
        return false;
    while (overlaps(t, d, offset, length))
        if (!await_one(t, d, err))
            return false;
    while (t->n_in_flight == TIP_MAX_IN_FLIGHT ||
           t->bytes_in_flight + REQUEST_BYTES > TIP_MAX_BYTES)
        if (!await_any(t, err))
            return false;
    return true;
}

static struct request *
take_slot(struct tip *t, struct tip_disk *d, uint64_t offset, uint64_t length)
{
    struct request *r = t->requests;

    while (r->disk != NULL)
        r++; /* reserve() has seen to it that there is one */
    *r = (struct request){ .tip = t, .disk = d, .offset = offset, .length = length };
    t->n_in_flight++;
    d->n_in_flight++;
    return r;
}

static nbd_completion_callback
callback(struct request *r)
{
    return (nbd_completion_callback){ .callback = request_completed,
                                      .user_data = r,
                                      .free = request_released };
}

static bool
sent(const struct tip_disk *d, int64_t cookie, struct error **err)
{
    return cookie >= 0 ||
           error_set(err, ERROR_STORE, "disk '%s': %s", d->target, nbd_get_error());
}

static bool
check_range(const struct tip_disk *d, uint64_t offset, uint64_t length,
            struct error **err)
{
    if (length > d->capacity_bytes || offset > d->capacity_bytes - length)
        return error_set(err, ERROR_PROTOCOL, "%llu bytes at %llu are beyond disk '%s'",
                         (unsigned long long)length, (unsigned long long)offset,
                         d->target);
    return true;
}

/* --- what was written since the last flush ------------------------------------------ */

static size_t
written_bytes(const struct tip_disk *d)
{
    return (size_t)(d->capacity_bytes / WRITTEN_BYTES / 8 + 1);
}

static bool
is_written(const struct tip_disk *d, uint64_t offset)
{
    uint64_t bit = offset / WRITTEN_BYTES;

    return (d->written[bit / 8] >> bit % 8 & 1) != 0;
}

static void
note_written(struct tip_disk *d, uint64_t offset, uint64_t length)
{
    uint64_t end = offset + length;

    for (; offset < end; offset += WRITTEN_BYTES - offset % WRITTEN_BYTES) {
        uint64_t bit = offset / WRITTEN_BYTES;

        d->written[bit / 8] = (uint8_t)(d->written[bit / 8] | 1u << bit % 8);
    }
}

uint64_t
tip_alike(const struct tip *t, size_t disk, uint64_t offset, uint64_t length,
          bool *ret_written)
{
    const struct tip_disk *d = &t->disks[disk];
    uint64_t at = offset, end = offset + length;

    *ret_written = is_written(d, offset);
    while (at < end && is_written(d, at) == *ret_written)
        at += WRITTEN_BYTES - at % WRITTEN_BYTES;
    return MIN(at, end) - offset;
}

/* --- writing ------------------------------------------------------------------------ */

bool
tip_write(struct tip *t, size_t disk, uint64_t offset, const void *data, size_t length,
          struct error **err)
{
    struct tip_disk *d = &t->disks[disk];

    if (!check_range(d, offset, length, err))
        return false;
    note_written(d, offset, length);
    while (length > 0) {
        size_t n = MIN(length, REQUEST_BYTES);
        struct request *r;

        if (!reserve(t, d, offset, n, err))
            return false;
        r = take_slot(t, d, offset, n);
        r->data = memcpy(spare_take(t), data, n);
        t->bytes_in_flight += n;
        if (!sent(d, nbd_aio_pwrite(d->nbd, r->data, n, offset, callback(r), 0), err))
            return false;
        data = (const char *)data + n;
        offset += n;
        length -= n;
    }
    return true;
}

bool
tip_zero(struct tip *t, size_t disk, uint64_t offset, uint64_t length, struct error **err)
{
    struct tip_disk *d = &t->disks[disk];

    if (!check_range(d, offset, length, err))
        return false;
    note_written(d, offset, length);
    while (length > 0) {
        /* Pieces end on round offsets, so that whole clusters stay whole. */
        uint64_t n = MIN(length, ZERO_BYTES - offset % ZERO_BYTES);
        struct request *r;

        if (!reserve(t, d, offset, n, err))
            return false;
        r = take_slot(t, d, offset, n);
        if (!sent(d, nbd_aio_zero(d->nbd, n, offset, callback(r), 0), err))
            return false;
        offset += n;
        length -= n;
    }
    return true;
}

/* --- reading ------------------------------------------------------------------------ */

bool
tip_read(struct tip *t, size_t disk, const struct tip_reader *reader, uint64_t offset,
         uint64_t length, struct error **err)
{
    struct tip_disk *d = &t->disks[disk];

    if (!check_range(d, offset, length, err))
        return false;
    while (length > 0) {
        size_t n = MIN(length, REQUEST_BYTES);
        struct request *r;

        if (!reserve(t, d, offset, n, err))
            return false;
        r = take_slot(t, d, offset, n);
        r->reader = reader;
        r->data = spare_take(t);
        t->bytes_in_flight += n;
        if (!sent(d, nbd_aio_pread(d->nbd, r->data, n, offset, callback(r), 0), err))
            return false;
        offset += n;
        length -= n;
    }
    return true;
}

/* One answer about zeroes; a server may describe less than was asked for. */
struct look {
    const struct tip_zeroes *zeroes;
    uint64_t from, next, end;
    bool broken;
};

static int
on_extents(void *opaque, const char *context, uint64_t offset, uint32_t *entries,
           size_t n_entries, int *error UNUSED)
{
    struct look *k = opaque;

    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
        return 0;
    k->broken = offset != k->from || k->next != k->from || n_entries % 2 != 0;
    for (size_t i = 0; i + 1 < n_entries && !k->broken && k->next < k->end; i += 2) {
        uint64_t n = MIN(entries[i], k->end - k->next);

        k->broken = n == 0;
        if (n > 0 && (entries[i + 1] & LIBNBD_STATE_ZERO) != 0)
            k->zeroes->zero(k->zeroes->opaque, k->next, n);
        k->next += n;
    }
    return 0;
}

static bool
look_once(struct tip *t, struct tip_disk *d, struct look *k, struct error **err)
{
    nbd_extent_callback extents = { .callback = on_extents, .user_data = k };
    struct request *r;

    if (!reserve(t, d, k->from, k->end - k->from, err))
        return false;
    r = take_slot(t, d, k->from, k->end - k->from);
    if (!sent(d,
              nbd_aio_block_status(d->nbd, k->end - k->from, k->from, extents,
                                   callback(r), 0),
              err))
        return false;
    while (r->disk != NULL)
        if (!await_one(t, d, err))
            return false;
    if (k->broken || k->next == k->from)
        return error_set(err, ERROR_STORE, "disk '%s': its block status makes no sense",
                         d->target);
    return true;
}

bool
tip_find_zeroes(struct tip *t, size_t disk, const struct tip_zeroes *zeroes,
                uint64_t offset, uint64_t length, struct error **err)
{
    struct tip_disk *d = &t->disks[disk];
    struct look k = { .zeroes = zeroes, .next = offset, .end = offset + length };

    if (!check_range(d, offset, length, err))
        return false;
    while (k.next < k.end) {
        k.from = k.next;
        if (!look_once(t, d, &k, err))
            return false;
    }
    return true;
}

bool
tip_settle(struct tip *t, struct error **err)
{
    return await_all(t, err);
}

bool
tip_flush(struct tip *t, struct error **err)
{
    if (!await_all(t, err))
        return false;
    spares_free(t);
    for (size_t i = 0; i < t->n_disks; i++) {
        struct tip_disk *d = &t->disks[i];
        struct request *r;

        if (!reserve(t, d, 0, 0, err))
            return false;
        r = take_slot(t, d, 0, 0);
        if (!sent(d, nbd_aio_flush(d->nbd, callback(r), 0), err))
            return false;
    }
    if (!await_all(t, err))
        return false;
    for (size_t i = 0; i < t->n_disks; i++)
        memset(t->disks[i].written, 0, written_bytes(&t->disks[i]));
    return true;
}

/* --- opening ------------------------------------------------------------------------ */

static bool
nbd_failed(const struct tip_disk *d, struct error **err)
{
    return error_set(err, ERROR_STORE, "connect to disk '%s': %s", d->target,
                     nbd_get_error());
}

static bool
connect_disk(struct tip *t, struct tip_disk *d, struct error **err)
{
    int64_t end = units_monotonic_ms() + NO_PROGRESS_MS;
    int64_t size;
    int fd = -1;

    d->nbd = nbd_create();
    if (d->nbd == NULL || nbd_set_export_name(d->nbd, d->target) < 0 ||
        nbd_add_meta_context(d->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 ||
        nbd_set_pread_initialize(d->nbd, false) < 0) /* what failed is not looked at */
        return nbd_failed(d, err);
    if (!qsd_connect(t->qsd, &fd, err))
        return false;
    if (nbd_aio_connect_socket(d->nbd, fd) < 0) /* fd is its own from here */
        return nbd_failed(d, err);
    while (nbd_aio_is_connecting(d->nbd)) {
        if (nbd_poll(d->nbd, POLL_MS) < 0)
            return nbd_failed(d, err);
        if (units_monotonic_ms() > end)
            return error_set(err, ERROR_TIMEOUT, "connect to disk '%s': no answer",
                             d->target);
    }
    size = nbd_aio_is_ready(d->nbd) ? nbd_get_size(d->nbd) : -1;
    if (size < 0)
        return nbd_failed(d, err);
    if ((uint64_t)size < d->capacity_bytes)
        return error_set(err, ERROR_STORE, "disk '%s' has %lld bytes instead of %llu",
                         d->target, (long long)size,
                         (unsigned long long)d->capacity_bytes);
    return true;
}

static bool
open_disk(struct tip *t, size_t i, const struct chain *from, struct error **err)
{
    struct tip_disk *d = &t->disks[i];

    snprintf(d->target, sizeof d->target, "%s", from->target);
    d->capacity_bytes = from->capacity_bytes;
    d->written = mem_alloc(written_bytes(d), 1);
    return connect_disk(t, d, err);
}

bool
tip_open(int folder, const char *socket_name, const struct chain *chains, size_t n,
         struct tip **ret, struct error **err)
{
    struct tip *t = NEW(struct tip);
    struct qsd_list list = { NULL, 0 };
    bool ok;

    t->n_disks = n;
    t->disks = mem_alloc(n, sizeof *t->disks);
    for (size_t i = 0; i < n; i++)
        chain_list(&chains[i], i, &list);
    ok = qsd_start_at(folder, socket_name, &list, &t->qsd, err);
    qsd_list_clear(&list);
    for (size_t i = 0; ok && i < n; i++)
        ok = open_disk(t, i, &chains[i], err);
    if (!ok) {
        tip_close(t);
        return false;
    }
    *ret = t;
    return true;
}

bool
tip_find(const struct tip *t, const char *target, size_t *ret)
{
    for (size_t i = 0; i < t->n_disks; i++)
        if (strcmp(t->disks[i].target, target) == 0) {
            *ret = i;
            return true;
        }
    return false;
}

void
tip_close(struct tip *t)
{
    if (t == NULL)
        return;

    /* Requests under way are released by this. */
    for (size_t i = 0; i < t->n_disks; i++) {
        nbd_close(t->disks[i].nbd);
        free(t->disks[i].written);
    }
    spares_free(t);
    qsd_stop(t->qsd);
    free(t->disks);
    error_free(t->failure);
    free(t);
}

void
tip_set_cancel(struct tip *t, struct cancel *cancel)
{
    t->cancel = cancel;
}

int
tip_pid(const struct tip *t)
{
    return qsd_pid(t->qsd);
}
