#include "drivers/capture/nbd_reader.h"

#include <string.h>

#define ALLOCATION           "base:allocation"
#define DIRTY                1u /* the flag of qemu:dirty-bitmap contexts */
#define N_SLOTS              8
#define N_CONNECTIONS        2
#define BYTES_PER_CONNECTION (8u << 20)  /* one more connection pays after as many */
#define GRAIN                (64u << 10) /* zeroes are told apart in grains of this */
#define MAX_EXTENTS          (1u << 20)

/* One status request. A bitmap is fast to walk; allocation is read from the image. */
#define STATUS_BITMAP_BYTES     (2ull << 30)
#define STATUS_ALLOCATION_BYTES (256ull << 20)

/*
 * Changed runs shorter than this are read without asking whether they are
 * zeroes: an answer takes as long as reading them.
 */
#define ASK_BYTES (1u << 20)

struct extent {
    uint64_t offset;
    uint64_t length;
    uint32_t flags;
};

/* What a server said of [from, next); the request went to `end`. */
struct status {
    const char *context;
    uint64_t from;
    uint64_t next;
    uint64_t end;
    struct extent *extents;
    size_t n;
    size_t allocated;
    bool broken;
    bool done;
    int error;
};

struct slot {
    uint8_t *buffer;
    uint64_t offset;
    size_t length;
    bool done;
    int error;
};

struct nbd_reader {
    struct nbd_link link;
    char *context; /* of the bitmap; NULL: whole */
    struct nbd_handle *map;
    struct nbd_handle *data[N_CONNECTIONS];
    size_t n_data;
    size_t next; /* connection of the next request */
    uint64_t size;
    uint64_t submitted;
    struct status changed;
    struct status allocation;
    struct slot slots[N_SLOTS]; /* a ring: n_busy of them from `first` on */
    size_t first;
    size_t n_busy;
};

struct nbd_reader *
nbd_reader_new(const char *socket, const char *export, const char *bitmap,
               struct cancel *cancel)
{
    struct nbd_reader *r = NEW(struct nbd_reader);

    nbd_link_init(&r->link, socket, export, cancel);
    if (bitmap != NULL)
        r->context = mem_printf("qemu:dirty-bitmap:%s", bitmap);
    return r;
}

void
nbd_reader_set_keeper(struct nbd_reader *r, struct nbd_keeper keeper)
{
    r->link.keeper = keeper;
}

void
nbd_reader_free(struct nbd_reader *r)
{
    if (r == NULL)
        return;
    nbd_link_clear(&r->link);
    for (size_t i = 0; i < N_SLOTS; i++)
        free(r->slots[i].buffer);
    free(r->changed.extents);
    free(r->allocation.extents);
    free(r->context);
    free(r);
}

/*
 * Fetches all answers that are under way. As long as one is not fetched QEMU may stand
 * still, with its guest: when that starts the driver of a disk with an I/O thread, QEMU
 * waits for them, and takes no command meanwhile.
 */
static bool
settle(struct nbd_reader *r, struct error **err)
{
    nbd_link_touch(&r->link);
    for (size_t i = 0; i < r->n_busy; i++)
        while (!r->slots[(r->first + i) % N_SLOTS].done)
            if (!nbd_link_turn(&r->link, err))
                return false;
    return true;
}

/* The duplicate that QEMU keeps of a connection is nobody's who could fetch them. */
static void
settle_kept(struct nbd_reader *r)
{
    struct cancel *cancel = r->link.cancel;

    if (r->link.keeper.keep == NULL)
        return;
    r->link.cancel = NULL;
    settle(r, NULL);
    r->link.cancel = cancel;
}

/* After a failure: nothing is in flight any more, the next call connects anew. */
static bool
reset(struct nbd_reader *r)
{
    settle_kept(r);
    nbd_link_reset(&r->link);
    r->map = NULL;
    r->n_data = 0;
    r->submitted = 0;
    r->first = r->n_busy = 0;
    return false;
}

static bool
connect_data(struct nbd_reader *r, struct error **err)
{
    if (!nbd_link_connect(&r->link, ALLOCATION, &r->data[r->n_data], err))
        return false;
    r->n_data++;
    return true;
}

static bool
connect_first(struct nbd_reader *r, struct error **err)
{
    int64_t size;

    if (r->n_data > 0)
        return true;
    nbd_link_reset(&r->link);
    if (r->context != NULL && !nbd_link_connect(&r->link, r->context, &r->map, err))
        return reset(r);
    if (!connect_data(r, err))
        return reset(r);
    size = nbd_get_size(r->data[0]);
    if (size < 0) {
        nbd_link_error(&r->link, err, "asking for the size");
        return reset(r);
    }
    r->size = (uint64_t)size;
    return true;
}

bool
nbd_reader_size(struct nbd_reader *r, uint64_t *ret_bytes, struct error **err)
{
    if (!connect_first(r, err))
        return false;
    *ret_bytes = r->size;
    return true;
}

/* --- block status ----------------------------------------------------------------- */

static void
append(struct status *s, uint64_t length, uint32_t flags)
{
    struct extent *last = s->n > 0 ? &s->extents[s->n - 1] : NULL;

    if (last != NULL && last->flags == flags) {
        last->length += length;
    } else {
        if (s->n == s->allocated) {
            s->allocated = MAX(64, s->allocated * 2);
            s->extents = mem_realloc(s->extents, s->allocated, sizeof *s->extents);
        }
        s->extents[s->n++] = (struct extent){ s->next, length, flags };
    }
    s->next += length;
}

/* A server may describe less than was asked for, and more with the last extent. */
static int
on_extents(void *opaque, const char *context, uint64_t offset, uint32_t *entries,
           size_t n_entries, int *error UNUSED)
{
    struct status *s = opaque;

    if (strcmp(context, s->context) != 0)
        return 0;
    if (offset != s->from || s->next != s->from || n_entries % 2 != 0)
        s->broken = true;
    for (size_t i = 0; i + 1 < n_entries && !s->broken && s->next < s->end; i += 2) {
        s->broken = entries[i] == 0 || s->n >= MAX_EXTENTS;
        if (!s->broken)
            append(s, MIN(entries[i], s->end - s->next), entries[i + 1]);
    }
    return 0;
}

static int
on_status(void *opaque, int *error)
{
    struct status *s = opaque;

    s->error = *error;
    s->done = true;
    return 1; /* libnbd forgets the command */
}

/* Describes [from, s->next), as far as one answer goes towards `to`. */
static bool
ask(struct nbd_reader *r, struct status *s, uint64_t from, uint64_t to,
    struct error **err)
{
    bool bitmap = s == &r->changed;
    nbd_extent_callback extents = { .callback = on_extents, .user_data = s };
    nbd_completion_callback completion = { .callback = on_status, .user_data = s };

    s->context = bitmap ? r->context : ALLOCATION;
    s->from = s->next = from;
    s->end = MIN(to, from + (bitmap ? STATUS_BITMAP_BYTES : STATUS_ALLOCATION_BYTES));
    s->n = 0;
    s->broken = s->done = false;
    nbd_link_touch(&r->link);
    if (nbd_aio_block_status(bitmap ? r->map : r->data[0], s->end - from, from, extents,
                             completion, 0) < 0)
        return nbd_link_error(&r->link, err, "asking for the block status");
    while (!s->done)
        if (!nbd_link_turn(&r->link, err))
            return false;
    if (s->error != 0)
        return error_set(
            err, ERROR_HYPERVISOR,
            "QEMU could not tell the block status of disk '%s' at %llu: error "
            "%d",
            r->link.export, (unsigned long long)from, s->error);
    if (s->broken || s->next == from)
        return error_set(err, ERROR_PROTOCOL,
                         "QEMU's block status of disk '%s' at %llu makes no sense",
                         r->link.export, (unsigned long long)from);
    return true;
}

/* --- the walk: runs of data and runs of zeroes ------------------------------------- */

typedef bool (*visit_fn)(struct nbd_reader *r, void *opaque, const struct extent *run,
                         bool zero, struct error **err);

struct visitor {
    visit_fn visit;
    void *opaque;
};

/* A hole alone is not zero: there may be a backing file below it. */
static bool
walk_allocation(struct nbd_reader *r, uint64_t from, uint64_t to, const struct visitor *v,
                struct error **err)
{
    for (uint64_t at = from; at < to; at = r->allocation.next) {
        if (!ask(r, &r->allocation, at, to, err))
            return false;
        for (size_t i = 0; i < r->allocation.n; i++) {
            const struct extent *e = &r->allocation.extents[i];

            if (!v->visit(r, v->opaque, e, (e->flags & LIBNBD_STATE_ZERO) != 0, err))
                return false;
        }
    }
    return true;
}

static bool
walk_changed(struct nbd_reader *r, uint64_t from, uint64_t to, const struct visitor *v,
             struct error **err)
{
    for (uint64_t at = from; at < to; at = r->changed.next) {
        if (!ask(r, &r->changed, at, to, err))
            return false;
        for (size_t i = 0; i < r->changed.n; i++) {
            const struct extent *e = &r->changed.extents[i];

            if ((e->flags & DIRTY) == 0)
                continue;
            if (e->length < ASK_BYTES
                    ? !v->visit(r, v->opaque, e, false, err)
                    : !walk_allocation(r, e->offset, e->offset + e->length, v, err))
                return false;
        }
    }
    return true;
}

static bool
walk(struct nbd_reader *r, uint64_t from, uint64_t to, const struct visitor *v,
     struct error **err)
{
    to = MIN(to, r->size);
    return r->context != NULL ? walk_changed(r, from, to, v, err)
                              : walk_allocation(r, from, to, v, err);
}

static bool
add_up(struct nbd_reader *r UNUSED, void *opaque, const struct extent *run, bool zero,
       struct error **err UNUSED)
{
    uint64_t *total = opaque;

    if (!zero)
        *total += run->length;
    return true;
}

bool
nbd_reader_measure(struct nbd_reader *r, uint64_t from, uint64_t to, uint64_t *ret_bytes,
                   struct error **err)
{
    uint64_t total = 0;
    const struct visitor v = { add_up, &total };

    if (!connect_first(r, err))
        return false;
    if (!walk(r, from, to, &v, err))
        return reset(r);
    *ret_bytes = total;
    return true;
}

/* --- reading ---------------------------------------------------------------------- */

struct reading {
    const struct capture_sink *sink;
    size_t disk;
};

static int
on_read(void *opaque, int *error)
{
    struct slot *s = opaque;

    s->error = *error;
    s->done = true;
    return 1; /* libnbd forgets the command */
}

/* Equal to itself, shifted by one, and the first byte is zero: all are. */
static bool
is_zero(const uint8_t *p, size_t n)
{
    return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

static size_t
grain(const struct slot *s, size_t at)
{
    return MIN(GRAIN - (s->offset + at) % GRAIN, s->length - at);
}

/* Hands a slot's content over, zeroes apart from data. */
static bool
give(const struct slot *s, const struct reading *to, struct error **err)
{
    const struct capture_sink *sink = to->sink;

    for (size_t at = 0, end; at < s->length; at = end) {
        bool zero = is_zero(s->buffer + at, grain(s, at));

        end = at + grain(s, at);
        while (end < s->length && is_zero(s->buffer + end, grain(s, end)) == zero)
            end += grain(s, end);
        if (zero ? !sink->zero(sink->opaque, to->disk, s->offset + at, end - at, err)
                 : !sink->data(sink->opaque, to->disk, s->offset + at, s->buffer + at,
                               end - at, err))
            return false;
    }
    return true;
}

/*
 * Content is handed over in the order in which it was asked for: in that of the disk.
 * What has arrived meanwhile is fetched before each one, so that QEMU never waits
 * for long until it can send more.
 */
static bool
give_first(struct nbd_reader *r, const struct reading *to, struct error **err)
{
    struct slot *s = &r->slots[r->first];

    if (!nbd_link_glance(&r->link, err))
        return false;
    while (!s->done)
        if (!nbd_link_turn(&r->link, err))
            return false;
    r->first = (r->first + 1) % N_SLOTS;
    r->n_busy--;
    if (s->error != 0)
        return error_set(err, ERROR_HYPERVISOR,
                         "QEMU could not read disk '%s' at %llu: error %d",
                         r->link.export, (unsigned long long)s->offset, s->error);
    if (!give(s, to, err))
        return false;
    nbd_link_touch(&r->link);
    return true;
}

/* QEMU takes a duplicate of it first, which may have to wait for what is in flight. */
static bool
connect_more(struct nbd_reader *r, struct error **err)
{
    return (r->link.keeper.keep == NULL || settle(r, err)) && connect_data(r, err);
}

/* More connections once they pay, if the server keeps them consistent. */
static bool
choose(struct nbd_reader *r, struct nbd_handle **ret, struct error **err)
{
    if (r->n_data < N_CONNECTIONS && r->submitted / BYTES_PER_CONNECTION >= r->n_data &&
        nbd_can_multi_conn(r->data[0]) > 0 && !connect_more(r, err))
        return false;
    *ret = r->data[r->next++ % r->n_data];
    return true;
}

static bool
submit(struct nbd_reader *r, struct slot *s, struct error **err)
{
    nbd_completion_callback completion = { .callback = on_read, .user_data = s };
    struct nbd_handle *h = NULL;

    if (!choose(r, &h, err))
        return false;
    if (s->buffer == NULL)
        s->buffer = mem_alloc(1, CAPTURE_MAX_REQUEST);
    s->done = false;
    nbd_link_touch(&r->link);
    if (nbd_aio_pread(h, s->buffer, s->length, s->offset, completion, 0) < 0)
        return nbd_link_error(&r->link, err, "reading");
    r->n_busy++;
    r->submitted += s->length;
    return true;
}

static bool
read_run(struct nbd_reader *r, void *opaque, const struct extent *run, bool zero,
         struct error **err)
{
    const struct reading *to = opaque;
    uint64_t end = run->offset + run->length;

    if (zero) {
        if (!to->sink->zero(to->sink->opaque, to->disk, run->offset, run->length, err))
            return false;
        nbd_link_touch(&r->link); /* that we were kept is no silence of QEMU's */
        return true;
    }
    for (uint64_t at = run->offset; at < end;) {
        struct slot *s;

        if (r->n_busy == N_SLOTS && !give_first(r, to, err))
            return false;
        s = &r->slots[(r->first + r->n_busy) % N_SLOTS];
        s->offset = at;
        s->length = MIN(CAPTURE_MAX_REQUEST - at % CAPTURE_MAX_REQUEST, end - at);
        if (!submit(r, s, err))
            return false;
        at += s->length;
    }
    return true;
}

static bool
drain(struct nbd_reader *r, const struct reading *to, struct error **err)
{
    while (r->n_busy > 0)
        if (!give_first(r, to, err))
            return false;
    return true;
}

bool
nbd_reader_read(struct nbd_reader *r, size_t disk, uint64_t from, uint64_t to,
                const struct capture_sink *sink, struct error **err)
{
    struct reading reading = { sink, disk };
    const struct visitor v = { read_run, &reading };

    if (!connect_first(r, err))
        return false;
    if (!walk(r, from, to, &v, err) || !drain(r, &reading, err))
        return reset(r);
    return true;
}
