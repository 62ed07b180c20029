/*
 * Journal files from any bytes: as they are, and with the hashes made right, so
 * that what comes behind the checksum is reached too.
 */
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/mem.h"
#include "drivers/store/journal.h"
#include "tests/fuzz/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
read_journal(const uint8_t *data, size_t n)
{
    static const char name[] = "000000000001";
    struct journal_checker checked;
    int folder = fuzz_put(name, data, n);

    if (journal_verify(folder, 1, NULL, &checked, NULL)) {
        /* What was accepted keeps to its limits. */
        if (!checked.ended || checked.manifest.n_disks > WIRE_MAX_DISKS ||
            checked.manifest.n_blobs > WIRE_MAX_BLOBS)
            abort();
    }
    fuzz_remove(name);
}

static void
correct_hashes(uint8_t *bytes, size_t n)
{
    struct wire_frame frame;
    size_t at = 0;

    while (n - at >= WIRE_HEADER_BYTES && wire_decode(bytes + at, &frame, NULL)) {
        uint8_t *payload = bytes + at + WIRE_HEADER_BYTES;

        if (frame.stored > n - at - WIRE_HEADER_BYTES)
            return;
        wire_encode(&frame, payload, bytes + at);
        at += WIRE_HEADER_BYTES + frame.stored;
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    AUTOFREE(char) *copy = mem_memdup(data, n);

    read_journal(data, n);
    correct_hashes((uint8_t *)copy, n);
    read_journal((const uint8_t *)copy, n);
    return 0;
}
