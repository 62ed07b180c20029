#include "drivers/store/chain.h"

#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "drivers/store/clusters.h"
#include "drivers/store/original.h"

#define NODE_NAME_MAX 48

/*
 * For each layer below the tip: there may be hundreds, and most of what they hold is
 * covered by those above. The page cache has the tables anyway.
 */
#define SEALED_CACHE_BYTES (256u << 10)
#define CACHE_ENTRY_BYTES  (4u << 10)

void
chain_add(struct chain *c, const char *path)
{
    c->paths = mem_realloc(c->paths, c->n_paths + 1, sizeof *c->paths);
    c->paths[c->n_paths++] = mem_strdup(path);
}

bool
chain_is_bottom(int disks, const char *layer)
{
    bool alone = false;

    return layout_is_raw(layer) || (clusters_alone(disks, layer, &alone, NULL) && alone);
}

size_t
chain_find_bottom(int disks, const struct layout_disk *d, size_t layer)
{
    while (layer > 0 && !chain_is_bottom(disks, d->layers[layer]))
        layer--;
    return layer;
}

static void
add_layers(struct chain *c, int disks, const struct layout_disk *d)
{
    size_t bottom = chain_find_bottom(disks, d, d->n_layers - 1);

    if (bottom == 0 && d->original.path != NULL)
        c->original = original_node(&d->original);
    for (size_t i = bottom; i < d->n_layers; i++) {
        AUTOFREE(char) *path = mem_printf("disks/%s", d->layers[i]);

        chain_add(c, path);
    }
}

struct chain *
chains_of_tips(const struct layout *l, int disks)
{
    struct chain *chains = mem_alloc(l->n_disks, sizeof *chains);

    for (size_t i = 0; i < l->n_disks; i++) {
        const struct layout_disk *d = &l->disks[i];

        snprintf(chains[i].target, sizeof chains[i].target, "%s", d->target);
        chains[i].capacity_bytes = d->capacity_bytes;
        add_layers(&chains[i], disks, d);
    }
    return chains;
}

void
chains_free(struct chain *chains, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < chains[i].n_paths; j++)
            free(chains[i].paths[j]);
        json_object_put(chains[i].original);
        free(chains[i].paths);
    }
    free(chains);
}

/* --- nodes ------------------------------------------------------------------------ */

static void
node_name(char kind, size_t disk, size_t layer, char ret[NODE_NAME_MAX])
{
    snprintf(ret, NODE_NAME_MAX, "%c%zu-%zu", kind, disk, layer);
}

static struct json_object *
file_node(const char *name, const char *path, bool writable)
{
    struct json_object *o = json_object_new_object();
    struct json_object *cache = json_object_new_object();

    json_set_string(o, "driver", "file");
    json_set_string(o, "node-name", name);
    json_set_string(o, "filename", path);
    json_set_string(o, "locking", writable ? "on" : "off");
    json_set_bool(o, "read-only", !writable);
    json_set_string(o, "discard", "unmap");
    json_set_bool(cache, "direct", false);
    json_set(o, "cache", cache);
    return o;
}

static struct json_object *
raw_node(const char *name, const char *file)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "driver", "raw");
    json_set_string(o, "node-name", name);
    json_set_string(o, "file", file);
    json_set_bool(o, "read-only", true);
    return o;
}

static struct json_object *
image_node(const char *name, const char *file, const char *backing, bool writable)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "driver", "qcow2");
    json_set_string(o, "node-name", name);
    json_set_string(o, "file", file);
    if (backing != NULL)
        json_set_string(o, "backing", backing);
    json_set_bool(o, "read-only", !writable);
    json_set_string(o, "discard", "unmap");

    /* Content that is zero arrives as a hole also when it came as data. */
    if (writable)
        json_set_string(o, "detect-zeroes", "unmap");
    if (!writable) {
        json_set_u64(o, "l2-cache-size", SEALED_CACHE_BYTES);
        json_set_u64(o, "l2-cache-entry-size", CACHE_ENTRY_BYTES);
    }
    return o;
}

static void
list_image(const struct chain *c, size_t index, size_t layer, struct qsd_list *list)
{
    char file[NODE_NAME_MAX], image[NODE_NAME_MAX], below[NODE_NAME_MAX];
    const char *path = c->paths[layer];
    bool writable = layer + 1 == c->n_paths;
    bool on_another = layer > 0 || c->original != NULL;

    node_name('f', index, layer, file);
    node_name('l', index, layer, image);
    if (layer > 0)
        node_name('l', index, layer - 1, below);
    else
        node_name('o', index, layer, below);
    qsd_list_add(list, "blockdev-add", file_node(file, path, writable));
    qsd_list_add(list, "blockdev-add",
                 layout_is_raw(path)
                     ? raw_node(image, file)
                     : image_node(image, file, on_another ? below : NULL, writable));
}

static void
list_original(const struct chain *c, size_t index, struct qsd_list *list)
{
    struct json_object *o;
    char name[NODE_NAME_MAX];

    if (c->original == NULL)
        return;
    o = json_object_get(c->original);
    node_name('o', index, 0, name);
    json_set_string(o, "node-name", name);

    /* Goes down to its backing files, which QEMU opens by their names. */
    json_set_bool(o, "force-share", true);
    qsd_list_add(list, "blockdev-add", o);
}

static struct json_object *
export_of(const char *image, const char *name)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "type", "nbd");
    json_set_string(o, "id", image);
    json_set_string(o, "node-name", image);
    json_set_string(o, "name", name);
    json_set_bool(o, "writable", true);
    return o;
}

void
chain_list(const struct chain *c, size_t index, struct qsd_list *list)
{
    char image[NODE_NAME_MAX];

    list_original(c, index, list);
    for (size_t i = 0; i < c->n_paths; i++)
        list_image(c, index, i, list);
    node_name('l', index, c->n_paths - 1, image);
    qsd_list_add(list, "block-export-add", export_of(image, c->target));
}
