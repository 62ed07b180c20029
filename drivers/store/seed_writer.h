/*
 * The images of an export that is under way: new qcow2 files in a folder, written by a
 * storage daemon that works in another one (a medium may not be able to hold a socket).
 *
 * Nothing is durable before seed_writer_flush(). One thread at a time. Errors:
 * ERROR_STORE, ERROR_NO_SPACE, ERROR_CANCELLED.
 */
#ifndef DRIVERS_STORE_SEED_WRITER_H
#define DRIVERS_STORE_SEED_WRITER_H

#include "common/cancel.h"
#include "common/error.h"
#include "drivers/store_types.h"

struct seed_writer;

struct seed_writer_settings {
    const char *folder; /* absolute; images of these names in it are replaced */
    int work;           /* an open folder for the daemon; outlives the writer */
    const struct store_disk *disks;
    size_t n_disks;
    struct cancel *cancel;
};

bool seed_writer_open(const struct seed_writer_settings *settings,
                      struct seed_writer **ret, struct error **err);

/* Asynchronous: an error may be told by a later call. disk: the index in the settings. */
bool seed_writer_data(struct seed_writer *w, size_t disk, uint64_t offset,
                      const void *data, size_t length, struct error **err);
bool seed_writer_zero(struct seed_writer *w, size_t disk, uint64_t offset,
                      uint64_t length, struct error **err);
bool seed_writer_flush(struct seed_writer *w, struct error **err);

/* NULL is legal. */
void seed_writer_close(struct seed_writer *w);

/* Ends the daemon that a crash has left in that folder. */
bool seed_writer_end_stale(int work, struct error **err);

#endif
