/*
 * What QEMU's block layer looked like at one moment: which node each disk of the
 * domain is, and which dirty bitmaps there are.
 *
 * Nodes are found by the device that the guest sees, never by how libvirt calls
 * them. Owned by who read it; any thread.
 */
#ifndef DRIVERS_HYPERVISOR_BLOCK_GRAPH_H
#define DRIVERS_HYPERVISOR_BLOCK_GRAPH_H

#include <json-c/json.h>
#include <libvirt/libvirt.h>
#include <stdint.h>

#include "common/error.h"

struct block_graph;

bool block_graph_read(virDomainPtr domain, struct block_graph **ret, struct error **err);

/*
 * The same of a process of ours: its nodes (query-named-block-nodes, flat), each of
 * `targets` being the node that node_of() names. nodes is borrowed.
 */
struct block_graph *
block_graph_of_nodes(struct json_object *nodes, const char *const *targets, size_t n,
                     char *(*node_of)(const char *target));
void block_graph_free(struct block_graph *g);
DEFINE_AUTOPTR(block_graph);

/* Where the guest's writes to a disk arrive. */
struct block_node {
    const char *name; /* the graph's */
    uint64_t size_bytes;
    bool keeps_bitmaps; /* the image can store them: they outlive the process */
};

/* ERROR_UNSUPPORTED_DISK: there is none, or a filter that we do not know lies on it. */
bool block_graph_disk(const struct block_graph *g, const char *target,
                      struct block_node *ret, struct error **err);

/*
 * What was recorded on a disk under a name: an external snapshot continues a
 * record in the new image and leaves what was before in the image below.
 * *ret_bitmaps: [{"node":, "name":}], the caller's; *ret_bytes: how much changed.
 * Either may be NULL. ERROR_CHECKPOINT_LOST: there is no sound record.
 */
bool block_graph_record(const struct block_graph *g, const char *target, const char *name,
                        struct json_object **ret_bitmaps, uint64_t *ret_bytes,
                        struct error **err);

/*
 * All nodes from which a bitmap of that name can be removed, an array of strings;
 * the caller's. Not an image below an external snapshot: it is not written to.
 */
struct json_object *block_graph_holders(const struct block_graph *g, const char *name);

/*
 * All bitmaps that could be removed now: [{"node":, "name":}], the caller's. A bitmap of
 * an image below an external snapshot is not among them.
 */
struct json_object *block_graph_bitmaps(const struct block_graph *g);

/* All nodes whose name begins so, as above. */
struct json_object *block_graph_nodes(const struct block_graph *g, const char *prefix);

#endif
