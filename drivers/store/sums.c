#include "drivers/store/sums.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "common/log.h"
#include "common/xxh3.h"
#include "drivers/store/folder.h"

/*
 * The file, little endian: magic, version, bytes of a block, size, number of
 * blocks, flags, hash of all but itself; a bit for each block that is known; a
 * hash for each block.
 */
#define MAGIC         "VDRSUMS1"
#define MAGIC_BYTES   8
#define FILE_VERSION  1
#define AT_VERSION    8
#define AT_BLOCK      12
#define AT_SIZE       16
#define AT_COUNT      24
#define AT_FLAGS      32
#define AT_HASH       40
#define HEADER_BYTES  48
#define FLAG_CHANGING 1
#define FLAG_DAMAGED  2

#define MAX_BLOCKS  (1ull << 26) /* 64 TiB: half a GiB of sums */
#define SAVE_BLOCKS 4096         /* at least so many are read between two saves, */
#define SAVES       64           /* and few enough of a large layer for so many */

/* --- in memory -------------------------------------------------------------------- */

static uint64_t
count_blocks(uint64_t size)
{
    return size / SUMS_BLOCK_BYTES + (size % SUMS_BLOCK_BYTES != 0);
}

static uint64_t
bitmap_bytes(uint64_t n)
{
    return n / 8 + 1; /* never none */
}

static bool
is_known(const struct sums *s, uint64_t block)
{
    return block < s->n && (s->known[block / 8] >> block % 8 & 1) != 0;
}

static void
set_known(struct sums *s, uint64_t block, uint64_t hash)
{
    s->hashes[block] = hash;
    s->known[block / 8] = (uint8_t)(s->known[block / 8] | 1u << block % 8);
}

static struct sums *
sums_new(uint64_t size)
{
    struct sums *s = NEW(struct sums);

    s->size = size;
    s->n = count_blocks(size);
    s->hashes = mem_alloc(s->n + 1, sizeof *s->hashes);
    s->known = mem_alloc(bitmap_bytes(s->n), 1);
    return s;
}

void
sums_free(struct sums *s)
{
    if (s == NULL)
        return;
    free(s->hashes);
    free(s->known);
    free(s);
}

struct sums *
sums_copy(const struct sums *s)
{
    struct sums *copy = sums_new(s->size);

    copy->changing = s->changing;
    copy->damaged = s->damaged;
    memcpy(copy->hashes, s->hashes, s->n * sizeof *s->hashes);
    memcpy(copy->known, s->known, bitmap_bytes(s->n));
    return copy;
}

bool
sums_equal(const struct sums *a, const struct sums *b)
{
    return a->size == b->size && a->changing == b->changing && a->damaged == b->damaged &&
           memcmp(a->known, b->known, bitmap_bytes(a->n)) == 0 &&
           memcmp(a->hashes, b->hashes, a->n * sizeof *a->hashes) == 0;
}

static uint64_t
count_unknown(const struct sums *s)
{
    uint64_t unknown = 0;

    for (uint64_t i = 0; i < s->n; i++)
        unknown += !is_known(s, i);
    return unknown;
}

bool
sums_complete(const struct sums *s)
{
    return !s->changing && count_unknown(s) == 0;
}

void
sums_forget(struct sums *s, uint64_t offset, uint64_t length)
{
    uint64_t first = offset / SUMS_BLOCK_BYTES;
    uint64_t end = MIN(s->n, count_blocks(offset + length));

    for (uint64_t i = first; i < end; i++)
        s->known[i / 8] = (uint8_t)(s->known[i / 8] & ~(1u << i % 8));
}

bool
sums_know_nothing(const struct sums *s)
{
    return count_unknown(s) == s->n;
}

void
sums_forget_all(struct sums *s)
{
    memset(s->known, 0, bitmap_bytes(s->n));
}

/* What is known of a file that may have got another size. */
static struct sums *
resized(const struct sums *old, uint64_t size)
{
    struct sums *s = sums_new(size);

    if (old == NULL)
        return s;
    s->damaged = old->damaged;
    for (uint64_t i = 0; i < MIN(s->n, old->n); i++)
        if (is_known(old, i))
            set_known(s, i, old->hashes[i]);

    /* The last block was, or is now, a shorter one. */
    if (size != old->size && MIN(size, old->size) % SUMS_BLOCK_BYTES != 0)
        sums_forget(s, MIN(size, old->size) - 1, 1);
    return s;
}

/* --- on disk ---------------------------------------------------------------------- */

static void
put(uint8_t *p, int bytes, uint64_t n)
{
    for (int i = 0; i < bytes; i++, n >>= 8)
        p[i] = (uint8_t)n;
}

static uint64_t
get(const uint8_t *p, int bytes)
{
    uint64_t n = 0;

    for (int i = bytes; i-- > 0;)
        n = n << 8 | p[i];
    return n;
}

static uint64_t
file_bytes(uint64_t n)
{
    return HEADER_BYTES + bitmap_bytes(n) + n * sizeof(uint64_t);
}

/* Of everything but the hash itself, which is zero meanwhile. */
static uint64_t
hash_file(uint8_t *data, uint64_t bytes)
{
    put(data + AT_HASH, 8, 0);
    return XXH3_64bits(data, bytes);
}

bool
sums_save(int disks, const char *layer, const struct sums *s, struct error **err)
{
    AUTOFREE(char) *name = mem_printf("%s" SUMS_SUFFIX, layer);
    AUTOFREE(uint8_t) *data = mem_alloc(file_bytes(s->n), 1);
    uint8_t *table = data + HEADER_BYTES + bitmap_bytes(s->n);

    memcpy(data, MAGIC, MAGIC_BYTES);
    put(data + AT_VERSION, 4, FILE_VERSION);
    put(data + AT_BLOCK, 4, SUMS_BLOCK_BYTES);
    put(data + AT_SIZE, 8, s->size);
    put(data + AT_COUNT, 8, s->n);
    put(data + AT_FLAGS, 8,
        (s->changing ? FLAG_CHANGING : 0) | (s->damaged ? FLAG_DAMAGED : 0));
    memcpy(data + HEADER_BYTES, s->known, bitmap_bytes(s->n));
    for (uint64_t i = 0; i < s->n; i++)
        put(table + i * 8, 8, s->hashes[i]);
    put(data + AT_HASH, 8, hash_file(data, file_bytes(s->n)));
    return folder_replace(disks, name, data, file_bytes(s->n), err);
}

/* All that the file says of sizes must fit the file itself. */
static bool
fits(const uint8_t *data, uint64_t bytes)
{
    return bytes >= HEADER_BYTES && memcmp(data, MAGIC, MAGIC_BYTES) == 0 &&
           get(data + AT_VERSION, 4) == FILE_VERSION &&
           get(data + AT_BLOCK, 4) == SUMS_BLOCK_BYTES &&
           get(data + AT_COUNT, 8) <= MAX_BLOCKS &&
           get(data + AT_COUNT, 8) == count_blocks(get(data + AT_SIZE, 8)) &&
           file_bytes(get(data + AT_COUNT, 8)) == bytes;
}

static struct sums *
decode(uint8_t *data, uint64_t bytes)
{
    uint64_t hash;
    struct sums *s;
    const uint8_t *table;

    if (!fits(data, bytes))
        return NULL;
    hash = get(data + AT_HASH, 8);
    if (hash_file(data, bytes) != hash)
        return NULL;
    s = sums_new(get(data + AT_SIZE, 8));
    s->changing = (get(data + AT_FLAGS, 8) & FLAG_CHANGING) != 0;
    s->damaged = (get(data + AT_FLAGS, 8) & FLAG_DAMAGED) != 0;
    memcpy(s->known, data + HEADER_BYTES, bitmap_bytes(s->n));
    table = data + HEADER_BYTES + bitmap_bytes(s->n);
    for (uint64_t i = 0; i < s->n; i++)
        s->hashes[i] = get(table + i * 8, 8);
    return s;
}

bool
sums_load(int disks, const char *layer, struct sums **ret, struct error **err)
{
    AUTOFREE(char) *name = mem_printf("%s" SUMS_SUFFIX, layer);
    AUTOFREE(char) *data = NULL;
    size_t n = 0;
    struct sums *s;

    if (faccessat(disks, name, F_OK, 0) < 0 && errno == ENOENT) {
        *ret = NULL;
        return true;
    }
    if (!folder_read(disks, name, file_bytes(MAX_BLOCKS), &data, &n, err))
        return false;
    s = decode((uint8_t *)data, n);
    if (s == NULL)
        return error_set(err, ERROR_CHECKSUM, "the checksums in '%s' are damaged", name);
    *ret = s;
    return true;
}

bool
sums_remove(int disks, const char *layer, struct error **err)
{
    AUTOFREE(char) *name = mem_printf("%s" SUMS_SUFFIX, layer);

    return folder_unlink(disks, name, err);
}

/* --- reading a layer ---------------------------------------------------------------- */

struct reader {
    int fd;
    uint64_t size;
    uint64_t data_at; /* no data lies between where we are and here */
    uint64_t hole_hash;
    uint8_t *buffer;
    struct pace *pace;
};

static void
reader_close(struct reader *r)
{
    if (r->fd >= 0)
        close(r->fd);
    free(r->buffer);
}

/* True and fd < 0: there is no such file. */
static bool
reader_open(const struct sums_job *job, struct reader *ret, struct error **err)
{
    struct stat st = { .st_size = 0 };

    *ret = (struct reader){ .pace = job->pace };
    ret->fd = openat(job->disks, job->layer, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (ret->fd < 0 && errno == ENOENT)
        return true;
    if (ret->fd < 0 || fstat(ret->fd, &st) < 0) {
        folder_errno(err, "open layer '%s'", job->layer);
        reader_close(ret);
        return false;
    }

    /* No reading ahead: it would make what comes next look as if it had been cached. */
    posix_fadvise(ret->fd, 0, 0, POSIX_FADV_RANDOM);
    ret->size = (uint64_t)st.st_size;
    ret->buffer = mem_alloc_pages(SUMS_BLOCK_BYTES);
    ret->hole_hash = XXH3_64bits(ret->buffer, SUMS_BLOCK_BYTES);
    return true;
}

static bool
is_hole(struct reader *r, uint64_t offset, size_t n)
{
    if (r->data_at <= offset) {
        off_t at = lseek(r->fd, (off_t)offset, SEEK_DATA);

        if (at < 0)
            r->data_at = errno == ENXIO ? UINT64_MAX : offset; /* none, or who knows */
        else
            r->data_at = (uint64_t)at;
    }
    return r->data_at >= offset + n;
}

/*
 * What a guest that runs on this host needs in memory stays there, what only we
 * have read goes: the cache is asked first whether it has all of it.
 */
static bool
read_block(struct reader *r, uint64_t offset, size_t n)
{
    struct iovec part = { .iov_base = r->buffer, .iov_len = n };
    ssize_t cached = preadv2(r->fd, &part, 1, (off_t)offset, RWF_NOWAIT);
    bool drop = cached < (ssize_t)n && (cached >= 0 || errno == EAGAIN);
    size_t have = cached > 0 ? (size_t)cached : 0;

    while (have < n) {
        ssize_t done = pread(r->fd, r->buffer + have, n - have, (off_t)(offset + have));

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false; /* damaged there, or cut off meanwhile */
        have += (size_t)done;
    }
    if (drop)
        posix_fadvise(r->fd, (off_t)offset, (off_t)n, POSIX_FADV_DONTNEED);
    return true;
}

struct block {
    uint64_t hash;
    bool hole; /* it was not read */
    bool readable;
};

static bool
hash_block(struct reader *r, uint64_t offset, size_t n, struct block *ret,
           struct error **err)
{
    *ret = (struct block){ .readable = true };
    ret->hole = n == SUMS_BLOCK_BYTES && is_hole(r, offset, n);
    if (ret->hole) {
        ret->hash = r->hole_hash;
        return pace_check(r->pace, err);
    }
    if (!pace_spend(r->pace, n, err))
        return false;
    ret->readable = read_block(r, offset, n);
    if (ret->readable)
        ret->hash = XXH3_64bits(r->buffer, n);
    return true;
}

static size_t
block_length(uint64_t size, uint64_t block)
{
    return (size_t)MIN(SUMS_BLOCK_BYTES, size - block * SUMS_BLOCK_BYTES);
}

/* --- making them -------------------------------------------------------------------- */

/* Makes blocks until it is time to save them; *next is where to go on. A save writes
   the sums of all: holes, which cost nothing, are worth none. */
static bool
digest_some(struct reader *r, struct sums *s, uint64_t *next, struct error **err)
{
    uint64_t n_read = 0, limit = MAX(SAVE_BLOCKS, s->n / SAVES);
    uint64_t i = *next;
    bool ok = true;

    for (; ok && i < s->n && n_read < limit; i++) {
        struct block b;

        if (is_known(s, i))
            continue;
        ok = hash_block(r, i * SUMS_BLOCK_BYTES, block_length(s->size, i), &b, err);
        if (ok && b.readable)
            set_known(s, i, b.hash);
        n_read += !b.hole;
    }
    *next = i;
    return ok;
}

static bool
digest_file(const struct sums_job *job, struct reader *r, struct sums *s,
            struct error **err)
{
    uint64_t next = 0;

    do {
        AUTOPTR(error) *why = NULL;
        bool ok = digest_some(r, s, &next, &why);

        /* Saved also when it was stopped: the next one goes on from there. */
        if (!sums_save(job->disks, job->layer, s, err))
            return false;
        if (!ok)
            return error_propagate(err, TAKE(why));
    } while (next < s->n);
    return true;
}

bool
sums_load_or_none(int disks, const char *layer, struct sums **ret, struct error **err)
{
    AUTOPTR(error) *why = NULL;

    if (sums_load(disks, layer, ret, &why))
        return true;
    if (!error_is(why, ERROR_CHECKSUM))
        return error_propagate(err, TAKE(why));
    log_ignore(NULL, "sums-damaged", &why);
    *ret = NULL;
    return true;
}

bool
sums_digest(const struct sums_job *job, struct error **err)
{
    AUTOPTR(sums) *old = NULL;
    AUTOPTR(sums) *s = NULL;
    struct reader r;
    bool ok;

    if (!sums_load_or_none(job->disks, job->layer, &old, err))
        return false;
    if (old != NULL && sums_complete(old))
        return true;
    if (!reader_open(job, &r, err))
        return false;
    if (r.fd < 0)
        return error_set(err, ERROR_STORE, "layer '%s' is missing", job->layer);
    if (old != NULL && !old->changing && old->size != r.size) {
        ok = true; /* damaged, which is not for us to make right: a check will tell */
    } else if (count_blocks(r.size) > MAX_BLOCKS) {
        ok = error_set(err, ERROR_STORE, "layer '%s' is too large for checksums",
                       job->layer);
    } else {
        s = resized(old, r.size);
        ok = digest_file(job, &r, s, err);
    }
    reader_close(&r);
    return ok;
}

bool
sums_blame(const struct sums_job *job, struct error **err)
{
    AUTOPTR(sums) *s = NULL;
    struct stat st;

    if (!sums_load_or_none(job->disks, job->layer, &s, err))
        return false;
    if (s == NULL) {
        if (fstatat(job->disks, job->layer, &st, 0) < 0)
            return folder_errno(err, "look at layer '%s'", job->layer);
        s = sums_new((uint64_t)st.st_size);
    }
    if (s->damaged)
        return true;
    s->damaged = true;
    return sums_save(job->disks, job->layer, s, err);
}

/* --- checking ----------------------------------------------------------------------- */

static void
found(struct sums_verdict *v, uint64_t block)
{
    if (v->n_damaged++ == 0)
        v->first_damaged = block * SUMS_BLOCK_BYTES;
}

static bool
check_blocks(struct reader *r, const struct sums *s, const struct sums *but,
             struct sums_verdict *v, struct error **err)
{
    for (uint64_t i = 0; i < s->n; i++) {
        struct block b;

        if (!is_known(s, i) || (but != NULL && is_known(but, i)))
            continue;
        if (!hash_block(r, i * SUMS_BLOCK_BYTES, block_length(s->size, i), &b, err))
            return false;
        if (!b.readable || b.hash != s->hashes[i])
            found(v, i);
    }
    return true;
}

bool
sums_check(const struct sums_job *job, const struct sums *s, const struct sums *but,
           struct sums_verdict *ret, struct error **err)
{
    struct sums_verdict v = { .n_unknown = count_unknown(s) };
    struct reader r;
    bool ok;

    if (!reader_open(job, &r, err))
        return false;
    if (r.fd < 0) {
        *ret = (struct sums_verdict){ .missing = true };
        return true;
    }
    v.resized = !s->changing && r.size != s->size;
    ok = check_blocks(&r, s, but, &v, err);
    reader_close(&r);
    if (ok)
        *ret = v;
    return ok;
}

bool
sums_found_damage(const struct sums_verdict *v)
{
    return v->missing || v->resized || v->n_damaged > 0;
}
