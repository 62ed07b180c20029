#include "drivers/capture/backup_job.h"

#include <poll.h>
#include <string.h>

#include "common/units.h"
#include "drivers/capture/scratch_files.h"
#include "drivers/hypervisor/libvirt_error.h"
#include "drivers/hypervisor/xml_node.h"

#define BACKUP_XML_MAX (1u << 20)
#define ABORT_MS       10000
#define BEGIN_MS       20000 /* for a begin whose caller was killed */
#define ABORT_POLL_MS  2
#define BEGIN_POLL_MS  50

/* --- which job -------------------------------------------------------------------- */

bool
backup_job_is_known(virDomainPtr domain)
{
    AUTOFREE(char) *xml = virDomainBackupGetXMLDesc(domain, 0);

    return xml != NULL;
}

bool
backup_job_is_real(virDomainPtr domain, const struct backup_job_stats *stats)
{
    return stats->running && (stats->operation != VIR_DOMAIN_JOB_OPERATION_BACKUP ||
                              backup_job_is_known(domain));
}

/* libvirt does not know the figures of a backup that has no definition (yet). */
static bool
explain_stats(virDomainPtr domain, struct backup_job_stats *ret, struct error **err)
{
    bool internal = libvirt_error_last() == VIR_ERR_INTERNAL_ERROR;
    AUTOPTR(error) *why = NULL;

    libvirt_error(&why, "ask for the domain's job");
    if (!internal || error_code(why) == ERROR_CONNECT || virDomainIsActive(domain) != 1 ||
        backup_job_is_known(domain))
        return error_propagate(err, TAKE(why));
    *ret = (struct backup_job_stats){ .operation = VIR_DOMAIN_JOB_OPERATION_BACKUP,
                                      .running = true };
    return true;
}

bool
backup_job_stats(virDomainPtr domain, struct backup_job_stats *ret, struct error **err)
{
    virTypedParameterPtr params = NULL;
    struct backup_job_stats stats = { 0 };
    unsigned long long scratch = 0;
    int type, n = 0;

    if (virDomainGetJobStats(domain, &type, &params, &n, 0) < 0)
        return explain_stats(domain, ret, err);
    stats.running = type != VIR_DOMAIN_JOB_NONE;
    virTypedParamsGetInt(params, n, VIR_DOMAIN_JOB_OPERATION, &stats.operation);
    virTypedParamsGetULLong(params, n, VIR_DOMAIN_JOB_DISK_TEMP_USED, &scratch);
    stats.scratch_bytes = scratch;
    virTypedParamsFree(params, n);
    *ret = stats;
    return true;
}

const char *
backup_job_operation_name(int operation)
{
    static const char *const names[] = {
        [VIR_DOMAIN_JOB_OPERATION_UNKNOWN] = "job of an unknown kind",
        [VIR_DOMAIN_JOB_OPERATION_START] = "start",
        [VIR_DOMAIN_JOB_OPERATION_SAVE] = "save",
        [VIR_DOMAIN_JOB_OPERATION_RESTORE] = "restore",
        [VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN] = "incoming migration",
        [VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT] = "migration",
        [VIR_DOMAIN_JOB_OPERATION_SNAPSHOT] = "snapshot",
        [VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_REVERT] = "revert to a snapshot",
        [VIR_DOMAIN_JOB_OPERATION_DUMP] = "dump",
        [VIR_DOMAIN_JOB_OPERATION_BACKUP] = "backup",
    };

    if (operation < 0 || (size_t)operation >= N_ELEMENTS(names))
        return names[VIR_DOMAIN_JOB_OPERATION_UNKNOWN];
    return names[operation];
}

bool
backup_job_is_ours(virDomainPtr domain, const char *socket, bool *ret, struct error **err)
{
    AUTOFREE(char) *xml = virDomainBackupGetXMLDesc(domain, 0);
    AUTOXML *doc = NULL;

    if (xml == NULL && libvirt_error_last() == VIR_ERR_NO_DOMAIN_BACKUP) {
        *ret = false;
        return true;
    }
    if (xml == NULL)
        return libvirt_error(err, "ask for the domain's backup job");
    doc = xml_node_parse(xml, "domainbackup", BACKUP_XML_MAX, err);
    if (doc == NULL)
        return false;
    *ret = xml_node_attr_is(xml_node_child(xmlDocGetRootElement(doc), "server"), "socket",
                            socket);
    return true;
}

/* A backup job that has no definition yet is being begun. */
static bool
is_being_begun(virDomainPtr domain)
{
    struct backup_job_stats stats = { 0 };

    return !backup_job_is_known(domain) && backup_job_stats(domain, &stats, NULL) &&
           stats.running && stats.operation == VIR_DOMAIN_JOB_OPERATION_BACKUP;
}

bool
backup_job_settle(virDomainPtr domain, const char *socket, bool *ret_ours,
                  struct error **err)
{
    int64_t until_ms = units_monotonic_ms() + BEGIN_MS;

    while (is_being_begun(domain)) {
        if (units_monotonic_ms() >= until_ms)
            return error_set(err, ERROR_JOB_LOST,
                             "libvirt has been beginning a backup for %d s: it was "
                             "killed meanwhile and has lost it",
                             BEGIN_MS / 1000);
        poll(NULL, 0, BEGIN_POLL_MS);
    }
    return backup_job_is_ours(domain, socket, ret_ours, err);
}

/* The abort is only asked for by the call; the job ends when QEMU has answered. */
bool
backup_job_abort(virDomainPtr domain, struct error **err)
{
    int64_t until_ms = units_monotonic_ms() + ABORT_MS;
    struct backup_job_stats stats = { 0 };

    if (virDomainAbortJob(domain) < 0)
        return libvirt_error(err, "end the backup job");
    for (;;) {
        if (!backup_job_stats(domain, &stats, err))
            return false;
        if (!stats.running || stats.operation != VIR_DOMAIN_JOB_OPERATION_BACKUP)
            return true;
        if (units_monotonic_ms() >= until_ms)
            return error_set(err, ERROR_TIMEOUT, "the backup job did not end within %d s",
                             ABORT_MS / 1000);
        poll(NULL, 0, ABORT_POLL_MS);
    }
}

/* --- definitions ------------------------------------------------------------------ */

char *
backup_job_bitmap(const char *target)
{
    return mem_printf("backup-%s", target);
}

static const struct capture_disk *
in_request(const struct capture_request *request, const char *target)
{
    for (size_t i = 0; i < request->n_disks; i++)
        if (strcmp(request->disks[i].target, target) == 0)
            return &request->disks[i];
    return NULL;
}

static xmlNodePtr
add(xmlNodePtr parent, const char *name)
{
    return xmlNewChild(parent, NULL, BAD_CAST name, NULL);
}

static void
define_disk(xmlNodePtr n, const struct capture_request *request,
            const struct capture_disk *disk)
{
    AUTOFREE(char) *scratch =
        scratch_files_image(request->scratch_folder, request->uuid, disk->target);
    AUTOFREE(char) *bitmap = backup_job_bitmap(disk->target);
    bool full = disk->whole || request->base == NULL;

    xml_node_set(n, "backup", "yes");
    xml_node_set(n, "type", "file");
    xml_node_set(n, "exportname", disk->target);
    xml_node_set(n, "backupmode", full ? "full" : "incremental");
    if (!full) {
        xml_node_set(n, "incremental", request->base);
        xml_node_set(n, "exportbitmap", bitmap);
    }
    xml_node_set(add(n, "scratch"), "file", scratch);
}

static char *
define_backup(const struct capture_request *request, const char *socket,
              const struct hv_disk *all, size_t n_all)
{
    AUTOXML *doc = xmlNewDoc(BAD_CAST "1.0");
    xmlNodePtr root = xmlNewNode(NULL, BAD_CAST "domainbackup");
    xmlNodePtr server, disks;

    xmlDocSetRootElement(doc, root);
    xml_node_set(root, "mode", "pull");
    server = add(root, "server");
    xml_node_set(server, "transport", "unix");
    xml_node_set(server, "socket", socket);
    disks = add(root, "disks");
    for (size_t i = 0; i < n_all; i++) {
        const struct capture_disk *disk = in_request(request, all[i].target);
        xmlNodePtr n = add(disks, "disk");

        xml_node_set(n, "name", all[i].target);
        if (disk != NULL)
            define_disk(n, request, disk);
        else
            xml_node_set(n, "backup", "no");
    }
    return xml_node_text(doc);
}

static char *
define_checkpoint(const struct capture_request *request, const struct hv_disk *all,
                  size_t n_all)
{
    AUTOXML *doc = xmlNewDoc(BAD_CAST "1.0");
    xmlNodePtr root = xmlNewNode(NULL, BAD_CAST "domaincheckpoint");
    xmlNodePtr disks;

    xmlDocSetRootElement(doc, root);
    xmlNewTextChild(root, NULL, BAD_CAST "name", BAD_CAST request->name);
    disks = add(root, "disks");
    for (size_t i = 0; i < n_all; i++) {
        xmlNodePtr n = add(disks, "disk");

        xml_node_set(n, "name", all[i].target);
        xml_node_set(n, "checkpoint",
                     in_request(request, all[i].target) != NULL ? "bitmap" : "no");
    }
    return xml_node_text(doc);
}

bool
backup_job_define(const struct capture_request *request, const char *socket,
                  const struct hv_disk *all, size_t n_all, char **ret_backup,
                  char **ret_checkpoint, struct error **err)
{
    for (size_t i = 0; i < request->n_disks; i++) {
        size_t k = 0;

        while (k < n_all && strcmp(all[k].target, request->disks[i].target) != 0)
            k++;
        if (k == n_all)
            return error_set(err, ERROR_UNSUPPORTED_DISK, "the domain has no disk '%s'",
                             request->disks[i].target);
        if (all[k].excuse != NULL)
            return error_set(err, ERROR_UNSUPPORTED_DISK, "disk '%s': %s", all[k].target,
                             all[k].excuse);
    }
    *ret_backup = define_backup(request, socket, all, n_all);
    *ret_checkpoint =
        request->name == NULL ? NULL : define_checkpoint(request, all, n_all);
    return true;
}
