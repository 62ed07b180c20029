/* Block jobs; see drivers/hypervisor.h. */
#include <string.h>

#include "common/json.h"
#include "drivers/hypervisor/block_graph.h"
#include "drivers/hypervisor/libvirt.h"
#include "drivers/hypervisor/libvirt_domain.h"
#include "drivers/hypervisor/libvirt_error.h"
#include "drivers/hypervisor/qmp.h"

/* NULL: it cannot be reached, or does not run. */
static virDomainPtr
running(virConnectPtr c, const struct hv_block_disk *disk, struct error **err)
{
    virDomainPtr d = c == NULL ? NULL : libvirt_domain_by_uuid(c, disk->uuid, err);

    if (d == NULL || virDomainIsActive(d) == 1)
        return d;
    error_set(err, ERROR_INVALID_STATE, "domain '%s' is not running",
              virDomainGetName(d));
    virDomainFree(d);
    return NULL;
}

static enum hv_block_job_kind
kind_of(int type)
{
    if (type == VIR_DOMAIN_BLOCK_JOB_TYPE_PULL)
        return HV_BLOCK_JOB_FLATTEN;
    return type == VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT ? HV_BLOCK_JOB_MERGE_DOWN
                                                           : HV_BLOCK_JOB_OTHER;
}

static bool
look(virDomainPtr d, const struct hv_block_disk *disk, struct hv_block_job *ret,
     struct error **err)
{
    virDomainBlockJobInfo info = { 0 };
    int n = virDomainGetBlockJobInfo(d, disk->target, &info,
                                     VIR_DOMAIN_BLOCK_JOB_INFO_BANDWIDTH_BYTES);

    if (n < 0)
        return libvirt_error(err, "look for a job of disk '%s'", disk->target);
    *ret = (struct hv_block_job){ .kind = HV_BLOCK_JOB_NONE };
    if (n == 0)
        return true;
    *ret = (struct hv_block_job){ kind_of(info.type), false, info.cur, info.end };

    /* libvirt lets the two be equal only once QEMU has said that it is. */
    ret->ready = ret->kind == HV_BLOCK_JOB_MERGE_DOWN && info.cur == info.end;
    return true;
}

/* What failed to begin has another job in its way, or something is wrong with it. */
static bool
refused(virDomainPtr d, const struct hv_block_disk *disk, struct error **err)
{
    struct hv_block_job job = { .kind = HV_BLOCK_JOB_NONE };
    AUTOPTR(error) *why = NULL;

    libvirt_error(&why, "disk '%s'", disk->target);
    if (look(d, disk, &job, NULL) && job.kind != HV_BLOCK_JOB_NONE)
        return error_set(err, ERROR_IN_PROGRESS, "%s", error_message(why));
    return error_propagate(err, TAKE(why));
}

bool
libvirt_block_begin_flatten(struct hypervisor *hv, const struct hv_block_disk *disk,
                            struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = running(c, disk, err);

    if (d == NULL)
        return false;
    return virDomainBlockPull(d, disk->target, disk->rate_bytes_s,
                              VIR_DOMAIN_BLOCK_PULL_BANDWIDTH_BYTES) == 0 ||
           refused(d, disk, err);
}

bool
libvirt_block_begin_merge_down(struct hypervisor *hv, const struct hv_block_disk *disk,
                               const char *base, struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = running(c, disk, err);

    if (d == NULL)
        return false;
    return virDomainBlockCommit(d, disk->target, base, NULL, disk->rate_bytes_s,
                                VIR_DOMAIN_BLOCK_COMMIT_ACTIVE |
                                    VIR_DOMAIN_BLOCK_COMMIT_BANDWIDTH_BYTES) == 0 ||
           refused(d, disk, err);
}

bool
libvirt_block_finish_merge_down(struct hypervisor *hv, const struct hv_block_disk *disk,
                                struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = running(c, disk, err);

    if (d == NULL)
        return false;
    return virDomainBlockJobAbort(d, disk->target, VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT) ==
               0 ||
           libvirt_error(err, "let disk '%s' go on on the image below", disk->target);
}

bool
libvirt_block_hurry(struct hypervisor *hv, const struct hv_block_disk *disk,
                    struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = running(c, disk, err);

    if (d == NULL)
        return false;
    return virDomainBlockJobSetSpeed(d, disk->target, 0, 0) == 0 ||
           libvirt_error(err, "let the job of disk '%s' go faster", disk->target);
}

bool
libvirt_block_job(struct hypervisor *hv, const struct hv_block_disk *disk,
                  struct hv_block_job *ret, struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = running(c, disk, err);

    return d != NULL && look(d, disk, ret, err);
}

bool
libvirt_block_abort(struct hypervisor *hv, const struct hv_block_disk *disk,
                    struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = running(c, disk, err);
    struct hv_block_job job = { .kind = HV_BLOCK_JOB_NONE };

    if (d == NULL || !look(d, disk, &job, err))
        return false;
    return job.kind == HV_BLOCK_JOB_NONE ||
           virDomainBlockJobAbort(d, disk->target, 0) == 0 ||
           libvirt_error(err, "end the job of disk '%s'", disk->target);
}

/* --- flush ---------------------------------------------------------------------------
 */

/* QMP has no command for that. The human monitor answers nothing where it went well. */
static bool
flush_node(virDomainPtr d, const char *node, struct error **err)
{
    struct json_object *arguments = json_object_new_object();
    AUTOFREE(char) *line = mem_printf("qemu-io %s flush", node);
    AUTOJSON *said = NULL;
    const char *text;

    json_set_string(arguments, "command-line", line);
    if (!qmp_execute(d, "human-monitor-command", arguments, &said, err))
        return false;
    text = json_object_get_string(said);
    return (text != NULL && text[0] == '\0') ||
           error_set(err, ERROR_HYPERVISOR, "flush: %s", text != NULL ? text : "?");
}

bool
libvirt_block_flush(struct hypervisor *hv, const struct hv_block_disk *disk,
                    struct error **err)
{
    AUTOCONNECTION *c = libvirt_connection_ref(hv, err);
    AUTODOMAIN *d = running(c, disk, err);
    AUTOPTR(block_graph) *graph = NULL;
    struct block_node node;

    return d != NULL && block_graph_read(d, &graph, err) &&
           block_graph_disk(graph, disk->target, &node, err) &&
           flush_node(d, node.name, err);
}
