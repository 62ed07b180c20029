#include "drivers/capture/checkpoint.h"

#include <inttypes.h>
#include <string.h>

#include "common/units.h"
#include "drivers/capture/backup_job.h"
#include "drivers/capture/checkpoint_point.h"
#include "drivers/capture/io_error.h"
#include "drivers/capture/lost_job.h"
#include "drivers/capture/nbd_disks.h"
#include "drivers/capture/request.h"
#include "drivers/capture/scratch_files.h"
#include "drivers/capture/scratch_image.h"
#include "drivers/capture/scratch_watch.h"
#include "drivers/hypervisor/domain_xml.h"
#include "drivers/hypervisor/image_head.h"
#include "drivers/hypervisor/libvirt.h"
#include "drivers/hypervisor/libvirt_domain.h"
#include "drivers/hypervisor/libvirt_error.h"

struct checkpoint_driver {
    struct capture_driver head;
    struct hypervisor *hv;
};

struct checkpoint_capture {
    struct nbd_capture nbd;
    virConnectPtr connection;
    virDomainPtr domain;
    char uuid[VIR_UUID_STRING_BUFLEN];
    char *folder;
    char *socket;
    struct scratch_watch *watch;
};

static struct hypervisor *
hv_of(struct capture_driver *driver)
{
    return ((struct checkpoint_driver *)driver)->hv;
}

/* --- begin ------------------------------------------------------------------------ */

/* Looked at first: libvirt would make a second job wait 30 s before it fails. */
static bool
check_idle(virDomainPtr domain, struct error **err)
{
    struct backup_job_stats job = { 0 };

    if (!checkpoint_point_check_active(domain, err) ||
        !backup_job_stats(domain, &job, err))
        return false;
    return !job.running || error_set(err, ERROR_JOB_BUSY, "the domain has a %s under way",
                                     backup_job_operation_name(job.operation));
}

struct job_disks {
    struct hv_disk *all; /* of the domain */
    size_t n;
};

static bool
is_asked_for(const struct capture_request *request, const char *target)
{
    for (size_t i = 0; i < request->n_disks; i++)
        if (strcmp(request->disks[i].target, target) == 0)
            return true;
    return false;
}

/*
 * The scratch images are made here, which takes QEMU tens of milliseconds and makes 7.2
 * abort, guest and all, if anybody has it list its images meanwhile: whoever looks
 * at the domain by libvirt, or makes and deletes checkpoints. *ret_made is false where
 * the size of a disk is not known without asking: then libvirt has QEMU make them.
 */
static bool
make_scratch(const struct capture_request *request, const struct job_disks *disks,
             bool *ret_made, struct error **err)
{
    for (size_t i = 0; i < disks->n; i++) {
        const struct hv_disk *disk = &disks->all[i];
        AUTOFREE(char) *path = NULL;
        struct image_head head = { 0 };

        if (!is_asked_for(request, disk->target))
            continue;
        if (disk->path == NULL || disk->wrapped ||
            !image_head_read(disk->path, disk->format, &head) ||
            head.capacity_bytes == 0) {
            *ret_made = false;
            return scratch_files_remove(request->scratch_folder, request->uuid, err);
        }
        path = scratch_files_image(request->scratch_folder, request->uuid, disk->target);
        if (!scratch_image_create(request->scratch_folder, path, head.capacity_bytes,
                                  err))
            return false;
    }
    *ret_made = true;
    return true;
}

static bool
explain_begin(virDomainPtr domain, const struct capture_request *request,
              struct error **err)
{
    int code = libvirt_error_last();
    AUTOPTR(error) *why = NULL;

    libvirt_error(&why, "begin the backup job%s%s",
                  request->base != NULL ? " since " : "",
                  request->base != NULL ? request->base : "");
    if (error_code(why) == ERROR_HYPERVISOR && virDomainIsActive(domain) == 0)
        return error_set(err, ERROR_INVALID_STATE, "%s", error_message(why));
    if (code == VIR_ERR_CONFIG_UNSUPPORTED)
        return error_set(err, ERROR_UNSUPPORTED_DISK, "%s", error_message(why));
    return error_propagate(err, TAKE(why));
}

/* The backup job with its checkpoint, both or neither. */
static bool
begin_with(virDomainPtr domain, const struct capture_request *request, const char *socket,
           const struct job_disks *disks, struct error **err)
{
    char *xml[2] = { NULL, NULL };
    bool made = false, ok;

    if (!make_scratch(request, disks, &made, err) ||
        !backup_job_define(request, socket, disks->all, disks->n, &xml[0], &xml[1], err))
        return false;
    ok = virDomainBackupBegin(domain, xml[0], xml[1],
                              made ? VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL : 0) == 0 ||
         explain_begin(domain, request, err);
    free(xml[0]);
    free(xml[1]);
    return ok;
}

/* Of a begin that failed nothing is left, unless nobody knows how far it came. */
static bool
begin_job(virDomainPtr domain, const struct capture_request *request, const char *socket,
          int64_t *ret_time_ms, struct error **err)
{
    AUTOFREE(char) *live = virDomainGetXMLDesc(domain, 0);
    struct job_disks disks = { NULL, 0 };
    struct error *e = NULL;
    int64_t time_ms;
    bool ok;

    if (live == NULL)
        return libvirt_error(err, "ask for the definition");
    if (!domain_xml_disks(live, &disks.all, &disks.n, err))
        return false;
    time_ms = units_now_ms();
    ok = begin_with(domain, request, socket, &disks, &e);
    domain_xml_disks_free(disks.all, disks.n);
    if (ok)
        *ret_time_ms = time_ms;
    else if (!error_is(e, ERROR_CONNECT) && !error_is(e, ERROR_TIMEOUT))
        scratch_files_remove(request->scratch_folder, request->uuid, NULL);
    return ok || error_propagate(err, e);
}

static bool
prepare(virDomainPtr domain, const struct capture_request *request, char **ret_socket,
        struct error **err)
{
    if (!check_idle(domain, err))
        return false;
    if (capture_request_needs_base(request) &&
        !checkpoint_point_exists(domain, request->base, request->disks, request->n_disks,
                                 err))
        return false;
    /* There is no job: whatever lies there is left from a crash of ours. */
    return scratch_watch_has_room(request->scratch_folder, err) &&
           scratch_files_socket(request->scratch_folder, request->uuid, ret_socket,
                                err) &&
           scratch_files_remove(request->scratch_folder, request->uuid, err);
}

/* Is the job still there, and ours? If not, says why. */
static bool
check_job(struct nbd_capture *nbd, struct error **err)
{
    struct checkpoint_capture *c = (struct checkpoint_capture *)nbd;
    bool ours = false;

    if (!scratch_watch_check(c->watch, err) ||
        !backup_job_is_ours(c->domain, c->socket, &ours, err))
        return false;
    if (ours)
        return true;
    return error_set(err, ERROR_INVALID_STATE,
                     virDomainIsActive(c->domain) == 1
                         ? "the backup job was ended by somebody else during the capture"
                         : "the guest ended during the capture");
}

static struct checkpoint_capture *
capture_new(struct capture_driver *driver, virDomainPtr domain,
            const struct capture_request *request, const char *socket)
{
    struct checkpoint_capture *c = NEW(struct checkpoint_capture);

    c->nbd.head.driver = driver;
    c->nbd.check = check_job;
    c->connection = virDomainGetConnect(domain);
    virConnectRef(c->connection);
    virDomainRef(domain);
    c->domain = domain;
    memcpy(c->uuid, request->uuid, sizeof c->uuid);
    c->folder = mem_strdup(request->scratch_folder);
    c->socket = mem_strdup(socket);
    c->nbd.disks = nbd_disks_new(request, socket, backup_job_bitmap);
    return c;
}

static void
capture_free(struct checkpoint_capture *c)
{
    scratch_watch_free(c->watch);
    nbd_disks_free(c->nbd.disks);
    free(c->folder);
    free(c->socket);
    virDomainFree(c->domain);
    virConnectClose(c->connection);
    free(c);
}

/* --- the job, to the thread that watches its scratch space ------------------------- */

static bool
job_used(void *opaque, uint64_t *ret_bytes)
{
    struct checkpoint_capture *c = opaque;
    struct backup_job_stats stats = { 0 };

    if (!backup_job_stats(c->domain, &stats, NULL) ||
        stats.operation != VIR_DOMAIN_JOB_OPERATION_BACKUP)
        return false;
    *ret_bytes = stats.scratch_bytes;
    return true;
}

static bool
job_is_ours(void *opaque)
{
    struct checkpoint_capture *c = opaque;
    bool ours = false;

    return backup_job_is_ours(c->domain, c->socket, &ours, NULL) && ours;
}

/* Until it has ended what the guest overwrites still goes to the scratch space. */
static void
job_abort(void *opaque)
{
    struct checkpoint_capture *c = opaque;

    backup_job_abort(c->domain, NULL);
    io_error_resume(c->domain);
}

static bool
watch(struct checkpoint_capture *c, uint64_t limit_bytes, struct error **err)
{
    const struct scratch_watch_settings settings = {
        .job = { job_used, job_is_ours, job_abort, NULL, c },
        .folder = c->folder,
        .limit_bytes = limit_bytes,
    };

    return scratch_watch_start(&settings, &c->watch, err);
}

static bool
begin_on(struct capture_driver *driver, virDomainPtr domain,
         const struct capture_request *request, struct checkpoint_capture **ret,
         int64_t *ret_time_ms, struct error **err)
{
    AUTOFREE(char) *socket = NULL;
    struct checkpoint_capture *c;
    int64_t time_ms = 0;

    if (!prepare(domain, request, &socket, err) ||
        !begin_job(domain, request, socket, &time_ms, err))
        return false;
    c = capture_new(driver, domain, request, socket);
    if (!watch(c, request->scratch_limit_bytes, err)) {
        backup_job_abort(domain, NULL);
        capture_free(c);
        return false;
    }
    *ret = c;
    *ret_time_ms = time_ms;
    return true;
}

static bool
checkpoint_begin(struct capture_driver *driver, const struct capture_request *asked,
                 struct capture **ret, int64_t *ret_time_ms, struct error **err)
{
    AUTOCONNECTION *connection = NULL;
    AUTODOMAIN *domain = NULL;
    struct capture_request request = *asked;
    char uuid[VIR_UUID_STRING_BUFLEN];
    struct checkpoint_capture *c = NULL;

    if (!capture_request_check(asked, err))
        return false;
    connection = libvirt_connection_ref(hv_of(driver), err);
    if (connection == NULL)
        return false;
    domain = libvirt_domain_by_uuid(connection, asked->uuid, err);
    if (domain == NULL)
        return false;
    if (virDomainGetUUIDString(domain, uuid) < 0)
        return libvirt_error(err, "ask for the UUID");
    request.uuid = uuid; /* one spelling in the names of files */
    if (!begin_on(driver, domain, &request, &c, ret_time_ms, err))
        return error_prefix(err, "capture of domain '%s'", virDomainGetName(domain));
    *ret = &c->nbd.head;
    return true;
}

/* --- end -------------------------------------------------------------------------- */

static bool
end_job(struct checkpoint_capture *c, struct error **err)
{
    AUTOPTR(error) *why = NULL;

    scratch_watch_stop(c->watch);
    if (!check_job(&c->nbd, err))
        return false;
    if (backup_job_abort(c->domain, &why))
        return true;
    /* It may have vanished between the look and the abort. */
    return check_job(&c->nbd, err) ? error_propagate(err, TAKE(why)) : false;
}

static bool
checkpoint_end(struct capture *head, struct error **err)
{
    struct checkpoint_capture *c = (struct checkpoint_capture *)head;
    bool ok, removed;

    nbd_disks_free(TAKE(c->nbd.disks));
    ok = end_job(c, err);
    removed = scratch_files_remove(c->folder, c->uuid, ok ? err : NULL);
    if (!ok || !removed)
        error_prefix(err, "capture of domain '%s'", virDomainGetName(c->domain));
    capture_free(c);
    return ok && removed;
}

/* --- between captures ------------------------------------------------------------- */

static bool
checkpoint_changed(struct capture_driver *driver, const char *uuid, const char *name,
                   const struct capture_disk *disks, size_t n_disks, uint64_t *ret_bytes,
                   struct error **err)
{
    AUTOCONNECTION *connection = libvirt_connection_ref(hv_of(driver), err);
    AUTODOMAIN *domain =
        connection == NULL ? NULL : libvirt_domain_by_uuid(connection, uuid, err);

    if (domain == NULL)
        return false;
    return checkpoint_point_changed(domain, name, disks, n_disks, ret_bytes, err) ||
           error_prefix(err, "changes of domain '%s' since '%s'",
                        virDomainGetName(domain), name);
}

static bool
checkpoint_forget(struct capture_driver *driver, const char *uuid, const char *name,
                  struct error **err)
{
    AUTOCONNECTION *connection = libvirt_connection_ref(hv_of(driver), err);
    AUTODOMAIN *domain =
        connection == NULL ? NULL : libvirt_domain_by_uuid(connection, uuid, err);

    if (domain == NULL)
        return false;
    return checkpoint_point_forget(domain, name, err) ||
           error_prefix(err, "forget the point '%s' of domain '%s'", name,
                        virDomainGetName(domain));
}

static bool
checkpoint_adopt(struct capture_driver *driver, const char *uuid, const char *name,
                 const struct capture_disk *disks, size_t n_disks, struct error **err)
{
    AUTOCONNECTION *connection = libvirt_connection_ref(hv_of(driver), err);
    AUTODOMAIN *domain =
        connection == NULL ? NULL : libvirt_domain_by_uuid(connection, uuid, err);

    if (domain == NULL)
        return false;
    return checkpoint_point_adopt(domain, name, disks, n_disks, err) ||
           error_prefix(err, "take over the point '%s' of domain '%s'", name,
                        virDomainGetName(domain));
}

static bool
checkpoint_disown(struct capture_driver *driver, const char *uuid, const char *name,
                  struct error **err)
{
    AUTOCONNECTION *connection = libvirt_connection_ref(hv_of(driver), err);
    AUTODOMAIN *domain =
        connection == NULL ? NULL : libvirt_domain_by_uuid(connection, uuid, err);

    return domain != NULL && checkpoint_point_disown(domain, name, err);
}

static bool
checkpoint_sweep(struct capture_driver *driver, const struct capture_sweep *sweep,
                 size_t *ret_n, struct error **err)
{
    AUTOCONNECTION *connection = libvirt_connection_ref(hv_of(driver), err);
    AUTODOMAIN *domain =
        connection == NULL ? NULL : libvirt_domain_by_uuid(connection, sweep->uuid, err);

    if (domain == NULL)
        return false;
    return checkpoint_point_sweep(domain, sweep, ret_n, err) ||
           error_prefix(err, "remove the checkpoints of domain '%s'",
                        virDomainGetName(domain));
}

static bool
recover_job(virDomainPtr domain, const char *folder, const char *uuid, const char *socket,
            struct error **err)
{
    AUTOPTR(error) *why = NULL;
    bool ours = false;

    if (virDomainIsActive(domain) == 0)
        return true;
    if (backup_job_settle(domain, socket, &ours, &why))
        return !ours || backup_job_abort(domain, err);
    if (error_is(why, ERROR_JOB_LOST) &&
        (!lost_job_end(domain, folder, uuid, socket, err) ||
         !scratch_files_remove(folder, uuid, err)))
        return false;
    return error_propagate(err, TAKE(why));
}

static bool
checkpoint_recover(struct capture_driver *driver, const char *uuid,
                   const char *scratch_folder, struct error **err)
{
    AUTOCONNECTION *connection = libvirt_connection_ref(hv_of(driver), err);
    AUTODOMAIN *domain = NULL;
    AUTOFREE(char) *socket = NULL;
    char spelled[VIR_UUID_STRING_BUFLEN];

    if (connection == NULL)
        return false;
    domain = virDomainLookupByUUIDString(connection, uuid);
    if (domain == NULL)
        return libvirt_error_last() == VIR_ERR_NO_DOMAIN
                   ? scratch_files_remove(scratch_folder, uuid, err)
                   : libvirt_error(err, "look up domain '%s'", uuid);
    if (virDomainGetUUIDString(domain, spelled) < 0)
        return libvirt_error(err, "ask for the UUID");
    if (!scratch_files_socket(scratch_folder, spelled, &socket, err) ||
        !recover_job(domain, scratch_folder, spelled, socket, err) ||
        !scratch_files_remove(scratch_folder, spelled, err))
        return error_prefix(err, "recover the capture of domain '%s'",
                            virDomainGetName(domain));
    return true;
}

static void
checkpoint_close(struct capture_driver *driver)
{
    free(driver);
}

static const struct capture_ops checkpoint_ops = {
    .name = "checkpoint",
    .close = checkpoint_close,
    .changed = checkpoint_changed,
    .begin = checkpoint_begin,
    .capacity = nbd_capture_capacity,
    .measure = nbd_capture_measure,
    .read = nbd_capture_read,
    .content = nbd_capture_content,
    .end = checkpoint_end,
    .forget = checkpoint_forget,
    .sweep = checkpoint_sweep,
    .adopt = checkpoint_adopt,
    .disown = checkpoint_disown,
    .recover = checkpoint_recover,
};

bool
capture_checkpoint_open(struct hypervisor *libvirt_hv, struct capture_driver **ret,
                        struct error **err UNUSED)
{
    struct checkpoint_driver *driver = NEW(struct checkpoint_driver);

    driver->head.ops = &checkpoint_ops;
    driver->hv = libvirt_hv;
    *ret = &driver->head;
    return true;
}
