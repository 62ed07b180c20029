/*
 * What the subject has promised, on a file system that no fault reaches: a line
 * for each promise, synced before the next step.
 *
 *     acked SEQ HASH     journal SEQ was committed; the disks have this hash then
 *     gave-up SEQ        nobody wants point SEQ any more
 *     overlay ID SEQ W   the overlay ID of SEQ is there; W 1: a VM has written to it
 *     keeping ID         it is being given another name
 *     kept ID AS SEQ W   it has that name
 *     no-overlay ID      it is going
 *     home               the replica stands on original images
 *     sync SEQ           the direct writes before point SEQ have begun
 *     destroying         the store is going
 */
#ifndef TESTS_FAULTS_RECORD_H
#define TESTS_FAULTS_RECORD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

#define RECORD_MAX_SEQ      1000
#define RECORD_MAX_OVERLAYS 4
#define RECORD_ID_MAX       32

struct record_overlay {
    char id[RECORD_ID_MAX]; /* "": none */
    uint64_t seq;
    bool written;
};

struct record {
    int fd;
    _Atomic uint32_t *n_promises; /* counts what is appended; or NULL */
    uint64_t hashes[RECORD_MAX_SEQ + 1];
    bool acked[RECORD_MAX_SEQ + 1];
    bool gave_up[RECORD_MAX_SEQ + 1];
    uint64_t newest; /* acked; 0: none */
    struct record_overlay overlays[RECORD_MAX_OVERLAYS];
    bool keeping; /* one of them is being given another name */
    uint64_t sync;
    bool home;
    bool destroying;
};

/* Reads what is there; made if it is not. */
bool record_open(const char *path, struct record *ret, struct error **err);
void record_close(struct record *r);

bool record_acked(struct record *r, uint64_t seq, uint64_t hash, struct error **err);
bool record_gave_up(struct record *r, uint64_t seq, struct error **err);
bool record_overlay(struct record *r, const struct record_overlay *o, struct error **err);
bool record_keeping(struct record *r, const char *id, struct error **err);
bool record_kept(struct record *r, const char *id, const struct record_overlay *as,
                 struct error **err);
bool record_no_overlay(struct record *r, const char *id, struct error **err);
bool record_home(struct record *r, struct error **err);
bool record_sync(struct record *r, uint64_t seq, struct error **err);
bool record_destroying(struct record *r, struct error **err);

/* NULL: none of that id was promised. */
const struct record_overlay *record_find(const struct record *r, const char *id);

/* Is it a point that must be there? */
bool record_wants(const struct record *r, uint64_t seq);

#endif
