#include "drivers/capture/fake.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/units.h"
#include "drivers/capture/request.h"

#define BLOCKS     (FAKE_CAPTURE_CAPACITY / FAKE_CAPTURE_BLOCK)
#define MAX_POINTS 32

struct fake_disk {
    char target[32]; /* "": a free place */
    uint64_t capacity_bytes;
    uint8_t bytes[FAKE_CAPTURE_CAPACITY];
};

struct fake_point {
    char name[CAPTURE_NAME_MAX + 1]; /* "": a free place */
    bool recorded[FAKE_CAPTURE_DISKS];
    uint8_t dirty[FAKE_CAPTURE_DISKS][BLOCKS];
};

/* All that lives longer than a process. */
struct domain {
    struct fake_disk disks[FAKE_CAPTURE_DISKS];
    struct fake_point points[MAX_POINTS];
    bool open;
    unsigned calls[FAKE_CAPTURE_N_CALLS];
    struct {
        unsigned left; /* calls until it fails; 0: it does not */
        enum error_code code;
    } failures[FAKE_CAPTURE_N_CALLS];
};

struct fake_capture {
    struct capture_driver head;
    struct domain *domain;
    bool offline; /* borrows the domain of another */
    int64_t ahead_ms;
};

/* The point in time: a copy of what is to be read. */
struct fake_snapshot {
    struct capture head;
    size_t n_disks;
    struct {
        uint64_t capacity_bytes;
        uint8_t *bytes;
        uint8_t dirty[BLOCKS];
    } disks[FAKE_CAPTURE_DISKS];
};

static struct domain *
domain_of(const struct capture_driver *driver)
{
    return ((const struct fake_capture *)driver)->domain;
}

static bool
enter(const struct capture_driver *driver, enum fake_capture_call call,
      struct error **err)
{
    static const char *const names[FAKE_CAPTURE_N_CALLS] = {
        [FAKE_CAPTURE_CHANGED] = "changed",
        [FAKE_CAPTURE_BEGIN] = "begin",
        [FAKE_CAPTURE_CAPACITY_OF] = "capacity",
        [FAKE_CAPTURE_MEASURE] = "measure",
        [FAKE_CAPTURE_READ] = "read",
        [FAKE_CAPTURE_CONTENT] = "content",
        [FAKE_CAPTURE_END] = "end",
        [FAKE_CAPTURE_FORGET] = "forget",
        [FAKE_CAPTURE_SWEEP] = "sweep",
        [FAKE_CAPTURE_RECOVER] = "recover",
    };
    struct domain *d = domain_of(driver);

    d->calls[call]++;
    if (d->failures[call].left == 0 || --d->failures[call].left > 0)
        return true;
    return error_set(err, d->failures[call].code, "the test lets '%s' fail", names[call]);
}

static size_t
find_disk(const struct domain *d, const char *target)
{
    size_t i = 0;

    while (i < FAKE_CAPTURE_DISKS && strcmp(d->disks[i].target, target) != 0)
        i++;
    return i;
}

static struct fake_point *
find_point(struct domain *d, const char *name)
{
    for (size_t i = 0; i < MAX_POINTS; i++)
        if (strcmp(d->points[i].name, name) == 0)
            return &d->points[i];
    return NULL;
}

/* Which blocks a capture since that point hands over. */
static bool
dirty_since(struct domain *d, const char *base, const struct capture_disk *disk,
            uint8_t ret[BLOCKS], struct error **err)
{
    const struct fake_point *p = base != NULL ? find_point(d, base) : NULL;
    size_t i = find_disk(d, disk->target);

    if (i == FAKE_CAPTURE_DISKS)
        return error_set(err, ERROR_HYPERVISOR, "there is no disk '%s'", disk->target);
    memset(ret, 1, BLOCKS);
    if (base == NULL || disk->whole)
        return true;
    if (p == NULL || !p->recorded[i])
        return error_set(err, ERROR_CHECKPOINT_LOST, "no record of '%s' since '%s'",
                         disk->target, base);
    memcpy(ret, p->dirty[i], BLOCKS);
    return true;
}

/* --- slots --------------------------------------------------------------------- */

static bool
is_offline(const struct capture_driver *driver)
{
    return ((const struct fake_capture *)driver)->offline;
}

static void
fake_close(struct capture_driver *driver)
{
    if (!is_offline(driver))
        munmap(domain_of(driver), sizeof(struct domain));
    free(driver);
}

static bool
fake_changed(struct capture_driver *driver, const char *uuid UNUSED, const char *name,
             const struct capture_disk *disks, size_t n_disks, uint64_t *ret_bytes,
             struct error **err)
{
    uint8_t dirty[BLOCKS];
    uint64_t bytes = 0;

    if (!enter(driver, FAKE_CAPTURE_CHANGED, err))
        return false;
    for (size_t i = 0; i < n_disks; i++) {
        if (!dirty_since(domain_of(driver), name, &disks[i], dirty, err))
            return false;
        for (size_t b = 0; b < BLOCKS; b++)
            bytes += dirty[b] ? FAKE_CAPTURE_BLOCK : 0;
    }
    *ret_bytes = bytes;
    return true;
}

static void
snapshot_free(struct fake_snapshot *s)
{
    for (size_t i = 0; i < s->n_disks; i++)
        free(s->disks[i].bytes);
    free(s);
}

static bool
take_snapshot(struct domain *d, const struct capture_request *request,
              struct fake_snapshot *s, struct error **err)
{
    for (size_t i = 0; i < request->n_disks; i++) {
        size_t at = find_disk(d, request->disks[i].target);

        bool skip = request->unchanged && !request->disks[i].whole;

        if (!dirty_since(d, skip ? NULL : request->base, &request->disks[i],
                         s->disks[i].dirty, err))
            return false;
        if (skip)
            memset(s->disks[i].dirty, 0, BLOCKS);
        s->disks[i].capacity_bytes = d->disks[at].capacity_bytes;
        s->disks[i].bytes =
            (uint8_t *)mem_memdup(d->disks[at].bytes, FAKE_CAPTURE_CAPACITY);
        s->n_disks = i + 1;
    }
    return true;
}

static bool
make_point(struct domain *d, const char *name, struct error **err)
{
    struct fake_point *p = find_point(d, "");

    if (find_point(d, name) != NULL)
        return error_set(err, ERROR_HYPERVISOR, "bitmap '%s' already exists", name);
    assert(p != NULL); /* the caller forgets what it no longer needs */
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "%s", name);
    for (size_t i = 0; i < FAKE_CAPTURE_DISKS; i++)
        p->recorded[i] = d->disks[i].target[0] != '\0';
    return true;
}

static bool
fake_begin(struct capture_driver *driver, const struct capture_request *request,
           struct capture **ret, int64_t *ret_time_ms, struct error **err)
{
    struct domain *d = domain_of(driver);
    struct fake_snapshot *s;

    if (!enter(driver, FAKE_CAPTURE_BEGIN, err))
        return false;
    if (d->open)
        return error_set(err, ERROR_JOB_BUSY, "a capture is open already");
    s = NEW(struct fake_snapshot);
    s->head.driver = driver;
    if (!take_snapshot(d, request, s, err) ||
        (request->name != NULL && !is_offline(driver) &&
         !make_point(d, request->name, err))) {
        snapshot_free(s);
        return false;
    }
    d->open = true;
    *ret_time_ms = units_now_ms() + ((const struct fake_capture *)driver)->ahead_ms;
    *ret = &s->head;
    return true;
}

static bool
fake_capacity(struct capture *c, size_t disk, uint64_t *ret_bytes, struct error **err)
{
    if (!enter(c->driver, FAKE_CAPTURE_CAPACITY_OF, err))
        return false;
    *ret_bytes = ((struct fake_snapshot *)c)->disks[disk].capacity_bytes;
    return true;
}

static bool
is_zero(const uint8_t *block)
{
    return block[0] == 0 && memcmp(block, block + 1, FAKE_CAPTURE_BLOCK - 1) == 0;
}

static bool
fake_measure(struct capture *c, size_t disk, uint64_t from, uint64_t to,
             uint64_t *ret_bytes, struct error **err)
{
    const struct fake_snapshot *s = (const struct fake_snapshot *)c;
    uint64_t bytes = 0;

    if (!enter(c->driver, FAKE_CAPTURE_MEASURE, err))
        return false;
    to = MIN(to, s->disks[disk].capacity_bytes);
    for (uint64_t at = from; at < to; at += FAKE_CAPTURE_BLOCK)
        if (s->disks[disk].dirty[at / FAKE_CAPTURE_BLOCK] &&
            !is_zero(s->disks[disk].bytes + at))
            bytes += FAKE_CAPTURE_BLOCK;
    *ret_bytes = bytes;
    return true;
}

static bool
give(const uint8_t *block, size_t disk, uint64_t at, const struct capture_sink *sink,
     struct error **err)
{
    return is_zero(block)
               ? sink->zero(sink->opaque, disk, at, FAKE_CAPTURE_BLOCK, err)
               : sink->data(sink->opaque, disk, at, block, FAKE_CAPTURE_BLOCK, err);
}

static bool
fake_read(struct capture *c, size_t disk, uint64_t from, uint64_t to,
          const struct capture_sink *sink, struct error **err)
{
    const struct fake_snapshot *s = (const struct fake_snapshot *)c;

    if (!enter(c->driver, FAKE_CAPTURE_READ, err))
        return false;
    to = MIN(to, s->disks[disk].capacity_bytes);
    for (uint64_t at = from; at < to; at += FAKE_CAPTURE_BLOCK)
        if (s->disks[disk].dirty[at / FAKE_CAPTURE_BLOCK] &&
            !give(s->disks[disk].bytes + at, disk, at, sink, err))
            return false;
    return true;
}

static bool
fake_content(struct capture *c, size_t disk, uint64_t from, uint64_t to,
             const struct capture_sink *sink, struct error **err)
{
    const struct fake_snapshot *s = (const struct fake_snapshot *)c;

    if (!enter(c->driver, FAKE_CAPTURE_CONTENT, err))
        return false;
    to = MIN(to, s->disks[disk].capacity_bytes);
    for (uint64_t at = from; at < to; at += FAKE_CAPTURE_BLOCK)
        if (!give(s->disks[disk].bytes + at, disk, at, sink, err))
            return false;
    return true;
}

static bool
fake_end(struct capture *c, struct error **err)
{
    bool ok = enter(c->driver, FAKE_CAPTURE_END, err);

    /* One that could not be ended, as when libvirtd is gone, lasts until recover(). */
    domain_of(c->driver)->open = !ok;
    snapshot_free((struct fake_snapshot *)c);
    return ok;
}

static bool
fake_forget(struct capture_driver *driver, const char *uuid UNUSED, const char *name,
            struct error **err)
{
    struct fake_point *p;

    if (!enter(driver, FAKE_CAPTURE_FORGET, err))
        return false;
    p = *name != '\0' ? find_point(domain_of(driver), name) : NULL;
    if (p != NULL)
        p->name[0] = '\0';
    return true;
}

static bool
fake_sweep(struct capture_driver *driver, const struct capture_sweep *sweep,
           size_t *ret_n, struct error **err)
{
    struct domain *d = domain_of(driver);
    size_t n = 0;

    if (!enter(driver, FAKE_CAPTURE_SWEEP, err))
        return false;
    for (size_t i = 0; i < MAX_POINTS; i++)
        if (capture_sweep_takes(sweep, d->points[i].name)) {
            d->points[i].name[0] = '\0';
            n++;
        }
    *ret_n = n;
    return true;
}

static bool
fake_recover(struct capture_driver *driver, const char *uuid UNUSED,
             const char *scratch_folder UNUSED, struct error **err)
{
    if (!enter(driver, FAKE_CAPTURE_RECOVER, err))
        return false;
    domain_of(driver)->open = false;
    return true;
}

static const struct capture_ops fake_ops = {
    .name = "fake",
    .close = fake_close,
    .changed = fake_changed,
    .begin = fake_begin,
    .capacity = fake_capacity,
    .measure = fake_measure,
    .read = fake_read,
    .content = fake_content,
    .end = fake_end,
    .forget = fake_forget,
    .sweep = fake_sweep,
    .recover = fake_recover,
};

/* --- for the test ---------------------------------------------------------------- */

bool
fake_capture_open(const char *path, struct capture_driver **ret, struct error **err)
{
    AUTOFD(fd) = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct fake_capture *f;
    void *map;

    if (fd < 0 || ftruncate(fd, sizeof(struct domain)) < 0)
        return error_errno(err, ERROR_HYPERVISOR, "open '%s'", path);
    map = mmap(NULL, sizeof(struct domain), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return error_errno(err, ERROR_HYPERVISOR, "map '%s'", path);
    f = NEW(struct fake_capture);
    f->head.ops = &fake_ops;
    f->domain = map;
    *ret = &f->head;
    return true;
}

struct capture_driver *
fake_capture_offline(struct capture_driver *driver)
{
    struct fake_capture *f = NEW(struct fake_capture);

    f->head.ops = &fake_ops;
    f->domain = domain_of(driver);
    f->offline = true;
    return &f->head;
}

void
fake_capture_set_disk(struct capture_driver *driver, const char *target,
                      uint64_t capacity_bytes)
{
    struct domain *d = domain_of(driver);
    size_t i = find_disk(d, target);

    assert(capacity_bytes <= FAKE_CAPTURE_CAPACITY);
    if (i == FAKE_CAPTURE_DISKS) {
        i = find_disk(d, "");
        assert(i < FAKE_CAPTURE_DISKS);
        memset(&d->disks[i], 0, sizeof d->disks[i]);
        snprintf(d->disks[i].target, sizeof d->disks[i].target, "%s", target);
    }
    assert(capacity_bytes >= d->disks[i].capacity_bytes);
    d->disks[i].capacity_bytes = capacity_bytes;
}

void
fake_capture_remove_disk(struct capture_driver *driver, const char *target)
{
    struct domain *d = domain_of(driver);
    size_t i = find_disk(d, target);

    assert(i < FAKE_CAPTURE_DISKS);
    d->disks[i].target[0] = '\0';
    for (size_t p = 0; p < MAX_POINTS; p++)
        d->points[p].recorded[i] = false;
}

const char *
fake_capture_disk(struct capture_driver *driver, size_t i, uint64_t *ret_capacity_bytes)
{
    const struct domain *d = domain_of(driver);

    for (size_t k = 0; k < FAKE_CAPTURE_DISKS; k++)
        if (d->disks[k].target[0] != '\0' && i-- == 0) {
            *ret_capacity_bytes = d->disks[k].capacity_bytes;
            return d->disks[k].target;
        }
    return NULL;
}

void
fake_capture_write(struct capture_driver *driver, const char *target, uint64_t offset,
                   const void *data, size_t length)
{
    struct domain *d = domain_of(driver);
    size_t i = find_disk(d, target);

    assert(i < FAKE_CAPTURE_DISKS && offset + length <= d->disks[i].capacity_bytes);
    memcpy(d->disks[i].bytes + offset, data, length);
    for (size_t p = 0; p < MAX_POINTS; p++)
        for (uint64_t b = offset / FAKE_CAPTURE_BLOCK;
             b * FAKE_CAPTURE_BLOCK < offset + length; b++)
            d->points[p].dirty[i][b] = 1;
}

const uint8_t *
fake_capture_content(struct capture_driver *driver, const char *target)
{
    struct domain *d = domain_of(driver);
    size_t i = find_disk(d, target);

    assert(i < FAKE_CAPTURE_DISKS);
    return d->disks[i].bytes;
}

void
fake_capture_fail(struct capture_driver *driver, enum fake_capture_call call, unsigned n,
                  enum error_code code)
{
    struct domain *d = domain_of(driver);

    d->failures[call].left = n;
    d->failures[call].code = code;
}

unsigned
fake_capture_calls(struct capture_driver *driver, enum fake_capture_call call)
{
    return domain_of(driver)->calls[call];
}

void
fake_capture_lose(struct capture_driver *driver)
{
    struct domain *d = domain_of(driver);

    for (size_t i = 0; i < MAX_POINTS; i++)
        d->points[i].name[0] = '\0';
}

void
fake_capture_set_ahead(struct capture_driver *driver, int64_t ahead_ms)
{
    ((struct fake_capture *)driver)->ahead_ms = ahead_ms;
}

size_t
fake_capture_points(struct capture_driver *driver)
{
    const struct domain *d = domain_of(driver);
    size_t n = 0;

    for (size_t i = 0; i < MAX_POINTS; i++)
        n += d->points[i].name[0] != '\0';
    return n;
}

bool
fake_capture_is_open(struct capture_driver *driver)
{
    return domain_of(driver)->open;
}
