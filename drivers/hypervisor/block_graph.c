#include "drivers/hypervisor/block_graph.h"

#include <string.h>

#include "common/json.h"
#include "drivers/hypervisor/domain_xml.h"
#include "drivers/hypervisor/libvirt_error.h"
#include "drivers/hypervisor/qmp.h"
#include "drivers/hypervisor/xml_node.h"

struct block_graph {
    struct json_object *aliases; /* {target: device} */
    struct json_object *devices; /* query-block */
    struct json_object *nodes;   /* query-named-block-nodes, flat */
    bool has_devices;            /* `devices` are QEMU's, with all images below them */
};

void
block_graph_free(struct block_graph *g)
{
    if (g == NULL)
        return;
    json_object_put(g->aliases);
    json_object_put(g->devices);
    json_object_put(g->nodes);
    free(g);
}

/* --- reading ---------------------------------------------------------------------- */

static bool
read_aliases(virDomainPtr domain, struct json_object **ret, struct error **err)
{
    AUTOFREE(char) *xml = virDomainGetXMLDesc(domain, 0);
    AUTOXML *doc = NULL;
    struct json_object *aliases;
    xmlNodePtr devices;

    if (xml == NULL)
        return libvirt_error(err, "ask for the definition");
    doc = xml_node_parse(xml, "domain", DOMAIN_XML_MAX_BYTES, err);
    if (doc == NULL)
        return false;
    aliases = json_object_new_object();
    devices = xml_node_child(xmlDocGetRootElement(doc), "devices");
    for (xmlNodePtr n = xml_node_child(devices, "disk"); n != NULL;
         n = xml_node_next(n, "disk")) {
        AUTOFREE(char) *target = xml_node_attr(xml_node_child(n, "target"), "dev");
        AUTOFREE(char) *alias = xml_node_attr(xml_node_child(n, "alias"), "name");

        if (target != NULL && alias != NULL)
            json_set_string(aliases, target, alias);
    }
    *ret = aliases;
    return true;
}

static bool
read_array(virDomainPtr domain, const char *command, struct json_object *arguments,
           struct json_object **ret, struct error **err)
{
    if (!qmp_execute(domain, command, arguments, ret, err))
        return false;
    return json_object_is_type(*ret, json_type_array) ||
           error_set(err, ERROR_PROTOCOL, "QEMU's answer to %s makes no sense", command);
}

bool
block_graph_read(virDomainPtr domain, struct block_graph **ret, struct error **err)
{
    AUTOPTR(block_graph) *g = NEW(struct block_graph);
    struct json_object *flat = json_object_new_object();

    json_set_bool(flat, "flat", true);
    if (!read_array(domain, "query-named-block-nodes", flat, &g->nodes, err) ||
        !read_array(domain, "query-block", NULL, &g->devices, err) ||
        !read_aliases(domain, &g->aliases, err))
        return false;
    g->has_devices = true;
    *ret = TAKE(g);
    return true;
}

static struct json_object *
find_node(const struct block_graph *g, const char *name)
{
    for (size_t i = 0; i < json_object_array_length(g->nodes); i++) {
        struct json_object *node = json_object_array_get_idx(g->nodes, i);

        if (strcmp(json_string_or(node, "node-name", ""), name) == 0)
            return node;
    }
    return NULL;
}

/* A node is described as what is inserted in a device. */
struct block_graph *
block_graph_of_nodes(struct json_object *nodes, const char *const *targets, size_t n,
                     char *(*node_of)(const char *target))
{
    struct block_graph *g = NEW(struct block_graph);

    g->nodes = json_object_get(nodes);
    g->aliases = json_object_new_object();
    g->devices = json_object_new_array();
    for (size_t i = 0; i < n; i++) {
        AUTOFREE(char) *node = node_of(targets[i]);
        struct json_object *device = json_object_new_object();

        json_set_string(g->aliases, targets[i], targets[i]);
        json_set_string(device, "qdev", targets[i]);
        json_set(device, "inserted", json_object_get(find_node(g, node)));
        json_object_array_add(g->devices, device);
    }
    return g;
}

/* --- disks ------------------------------------------------------------------------ */

/* "virtio-disk0", or "/machine/peripheral/virtio-disk0/virtio-backend" */
static bool
is_device(const char *qdev, const char *alias)
{
    size_t n = strlen(alias);

    if (strcmp(qdev, alias) == 0)
        return true;
    for (const char *p = strchr(qdev, '/'); p != NULL; p = strchr(p + 1, '/'))
        if (strncmp(p + 1, alias, n) == 0 && (p[1 + n] == '/' || p[1 + n] == '\0'))
            return true;
    return false;
}

static struct json_object *
find_inserted(const struct block_graph *g, const char *target)
{
    const char *alias = json_string_or(g->aliases, target, NULL);

    for (size_t i = 0; alias != NULL && i < json_object_array_length(g->devices); i++) {
        struct json_object *device = json_object_array_get_idx(g->devices, i);

        if (is_device(json_string_or(device, "qdev", ""), alias))
            return json_object_or_null(device, "inserted");
    }
    return NULL;
}

/* A bitmap on a filter is lost with it, and does not see what bypasses it. */
static bool
is_filter(const char *driver)
{
    static const char *const filters[] = { "copy-on-read", "throttle",
                                           "compress",     "copy-before-write",
                                           "mirror_top",   "commit_top",
                                           "blkdebug",     "quorum" };

    for (size_t i = 0; i < N_ELEMENTS(filters); i++)
        if (strcmp(driver, filters[i]) == 0)
            return true;
    return false;
}

static bool
keeps_bitmaps(struct json_object *inserted)
{
    struct json_object *image = json_object_or_null(inserted, "image");
    struct json_object *specific = json_object_or_null(image, "format-specific");
    struct json_object *data = json_object_or_null(specific, "data");

    return strcmp(json_string_or(inserted, "drv", ""), "qcow2") == 0 &&
           strcmp(json_string_or(data, "compat", ""), "1.1") == 0;
}

bool
block_graph_disk(const struct block_graph *g, const char *target, struct block_node *ret,
                 struct error **err)
{
    struct json_object *inserted = find_inserted(g, target);
    struct json_object *image = json_object_or_null(inserted, "image");
    const char *driver = json_string_or(inserted, "drv", "");
    uint64_t size = 0;

    if (inserted == NULL)
        return error_set(err, ERROR_UNSUPPORTED_DISK, "the domain has no disk '%s'",
                         target);
    if (is_filter(driver))
        return error_set(err, ERROR_UNSUPPORTED_DISK,
                         "QEMU has a filter of kind '%s' on disk '%s', on which a bitmap "
                         "would not last",
                         driver, target);
    if (!json_get_u64(image, "virtual-size", INT64_MAX, &size, err))
        return error_prefix(err, "size of disk '%s'", target);
    ret->name = json_string_or(inserted, "node-name", "");
    ret->size_bytes = size;
    ret->keeps_bitmaps = keeps_bitmaps(inserted);
    return true;
}

/* --- bitmaps ---------------------------------------------------------------------- */

static struct json_object *
find_bitmap(struct json_object *node, const char *name)
{
    struct json_object *bitmaps = json_array_or_null(node, "dirty-bitmaps");

    for (size_t i = 0; bitmaps != NULL && i < json_object_array_length(bitmaps); i++) {
        struct json_object *b = json_object_array_get_idx(bitmaps, i);

        if (strcmp(json_string_or(b, "name", ""), name) == 0)
            return b;
    }
    return NULL;
}

struct record {
    struct json_object *bitmaps; /* NULL: not wanted */
    uint64_t bytes;
};

static bool
add_bitmap(struct record *record, struct json_object *node, struct json_object *bitmap,
           struct error **err)
{
    uint64_t count = 0;
    struct json_object *o;

    if (json_bool_or(bitmap, "inconsistent", false))
        return error_set(err, ERROR_CHECKPOINT_LOST,
                         "the bitmap was not closed when QEMU ended");
    if (!json_get_u64(bitmap, "count", UINT64_MAX - record->bytes, &count, err))
        return false;
    record->bytes += count;
    if (record->bitmaps == NULL)
        return true;
    o = json_object_new_object();
    json_set_string(o, "node", json_string_or(node, "node-name", ""));
    json_set_string(o, "name", json_string_or(bitmap, "name", ""));
    json_object_array_add(record->bitmaps, o);
    return true;
}

/* Of one image of the chain, whichever of its nodes has the bitmap. */
static bool
add_file(const struct block_graph *g, const char *file, const char *name,
         struct record *record, struct error **err)
{
    for (size_t i = 0; i < json_object_array_length(g->nodes); i++) {
        struct json_object *node = json_object_array_get_idx(g->nodes, i);
        struct json_object *bitmap = find_bitmap(node, name);

        if (bitmap != NULL && strcmp(json_string_or(node, "file", ""), file) == 0 &&
            !add_bitmap(record, node, bitmap, err))
            return false;
    }
    return true;
}

/* One of the nodes of that file, if any the one that has something below it. */
static struct json_object *
find_file(const struct block_graph *g, const char *file)
{
    struct json_object *found = NULL;

    for (size_t i = 0; i < json_object_array_length(g->nodes); i++) {
        struct json_object *node = json_object_array_get_idx(g->nodes, i);

        if (strcmp(json_string_or(node, "file", ""), file) == 0 &&
            (found == NULL || json_string_or(node, "backing_file", NULL) != NULL))
            found = node;
    }
    return found;
}

/* Where no device tells of the images below it: flat, as a chain may have a thousand. */
static bool
collect_below(const struct block_graph *g, struct json_object *node, const char *name,
              struct record *record, struct error **err)
{
    size_t left = json_object_array_length(g->nodes);
    const char *file;

    while ((file = json_string_or(node, "backing_file", NULL)) != NULL) {
        node = find_file(g, file);
        if (node == NULL || left-- == 0)
            return error_set(err, ERROR_CHECKPOINT_LOST,
                             "it is not known what '%s' has recorded", file);
        if (!add_file(g, file, name, record, err))
            return false;
    }
    return true;
}

static bool
collect(const struct block_graph *g, const char *target, const char *name,
        struct record *record, struct error **err)
{
    struct json_object *inserted = find_inserted(g, target);
    struct json_object *node =
        find_node(g, json_string_or(inserted, "node-name", "")); /* NULL: no bitmap */
    struct json_object *bitmap = find_bitmap(node, name);
    struct json_object *image = json_object_or_null(inserted, "image");

    if (bitmap == NULL || !json_bool_or(bitmap, "recording", false))
        return error_set(err, ERROR_CHECKPOINT_LOST, "the bitmap '%s' is gone", name);
    if (!add_bitmap(record, node, bitmap, err))
        return false;
    if (!g->has_devices)
        return collect_below(g, node, name, record, err);
    for (image = json_object_or_null(image, "backing-image"); image != NULL;
         image = json_object_or_null(image, "backing-image"))
        if (!add_file(g, json_string_or(image, "filename", ""), name, record, err))
            return false;
    return true;
}

bool
block_graph_record(const struct block_graph *g, const char *target, const char *name,
                   struct json_object **ret_bitmaps, uint64_t *ret_bytes,
                   struct error **err)
{
    struct record record = { 0 };

    if (ret_bitmaps != NULL)
        record.bitmaps = json_object_new_array();
    if (!collect(g, target, name, &record, err)) {
        json_object_put(record.bitmaps);
        return error_prefix(err, "disk '%s'", target);
    }
    if (ret_bitmaps != NULL)
        *ret_bitmaps = record.bitmaps;
    if (ret_bytes != NULL)
        *ret_bytes = record.bytes;
    return true;
}

/* --- all nodes -------------------------------------------------------------------- */

struct json_object *
block_graph_holders(const struct block_graph *g, const char *name)
{
    struct json_object *names = json_object_new_array();

    for (size_t i = 0; i < json_object_array_length(g->nodes); i++) {
        struct json_object *node = json_object_array_get_idx(g->nodes, i);

        if (find_bitmap(node, name) != NULL && !json_bool_or(node, "ro", false))
            json_append_string(names, json_string_or(node, "node-name", ""));
    }
    return names;
}

static void
append_bitmaps(struct json_object *list, struct json_object *node)
{
    struct json_object *bitmaps = json_array_or_null(node, "dirty-bitmaps");

    for (size_t i = 0; bitmaps != NULL && i < json_object_array_length(bitmaps); i++) {
        struct json_object *o = json_object_new_object();

        json_set_string(o, "node", json_string_or(node, "node-name", ""));
        json_set_string(
            o, "name", json_string_or(json_object_array_get_idx(bitmaps, i), "name", ""));
        json_object_array_add(list, o);
    }
}

struct json_object *
block_graph_bitmaps(const struct block_graph *g)
{
    struct json_object *list = json_object_new_array();

    for (size_t i = 0; i < json_object_array_length(g->nodes); i++) {
        struct json_object *node = json_object_array_get_idx(g->nodes, i);

        if (!json_bool_or(node, "ro", false))
            append_bitmaps(list, node);
    }
    return list;
}

struct json_object *
block_graph_nodes(const struct block_graph *g, const char *prefix)
{
    struct json_object *names = json_object_new_array();

    for (size_t i = 0; i < json_object_array_length(g->nodes); i++) {
        const char *name =
            json_string_or(json_object_array_get_idx(g->nodes, i), "node-name", "");

        if (strncmp(name, prefix, strlen(prefix)) == 0)
            json_append_string(names, name);
    }
    return names;
}
