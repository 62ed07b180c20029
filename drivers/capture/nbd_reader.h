/*
 * Reads one disk of a capture over NBD from a unix socket: which parts changed
 * or hold data, and their content, with several requests in flight.
 *
 * It belongs to one thread. It connects when it is first used, with more
 * connections as more is read, and again after a failure. Every wait ends with
 * the cancel object, and with ERROR_TIMEOUT when the server does not move for
 * 30 s. At most 8 requests of CAPTURE_MAX_REQUEST are in flight. ERROR_HYPERVISOR
 * for what the server refuses, ERROR_PROTOCOL for answers that make no sense.
 */
#ifndef DRIVERS_CAPTURE_NBD_READER_H
#define DRIVERS_CAPTURE_NBD_READER_H

#include "drivers/capture.h"
#include "drivers/capture/nbd_link.h"

struct nbd_reader;

/* bitmap: the qemu:dirty-bitmap to follow; NULL: the whole disk. */
struct nbd_reader *nbd_reader_new(const char *socket, const char *export,
                                  const char *bitmap, struct cancel *cancel);
/* Before it is first used. */
void nbd_reader_set_keeper(struct nbd_reader *r, struct nbd_keeper keeper);
void nbd_reader_free(struct nbd_reader *r);
DEFINE_AUTOPTR(nbd_reader);

bool nbd_reader_size(struct nbd_reader *r, uint64_t *ret_bytes, struct error **err);

/* As capture_ops.measure and .read; `disk` is only handed through to the sink. */
bool nbd_reader_measure(struct nbd_reader *r, uint64_t from, uint64_t to,
                        uint64_t *ret_bytes, struct error **err);
bool nbd_reader_read(struct nbd_reader *r, size_t disk, uint64_t from, uint64_t to,
                     const struct capture_sink *sink, struct error **err);

#endif
