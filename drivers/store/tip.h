/*
 * A tip's disks, open for writing: a storage daemon and an NBD connection to
 * each disk. The replica has one; a point that is recovered has its own.
 *
 * Writes are asynchronous: data is copied, at most TIP_MAX_IN_FLIGHT requests
 * and TIP_MAX_BYTES bytes are under way, and one that overlaps another waits
 * for it, so that the disk ends as if they had been made one by one. A write
 * that fails is told by the next call; then everything since the last flush
 * is in doubt, and the tip is of no use but to be closed. One thread at a time.
 */
#ifndef DRIVERS_STORE_TIP_H
#define DRIVERS_STORE_TIP_H

#include "common/cancel.h"
#include "drivers/store/chain.h"

#define TIP_MAX_IN_FLIGHT 32
#define TIP_MAX_BYTES     (16u << 20)

struct tip;

/*
 * Opens these images. folder, the store's, must outlive it; socket_name is that of
 * the storage daemon's socket in it, another one for each that is open.
 */
bool tip_open(int folder, const char *socket_name, const struct chain *chains, size_t n,
              struct tip **ret, struct error **err);

/* What was not flushed may be lost. NULL is legal. */
void tip_close(struct tip *t);

/* Waiting ends when this is cancelled; NULL: never. It must outlive its use. */
void tip_set_cancel(struct tip *t, struct cancel *cancel);

/* The index of a disk in what was opened; false if it is not there. */
bool tip_find(const struct tip *t, const char *target, size_t *ret);

/* Bytes of the disk with this index. */
bool tip_write(struct tip *t, size_t disk, uint64_t offset, const void *data,
               size_t length, struct error **err);
bool tip_zero(struct tip *t, size_t disk, uint64_t offset, uint64_t length,
              struct error **err);

/*
 * Reads what the disk shows, writes asked for before included. Told in pieces of any
 * order, at the latest by tip_settle(); a piece begins at a multiple of 256 KiB from
 * `offset`, and data is valid only while it is told.
 */
typedef void (*tip_data_fn)(void *opaque, uint64_t offset, const void *data,
                            size_t length);
struct tip_reader {
    tip_data_fn data;
    void *opaque;
};
bool tip_read(struct tip *t, size_t disk, const struct tip_reader *reader,
              uint64_t offset, uint64_t length, struct error **err);

/* Tells what of [offset, offset + length) is known to be zero, in the disk's order. */
typedef void (*tip_zero_fn)(void *opaque, uint64_t offset, uint64_t length);
struct tip_zeroes {
    tip_zero_fn zero;
    void *opaque;
};
bool tip_find_zeroes(struct tip *t, size_t disk, const struct tip_zeroes *zeroes,
                     uint64_t offset, uint64_t length, struct error **err);

/*
 * How far from `offset` on, at most `length`, the disk is alike in this: was it written
 * to since the last flush, or opening? Until then all is in the files of the images.
 */
uint64_t tip_alike(const struct tip *t, size_t disk, uint64_t offset, uint64_t length,
                   bool *ret_written);

/* Waits for all that is under way. */
bool tip_settle(struct tip *t, struct error **err);

/* Waits for all writes and makes them durable. */
bool tip_flush(struct tip *t, struct error **err);

/* The storage daemon's process, for tests. */
int tip_pid(const struct tip *t);

#endif
