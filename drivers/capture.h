/*
 * Capture drivers: the disks of a domain at one point in time, and what
 * changed since an earlier one.
 *
 * A driver object is shared by all threads; a struct capture belongs to the
 * worker thread that began it. Every function may block. At most one capture
 * per domain at a time; a job of somebody else is never touched:
 * ERROR_JOB_BUSY, come again later.
 *
 * Points on the source are known by a name that the caller makes (unique for
 * ever, at most CAPTURE_NAME_MAX bytes of [A-Za-z0-9-]). The driver records
 * what the guest changes from each named point on, until forget(). The caller
 * stores a name before it lets begin() use it, so that nothing of ours is
 * ever left without an owner (I6).
 *
 * A domain that is off records nothing for us: its driver (offline.h) makes no
 * point, and reads since one that was made while the domain ran.
 *
 * Errors: ERROR_CHECKPOINT_LOST (the record since `base` is gone or broken:
 * the caller synchronises anew), ERROR_JOB_BUSY, ERROR_SCRATCH_FULL,
 * ERROR_INVALID_STATE (the domain is not running), ERROR_DOMAIN_NOT_FOUND,
 * ERROR_CONNECT, ERROR_TIMEOUT (no progress), ERROR_CANCELLED, ERROR_HYPERVISOR.
 */
#ifndef DRIVERS_CAPTURE_H
#define DRIVERS_CAPTURE_H

#include <stdint.h>

#include "common/cancel.h"
#include "common/error.h"
#include "drivers/hypervisor.h"

#define CAPTURE_NAME_MAX    60
#define CAPTURE_MAX_REQUEST (512u << 10) /* longest run handed to a sink */

struct capture_disk {
    const char *target; /* "vda" */
    bool whole;         /* there is no record for it: every byte counts as changed */
};

struct capture_request {
    const char *uuid;
    const struct capture_disk *disks;
    size_t n_disks;
    const char *base;           /* changed since this point; NULL: whole disks */
    bool unchanged;             /* offline: the caller knows that nothing did */
    const char *name;           /* the point made by this capture; NULL: none */
    const char *scratch_folder; /* where old content waits to be read; exists */
    uint64_t scratch_limit_bytes;
    struct cancel *cancel; /* may be NULL; looked at in every wait */
};

/*
 * Where the content goes. Called on the thread that called read(), offsets of
 * one read() in any order, each byte at most once; length is at most
 * CAPTURE_MAX_REQUEST for data, unbounded for zero. data is only valid
 * during the call. Returning false ends the read with that error. A sink may
 * block: the guest's job stays open meanwhile, the driver watches the scratch
 * space on its own.
 */
struct capture_sink {
    bool (*data)(void *opaque, size_t disk, uint64_t offset, const void *data,
                 size_t length, struct error **err);
    bool (*zero)(void *opaque, size_t disk, uint64_t offset, uint64_t length,
                 struct error **err);
    void *opaque;
};

struct capture; /* one point in time, held open */
struct capture_driver;

struct capture_ops {
    const char *name;

    void (*close)(struct capture_driver *driver);

    /*
     * Bytes that changed since the named point, over the given disks; an
     * upper bound, and 0 only if really nothing changed. Cheap (no job).
     */
    bool (*changed)(struct capture_driver *driver, const char *uuid, const char *name,
                    const struct capture_disk *disks, size_t n_disks, uint64_t *ret_bytes,
                    struct error **err);

    /* Holds a point in time; *ret_time_ms is its wall clock time, not later than it. */
    bool (*begin)(struct capture_driver *driver, const struct capture_request *request,
                  struct capture **ret, int64_t *ret_time_ms, struct error **err);

    /* Capacity in bytes of a disk (index into the request's) at this point. */
    bool (*capacity)(struct capture *c, size_t disk, uint64_t *ret_bytes,
                     struct error **err);

    /*
     * How many bytes read() will hand over as data for [from, to), without
     * reading them; `to` is cut to the capacity. For progress.
     */
    bool (*measure)(struct capture *c, size_t disk, uint64_t from, uint64_t to,
                    uint64_t *ret_bytes, struct error **err);

    /* Hands what changed in [from, to) (all of it for whole disks) to the sink. */
    bool (*read)(struct capture *c, size_t disk, uint64_t from, uint64_t to,
                 const struct capture_sink *sink, struct error **err);

    /*
     * As read(), but all that the disk holds in [from, to), changed or not. NULL in a
     * driver that cannot do that: its points cannot be verified.
     */
    bool (*content)(struct capture *c, size_t disk, uint64_t from, uint64_t to,
                    const struct capture_sink *sink, struct error **err);

    /*
     * Lets the point in time go, removes scratch files and sockets, frees c,
     * also on failure. The named point stays recorded. Fails if the job broke
     * meanwhile (guest ended, scratch limit): what was read is void then.
     */
    bool (*end)(struct capture *c, struct error **err);

    /*
     * Drops a named point; what was recorded since then goes to the point
     * before it. True as well if there is none of that name.
     */
    bool (*forget)(struct capture_driver *driver, const char *uuid, const char *name,
                   struct error **err);

    /*
     * After a crash: ends a capture of ours that is still open on the domain
     * (known by its socket or scratch path below scratch_folder) and removes
     * its files. Never touches another's job; true if there is nothing.
     * ERROR_JOB_LOST: the hypervisor has lost it, and cannot begin another.
     */
    bool (*recover)(struct capture_driver *driver, const char *uuid,
                    const char *scratch_folder, struct error **err);
};

/* The head of each driver's own struct. */
struct capture_driver {
    const struct capture_ops *ops;
};

/* The head of each driver's struct for a capture. */
struct capture {
    const struct capture_driver *driver;
};

#endif
