#include "drivers/capture/offline.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "common/json.h"
#include "common/units.h"
#include "drivers/capture/fleece.h"
#include "drivers/capture/generation.h"
#include "drivers/capture/nbd_disks.h"
#include "drivers/capture/offline_image.h"
#include "drivers/capture/request.h"
#include "drivers/capture/scratch_files.h"
#include "drivers/hypervisor/block_graph.h"
#include "drivers/hypervisor/domain_xml.h"
#include "drivers/hypervisor/libvirt.h"
#include "drivers/hypervisor/libvirt_domain.h"
#include "drivers/hypervisor/libvirt_error.h"
#include "drivers/store/qsd.h"

struct offline_driver {
    struct capture_driver head;
    struct hypervisor *hv;
};

struct offline_capture {
    struct nbd_capture nbd;
    virConnectPtr connection;
    virDomainPtr domain;
    char *path; /* of the folder that the process works in */
    int folder;
    struct qsd *qsd;
    struct offline_image images[CAPTURE_MAX_DISKS];
    size_t n_disks;
    uint64_t generation;
};

static struct hypervisor *
hv_of(struct capture_driver *driver)
{
    return ((struct offline_driver *)driver)->hv;
}

/* --- the domain ------------------------------------------------------------------- */

static bool
check_off(virDomainPtr domain, struct error **err)
{
    int active = virDomainIsActive(domain);

    if (active < 0)
        return libvirt_error(err, "ask whether the domain runs");
    return active == 0 ||
           error_set(err, ERROR_INVALID_STATE, "the domain was started meanwhile");
}

static bool
look_at_images(const struct offline_capture *c, uint64_t *ret, struct error **err)
{
    const char *paths[CAPTURE_MAX_DISKS];

    for (size_t i = 0; i < c->n_disks; i++)
        paths[i] = c->images[i].path;
    return generation_of(paths, c->n_disks, ret, err);
}

/* What was read is the disks at one moment if nobody can have written meanwhile. */
static bool
check_unchanged(struct nbd_capture *nbd, struct error **err)
{
    struct offline_capture *c = (struct offline_capture *)nbd;
    uint64_t generation = 0;

    if (!check_off(c->domain, err) || !look_at_images(c, &generation, err))
        return false;
    return generation == c->generation ||
           error_set(err, ERROR_INVALID_STATE, "the images changed while they were read");
}

/* --- the process ------------------------------------------------------------------ */

static char *
folder_of(const char *scratch_folder, const char *uuid)
{
    return mem_printf("%s/offline-%s", scratch_folder, uuid);
}

/* Ends what a crash of ours left there, and removes it. */
static bool
clear_folder(const char *path, struct error **err)
{
    AUTOFD(folder) = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (folder < 0)
        return errno == ENOENT || error_errno(err, ERROR_STORE, "open '%s'", path);
    if (!qsd_end_stale(folder, err))
        return false;
    if (unlinkat(folder, QSD_SOCKET, 0) < 0 && errno != ENOENT)
        return error_errno(err, ERROR_STORE, "remove '%s/%s'", path, QSD_SOCKET);
    return rmdir(path) == 0 || error_errno(err, ERROR_STORE, "remove '%s'", path);
}

static bool
make_folder(struct offline_capture *c, struct error **err)
{
    if (!clear_folder(c->path, err))
        return false;
    if (mkdir(c->path, 0700) < 0)
        return error_errno(err, ERROR_STORE, "make '%s'", c->path);
    c->folder = open(c->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return c->folder >= 0 || error_errno(err, ERROR_STORE, "open '%s'", c->path);
}

static bool
open_image(struct offline_capture *c, const struct offline_image *image,
           struct error **err)
{
    AUTOFREE(char) *node = fleece_node(image->target);
    struct json_object *secret = NULL;

    if (!offline_image_secret(c->connection, image, &secret, err))
        return false;
    if (secret != NULL && !qsd_command(c->qsd, "object-add", secret, err))
        return false;
    return qsd_command(c->qsd, "blockdev-add", offline_image_node(image, node), err);
}

/* Flat: each image would be described once for each one above it. */
static bool
ask_nodes(struct qsd *q, struct json_object **ret, struct error **err)
{
    struct json_object *flat = json_object_new_object();

    json_set_bool(flat, "flat", true);
    return qsd_ask(q, "query-named-block-nodes", flat, ret, err);
}

static bool
look_at_nodes(struct offline_capture *c, struct block_graph **ret, struct error **err)
{
    const char *targets[CAPTURE_MAX_DISKS];
    AUTOJSON *nodes = NULL;

    if (!ask_nodes(c->qsd, &nodes, err))
        return false;
    for (size_t i = 0; i < c->n_disks; i++)
        targets[i] = c->images[i].target;
    *ret = block_graph_of_nodes(nodes, targets, c->n_disks, fleece_node);
    return true;
}

static bool
copy_record(struct qsd *q, const char *node, struct json_object *bitmaps,
            struct error **err)
{
    AUTOFREE(char) *name = fleece_bitmap(node);
    struct json_object *copy = json_object_new_object();
    struct json_object *merge = json_object_new_object();

    json_set_string(copy, "node", node);
    json_set_string(copy, "name", name);
    json_set_int(copy, "granularity", FLEECE_GRAIN);
    json_set_bool(copy, "disabled", true);
    json_set_string(merge, "node", node);
    json_set_string(merge, "target", name);
    json_set(merge, "bitmaps", json_object_get(bitmaps));
    if (!qsd_command(q, "block-dirty-bitmap-add", copy, err)) {
        json_object_put(merge);
        return false;
    }
    return qsd_command(q, "block-dirty-bitmap-merge", merge, err);
}

static bool
add_export(struct qsd *q, const char *target, bool with_record, struct error **err)
{
    AUTOFREE(char) *node = fleece_node(target);
    AUTOFREE(char) *bitmap = fleece_bitmap(target);
    struct json_object *o = json_object_new_object();

    json_set_string(o, "type", "nbd");
    json_set_string(o, "id", node);
    json_set_string(o, "node-name", node);
    json_set_string(o, "name", target);
    if (with_record) {
        struct json_object *bitmaps = json_object_new_array();

        json_append_string(bitmaps, bitmap);
        json_set(o, "bitmaps", bitmaps);
    }
    return qsd_command(q, "block-export-add", o, err);
}

static bool
serve_disk(struct offline_capture *c, const struct block_graph *g, size_t i,
           const char *base, struct error **err)
{
    const char *target = c->images[i].target;
    AUTOFREE(char) *node = fleece_node(target);
    AUTOJSON *bitmaps = NULL;

    if (base != NULL && (!block_graph_record(g, target, base, &bitmaps, NULL, err) ||
                         !copy_record(c->qsd, node, bitmaps, err)))
        return false;
    return add_export(c->qsd, target, base != NULL, err);
}

/* An image may not hold what nobody has to look at. */
static bool
needs_record(const struct capture_request *request, size_t disk)
{
    return !capture_request_is_whole(request, disk) && !request->unchanged;
}

static bool
serve(struct offline_capture *c, const struct capture_request *request,
      struct error **err)
{
    AUTOPTR(block_graph) *g = NULL;

    if (!make_folder(c, err) || !qsd_start(c->folder, &c->qsd, err))
        return false;
    for (size_t i = 0; i < c->n_disks; i++)
        if (!open_image(c, &c->images[i], err))
            return error_prefix(err, "disk '%s'", c->images[i].target);
    if (!look_at_nodes(c, &g, err))
        return false;
    for (size_t i = 0; i < c->n_disks; i++)
        if (!serve_disk(c, g, i, needs_record(request, i) ? request->base : NULL, err))
            return false;
    return true;
}

/* --- begin, end ------------------------------------------------------------------- */

static bool
read_definition(struct offline_capture *c, const struct capture_request *request,
                struct error **err)
{
    AUTOFREE(char) *xml = virDomainGetXMLDesc(c->domain, VIR_DOMAIN_XML_INACTIVE);
    const char *targets[CAPTURE_MAX_DISKS];

    if (xml == NULL)
        return libvirt_error(err, "ask for the definition");
    for (size_t i = 0; i < request->n_disks; i++)
        targets[i] = request->disks[i].target;
    c->n_disks = request->n_disks;
    return offline_images_read(xml, targets, c->n_disks, c->images, err);
}

static bool
begin_on(struct offline_capture *c, const struct capture_request *request,
         struct error **err)
{
    AUTOFREE(char) *socket = NULL;

    if (!check_off(c->domain, err) || !read_definition(c, request, err) ||
        !look_at_images(c, &c->generation, err) ||
        !scratch_files_socket(c->path, "nbd", &socket, err) || !serve(c, request, err))
        return error_prefix(err, "capture of domain '%s'", virDomainGetName(c->domain));
    c->nbd.disks = nbd_disks_new(request, socket, fleece_bitmap);
    for (size_t i = 0; i < c->n_disks; i++)
        if (!capture_request_is_whole(request, i) && request->unchanged)
            nbd_disks_skip(c->nbd.disks, i);
    return true;
}

static void
offline_capture_free(struct offline_capture *c)
{
    if (c == NULL)
        return;
    nbd_disks_free(c->nbd.disks);
    qsd_stop(c->qsd);
    if (c->folder >= 0) {
        close(c->folder);
        clear_folder(c->path, NULL);
    }
    offline_images_clear(c->images, c->n_disks);
    free(c->path);
    virDomainFree(c->domain);
    virConnectClose(c->connection);
    free(c);
}
DEFINE_AUTOPTR(offline_capture);

static struct offline_capture *
capture_new(struct capture_driver *driver, virDomainPtr domain,
            const struct capture_request *request)
{
    struct offline_capture *c = NEW(struct offline_capture);
    char uuid[VIR_UUID_STRING_BUFLEN] = "";

    virDomainGetUUIDString(domain, uuid);
    c->nbd.head.driver = driver;
    c->nbd.check = check_unchanged;
    c->connection = virDomainGetConnect(domain);
    virConnectRef(c->connection);
    virDomainRef(domain);
    c->domain = domain;
    c->path = folder_of(request->scratch_folder, uuid);
    c->folder = -1;
    return c;
}

static bool
offline_begin(struct capture_driver *driver, const struct capture_request *request,
              struct capture **ret, int64_t *ret_time_ms, struct error **err)
{
    AUTOCONNECTION *connection = NULL;
    AUTODOMAIN *domain = NULL;
    AUTOPTR(offline_capture) *c = NULL;
    int64_t time_ms = units_now_ms();

    if (!capture_request_check(request, err))
        return false;
    connection = libvirt_connection_ref(hv_of(driver), err);
    if (connection == NULL)
        return false;
    domain = libvirt_domain_by_uuid(connection, request->uuid, err);
    if (domain == NULL)
        return false;
    c = capture_new(driver, domain, request);
    if (!begin_on(c, request, err))
        return false;
    *ret_time_ms = time_ms;
    *ret = &TAKE(c)->nbd.head;
    return true;
}

static bool
offline_end(struct capture *head, struct error **err)
{
    struct offline_capture *c = (struct offline_capture *)head;
    bool ok = check_unchanged(&c->nbd, err);

    if (!ok)
        error_prefix(err, "capture of domain '%s'", virDomainGetName(c->domain));
    offline_capture_free(c);
    return ok;
}

/* --- between captures ------------------------------------------------------------- */

/* A bitmap in an image cannot be counted without reading it: all of the disks. */
static bool
offline_changed(struct capture_driver *driver, const char *uuid, const char *name UNUSED,
                const struct capture_disk *disks, size_t n_disks, uint64_t *ret_bytes,
                struct error **err)
{
    AUTOCONNECTION *connection = libvirt_connection_ref(hv_of(driver), err);
    AUTODOMAIN *domain =
        connection == NULL ? NULL : libvirt_domain_by_uuid(connection, uuid, err);
    uint64_t total = 0;

    if (domain == NULL || !check_off(domain, err))
        return false;
    for (size_t i = 0; i < n_disks; i++) {
        virDomainBlockInfo info;

        if (virDomainGetBlockInfo(domain, disks[i].target, &info, 0) < 0)
            return libvirt_error(err, "ask for the size of disk '%s'", disks[i].target);
        total += info.capacity;
    }
    *ret_bytes = total;
    return true;
}

/* It makes none. */
static bool
offline_forget(struct capture_driver *driver UNUSED, const char *uuid UNUSED,
               const char *name UNUSED, struct error **err UNUSED)
{
    return true;
}

/* --- taking our bitmaps out of the images ------------------------------------------- */

static bool
read_keepers(struct offline_capture *c, struct error **err)
{
    AUTOFREE(char) *xml = virDomainGetXMLDesc(c->domain, VIR_DOMAIN_XML_INACTIVE);
    const char *targets[CAPTURE_MAX_DISKS];
    struct hv_disk *disks = NULL;
    size_t n = 0;
    bool ok;

    if (xml == NULL)
        return libvirt_error(err, "ask for the definition");
    if (!domain_xml_disks(xml, &disks, &n, err))
        return false;
    for (size_t i = 0; i < n && c->n_disks < CAPTURE_MAX_DISKS; i++)
        if (disks[i].keeps_bitmaps && !disks[i].removable && disks[i].excuse == NULL)
            targets[c->n_disks++] = disks[i].target;
    ok = offline_images_read(xml, targets, c->n_disks, c->images, err);
    domain_xml_disks_free(disks, n);
    return ok;
}

/* With the image's own lock: a VM that is started meanwhile finds it in use. */
static bool
open_for_writing(struct offline_capture *c, const struct offline_image *image,
                 const char *node, struct error **err)
{
    struct json_object *o = offline_image_node(image, node);
    struct json_object *secret = NULL;

    json_set_bool(o, "read-only", false);
    json_object_object_del(o, "force-share");
    if (offline_image_secret(c->connection, image, &secret, err) &&
        (secret == NULL || qsd_command(c->qsd, "object-add", secret, err)))
        return qsd_command(c->qsd, "blockdev-add", o, err);
    json_object_put(o);
    return false;
}

static bool
drop_bitmaps(struct qsd *q, const char *node, const struct capture_sweep *sweep,
             size_t *n, struct error **err)
{
    AUTOJSON *nodes = NULL;
    AUTOPTR(block_graph) *g = NULL;
    AUTOJSON *bitmaps = NULL;

    if (!ask_nodes(q, &nodes, err))
        return false;
    g = block_graph_of_nodes(nodes, NULL, 0, NULL);
    bitmaps = block_graph_bitmaps(g);
    for (size_t i = 0; i < json_object_array_length(bitmaps); i++) {
        struct json_object *o = json_object_array_get_idx(bitmaps, i);

        if (strcmp(json_string_or(o, "node", ""), node) != 0 ||
            !capture_sweep_takes(sweep, json_string_or(o, "name", "")))
            continue;
        if (!qsd_command(q, "block-dirty-bitmap-remove", json_object_get(o), err))
            return false;
        (*n)++;
    }
    return true;
}

static bool
sweep_image(struct offline_capture *c, const struct offline_image *image,
            const struct capture_sweep *sweep, size_t *n, struct error **err)
{
    AUTOFREE(char) *node = fleece_node(image->target);
    struct json_object *end = json_object_new_object();
    bool ok;

    json_set_string(end, "node-name", node);
    ok = open_for_writing(c, image, node, err) &&
         drop_bitmaps(c->qsd, node, sweep, n, err);
    if (!ok) {
        json_object_put(end);
        return error_prefix(err, "disk '%s'", image->target);
    }
    return qsd_command(c->qsd, "blockdev-del", end, err); /* which writes it all */
}

static bool
sweep_images(struct offline_capture *c, const struct capture_sweep *sweep, size_t *n,
             struct error **err)
{
    if (!check_off(c->domain, err) || !read_keepers(c, err) || !make_folder(c, err) ||
        !qsd_start(c->folder, &c->qsd, err))
        return false;
    for (size_t i = 0; i < c->n_disks; i++)
        if (!sweep_image(c, &c->images[i], sweep, n, err))
            return false;
    return true;
}

static bool
offline_sweep(struct capture_driver *driver, const struct capture_sweep *sweep,
              size_t *ret_n, struct error **err)
{
    const struct capture_request request = { .scratch_folder = sweep->scratch_folder };
    AUTOCONNECTION *connection = libvirt_connection_ref(hv_of(driver), err);
    AUTODOMAIN *domain =
        connection == NULL ? NULL : libvirt_domain_by_uuid(connection, sweep->uuid, err);
    AUTOPTR(offline_capture) *c = NULL;
    size_t n = 0;

    if (domain == NULL)
        return false;
    c = capture_new(driver, domain, &request);
    if (!sweep_images(c, sweep, &n, err))
        return error_prefix(err, "remove the bitmaps of domain '%s'",
                            virDomainGetName(domain));
    *ret_n = n;
    return true;
}

static bool
offline_recover(struct capture_driver *driver UNUSED, const char *uuid,
                const char *scratch_folder, struct error **err)
{
    AUTOFREE(char) *path = folder_of(scratch_folder, uuid);

    return clear_folder(path, err) ||
           error_prefix(err, "recover the capture of '%s'", uuid);
}

static void
offline_close(struct capture_driver *driver)
{
    free(driver);
}

static const struct capture_ops offline_ops = {
    .name = "offline",
    .close = offline_close,
    .changed = offline_changed,
    .begin = offline_begin,
    .capacity = nbd_capture_capacity,
    .measure = nbd_capture_measure,
    .read = nbd_capture_read,
    .content = nbd_capture_content,
    .end = offline_end,
    .forget = offline_forget,
    .sweep = offline_sweep,
    .recover = offline_recover,
};

bool
capture_offline_open(struct hypervisor *libvirt_hv, struct capture_driver **ret,
                     struct error **err UNUSED)
{
    struct offline_driver *driver = NEW(struct offline_driver);

    driver->head.ops = &offline_ops;
    driver->hv = libvirt_hv;
    *ret = &driver->head;
    return true;
}
