/*
 * The one job that libvirt lets a domain have: which it is, whether it is a
 * backup of ours, and how it ends.
 *
 * Ours is known by its NBD socket, whose path holds the domain's UUID below
 * our scratch folder. Owns nothing. May block; any thread. The definitions of
 * backups and checkpoints are made here too.
 */
#ifndef DRIVERS_CAPTURE_BACKUP_JOB_H
#define DRIVERS_CAPTURE_BACKUP_JOB_H

#include <libvirt/libvirt.h>

#include "drivers/capture.h"

struct backup_job_stats {
    int operation; /* VIR_DOMAIN_JOB_OPERATION_*; 0 (unknown) if there is no job */
    bool running;
    uint64_t scratch_bytes;
};

bool
backup_job_stats(virDomainPtr domain, struct backup_job_stats *ret, struct error **err);

/* "migration", "snapshot", ... for messages. */
const char *backup_job_operation_name(int operation);

/* Is the domain's job a backup with that socket? */
bool backup_job_is_ours(virDomainPtr domain, const char *socket, bool *ret,
                        struct error **err);

/*
 * Does libvirt know which backup the domain's is? Not while it begins one, and never if
 * it was killed meanwhile.
 */
bool backup_job_is_known(virDomainPtr domain);

/* Is there a job, and not one that libvirt has lost (lost_job.h)? */
bool backup_job_is_real(virDomainPtr domain, const struct backup_job_stats *stats);

/*
 * As backup_job_is_ours(), but a begin that libvirtd has under way, for somebody who was
 * killed, is waited for: its files must not be taken away amid it, and it is in no list
 * yet. ERROR_JOB_LOST if it does not come to an end, see lost_job.h.
 */
bool backup_job_settle(virDomainPtr domain, const char *socket, bool *ret_ours,
                       struct error **err);

/* Ends the domain's job, which is ours, and waits until it is gone. */
bool backup_job_abort(virDomainPtr domain, struct error **err);

/*
 * The definitions for virDomainBackupBegin. `all` are the domain's disks; those
 * that are not in the request are named as left out. *ret_checkpoint is NULL
 * without a name.
 */
bool backup_job_define(const struct capture_request *request, const char *socket,
                       const struct hv_disk *all, size_t n_all, char **ret_backup,
                       char **ret_checkpoint, struct error **err);

/* The name of the bitmap that is exported with a disk. */
char *backup_job_bitmap(const char *target);

#endif
