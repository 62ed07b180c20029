#include "common/wire.h"

#include <assert.h>
#include <pthread.h>
#include <zstd.h>

#include "common/xxh3.h"

#define HASHED_BYTES 32 /* of the header: all in front of the hash itself */

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

static void
put_header(const struct wire_frame *frame, uint8_t *p)
{
    put(p, 4, WIRE_MAGIC);
    put(p + 4, 1, frame->type);
    put(p + 5, 1, frame->flags);
    put(p + 6, 2, frame->disk);
    put(p + 8, 8, frame->offset);
    put(p + 16, 8, frame->length);
    put(p + 24, 4, frame->stored);
    put(p + 28, 4, frame->sequence);
}

static uint64_t
hash(const uint8_t *header, const void *payload, size_t n)
{
    XXH3_state_t *state = XXH3_createState(); /* its size is the library's business */
    uint64_t digest;

    if (state == NULL)
        abort();
    XXH3_64bits_reset(state);
    XXH3_64bits_update(state, header, HASHED_BYTES);
    if (n > 0)
        XXH3_64bits_update(state, payload, n);
    digest = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return digest;
}

void
wire_encode(struct wire_frame *frame, const void *payload,
            uint8_t header[WIRE_HEADER_BYTES])
{
    put_header(frame, header);
    frame->hash = hash(header, payload, frame->stored);
    put(header + HASHED_BYTES, 8, frame->hash);
}

static bool
malformed(const struct wire_frame *f, const char *what, struct error **err)
{
    return error_set(err, ERROR_PROTOCOL,
                     "frame %u (%s, index %u, offset %llu, length %llu, stored %u): %s",
                     f->sequence, wire_type_name(f->type), f->disk,
                     (unsigned long long)f->offset, (unsigned long long)f->length,
                     f->stored, what);
}

static bool
check_json(const struct wire_frame *f, struct error **err)
{
    if (f->flags != 0)
        return malformed(f, "flags on a JSON frame", err);
    if (f->disk != 0 || f->offset != 0)
        return malformed(f, "a JSON frame with an index or offset", err);
    if (f->stored == 0 || f->stored > WIRE_MAX_JSON)
        return malformed(f, "the JSON text is empty or too long", err);
    if (f->length != f->stored)
        return malformed(f, "length and stored length differ", err);
    return true;
}

/* end_max is where the disk or small file ends at the latest. */
static bool
check_range(const struct wire_frame *f, uint64_t end_max, struct error **err)
{
    if (f->length == 0)
        return malformed(f, "the length is 0", err);
    if (f->offset > end_max || f->length > end_max - f->offset)
        return malformed(f, "offset and length reach behind the largest possible end",
                         err);
    return true;
}

static bool
check_content(const struct wire_frame *f, uint64_t end_max, struct error **err)
{
    if (!check_range(f, end_max, err))
        return false;
    if (f->length > WIRE_MAX_DATA)
        return malformed(f, "the content is too long for one frame", err);
    if (f->stored == 0 || f->stored > WIRE_MAX_STORED)
        return malformed(f, "the payload is empty or too long", err);
    /* Content that compression does not make shorter is sent plain. */
    if ((f->flags & WIRE_ZSTD) != 0 ? f->stored > f->length : f->stored != f->length)
        return malformed(f, "the stored length does not fit to the length", err);
    return true;
}

static bool
check_window(const struct wire_frame *f, struct error **err)
{
    if (f->flags != 0 || f->stored != 0)
        return malformed(f, "a coarse WANT has a payload or flags", err);
    if (f->length > WIRE_MAX_WINDOW || f->offset % BLOCK_HASH_COARSE != 0)
        return malformed(f, "no such window", err);
    return check_range(f, WIRE_MAX_DISK_BYTES, err);
}

static bool
check_want(const struct wire_frame *f, struct error **err)
{
    if ((f->flags & WIRE_FINE) == 0)
        return check_window(f, err);
    if (f->flags != WIRE_FINE || f->offset != 0 || f->stored != f->length)
        return malformed(f, "a fine WANT has an offset or is packed", err);
    if (f->length == 0 || f->length % sizeof(uint64_t) != 0 ||
        f->length > WIRE_MAX_FINE * sizeof(uint64_t))
        return malformed(f, "no list of blocks", err);
    return true;
}

/* Fits the longest question of its kind; who asked knows how many there must be. */
static bool
check_hashes(const struct wire_frame *f, struct error **err)
{
    bool fine = (f->flags & WIRE_FINE) != 0;
    uint64_t most = fine ? WIRE_MAX_FINE * (BLOCK_HASH_COARSE / BLOCK_HASH_FINE)
                         : WIRE_MAX_WINDOW / BLOCK_HASH_COARSE;

    if (f->length % BLOCK_HASH_BYTES != 0 || f->length > most * BLOCK_HASH_BYTES)
        return malformed(f, "no list of hashes", err);
    if (fine ? f->offset != 0 : f->offset % BLOCK_HASH_COARSE != 0)
        return malformed(f, "hashes of no block", err);
    return check_content(f, WIRE_MAX_DISK_BYTES, err);
}

static bool
check_fields(const struct wire_frame *f, struct error **err)
{
    bool compares = f->type == WIRE_HASHES || f->type == WIRE_WANT;

    if ((f->flags & ~(WIRE_ZSTD | (compares ? WIRE_FINE : 0))) != 0)
        return malformed(f, "unknown flags", err);
    if (compares && f->disk >= WIRE_MAX_DISKS)
        return malformed(f, "no such disk index", err);
    switch (f->type) {
    case WIRE_HELLO:
    case WIRE_BEGIN:
    case WIRE_READY:
    case WIRE_END:
    case WIRE_ACK:
    case WIRE_ERROR:
        return check_json(f, err);
    case WIRE_DATA:
        if (f->disk >= WIRE_MAX_DISKS)
            return malformed(f, "no such disk index", err);
        return check_content(f, WIRE_MAX_DISK_BYTES, err);
    case WIRE_ZERO:
        if (f->disk >= WIRE_MAX_DISKS)
            return malformed(f, "no such disk index", err);
        if (f->stored != 0 || f->flags != 0)
            return malformed(f, "ZERO has a payload or flags", err);
        return check_range(f, WIRE_MAX_DISK_BYTES, err);
    case WIRE_BLOB:
        if (f->disk >= WIRE_MAX_BLOBS)
            return malformed(f, "no such blob index", err);
        return check_content(f, WIRE_MAX_BLOB_BYTES, err);
    case WIRE_HASHES:
        return check_hashes(f, err);
    case WIRE_WANT:
        return check_want(f, err);
    case WIRE_N_TYPES:
        break;
    }
    return malformed(f, "this version does not know the type", err);
}

bool
wire_decode(const uint8_t header[WIRE_HEADER_BYTES], struct wire_frame *ret,
            struct error **err)
{
    uint8_t type = header[4];
    struct wire_frame f = {
        .type = type < WIRE_N_TYPES ? (enum wire_type)type : WIRE_N_TYPES,
        .flags = header[5],
        .disk = (uint16_t)get(header + 6, 2),
        .offset = get(header + 8, 8),
        .length = get(header + 16, 8),
        .stored = (uint32_t)get(header + 24, 4),
        .sequence = (uint32_t)get(header + 28, 4),
        .hash = get(header + HASHED_BYTES, 8),
    };

    if (get(header, 4) != WIRE_MAGIC)
        return error_set(err, ERROR_PROTOCOL,
                         "a frame's header begins with %08llx instead of %08x",
                         (unsigned long long)get(header, 4), WIRE_MAGIC);
    if (!check_fields(&f, err))
        return false;
    *ret = f;
    return true;
}

bool
wire_check(const struct wire_frame *frame, const void *payload, struct error **err)
{
    uint8_t header[WIRE_HEADER_BYTES];

    put_header(frame, header);
    if (hash(header, payload, frame->stored) == frame->hash)
        return true;
    return error_set(err, ERROR_CHECKSUM,
                     "frame %u (%s, index %u, offset %llu) arrived damaged",
                     frame->sequence, wire_type_name(frame->type), frame->disk,
                     (unsigned long long)frame->offset);
}

static void
free_context(void *context)
{
    ZSTD_freeDCtx(context);
}

static pthread_key_t context_key;

static void
make_context_key(void)
{
    if (pthread_key_create(&context_key, free_context) != 0)
        abort();
}

/* The thread's own context: making one costs more than unpacking a small frame. */
static ZSTD_DCtx *
context(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    ZSTD_DCtx *c;

    pthread_once(&once, make_context_key);
    c = pthread_getspecific(context_key);
    if (c != NULL)
        return c;
    c = ZSTD_createDCtx();
    if (c == NULL || pthread_setspecific(context_key, c) != 0)
        abort();
    return c;
}

bool
wire_unpack(const struct wire_frame *frame, const void *payload, void *buf,
            const void **ret_data, struct error **err)
{
    size_t n;

    if ((frame->flags & WIRE_ZSTD) == 0) {
        *ret_data = payload;
        return true;
    }
    assert(frame->length <= WIRE_MAX_DATA); /* wire_decode() saw to it */
    /* zstd itself would take several frames, and frames of comment, one behind the other.
     */
    if (ZSTD_findFrameCompressedSize(payload, frame->stored) != frame->stored)
        return malformed(frame, "the payload is not one whole zstd frame", err);
    n = ZSTD_decompressDCtx(context(), buf, frame->length, payload, frame->stored);
    if (ZSTD_isError(n))
        return malformed(frame, ZSTD_getErrorName(n), err);
    if (n != frame->length)
        return malformed(frame, "the content is shorter than its length says", err);
    *ret_data = buf;
    return true;
}

uint64_t
wire_get_offset(const void *payload, size_t n)
{
    return get((const uint8_t *)payload + n * sizeof(uint64_t), sizeof(uint64_t));
}

void
wire_put_offset(void *payload, size_t n, uint64_t offset)
{
    put((uint8_t *)payload + n * sizeof(uint64_t), sizeof(uint64_t), offset);
}

const char *
wire_type_name(enum wire_type type)
{
    static const char *const names[WIRE_N_TYPES] = {
        [WIRE_HELLO] = "HELLO",   [WIRE_BEGIN] = "BEGIN", [WIRE_READY] = "READY",
        [WIRE_DATA] = "DATA",     [WIRE_ZERO] = "ZERO",   [WIRE_BLOB] = "BLOB",
        [WIRE_HASHES] = "HASHES", [WIRE_WANT] = "WANT",   [WIRE_END] = "END",
        [WIRE_ACK] = "ACK",       [WIRE_ERROR] = "ERROR",
    };
    const char *name = type < WIRE_N_TYPES ? names[type] : NULL;

    return name != NULL ? name : "unknown type";
}
