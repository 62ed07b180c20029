#include "drivers/capture/bitmap.h"

#include <json-c/json.h>
#include <string.h>

#include "common/json.h"
#include "drivers/capture/backup_job.h"
#include "drivers/capture/checkpoint_point.h"
#include "drivers/capture/fleece.h"
#include "drivers/capture/io_error.h"
#include "drivers/capture/nbd_disks.h"
#include "drivers/capture/request.h"
#include "drivers/capture/scratch_files.h"
#include "drivers/capture/scratch_watch.h"
#include "drivers/hypervisor/block_graph.h"
#include "drivers/hypervisor/domain_xml.h"
#include "drivers/hypervisor/libvirt.h"
#include "drivers/hypervisor/libvirt_domain.h"
#include "drivers/hypervisor/libvirt_error.h"
#include "drivers/hypervisor/qmp.h"

struct bitmap_driver {
    struct capture_driver head;
    struct hypervisor *hv;
};

struct bitmap_capture {
    struct nbd_capture nbd;
    virConnectPtr connection;
    virDomainPtr domain;
    char *folder;
    char *stem;
    char *socket;
    struct scratch_watch *watch;
    bool gives_way; /* the watching thread's */
    size_t n_disks;
    struct json_object *nodes; /* of ours, all of them; NULL: who knows */
    unsigned n_kept;           /* connections */
};

static struct hypervisor *
hv_of(struct capture_driver *driver)
{
    return ((struct bitmap_driver *)driver)->hv;
}

/* Files of ours, told apart from those of the checkpoint capture. */
static bool
name_files(virDomainPtr domain, const char *folder, char **ret_stem, char **ret_socket,
           struct error **err)
{
    char uuid[VIR_UUID_STRING_BUFLEN];
    AUTOFREE(char) *stem = NULL;

    if (virDomainGetUUIDString(domain, uuid) < 0)
        return libvirt_error(err, "ask for the UUID");
    stem = mem_printf("fleece-%s", uuid);
    if (!scratch_files_socket(folder, stem, ret_socket, err))
        return false;
    *ret_stem = TAKE(stem);
    return true;
}

/* --- begin ------------------------------------------------------------------------ */

static bool
check_jobs(struct nbd_capture *nbd, struct error **err)
{
    struct bitmap_capture *c = (struct bitmap_capture *)nbd;

    if (!scratch_watch_check(c->watch, err))
        return false;
    if (virDomainIsActive(c->domain) == 0)
        return error_set(err, ERROR_INVALID_STATE, "the guest ended during the capture");
    return fleece_check(c->domain, c->n_disks, err);
}

static struct bitmap_capture *
capture_new(struct capture_driver *driver, virDomainPtr domain,
            const struct capture_request *request)
{
    struct bitmap_capture *c = NEW(struct bitmap_capture);

    c->nbd.head.driver = driver;
    c->nbd.check = check_jobs;
    c->connection = virDomainGetConnect(domain);
    virConnectRef(c->connection);
    virDomainRef(domain);
    c->domain = domain;
    c->folder = mem_strdup(request->scratch_folder);
    c->n_disks = request->n_disks;
    return c;
}

static void
bitmap_capture_free(struct bitmap_capture *c)
{
    if (c == NULL)
        return;
    scratch_watch_free(c->watch);
    nbd_disks_free(c->nbd.disks);
    json_object_put(c->nodes);
    free(c->folder);
    free(c->stem);
    free(c->socket);
    virDomainFree(c->domain);
    virConnectClose(c->connection);
    free(c);
}
DEFINE_AUTOPTR(bitmap_capture);

/* What lies there of ours is left from a crash: this is the domain's only capture. */
static bool
make_way(struct bitmap_capture *c, struct block_graph **ret, struct error **err)
{
    AUTOPTR(block_graph) *g = NULL;

    if (!checkpoint_point_check_active(c->domain, err) ||
        !fleece_check_idle(c->domain, err) || !block_graph_read(c->domain, &g, err))
        return false;
    if (fleece_is_left(g, c->socket)) {
        block_graph_free(TAKE(g));
        if (!fleece_end(c->domain, c->socket, NULL, err) ||
            !block_graph_read(c->domain, &g, err))
            return false;
    }
    *ret = TAKE(g);
    return scratch_files_remove(c->folder, c->stem, err) &&
           scratch_watch_has_room(c->folder, err);
}

/* A QEMU that is gone took all of it along. Files stay while it may still use them. */
static bool
clear(const struct bitmap_capture *c, struct error **err)
{
    return (virDomainIsActive(c->domain) == 0 ||
            fleece_end(c->domain, c->socket, c->nodes, err)) &&
           scratch_files_remove(c->folder, c->stem, err);
}

static bool
find_disks(const struct block_graph *g, const struct capture_request *request,
           struct fleece_disk *disks, struct error **err)
{
    for (size_t i = 0; i < request->n_disks; i++) {
        disks[i].target = request->disks[i].target;
        if (!block_graph_disk(g, disks[i].target, &disks[i].node, err))
            return false;
        if (!capture_request_is_whole(request, i) &&
            !block_graph_record(g, disks[i].target, request->base, &disks[i].record, NULL,
                                err))
            return false;
    }
    return true;
}

static bool
keep(void *opaque, int fd, struct error **err)
{
    struct bitmap_capture *c = opaque;

    return fleece_keep(c->domain, c->n_kept++, fd, err);
}

static bool
set_keeper(struct bitmap_capture *c, struct error **err)
{
    bool needed = false;

    if (!fleece_needs_keeping(c->domain, &needed, err))
        return false;
    if (needed)
        nbd_disks_set_keeper(c->nbd.disks, (struct nbd_keeper){ keep, c });
    return true;
}

static bool
hold(struct bitmap_capture *c, const struct capture_request *request,
     int64_t *ret_time_ms, struct error **err)
{
    AUTOPTR(block_graph) *g = NULL;
    struct fleece_disk disks[CAPTURE_MAX_DISKS] = { 0 };
    struct fleece_settings settings = { c->folder,     c->stem, c->socket,
                                        request->name, disks,   request->n_disks };
    bool ok =
        make_way(c, &g, err) && set_keeper(c, err) && find_disks(g, request, disks, err);

    if (ok) {
        ok = fleece_begin(c->domain, &settings, ret_time_ms, err);
        if (ok)
            c->nodes = fleece_nodes(&settings);
        else
            clear(c, NULL);
    }
    for (size_t i = 0; i < request->n_disks; i++)
        json_object_put(disks[i].record);
    return ok;
}

/* --- the jobs, to the thread that watches their scratch space ---------------------- */

static bool
jobs_used(void *opaque, uint64_t *ret_bytes)
{
    const struct bitmap_capture *c = opaque;

    return scratch_files_used(c->folder, c->stem, ret_bytes);
}

static bool
jobs_are_ours(void *opaque UNUSED)
{
    return true; /* only what has our names is ended */
}

/* Scratch nodes on top of the disks would be in the way as well. */
static void
jobs_abort(void *opaque)
{
    struct bitmap_capture *c = opaque;

    if (!c->gives_way || !fleece_end(c->domain, c->socket, c->nodes, NULL))
        fleece_abort(c->domain, NULL);
    io_error_resume(c->domain);
}

/*
 * libvirt does not know of our jobs, so nothing waits for them: a live migration that
 * begins fails as soon as it comes to the disks. Until then it starts QEMU on the other
 * host, which takes longer than we look away.
 */
static char *
jobs_give_way(void *opaque)
{
    struct bitmap_capture *c = opaque;
    struct backup_job_stats stats = { 0 };

    if (!backup_job_stats(c->domain, &stats, NULL) ||
        !backup_job_is_real(c->domain, &stats))
        return NULL;
    c->gives_way = true;
    return mem_printf("the capture was ended for a %s, which goes first",
                      backup_job_operation_name(stats.operation));
}

static bool
watch(struct bitmap_capture *c, uint64_t limit_bytes, struct error **err)
{
    const struct scratch_watch_settings settings = {
        .job = { jobs_used, jobs_are_ours, jobs_abort, jobs_give_way, c },
        .folder = c->folder,
        .limit_bytes = limit_bytes,
    };

    if (scratch_watch_start(&settings, &c->watch, err))
        return true;
    clear(c, NULL);
    return false;
}

static bool
begin_on(struct bitmap_capture *c, const struct capture_request *request,
         int64_t *ret_time_ms, struct error **err)
{
    if (name_files(c->domain, c->folder, &c->stem, &c->socket, err)) {
        c->nbd.disks = nbd_disks_new(request, c->socket, fleece_bitmap);
        if (hold(c, request, ret_time_ms, err) &&
            watch(c, request->scratch_limit_bytes, err))
            return true;
    }
    return error_prefix(err, "capture of domain '%s'", virDomainGetName(c->domain));
}

static bool
bitmap_begin(struct capture_driver *driver, const struct capture_request *request,
             struct capture **ret, int64_t *ret_time_ms, struct error **err)
{
    AUTOCONNECTION *connection = NULL;
    AUTODOMAIN *domain = NULL;
    AUTOPTR(bitmap_capture) *c = NULL;
    int64_t time_ms = 0;

    if (!capture_request_check(request, err))
        return false;
    connection = libvirt_connection_ref(hv_of(driver), err);
    if (connection == NULL)
        return false;
    domain = libvirt_domain_by_uuid(connection, request->uuid, err);
    if (domain == NULL)
        return false;
    c = capture_new(driver, domain, request);
    if (!begin_on(c, request, &time_ms, err))
        return false;
    *ret_time_ms = time_ms;
    *ret = &TAKE(c)->nbd.head;
    return true;
}

/* --- end -------------------------------------------------------------------------- */

static bool
bitmap_end(struct capture *head, struct error **err)
{
    struct bitmap_capture *c = (struct bitmap_capture *)head;
    bool whole, cleared;

    scratch_watch_stop(c->watch);
    whole = check_jobs(&c->nbd, err);
    /* With the connections open: see fleece_keep(). */
    cleared = clear(c, whole ? err : NULL);
    if (!scratch_watch_check(c->watch, NULL))
        io_error_resume(c->domain); /* whom its last writes had stopped once more */
    if (!whole || !cleared)
        error_prefix(err, "capture of domain '%s'", virDomainGetName(c->domain));
    bitmap_capture_free(c);
    return whole && cleared;
}

/* --- between captures ------------------------------------------------------------- */

static bool
add_up(const struct block_graph *g, const char *name, const struct capture_disk *disk,
       uint64_t *total, struct error **err)
{
    struct block_node node;
    uint64_t bytes = 0;

    if (!block_graph_disk(g, disk->target, &node, err))
        return false;
    if (disk->whole)
        bytes = node.size_bytes;
    else if (!block_graph_record(g, disk->target, name, NULL, &bytes, err))
        return false;
    *total += bytes;
    return true;
}

static bool
count(virDomainPtr domain, const char *name, const struct capture_disk *disks,
      size_t n_disks, uint64_t *ret_bytes, struct error **err)
{
    AUTOPTR(block_graph) *g = NULL;
    uint64_t total = 0;

    if (!checkpoint_point_check_active(domain, err) || !fleece_check_idle(domain, err) ||
        !block_graph_read(domain, &g, err))
        return false;
    for (size_t i = 0; i < n_disks; i++)
        if (!add_up(g, name, &disks[i], &total, err))
            return false;
    *ret_bytes = total;
    return true;
}

static bool
bitmap_changed(struct capture_driver *driver, const char *uuid, const char *name,
               const struct capture_disk *disks, size_t n_disks, uint64_t *ret_bytes,
               struct error **err)
{
    AUTOCONNECTION *connection = libvirt_connection_ref(hv_of(driver), err);
    AUTODOMAIN *domain =
        connection == NULL ? NULL : libvirt_domain_by_uuid(connection, uuid, err);

    if (domain == NULL)
        return false;
    return count(domain, name, disks, n_disks, ret_bytes, err) ||
           error_prefix(err, "changes of domain '%s' since '%s'",
                        virDomainGetName(domain), name);
}

static bool
remove_bitmap(virDomainPtr domain, const char *node, const char *name, struct error **err)
{
    struct json_object *arguments = json_object_new_object();

    json_set_string(arguments, "node", node);
    json_set_string(arguments, "name", name);
    return qmp_execute(domain, "block-dirty-bitmap-remove", arguments, NULL, err);
}

/* Whatever the images cannot hold has ended with the process. */
static bool
check_kept_nothing(virDomainPtr domain, struct error **err)
{
    AUTOFREE(char) *xml = virDomainGetXMLDesc(domain, VIR_DOMAIN_XML_INACTIVE);
    struct hv_disk *disks = NULL;
    size_t n = 0;
    bool kept = false;

    if (xml == NULL)
        return libvirt_error(err, "ask for the definition");
    if (!domain_xml_disks(xml, &disks, &n, err))
        return false;
    for (size_t i = 0; i < n; i++)
        kept = kept || (!disks[i].removable && disks[i].no_checkpoint == NULL);
    domain_xml_disks_free(disks, n);
    return !kept || error_set(err, ERROR_INVALID_STATE,
                              "the domain is off; bitmaps in its images can only be "
                              "removed while it runs or is paused");
}

/* Each point has a record of its own: what one loses is in the one before it. */
static bool
forget(virDomainPtr domain, const char *name, struct error **err)
{
    AUTOPTR(block_graph) *g = NULL;
    AUTOJSON *nodes = NULL;

    if (virDomainIsActive(domain) == 0)
        return check_kept_nothing(domain, err);
    if (!fleece_check_idle(domain, err) || !block_graph_read(domain, &g, err))
        return false;
    nodes = block_graph_holders(g, name);
    for (size_t i = 0; i < json_object_array_length(nodes); i++)
        if (!remove_bitmap(domain,
                           json_object_get_string(json_object_array_get_idx(nodes, i)),
                           name, err))
            return false;
    return true;
}

static bool
bitmap_forget(struct capture_driver *driver, const char *uuid, const char *name,
              struct error **err)
{
    AUTOCONNECTION *connection = libvirt_connection_ref(hv_of(driver), err);
    AUTODOMAIN *domain =
        connection == NULL ? NULL : libvirt_domain_by_uuid(connection, uuid, err);

    if (domain == NULL)
        return false;
    return forget(domain, name, err) ||
           error_prefix(err, "forget the point '%s' of domain '%s'", name,
                        virDomainGetName(domain));
}

static bool
sweep_domain(virDomainPtr domain, const struct capture_sweep *sweep, size_t *ret_n,
             struct error **err)
{
    AUTOPTR(block_graph) *g = NULL;
    AUTOJSON *bitmaps = NULL;
    size_t n = 0;

    if (virDomainIsActive(domain) == 0)
        return check_kept_nothing(domain, err);
    if (!fleece_check_idle(domain, err) || !block_graph_read(domain, &g, err))
        return false;
    bitmaps = block_graph_bitmaps(g);
    for (size_t i = 0; i < json_object_array_length(bitmaps); i++) {
        struct json_object *o = json_object_array_get_idx(bitmaps, i);
        const char *name = json_string_or(o, "name", "");

        if (!capture_sweep_takes(sweep, name))
            continue;
        if (!remove_bitmap(domain, json_string_or(o, "node", ""), name, err))
            return false;
        n++;
    }
    *ret_n = n;
    return true;
}

static bool
bitmap_sweep(struct capture_driver *driver, const struct capture_sweep *sweep,
             size_t *ret_n, struct error **err)
{
    AUTOCONNECTION *connection = libvirt_connection_ref(hv_of(driver), err);
    AUTODOMAIN *domain =
        connection == NULL ? NULL : libvirt_domain_by_uuid(connection, sweep->uuid, err);

    if (domain == NULL)
        return false;
    return sweep_domain(domain, sweep, ret_n, err) ||
           error_prefix(err, "remove the bitmaps of domain '%s'",
                        virDomainGetName(domain));
}

static bool
recover(virDomainPtr domain, const char *folder, struct error **err)
{
    AUTOFREE(char) *stem = NULL;
    AUTOFREE(char) *socket = NULL;

    return name_files(domain, folder, &stem, &socket, err) &&
           (virDomainIsActive(domain) == 0 || fleece_end(domain, socket, NULL, err)) &&
           scratch_files_remove(folder, stem, err);
}

static bool
bitmap_recover(struct capture_driver *driver, const char *uuid,
               const char *scratch_folder, struct error **err)
{
    AUTOCONNECTION *connection = libvirt_connection_ref(hv_of(driver), err);
    AUTODOMAIN *domain = NULL;
    AUTOFREE(char) *stem = mem_printf("fleece-%s", uuid);

    if (connection == NULL)
        return false;
    domain = virDomainLookupByUUIDString(connection, uuid);
    if (domain == NULL)
        return libvirt_error_last() == VIR_ERR_NO_DOMAIN
                   ? scratch_files_remove(scratch_folder, stem, err)
                   : libvirt_error(err, "look up domain '%s'", uuid);
    return recover(domain, scratch_folder, err) ||
           error_prefix(err, "recover the capture of domain '%s'",
                        virDomainGetName(domain));
}

static void
bitmap_close(struct capture_driver *driver)
{
    free(driver);
}

static const struct capture_ops bitmap_ops = {
    .name = "bitmap",
    .close = bitmap_close,
    .changed = bitmap_changed,
    .begin = bitmap_begin,
    .capacity = nbd_capture_capacity,
    .measure = nbd_capture_measure,
    .read = nbd_capture_read,
    .content = nbd_capture_content,
    .end = bitmap_end,
    .forget = bitmap_forget,
    .sweep = bitmap_sweep,
    .recover = bitmap_recover,
};

bool
capture_bitmap_open(struct hypervisor *libvirt_hv, struct capture_driver **ret,
                    struct error **err UNUSED)
{
    struct bitmap_driver *driver = NEW(struct bitmap_driver);

    driver->head.ops = &bitmap_ops;
    driver->hv = libvirt_hv;
    *ret = &driver->head;
    return true;
}
