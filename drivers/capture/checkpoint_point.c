#include "drivers/capture/checkpoint_point.h"

#include <libvirt/virterror.h>
#include <string.h>

#include "common/units.h"
#include "drivers/capture/backup_job.h"
#include "drivers/capture/request.h"
#include "drivers/hypervisor/domain_xml.h"
#include "drivers/hypervisor/libvirt_error.h"
#include "drivers/hypervisor/xml_node.h"

#define CHECKPOINT_XML_MAX (4u << 20)

#define AUTOPOINT CLEANUP(freep) virDomainCheckpoint

static void
freep(virDomainCheckpointPtr *p)
{
    if (*p != NULL)
        virDomainCheckpointFree(*p);
}

bool
checkpoint_point_check_active(virDomainPtr domain, struct error **err)
{
    int active = virDomainIsActive(domain);

    if (active < 0)
        return libvirt_error(err, "ask whether the domain runs");
    return active == 1 || error_set(err, ERROR_INVALID_STATE,
                                    "the domain is off; its disks can only be captured "
                                    "while it runs or is paused");
}

/* --- is it there ------------------------------------------------------------------ */

static char *
describe_again(const char *name, const struct capture_disk *disks, size_t n_disks)
{
    AUTOXML *doc = xmlNewDoc(BAD_CAST "1.0");
    xmlNodePtr root = xmlNewNode(NULL, BAD_CAST "domaincheckpoint");
    AUTOFREE(char) *now = mem_printf("%lld", (long long)(units_now_ms() / 1000));
    xmlNodePtr list;

    xmlDocSetRootElement(doc, root);
    xmlNewTextChild(root, NULL, BAD_CAST "name", BAD_CAST name);
    xmlNewTextChild(root, NULL, BAD_CAST "creationTime", BAD_CAST now);
    list = xmlNewChild(root, NULL, BAD_CAST "disks", NULL);
    for (size_t i = 0; i < n_disks; i++) {
        xmlNodePtr n;

        if (disks[i].whole)
            continue;
        n = xmlNewChild(list, NULL, BAD_CAST "disk", NULL);
        xml_node_set(n, "name", disks[i].target);
        xml_node_set(n, "checkpoint", "bitmap");
        xml_node_set(n, "bitmap", name);
    }
    return xml_node_text(doc);
}

/* libvirt looks for the bitmaps, and refuses if one of them is not there. */
static virDomainCheckpointPtr
redefine(virDomainPtr domain, const char *name, const struct capture_disk *disks,
         size_t n_disks)
{
    AUTOFREE(char) *xml = describe_again(name, disks, n_disks);

    return virDomainCheckpointCreateXML(
        domain, xml,
        VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE |
            VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE);
}

/* What some of the disks still record under the name of a point that is lost. */
static void
drop_remains(virDomainPtr domain, const char *name, const struct capture_disk *disks,
             size_t n_disks)
{
    for (size_t i = 0; i < n_disks; i++) {
        AUTOPOINT *point = disks[i].whole ? NULL : redefine(domain, name, &disks[i], 1);

        if (point != NULL && virDomainCheckpointDelete(point, 0) < 0)
            virDomainCheckpointDelete(point, VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY);
    }
}

bool
checkpoint_point_exists(virDomainPtr domain, const char *name,
                        const struct capture_disk *disks, size_t n_disks,
                        struct error **err)
{
    AUTOPOINT *point = virDomainCheckpointLookupByName(domain, name, 0);
    AUTOPOINT *again = NULL;

    if (point != NULL)
        return true;
    if (libvirt_error_last() != VIR_ERR_NO_DOMAIN_CHECKPOINT)
        return libvirt_error(err, "look up the checkpoint '%s'", name);
    again = redefine(domain, name, disks, n_disks);
    if (again != NULL)
        return true;
    drop_remains(domain, name, disks, n_disks);
    return error_set(err, ERROR_CHECKPOINT_LOST, "the checkpoint '%s' is gone", name);
}

/* libvirt answers a size only where the bitmap is there and sound. */
static xmlDocPtr
describe(virDomainCheckpointPtr point, struct error **err)
{
    AUTOFREE(char) *xml = virDomainCheckpointGetXMLDesc(
        point, VIR_DOMAIN_CHECKPOINT_XML_SIZE | VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN);

    if (xml == NULL) {
        libvirt_error(err, "ask for the size of the checkpoint");
        return NULL;
    }
    return xml_node_parse(xml, "domaincheckpoint", CHECKPOINT_XML_MAX, err);
}

static xmlNodePtr
first_disk(xmlDocPtr doc)
{
    return xml_node_path(xmlDocGetRootElement(doc), "disks/disk");
}

static bool
add_disk(xmlDocPtr doc, const char *target, uint64_t *total, struct error **err)
{
    xmlNodePtr n = first_disk(doc);
    AUTOFREE(char) *text = NULL;
    uint64_t size = 0;

    while (n != NULL && !xml_node_attr_is(n, "name", target))
        n = xml_node_next(n, "disk");
    text = xml_node_attr(n, "size");
    if (text == NULL)
        return error_set(err, ERROR_CHECKPOINT_LOST,
                         "the bitmap of disk '%s' is gone or broken", target);
    if (!units_parse_u64(text, 0, UINT64_MAX - *total, &size, err))
        return error_prefix(err, "size of the bitmap of disk '%s'", target);
    *total += size;
    return true;
}

/* A disk that no bitmap records counts as changed from end to end. */
static bool
add_whole(virDomainPtr domain, const char *target, uint64_t *total, struct error **err)
{
    virDomainBlockInfo info;

    if (virDomainGetBlockInfo(domain, target, &info, 0) < 0)
        return libvirt_error(err, "ask for the size of disk '%s'", target);
    *total += info.capacity;
    return true;
}

/* A backup job lets us ask; any other would make libvirt wait 30 s and then fail. */
static bool
check_job(virDomainPtr domain, struct error **err)
{
    struct backup_job_stats job = { 0 };

    if (!checkpoint_point_check_active(domain, err) ||
        !backup_job_stats(domain, &job, err))
        return false;
    return !job.running || job.operation == VIR_DOMAIN_JOB_OPERATION_BACKUP ||
           error_set(err, ERROR_JOB_BUSY, "the domain has a %s under way",
                     backup_job_operation_name(job.operation));
}

bool
checkpoint_point_changed(virDomainPtr domain, const char *name,
                         const struct capture_disk *disks, size_t n_disks,
                         uint64_t *ret_bytes, struct error **err)
{
    AUTOPOINT *point = NULL;
    AUTOXML *doc = NULL;
    uint64_t total = 0;

    if (!check_job(domain, err))
        return false;
    point = virDomainCheckpointLookupByName(domain, name, 0);
    if (point == NULL)
        return libvirt_error(err, "look up the checkpoint");
    doc = describe(point, err);
    if (doc == NULL)
        return false;
    for (size_t i = 0; i < n_disks; i++)
        if (!(disks[i].whole ? add_whole(domain, disks[i].target, &total, err)
                             : add_disk(doc, disks[i].target, &total, err)))
            return false;
    *ret_bytes = total;
    return true;
}

/* Has a disk of this checkpoint no sound bitmap (any more)? */
static bool
lacks_bitmap(virDomainCheckpointPtr point)
{
    AUTOXML *doc = describe(point, NULL);

    for (xmlNodePtr n = doc == NULL ? NULL : first_disk(doc); n != NULL;
         n = xml_node_next(n, "disk")) {
        AUTOFREE(char) *size = xml_node_attr(n, "size");

        if (size == NULL && xml_node_attr_is(n, "checkpoint", "bitmap"))
            return true;
    }
    return false;
}

/* A bitmap that an image came with, or that libvirt has forgotten with a definition. */
static bool
forget_unknown(virDomainPtr domain, const char *name, struct error **err)
{
    AUTOFREE(char) *xml = NULL;
    struct hv_disk *disks = NULL;
    size_t n = 0;

    if (virDomainIsActive(domain) != 1)
        return true;
    if (!check_job(domain, err))
        return false;
    xml = virDomainGetXMLDesc(domain, 0);
    if (xml == NULL)
        return libvirt_error(err, "ask for the definition");
    if (!domain_xml_disks(xml, &disks, &n, err))
        return false;
    for (size_t i = 0; i < n; i++) {
        const struct capture_disk disk = { .target = disks[i].target };

        if (!disks[i].removable && disks[i].no_checkpoint == NULL)
            drop_remains(domain, name, &disk, 1);
    }
    domain_xml_disks_free(disks, n);
    return true;
}

bool
checkpoint_point_forget(virDomainPtr domain, const char *name, struct error **err)
{
    AUTOPOINT *point = NULL;
    AUTOPTR(error) *why = NULL;

    point = virDomainCheckpointLookupByName(domain, name, 0);
    if (point == NULL)
        return libvirt_error_last() == VIR_ERR_NO_DOMAIN_CHECKPOINT
                   ? forget_unknown(domain, name, err)
                   : libvirt_error(err, "look up the checkpoint");
    if (!check_job(domain, err))
        return false;
    if (virDomainCheckpointDelete(point, 0) == 0)
        return true;
    libvirt_error(&why, "delete the checkpoint");
    /* libvirt cannot delete what lost its bitmap; only its record is left then. */
    if (error_code(why) == ERROR_HYPERVISOR && lacks_bitmap(point) &&
        virDomainCheckpointDelete(point, VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY) == 0)
        return true;
    return error_propagate(err, TAKE(why));
}

/* --- all of them ------------------------------------------------------------------ */

static bool
sweep_point(virDomainPtr domain, virDomainCheckpointPtr point, const char *name,
            struct error **err)
{
    if (virDomainIsActive(domain) != 0)
        return checkpoint_point_forget(domain, name, err);
    return virDomainCheckpointDelete(point, VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY) ==
               0 ||
           libvirt_error(err, "make libvirt forget the checkpoint '%s'", name);
}

bool
checkpoint_point_sweep(virDomainPtr domain, const struct capture_sweep *sweep,
                       size_t *ret_n, struct error **err)
{
    virDomainCheckpointPtr *all = NULL;
    int n = virDomainListAllCheckpoints(domain, &all, 0);
    size_t n_dropped = 0;
    bool ok = true;

    if (n < 0)
        return libvirt_error(err, "list the checkpoints");
    for (int i = 0; i < n; i++) {
        const char *name = virDomainCheckpointGetName(all[i]);

        if (ok && capture_sweep_takes(sweep, name)) {
            ok = sweep_point(domain, all[i], name, err);
            n_dropped += ok;
        }
        virDomainCheckpointFree(all[i]);
    }
    free(all);
    if (ok)
        *ret_n = n_dropped;
    return ok;
}

/* --- from another host, to another host --------------------------------------- */

/* libvirt carries the bitmaps along with a live migration, but not what it knows of them.
   It looks at each of them here. */
bool
checkpoint_point_adopt(virDomainPtr domain, const char *name,
                       const struct capture_disk *disks, size_t n_disks,
                       struct error **err)
{
    AUTOPOINT *known = virDomainCheckpointLookupByName(domain, name, 0);
    AUTOPOINT *point = NULL;

    if (known != NULL)
        return true;
    if (!check_job(domain, err))
        return false;
    point = redefine(domain, name, disks, n_disks);
    return point != NULL || libvirt_error(err, "define the checkpoint again");
}

bool
checkpoint_point_disown(virDomainPtr domain, const char *name, struct error **err)
{
    AUTOPOINT *point = virDomainCheckpointLookupByName(domain, name, 0);

    return (point == NULL && libvirt_error_last() == VIR_ERR_NO_DOMAIN_CHECKPOINT) ||
           (point != NULL &&
            virDomainCheckpointDelete(point,
                                      VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY) == 0) ||
           libvirt_error(err, "forget the checkpoint '%s' here", name);
}
