#include "drivers/store/seed.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "common/json.h"
#include "drivers/store/child.h"
#include "drivers/store/folder.h"

#define READ_BYTES (1u << 20)
#define HOLE_BYTES (64u << 10) /* of zeroes that are not written */
#define SECTOR     512
#define LOOK_MS    100 /* how soon progress and a stop are seen */

/* One disk on its way into its base. */
struct adoption {
    struct replica *r;
    const struct seed_image *image;
    char base[LAYOUT_PATH_MAX];
    int fd; /* of the base */
    uint64_t capacity_bytes;
    struct pace pace;
};

/* --- raw: shared or copied ------------------------------------------------------------
 */

static bool
is_zero(const uint8_t *data, size_t n)
{
    return n == 0 || (data[0] == 0 && memcmp(data, data + 1, n - 1) == 0);
}

static bool
write_piece(struct adoption *a, const uint8_t *data, size_t n, uint64_t offset,
            struct error **err)
{
    while (n > 0) {
        ssize_t done = pwrite(a->fd, data, n, (off_t)offset);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return folder_errno(err, "write '%s'", a->base);
        data += done;
        offset += (uint64_t)done;
        n -= (size_t)done;
    }
    return true;
}

static bool
write_content(struct adoption *a, const uint8_t *data, size_t n, uint64_t offset,
              struct error **err)
{
    for (size_t at = 0; at < n; at += HOLE_BYTES) {
        size_t piece = MIN(n - at, HOLE_BYTES);

        if (!is_zero(data + at, piece) &&
            !write_piece(a, data + at, piece, offset + at, err))
            return false;
    }
    return pace_spend(&a->pace, n, err);
}

/* Copies [from, to), which may be cut off while it is read. */
static bool
copy_range(struct adoption *a, uint64_t from, uint64_t to, uint8_t *buffer,
           struct error **err)
{
    while (from < to) {
        ssize_t n =
            pread(a->image->fds[0], buffer, MIN(to - from, READ_BYTES), (off_t)from);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, ERROR_STORE, "read the seed at %llu",
                               (unsigned long long)from);
        if (n == 0)
            return true;
        if (!write_content(a, buffer, (size_t)n, from, err))
            return false;
        from += (uint64_t)n;
    }
    return true;
}

/* Where the next data is, and its end; a file system that cannot tell has only data. */
static void
find_data(int fd, uint64_t end, uint64_t *from, uint64_t *to)
{
    off_t data = lseek(fd, (off_t)*from, SEEK_DATA), hole;

    *to = end;
    if (data < 0) {
        *from = errno == ENXIO ? end : *from;
        return;
    }
    *from = MIN((uint64_t)data, end);
    hole = lseek(fd, data, SEEK_HOLE);
    if (hole > data)
        *to = MIN((uint64_t)hole, end);
}

static bool
copy_raw(struct adoption *a, struct error **err)
{
    AUTOFREE(uint8_t) *buffer = mem_alloc_pages(READ_BYTES);
    uint64_t end = MIN(a->image->capacity_bytes, a->capacity_bytes), from = 0, to = 0;

    while (from < end) {
        find_data(a->image->fds[0], end, &from, &to);
        if (!copy_range(a, from, to, buffer, err))
            return false;
        from = to;
    }
    return true;
}

static bool
take_raw(struct adoption *a, struct error **err)
{
    if (ioctl(a->fd, FICLONE, a->image->fds[0]) == 0)
        return true;
    return copy_raw(a, err);
}

/* --- qcow2: by qemu-img ---------------------------------------------------------------
 */

static uint64_t
bytes_of(int fd)
{
    struct stat st;

    return fstat(fd, &st) < 0 ? 0 : (uint64_t)st.st_blocks * SECTOR;
}

/* Until it has ended, or somebody wants it to. */
static bool
await(struct adoption *a, struct child *c, int *ret_status, struct error **err)
{
    const struct store_effort *effort = a->pace.effort;

    for (;;) {
        struct error *e = NULL;

        if (child_wait(c, LOOK_MS, ret_status, &e))
            return true;
        if (!error_is(e, ERROR_TIMEOUT))
            return error_propagate(err, e);
        error_free(e);
        if (!pace_check(&a->pace, err))
            return false;
        if (effort->progress != NULL)
            effort->progress(MIN(a->pace.done + bytes_of(a->fd), a->pace.total),
                             a->pace.total, effort->opaque);
    }
}

static bool
convert(struct adoption *a, const char *const *argv, struct error **err)
{
    struct child_request request = { .argv = argv,
                                     .folder = a->r->fd,
                                     .n_fds = a->image->n };
    struct child c;
    int status = 0;
    bool ok;

    for (size_t i = 0; i < a->image->n; i++)
        request.fds[i] = a->image->fds[i];
    if (!child_start(&request, &c, err))
        return false;
    ok = await(a, &c, &status, err) && child_verdict(&c, "qemu-img", status, err);
    child_end(&c);
    return ok;
}

static bool
take_qcow2(struct adoption *a, struct error **err)
{
    AUTOJSON *node = seed_image_node(a->image, CHILD_FIRST_FD, a->capacity_bytes);
    AUTOFREE(char) *from = mem_printf("json:%s", json_text(node));
    AUTOFREE(char) *rate =
        mem_printf("%llu", (unsigned long long)a->pace.effort->rate_bytes_s);
    const char *const free_argv[] = {
        "qemu-img", "convert", "-q", "-n",    "--target-is-zero",
        "-O",       "raw",     from, a->base, NULL
    };
    const char *const slow_argv[] = {
        "qemu-img", "convert", "-q",    "-n", "--target-is-zero", "-r", rate, "-O",
        "raw",      from,      a->base, NULL
    };

    return convert(a, a->pace.effort->rate_bytes_s > 0 ? slow_argv : free_argv, err);
}

/* --- the whole ------------------------------------------------------------------------
 */

/* Before a first sync has written anything, and no other time. */
static bool
find_base(struct adoption *a, const char *target, struct error **err)
{
    AUTOPTR(layout) *l = replica_layout(a->r);
    const struct layout_disk *d = layout_find(l, target);

    if (d == NULL)
        return error_set(err, ERROR_PROTOCOL, "the replica has no disk '%s'", target);
    if (l->applied != 0 || l->applying != 0 || d->n_layers != LAYOUT_MIN_LAYERS ||
        !layout_is_raw(d->layers[0]))
        return error_set(err, ERROR_INVALID_STATE,
                         "disk '%s' of the replica has a content already", target);
    layout_path(d->layers[0], a->base);
    a->capacity_bytes = d->capacity_bytes;
    return true;
}

/* What an earlier try has left of it goes. */
static bool
clear_base(struct adoption *a, struct error **err)
{
    if (ftruncate(a->fd, 0) == 0 && ftruncate(a->fd, (off_t)a->capacity_bytes) == 0)
        return true;
    return folder_errno(err, "clear '%s'", a->base);
}

bool
seed_adopt(struct replica *r, const char *target, const struct seed_image *image,
           const struct store_effort *effort, struct error **err)
{
    struct adoption a = { .r = r, .image = image, .pace = { .effort = effort } };
    AUTOFD(fd) = -1;

    if (!find_base(&a, target, err))
        return false;
    fd = openat(r->fd, a.base, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return folder_errno(err, "open '%s'", a.base);
    a.fd = fd;
    a.pace.total = MIN(image->stored_bytes, a.capacity_bytes);
    if (!pace_check(&a.pace, err) || !clear_base(&a, err) ||
        !(image->formats[0] == SEED_FORMAT_RAW ? take_raw(&a, err) : take_qcow2(&a, err)))
        return error_prefix(err, "disk '%s'", target);
    /* As long as the disk again: a shared file has the seed's length. */
    if (ftruncate(fd, (off_t)a.capacity_bytes) < 0 || fsync(fd) < 0)
        return folder_errno(err, "flush '%s'", a.base);
    return true;
}
