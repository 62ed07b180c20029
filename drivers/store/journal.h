/*
 * Journal files: one cycle each, its frames as they came (common/wire.h).
 *
 * Writing: `<seq>.part` while it comes in, `<seq>` once it is whole and durable.
 * Reading gives nothing to the caller that has not been checked: order, limits
 * against BEGIN's disks and blobs, and the payload's hash. A writer or reader
 * belongs to one thread; several may be at work in one folder. Each holds at
 * most one payload (WIRE_MAX_STORED) in memory.
 *
 * Errors: ERROR_PROTOCOL (frames that do not fit, when writing), ERROR_CHECKSUM (what is
 * read is not what was written), ERROR_STORE, ERROR_NO_SPACE, ERROR_POINT_NOT_FOUND (no
 * such seq).
 */
#ifndef DRIVERS_STORE_JOURNAL_H
#define DRIVERS_STORE_JOURNAL_H

#include "drivers/store.h"
#include "drivers/store/journals.h"
#include "drivers/store/layout.h"

#define JOURNAL_NAME_MAX 32

/* What BEGIN announces. */
struct journal_manifest {
    struct store_disk disks[WIRE_MAX_DISKS];
    size_t n_disks;
    char blobs[WIRE_MAX_BLOBS][LAYOUT_NAME_MAX];
    size_t n_blobs;
};

/* Follows a cycle's frames, in either direction. */
struct journal_checker {
    uint64_t seq;
    uint32_t next;     /* the sequence of the frame that must come now */
    bool ended;        /* END was here: nothing may follow */
    uint64_t n_writes; /* DATA and ZERO so far */
    uint64_t blob_bytes[WIRE_MAX_BLOBS];
    struct journal_manifest manifest;
};

/* May this frame (checked by wire_decode() and wire_check()) come now? */
bool journal_checker_take(struct journal_checker *c, const struct wire_frame *frame,
                          const void *payload, struct error **err);

/* The ops journal_begin/append/commit/abort of drivers/store.h; at: the folder. */
bool journal_new(int at, uint64_t seq, struct journal **ret, struct error **err);

/* Who is told once it is committed; borrowed. */
void journal_tell(struct journal *j, struct journals *journals);
bool journal_append(struct journal *j, const struct wire_frame *frame,
                    const void *payload, struct error **err);
bool journal_commit(struct journal *j, struct error **err);
void journal_abort(struct journal *j);

struct journal_reader;

bool journal_reader_open(int at, uint64_t seq, struct journal_reader **ret,
                         struct error **err);
void journal_reader_free(struct journal_reader *r);
DEFINE_AUTOPTR(journal_reader);

/*
 * The next frame and its payload (borrowed until the next call). *ret_end is
 * true behind END, and there is no frame then.
 */
bool journal_reader_next(struct journal_reader *r, struct wire_frame *ret_frame,
                         const void **ret_payload, bool *ret_end, struct error **err);

/* What BEGIN said; empty before it was read. Borrowed. */
const struct journal_manifest *journal_reader_manifest(const struct journal_reader *r);

/*
 * Reads it from the first to the last byte; true if it is whole and fits
 * itself. *ret is then what its frames said.
 */
bool journal_verify(int at, uint64_t seq, struct cancel *cancel,
                    struct journal_checker *ret, struct error **err);

/* Reads its first frame alone. */
bool journal_peek(int at, uint64_t seq, struct journal_manifest *ret, struct error **err);

/* The length of the file. */
bool journal_bytes(int at, uint64_t seq, uint64_t *ret, struct error **err);

/* The seqs of the durable journals, ascending. */
bool journal_list(int at, uint64_t **ret, size_t *ret_n, struct error **err);
bool journal_drop(int at, uint64_t seq, struct error **err);

/* Removes what was on its way in when the process died. */
bool journal_remove_parts(int at, struct error **err);

#endif
