/*
 * An image of a domain's disk as a qemu-storage-daemon is told of it: format,
 * file, and the secret of an encrypted one. Owns nothing. Any thread; may block.
 */
#ifndef DRIVERS_CAPTURE_OFFLINE_IMAGE_H
#define DRIVERS_CAPTURE_OFFLINE_IMAGE_H

#include <json-c/json.h>
#include <libvirt/libvirt.h>

#include "common/error.h"

struct offline_image {
    char *target;
    char *path;
    char *format;
    char *secret; /* UUID of libvirt's; NULL: it is not encrypted */
};

/* Of a definition, those of `targets` in their order. ERROR_UNSUPPORTED_DISK. */
bool offline_images_read(const char *xml, const char *const *targets, size_t n,
                         struct offline_image *ret, struct error **err);
void offline_images_clear(struct offline_image *images, size_t n);

/* For object-add; *ret NULL if the image needs none. */
bool offline_image_secret(virConnectPtr connection, const struct offline_image *image,
                          struct json_object **ret, struct error **err);

/* For blockdev-add: read-only, without locks. */
struct json_object *
offline_image_node(const struct offline_image *image, const char *node);

#endif
