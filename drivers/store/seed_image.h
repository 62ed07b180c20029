/*
 * Images that a replica may begin with: opened and looked at, never written.
 *
 * A seed is a raw or qcow2 image in a regular file below one folder, with the backing
 * files that it stands on. What is outside of that folder is never opened, whatever leads
 * there:
 * "..", a symbolic link, or what a header says, which a guest may have written. qcow2's
 * headers are read here; QEMU is given descriptors, and told what lies on what. Any
 * thread.
 *
 * Errors: ERROR_FORBIDDEN (it leads out of the folder), ERROR_NOT_FOUND, ERROR_USAGE (its
 * format has to be said), ERROR_UNSUPPORTED_DISK (it cannot be read safely, and why).
 */
#ifndef DRIVERS_STORE_SEED_IMAGE_H
#define DRIVERS_STORE_SEED_IMAGE_H

#include <json-c/json.h>
#include <stdint.h>

#include "common/error.h"

#define SEED_IMAGE_MAX 8 /* that may lie on each other */

enum seed_format {
    SEED_FORMAT_FIND, /* by content and name, if that leaves no doubt */
    SEED_FORMAT_RAW,
    SEED_FORMAT_QCOW2,
};

struct seed_image {
    int fds[SEED_IMAGE_MAX]; /* the one that was named first */
    enum seed_format formats[SEED_IMAGE_MAX];
    size_t n;
    uint64_t capacity_bytes; /* of the disk that it shows */
    uint64_t stored_bytes;   /* that its files take */
};

/* folder is absolute; path is absolute too, or relative to it. */
bool seed_image_open(const char *folder, const char *path, enum seed_format format,
                     struct seed_image *ret, struct error **err);

/* Zeroed memory is legal. */
void seed_image_close(struct seed_image *image);

/*
 * What QEMU opens, for a child whose descriptors from first_fd on are those of the image;
 * at most so many bytes of it. The caller's reference.
 */
struct json_object *
seed_image_node(const struct seed_image *image, int first_fd, uint64_t most_bytes);

/* Opens what is below a folder, and nowhere else; flags as for open(). */
bool seed_image_open_below(const char *folder, const char *path, int flags, int *ret,
                           struct error **err);

#endif
