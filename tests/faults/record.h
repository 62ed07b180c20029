/*
 * What the subject has promised, on a file system that no fault reaches: a line
 * for each promise, synced before the next step.
 *
 *     acked SEQ HASH     journal SEQ was committed; the disks have this hash then
 *     gave-up SEQ        nobody wants point SEQ any more
 *     overlay SEQ        the overlay RECORD_OVERLAY of SEQ is there
 *     no-overlay         it is going
 *     sync SEQ           the direct writes before point SEQ have begun
 *     destroying         the store is going
 */
#ifndef TESTS_FAULTS_RECORD_H
#define TESTS_FAULTS_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

#define RECORD_OVERLAY "drill"
#define RECORD_MAX_SEQ 1000

struct record {
    int fd;
    uint64_t hashes[RECORD_MAX_SEQ + 1];
    bool acked[RECORD_MAX_SEQ + 1];
    bool gave_up[RECORD_MAX_SEQ + 1];
    uint64_t newest; /* acked; 0: none */
    uint64_t overlay;
    uint64_t sync;
    bool destroying;
};

/* Reads what is there; made if it is not. */
bool record_open(const char *path, struct record *ret, struct error **err);
void record_close(struct record *r);

bool record_acked(struct record *r, uint64_t seq, uint64_t hash, struct error **err);
bool record_gave_up(struct record *r, uint64_t seq, struct error **err);
bool record_overlay(struct record *r, uint64_t seq, struct error **err);
bool record_no_overlay(struct record *r, struct error **err);
bool record_sync(struct record *r, uint64_t seq, struct error **err);
bool record_destroying(struct record *r, struct error **err);

/* Is it a point that must be there? */
bool record_wants(const struct record *r, uint64_t seq);

#endif
