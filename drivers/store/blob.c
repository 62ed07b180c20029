#include "drivers/store/blob.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "common/json.h"
#include "drivers/store/folder.h"

#define HEX_DIGITS 16

bool
blob_describe(int at, struct layout_blob *b, struct error **err)
{
    AUTOFREE(char) *data = NULL;
    size_t n = 0;

    if (!folder_read(at, b->file, WIRE_MAX_BLOB_BYTES, &data, &n, err))
        return false;
    b->size_bytes = n;
    b->hash = XXH3_64bits(data, n);
    return true;
}

bool
blob_read(int at, const struct layout_blob *b, char **ret, struct error **err)
{
    AUTOPTR(error) *why = NULL;
    AUTOFREE(char) *data = NULL;
    size_t n = 0;

    if (!folder_read(at, b->file, WIRE_MAX_BLOB_BYTES, &data, &n, &why)) {
        if (errno != ENOENT)
            return error_propagate(err, TAKE(why));
        return error_set(err, ERROR_CHECKSUM, "blob '%s' is missing", b->file);
    }
    if (n != b->size_bytes || XXH3_64bits(data, n) != b->hash)
        return error_set(err, ERROR_CHECKSUM, "blob '%s' is damaged", b->file);
    *ret = TAKE(data);
    return true;
}

static bool
parse_hash(const char *text, uint64_t *ret)
{
    return strlen(text) == HEX_DIGITS && strspn(text, "0123456789abcdef") == HEX_DIGITS &&
           sscanf(text, "%" SCNx64, ret) == 1;
}

bool
blob_parse(struct json_object *o, struct layout_blob *ret, struct error **err)
{
    const char *name = NULL, *file = NULL, *hash = NULL;
    struct layout_blob b;

    if (!json_get_string(o, "name", &name, err) ||
        !json_get_string(o, "file", &file, err) ||
        !json_get_u64(o, "size", WIRE_MAX_BLOB_BYTES, &b.size_bytes, err) ||
        !json_get_string(o, "hash", &hash, err) || !layout_check_blob(name, err))
        return false;
    if (strchr(file, '/') != NULL || strlen(file) >= LAYOUT_NAME_MAX || file[0] == '.')
        return error_set(err, ERROR_STORE, "blob '%s': '%s' is no name of its file", name,
                         file);
    if (!parse_hash(hash, &b.hash))
        return error_set(err, ERROR_STORE, "blob '%s': '%s' is no hash", name, hash);
    snprintf(b.name, sizeof b.name, "%s", name);
    snprintf(b.file, sizeof b.file, "%s", file);
    *ret = b;
    return true;
}

struct json_object *
blob_json(const struct layout_blob *b)
{
    struct json_object *o = json_object_new_object();
    AUTOFREE(char) *hash = mem_printf("%016" PRIx64, b->hash);

    json_set_string(o, "name", b->name);
    json_set_string(o, "file", b->file);
    json_set_u64(o, "size", b->size_bytes);
    json_set_string(o, "hash", hash);
    return o;
}
