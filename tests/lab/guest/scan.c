/* Reads the disks of a run; see scan.h. */

#include "scan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK_BLOCKS \
    1024 /* several requests at a time: a guest's scan is part of its boot */
#define HELD_NOTHING 0          /* block numbers begin with 1 */
#define HELD_TORN    UINT64_MAX /* no run gets that far */

struct scan {
    const struct scan_disk *disks;
    uint32_t n_disks;
    unsigned char *buffer; /* CHUNK_BLOCKS blocks, aligned for O_DIRECT */
    uint64_t *held;        /* [disk * slots + slot - 1] */
    struct block_order order;
    bool super_found[BLOCK_DISKS_MAX];
    struct scan_result result;
    char *message;
    unsigned message_size;
};

static bool
read_blocks(struct scan *scan, uint32_t disk, uint64_t slot, uint64_t count)
{
    size_t want = count * BLOCK_BYTES, done = 0;

    while (done < want) {
        ssize_t n = pread(scan->disks[disk].fd, scan->buffer + done, want - done,
                          (off_t)(slot * BLOCK_BYTES + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            snprintf(scan->message, scan->message_size,
                     "read disk %u '%s' at slot %" PRIu64 ": %s", disk,
                     scan->disks[disk].name, slot,
                     n < 0 ? strerror(errno) : "the disk is shorter than the run says");
            return false;
        }
        done += (size_t)n;
    }
    return true;
}

/* A superblock with the wrong index means that the disks were given or attached in
 * another order. */
static bool
take_super(struct scan *scan, uint32_t disk, bool *run_known)
{
    struct block_run run;
    uint32_t index;

    if (!block_look_super(scan->buffer, &run, &index)) {
        if (!block_is_zero(scan->buffer))
            scan->result.torn++;
        return true;
    }
    if (index != disk) {
        snprintf(
            scan->message, scan->message_size,
            "disk %u '%s' was disk %u when the run was written; give them in that order",
            disk, scan->disks[disk].name, index);
        return false;
    }
    /* Superblocks are written in the order of the disks: the newest run is the one on
     * disk 0. */
    if (!*run_known) {
        scan->result.run = run;
        *run_known = true;
    }
    scan->super_found[disk] = run.id == scan->result.run.id;
    return true;
}

static enum scan_status
read_supers(struct scan *scan)
{
    bool run_known = false;

    for (uint32_t d = 0; d < scan->n_disks; d++) {
        if (!read_blocks(scan, d, 0, 1) || !take_super(scan, d, &run_known))
            return SCAN_FAILED;
    }
    if (!run_known && scan->result.torn == 0)
        return SCAN_NO_RUN;
    if (!run_known) {
        snprintf(scan->message, scan->message_size,
                 "no whole superblock, but %" PRIu64 " disks begin with something else",
                 scan->result.torn);
        return SCAN_FAILED;
    }
    if (scan->result.run.disks != scan->n_disks) {
        snprintf(scan->message, scan->message_size,
                 "the run was written over %u disks, %u are here", scan->result.run.disks,
                 scan->n_disks);
        return SCAN_FAILED;
    }
    return SCAN_OK;
}

static void
take_block(struct scan *scan, uint32_t disk, uint64_t slot, const unsigned char *block)
{
    const struct block_run *run = &scan->result.run;
    uint64_t *held = &scan->held[disk * run->slots + slot - 1];
    struct block_info info;

    switch (block_look(run, block, &info)) {
    case BLOCK_EMPTY:
        break;
    case BLOCK_FOREIGN:
        scan->result.foreign++;
        break;
    case BLOCK_TORN:
        scan->result.torn++;
        *held = HELD_TORN;
        break;
    case BLOCK_VALID:
        if (info.number == 0 || info.disk != disk ||
            block_disk(run, info.number) != disk ||
            block_slot(run, scan->order, info.number) != slot) {
            scan->result.misplaced++;
            break;
        }
        *held = info.number;
        if (info.number > scan->result.disk_highest[disk])
            scan->result.disk_highest[disk] = info.number;
        if (info.number > scan->result.highest) {
            scan->result.highest = info.number;
            scan->result.newest_time_ns = info.time_ns;
        }
        break;
    }
}

static bool
read_all(struct scan *scan, uint32_t disk)
{
    uint64_t end = scan->result.run.slots + 1;

    for (uint64_t slot = 1; slot < end; slot += CHUNK_BLOCKS) {
        uint64_t count = end - slot < CHUNK_BLOCKS ? end - slot : CHUNK_BLOCKS;

        if (!read_blocks(scan, disk, slot, count))
            return false;
        for (uint64_t i = 0; i < count; i++)
            take_block(scan, disk, slot + i, scan->buffer + i * BLOCK_BYTES);
    }
    return true;
}

static void
count_missing(struct scan_result *result, uint64_t number, bool torn)
{
    result->missing++;
    if (!torn)
        result->order++;
    if (number != 0 && (result->first_missing == 0 || number < result->first_missing))
        result->first_missing = number;
}

/* The last number of each slot, up to the highest, must be there: each was durable before
 * the highest was begun. That many numbers back from the highest covers every slot once.
 */
static void
compare_with_order(struct scan *scan)
{
    struct scan_result *result = &scan->result;
    uint64_t all = result->run.slots * result->run.disks;
    uint64_t lowest = result->highest > all ? result->highest - all + 1 : 1;

    for (uint64_t n = lowest; n <= result->highest; n++) {
        uint64_t slot = block_slot(&result->run, scan->order, n);
        uint64_t held =
            scan->held[block_disk(&result->run, n) * result->run.slots + slot - 1];

        if (held == n)
            result->held++;
        else
            count_missing(result, n, held == HELD_TORN);
    }
    for (uint32_t d = 0; d < result->run.disks && result->highest > 0; d++) {
        if (!scan->super_found[d])
            count_missing(result, 0, false);
    }
}

static enum scan_status
scan_all(struct scan *scan)
{
    enum scan_status status = read_supers(scan);
    uint64_t all;

    if (status != SCAN_OK)
        return status;
    all = scan->result.run.slots * scan->result.run.disks;
    scan->held = calloc(all, sizeof(*scan->held));
    if (scan->held == NULL) {
        snprintf(scan->message, scan->message_size, "no memory for %" PRIu64 " slots",
                 all);
        return SCAN_FAILED;
    }
    scan->order = block_order(&scan->result.run);
    for (uint32_t d = 0; d < scan->n_disks; d++) {
        if (!read_all(scan, d))
            return SCAN_FAILED;
    }
    compare_with_order(scan);
    return SCAN_OK;
}

enum scan_status
scan_disks(const struct scan_disk *disks, uint32_t n_disks, struct scan_result *ret,
           char *message, unsigned message_size)
{
    struct scan scan = { .disks = disks,
                         .n_disks = n_disks,
                         .message = message,
                         .message_size = message_size };
    enum scan_status status = SCAN_FAILED;

    scan.buffer = aligned_alloc(BLOCK_BYTES, (size_t)CHUNK_BLOCKS * BLOCK_BYTES);
    if (n_disks == 0 || n_disks > BLOCK_DISKS_MAX)
        snprintf(message, message_size, "%u disks; 1 to %d can be read", n_disks,
                 BLOCK_DISKS_MAX);
    else if (scan.buffer == NULL)
        snprintf(message, message_size, "no memory");
    else
        status = scan_all(&scan);
    free(scan.buffer);
    free(scan.held);
    if (status == SCAN_OK)
        *ret = scan.result;
    return status;
}

bool
scan_is_consistent(const struct scan_result *result)
{
    return result->torn == 0 && result->missing == 0 && result->misplaced == 0;
}
