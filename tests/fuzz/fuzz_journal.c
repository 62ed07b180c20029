/*
 * Journal files from any bytes: as they are, and with the hashes made right, so
 * that what comes behind the checksum is reached too.
 */
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/mem.h"
#include "drivers/store/journal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
read_journal(int folder, const uint8_t *data, size_t n)
{
    static const char name[] = "000000000001";
    struct journal_checker checked;
    AUTOFD(fd) = openat(folder, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 || write(fd, data, n) != (ssize_t)n)
        abort();
    if (journal_verify(folder, 1, NULL, &checked, NULL)) {
        /* What was accepted keeps to its limits. */
        if (!checked.ended || checked.manifest.n_disks > WIRE_MAX_DISKS ||
            checked.manifest.n_blobs > WIRE_MAX_BLOBS)
            abort();
    }
    unlinkat(folder, name, 0);
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
    char folder[] = "/tmp/vdr-fuzz-XXXXXX";
    AUTOFREE(char) *copy = mem_memdup(data, n);
    AUTOFD(fd) = -1;

    if (mkdtemp(folder) == NULL)
        abort();
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        abort();
    read_journal(fd, data, n);
    correct_hashes((uint8_t *)copy, n);
    read_journal(fd, (const uint8_t *)copy, n);
    rmdir(folder);
    return 0;
}
