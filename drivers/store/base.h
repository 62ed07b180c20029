/*
 * The base of a replica's disks: their first layers, written directly.
 *
 * A first sync fills sparse raw files in place, with pwrite() and holes; the
 * storage daemon reads through them later. One open file for each disk that
 * was written, and a thread that writes, until base_close(). The tip's thread
 * only.
 */
#ifndef DRIVERS_STORE_BASE_H
#define DRIVERS_STORE_BASE_H

#include "drivers/store/layout.h"
#include "drivers/store/writer.h"

/* Zeroed memory is an empty one. */
struct base {
    struct writer_file *files;
    size_t n_files;
    struct writer *writer; /* NULL until something is written */
};

/*
 * folder is the store's; the range must lie within the disk: ERROR_PROTOCOL if not.
 * Done later, in order; errors may come with a later call.
 */
bool base_write(struct base *b, int folder, const struct layout_disk *d, uint64_t offset,
                const void *data, size_t length, struct error **err);
bool base_zero(struct base *b, int folder, const struct layout_disk *d, uint64_t offset,
               uint64_t length, struct error **err);

/* As writer_place(), for a disk that was written to before. */
void *base_place(struct base *b, const char *target, uint64_t offset, size_t length);
/* Waits until all of it can be read. */
bool base_settle(struct base *b, struct error **err);

/* Waits for all of it and makes it durable. */
bool base_flush(struct base *b, struct error **err);
void base_close(struct base *b);

#endif
