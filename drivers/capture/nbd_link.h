/*
 * The connections to one NBD export, driven by one poll loop.
 *
 * Belongs to one thread. After a failure of any function the link is broken:
 * nbd_link_reset() closes all connections, and only then may the memory of
 * requests that were in flight be touched.
 */
#ifndef DRIVERS_CAPTURE_NBD_LINK_H
#define DRIVERS_CAPTURE_NBD_LINK_H

#include <libnbd.h>
#include <stdint.h>

#include "common/cancel.h"
#include "common/error.h"

#define NBD_LINK_MAX 3 /* two for data, one for the bitmap */

/*
 * Is given each connection before anything is said on it. For a server that must
 * not see a client leave by itself: who keeps a duplicate prevents that.
 */
struct nbd_keeper {
    bool (*keep)(void *opaque, int fd, struct error **err);
    void *opaque;
};

struct nbd_link {
    struct nbd_keeper keeper; /* keep may be NULL */
    char *socket;
    char *export;
    struct cancel *cancel;
    struct nbd_handle *handles[NBD_LINK_MAX];
    size_t n;
    int64_t progress_ms; /* when something moved last, units_monotonic_ms() */
};

void nbd_link_init(struct nbd_link *l, const char *socket, const char *export,
                   struct cancel *cancel);
void nbd_link_reset(struct nbd_link *l);
void nbd_link_clear(struct nbd_link *l); /* reset, and frees what init took */

/* One more connection, with one metadata context; *ret stays the link's. */
bool nbd_link_connect(struct nbd_link *l, const char *context, struct nbd_handle **ret,
                      struct error **err);

/* Our side did something (a sink took its time): the limit starts anew. */
void nbd_link_touch(struct nbd_link *l);

/* Waits until something moved on any connection, at most a moment; runs callbacks. */
bool nbd_link_turn(struct nbd_link *l, struct error **err);

/* The same without waiting: whatever can move now. */
bool nbd_link_glance(struct nbd_link *l, struct error **err);

/* Sets err from libnbd's last error on this thread. */
bool nbd_link_error(const struct nbd_link *l, struct error **err, const char *what);

#endif
