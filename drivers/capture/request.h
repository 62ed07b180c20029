/*
 * What is asked of a capture, checked: names and disks that every driver that
 * works on a running domain can take. Owns nothing. Any thread.
 */
#ifndef DRIVERS_CAPTURE_REQUEST_H
#define DRIVERS_CAPTURE_REQUEST_H

#include "drivers/capture.h"

#define CAPTURE_MAX_DISKS 64

/* ERROR_USAGE for what is malformed, ERROR_CANCELLED. */
bool capture_request_check(const struct capture_request *request, struct error **err);

/* Is there a disk of which only what changed is wanted? */
bool capture_request_needs_base(const struct capture_request *request);

/* Is all of that disk wanted? */
bool capture_request_is_whole(const struct capture_request *request, size_t disk);

/* Is that a point of ours, and none that is to be kept? */
bool capture_sweep_takes(const struct capture_sweep *sweep, const char *name);

#endif
