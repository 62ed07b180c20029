/*
 * Frames from any bytes. What wire_decode() takes must keep to every limit that
 * its callers rely on, and be the same when it is written again.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/wire.h"

#define must(condition)   \
    do {                  \
        if (!(condition)) \
            abort();      \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
check_limits(const struct wire_frame *f)
{
    must(f->stored <= WIRE_MAX_STORED);
    must(f->disk < WIRE_MAX_DISKS);
    must(f->offset + f->length >= f->offset);
    must(f->offset + f->length <= WIRE_MAX_DISK_BYTES);
    if (f->type == WIRE_WANT && f->stored == 0) {
        must(f->length <= WIRE_MAX_WINDOW && f->offset % BLOCK_HASH_COARSE == 0);
        return;
    }
    must(f->type == WIRE_ZERO || f->length <= WIRE_MAX_DATA);
    must(f->type == WIRE_ZERO || (f->stored > 0 && f->stored <= f->length));
    must(f->type != WIRE_WANT || f->length <= WIRE_MAX_FINE * sizeof(uint64_t));
    must(f->type != WIRE_HASHES ||
         f->length <=
             WIRE_MAX_FINE * (BLOCK_HASH_COARSE / BLOCK_HASH_FINE) * BLOCK_HASH_BYTES);
    must(f->type != WIRE_BLOB || f->disk < WIRE_MAX_BLOBS);
    must(f->type != WIRE_BLOB || f->offset + f->length <= WIRE_MAX_BLOB_BYTES);
}

static void
check_unpack(const struct wire_frame *f, const uint8_t *payload)
{
    AUTOFREE(uint8_t) *buf = (uint8_t *)mem_alloc(f->length, 1);
    const void *content = NULL;

    if (wire_unpack(f, payload, buf, &content, NULL))
        must(content == payload || content == buf);
    else
        must(content == NULL);
}

/* A frame with its payload, as it came and with the hash made right. */
static void
check_frame(const uint8_t *header, const struct wire_frame *f, const uint8_t *payload)
{
    struct wire_frame again = *f, decoded;
    uint8_t bytes[WIRE_HEADER_BYTES];
    bool whole = wire_check(f, payload, NULL);

    wire_encode(&again, payload, bytes);
    must(memcmp(bytes, header, 32) == 0);
    must(whole == (again.hash == f->hash));
    must(wire_decode(bytes, &decoded, NULL));
    must(wire_check(&decoded, payload, NULL));
    if (f->type == WIRE_DATA || f->type == WIRE_BLOB || f->type == WIRE_HASHES)
        check_unpack(f, payload);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct wire_frame f;

    while (n >= WIRE_HEADER_BYTES && wire_decode(data, &f, NULL)) {
        check_limits(&f);
        if (f.stored > n - WIRE_HEADER_BYTES)
            return 0;
        check_frame(data, &f, data + WIRE_HEADER_BYTES);
        data += WIRE_HEADER_BYTES + f.stored;
        n -= WIRE_HEADER_BYTES + f.stored;
    }
    return 0;
}
