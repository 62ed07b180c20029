/*
 * A capture of disks in memory, for tests of the daemon's logic.
 *
 * One domain. Its disks and the record since each named point live in a file
 * that is mapped shared: like a QEMU process they outlive a virtdrd that is
 * killed, and the next one that opens the file finds them as they were. Every
 * slot can be told to fail on its n-th call. What a real bitmap cannot do this
 * one cannot either: a disk that came after a point has no record since it, a
 * name is used once, there is one capture at a time, a grown tail is clean.
 * One thread at a time, and one process at a time.
 */
#ifndef DRIVERS_CAPTURE_FAKE_H
#define DRIVERS_CAPTURE_FAKE_H

#include "drivers/capture.h"

#define FAKE_CAPTURE_DISKS    4
#define FAKE_CAPTURE_CAPACITY (2u << 20) /* largest disk */
#define FAKE_CAPTURE_BLOCK    4096u

enum fake_capture_call {
    FAKE_CAPTURE_CHANGED,
    FAKE_CAPTURE_BEGIN,
    FAKE_CAPTURE_CAPACITY_OF,
    FAKE_CAPTURE_MEASURE,
    FAKE_CAPTURE_READ,
    FAKE_CAPTURE_CONTENT,
    FAKE_CAPTURE_END,
    FAKE_CAPTURE_FORGET,
    FAKE_CAPTURE_SWEEP,
    FAKE_CAPTURE_RECOVER,
    FAKE_CAPTURE_N_CALLS,
};

/* Makes the file if there is none. */
bool fake_capture_open(const char *path, struct capture_driver **ret, struct error **err);

/*
 * The same disks while the domain is off: another driver on the open one's, which
 * outlives it. It makes no points, as the real one; it shares calls and failures.
 */
struct capture_driver *fake_capture_offline(struct capture_driver *driver);

/* capacity is a multiple of FAKE_CAPTURE_BLOCK; a disk of that name is grown to it. */
void fake_capture_set_disk(struct capture_driver *driver, const char *target,
                           uint64_t capacity_bytes);
void fake_capture_remove_disk(struct capture_driver *driver, const char *target);

/* The name of the i-th disk; NULL behind the last one. */
const char *
fake_capture_disk(struct capture_driver *driver, size_t i, uint64_t *ret_capacity_bytes);

/* What the guest does, and what it would read; borrowed. */
void fake_capture_write(struct capture_driver *driver, const char *target,
                        uint64_t offset, const void *data, size_t length);
const uint8_t *fake_capture_content(struct capture_driver *driver, const char *target);

/* The n-th call from now (1: the next) of a slot fails once with this code. */
void fake_capture_fail(struct capture_driver *driver, enum fake_capture_call call,
                       unsigned n, enum error_code code);

/* How often a slot was called since the file was made. */
unsigned fake_capture_calls(struct capture_driver *driver, enum fake_capture_call call);

/* The host crashed: all records are gone. */
void fake_capture_lose(struct capture_driver *driver);

/* The host's clock, as captures tell it, is so far ahead (or behind: below 0). */
void fake_capture_set_ahead(struct capture_driver *driver, int64_t ahead_ms);

/* Points that are recorded, and whether a capture is open. */
size_t fake_capture_points(struct capture_driver *driver);
bool fake_capture_is_open(struct capture_driver *driver);

#endif
