/*
 * Writes to files in the order in which they were asked for, on a thread of its
 * own: whoever receives a disk goes on receiving while what came is written.
 *
 * Content is gathered in pieces of WRITER_PIECE_BYTES and goes past the page cache
 * where the file system can do that: a first sync is written once and not read
 * soon, and would only drive out what others need. At most WRITER_PIECES of them
 * are held. One thread at a time may call it.
 */
#ifndef DRIVERS_STORE_WRITER_H
#define DRIVERS_STORE_WRITER_H

#include <stddef.h>
#include <stdint.h>

#include "common/mem.h"
#include "drivers/store.h"

#define WRITER_PIECE_BYTES (4u << 20)
#define WRITER_PIECES      4

/* Both descriptors stay open until the next writer_drain(), or writer_free(). */
struct writer_file {
    char target[STORE_TARGET_MAX]; /* the disk, for messages */
    int fd;
    int direct_fd; /* the same file with O_DIRECT; -1: it cannot do that */
};

struct writer;

struct writer *writer_new(void);

/* Waits for what is under way, forgets the rest. */
void writer_free(struct writer *w);
DEFINE_AUTOPTR(writer);

/*
 * Data is copied. What fails is told by one of the calls that follow, at the latest by
 * writer_drain(); whatever was asked for since the last one is in doubt then.
 */
bool writer_data(struct writer *w, const struct writer_file *f, uint64_t offset,
                 const void *data, size_t length, struct error **err);
bool writer_zero(struct writer *w, const struct writer_file *f, uint64_t offset,
                 uint64_t length, struct error **err);

/*
 * Where writer_data() would copy these bytes to: whoever puts them there before any
 * other call spares the copy. NULL: they are to come from elsewhere.
 */
void *writer_place(struct writer *w, const struct writer_file *f, uint64_t offset,
                   size_t length);

/* Waits until all is written; not durable yet: fsync. */
bool writer_drain(struct writer *w, struct error **err);

#endif
