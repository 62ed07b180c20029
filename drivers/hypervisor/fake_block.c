/* Block jobs of the fake: what a real one would do to the images, qemu-img does. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "drivers/hypervisor/domain_xml.h"
#include "drivers/hypervisor/fake_private.h"
#include "drivers/store/child.h"

#define TIMEOUT_MS 60000

void
fake_job_clear(struct fake_job *job)
{
    free(job->target);
    free(job->base);
    *job = (struct fake_job){ .kind = HV_BLOCK_JOB_NONE };
}

/* The image that a disk has; the caller frees. NULL: no such disk. */
static char *
path_of(const struct fake_domain *d, const char *target, struct error **err)
{
    struct hv_disk *disks = NULL;
    char *path = NULL;
    size_t n = 0;

    if (!domain_xml_disks(d->xml, &disks, &n, err))
        return NULL;
    for (size_t i = 0; i < n; i++)
        if (strcmp(disks[i].target, target) == 0)
            path = TAKE(disks[i].path);
    domain_xml_disks_free(disks, n);
    if (path == NULL)
        error_set(err, ERROR_HYPERVISOR, "there is no disk '%s'", target);
    return path;
}

/* With the lock held. */
static bool
find(struct hypervisor *hv, const struct hv_block_disk *disk, struct fake_domain **ret,
     struct error **err)
{
    if (!fake_need(hv, disk->uuid, ret, err))
        return false;
    return (*ret)->state != HV_STATE_OFF ||
           error_set(err, ERROR_INVALID_STATE, "domain '%s' is not running",
                     (*ret)->name);
}

static bool
run(const char *const *argv, struct error **err)
{
    AUTOFD(root) = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct child_request request = { .argv = argv, .folder = root };

    return child_run(&request, TIMEOUT_MS, err);
}

static bool
flatten(const char *path, struct error **err)
{
    const char *const argv[] = { "qemu-img", "rebase", "-q", "-f", "qcow2",
                                 "-b",       "",       path, NULL };

    return run(argv, err);
}

static bool
merge(const char *path, const char *base, struct error **err)
{
    const char *const argv[] = {
        "qemu-img", "commit", "-q", "-d", "-b", base, path, NULL
    };

    return run(argv, err);
}

static bool
begin(struct hypervisor *hv, const struct hv_block_disk *disk, const char *base,
      struct error **err)
{
    struct fake_domain *d = NULL;
    AUTOFREE(char) *path = NULL;

    if (!find(hv, disk, &d, err) || (path = path_of(d, disk->target, err)) == NULL)
        return false;
    if (d->job.kind != HV_BLOCK_JOB_NONE)
        return error_set(err, ERROR_IN_PROGRESS, "disk '%s' has a job", d->job.target);
    if (!(base == NULL ? flatten(path, err) : merge(path, base, err)))
        return false;
    d->job.kind = base != NULL ? HV_BLOCK_JOB_MERGE_DOWN : HV_BLOCK_JOB_FLATTEN;
    d->job.target = mem_strdup(disk->target);
    d->job.base = mem_strdup(base != NULL ? base : "");
    return true;
}

bool
fake_begin_flatten(struct hypervisor *hv, const struct hv_block_disk *disk,
                   struct error **err)
{
    return fake_leave(hv, fake_enter(hv, FAKE_BEGIN_FLATTEN, disk->uuid, err) &&
                              begin(hv, disk, NULL, err));
}

bool
fake_begin_merge_down(struct hypervisor *hv, const struct hv_block_disk *disk,
                      const char *base, struct error **err)
{
    return fake_leave(hv, fake_enter(hv, FAKE_BEGIN_MERGE_DOWN, disk->uuid, err) &&
                              begin(hv, disk, base, err));
}

/* The definition names the base from now on. */
static bool
go_on_on_base(struct fake_domain *d, const char *path, struct error **err)
{
    char *at = strstr(d->xml, path), *xml;

    if (at == NULL)
        return error_set(err, ERROR_HYPERVISOR, "'%s' is not in the definition", path);
    xml = mem_printf("%.*s%s%s", (int)(at - d->xml), d->xml, d->job.base,
                     at + strlen(path));
    free(d->xml);
    d->xml = xml;
    fake_job_clear(&d->job);
    return true;
}

static bool
finish(struct hypervisor *hv, const struct hv_block_disk *disk, struct error **err)
{
    struct fake_domain *d = NULL;
    AUTOFREE(char) *path = NULL;

    if (!find(hv, disk, &d, err) || (path = path_of(d, disk->target, err)) == NULL)
        return false;
    if (d->job.kind != HV_BLOCK_JOB_MERGE_DOWN)
        return error_set(err, ERROR_HYPERVISOR, "disk '%s' has no such job",
                         disk->target);
    return go_on_on_base(d, path, err);
}

bool
fake_finish_merge_down(struct hypervisor *hv, const struct hv_block_disk *disk,
                       struct error **err)
{
    return fake_leave(hv, fake_enter(hv, FAKE_FINISH_MERGE_DOWN, disk->uuid, err) &&
                              finish(hv, disk, err));
}

/* It is as fast as it can be. */
bool
fake_hurry_block_job(struct hypervisor *hv, const struct hv_block_disk *disk,
                     struct error **err)
{
    struct fake_domain *d = NULL;

    return fake_leave(hv, fake_enter(hv, FAKE_HURRY_BLOCK_JOB, disk->uuid, err) &&
                              find(hv, disk, &d, err));
}

static bool
look(struct hypervisor *hv, const struct hv_block_disk *disk, struct hv_block_job *ret,
     struct error **err)
{
    struct fake_domain *d = NULL;

    if (!find(hv, disk, &d, err))
        return false;
    *ret = (struct hv_block_job){ .kind = HV_BLOCK_JOB_NONE };
    if (d->job.target == NULL || strcmp(d->job.target, disk->target) != 0)
        return true;
    if (d->job.kind == HV_BLOCK_JOB_FLATTEN && d->job.seen)
        fake_job_clear(&d->job);
    d->job.seen = true;
    *ret = (struct hv_block_job){ d->job.kind, d->job.kind == HV_BLOCK_JOB_MERGE_DOWN, 1,
                                  1 };
    return true;
}

bool
fake_block_job(struct hypervisor *hv, const struct hv_block_disk *disk,
               struct hv_block_job *ret, struct error **err)
{
    return fake_leave(hv, fake_enter(hv, FAKE_BLOCK_JOB, disk->uuid, err) &&
                              look(hv, disk, ret, err));
}

bool
fake_abort_block_job(struct hypervisor *hv, const struct hv_block_disk *disk,
                     struct error **err)
{
    struct fake_domain *d = NULL;
    bool ok =
        fake_enter(hv, FAKE_ABORT_BLOCK_JOB, disk->uuid, err) && find(hv, disk, &d, err);

    if (ok)
        fake_job_clear(&d->job);
    return fake_leave(hv, ok);
}

/* What it writes is in its files at once. */
bool
fake_flush(struct hypervisor *hv, const struct hv_block_disk *disk, struct error **err)
{
    struct fake_domain *d = NULL;

    return fake_leave(hv, fake_enter(hv, FAKE_FLUSH, disk->uuid, err) &&
                              find(hv, disk, &d, err));
}
