/*
 * The small files beside the disks, as a layout names them: with their hash, so that
 * none is given out that is not what came. Any thread.
 */
#ifndef DRIVERS_STORE_BLOB_H
#define DRIVERS_STORE_BLOB_H

#include <json-c/json.h>

#include "drivers/store/layout.h"

/* Fills in size and hash of b->file in the folder at. */
bool blob_describe(int at, struct layout_blob *b, struct error **err);

/* All of it, with a NUL behind; the caller frees. ERROR_CHECKSUM: it is damaged or gone.
 */
bool blob_read(int at, const struct layout_blob *b, char **ret, struct error **err);

/* As in layout.json. */
bool blob_parse(struct json_object *o, struct layout_blob *ret, struct error **err);
struct json_object *blob_json(const struct layout_blob *b);

#endif
