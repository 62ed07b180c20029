#include "daemon/capture_choice.h"

#include <string.h>

#include "common/mem.h"

const char *
capture_kind_name(enum capture_kind kind)
{
    static const char *const names[CAPTURE_N_KINDS] = {
        [CAPTURE_CHECKPOINT] = "checkpoint",
        [CAPTURE_BITMAP] = "bitmap",
        [CAPTURE_OFFLINE] = "offline",
    };

    return names[kind];
}

bool
capture_is_chosen(const struct hv_disk *disk, struct json_object *excluded)
{
    size_t n = excluded != NULL ? json_object_array_length(excluded) : 0;

    if (disk->removable)
        return false;
    for (size_t i = 0; i < n; i++)
        if (strcmp(json_object_get_string(json_object_array_get_idx(excluded, i)),
                   disk->target) == 0)
            return false;
    return true;
}

/* The first disk that cannot have checkpoints; NULL: there is none. */
static const struct hv_disk *
find_unfit(const struct hv_domain *domain, struct json_object *excluded)
{
    for (size_t i = 0; i < domain->n_disks; i++)
        if (domain->disks[i].no_checkpoint != NULL &&
            capture_is_chosen(&domain->disks[i], excluded))
            return &domain->disks[i];
    return NULL;
}

enum capture_kind
capture_choice(const struct hv_domain *domain, struct json_object *excluded,
               enum capture_wish wish)
{
    if (domain->state == HV_STATE_OFF)
        return CAPTURE_OFFLINE;
    return wish != CAPTURE_WISH_CHECKPOINT || find_unfit(domain, excluded) != NULL
               ? CAPTURE_BITMAP
               : CAPTURE_CHECKPOINT;
}

char *
capture_choice_reason(const struct hv_domain *domain, struct json_object *excluded,
                      enum capture_wish wish)
{
    const struct hv_disk *unfit = find_unfit(domain, excluded);

    if (domain->state == HV_STATE_OFF)
        return mem_strdup("the VM is off: its images are read as they are");
    if (unfit != NULL)
        return mem_printf("disk '%s' cannot have libvirt's checkpoints (%s), and all "
                          "disks are captured at one moment",
                          unfit->target, unfit->no_checkpoint);
    if (wish == CAPTURE_WISH_BITMAP)
        return mem_strdup("the configuration asks for it ([capture] qcow2 = bitmap)");
    if (wish == CAPTURE_WISH_NO_JOB)
        return mem_strdup("libvirt lost a backup job of the VM when libvirtd was killed, "
                          "and can begin no other until the VM is shut down and "
                          "libvirtd restarted");
    return mem_strdup("all disks are qcow2: libvirt's checkpoints record what changes");
}

char *
capture_choice_disk_reason(enum capture_kind kind, const struct hv_disk *disk)
{
    if (kind == CAPTURE_OFFLINE)
        return mem_strdup(disk->keeps_bitmaps
                              ? "the VM is off; the image keeps the record"
                              : "the VM is off; it is compared where no record is left");
    if (kind == CAPTURE_CHECKPOINT)
        return mem_strdup("recorded by libvirt's checkpoints, in grains of 64 KiB");
    if (disk->keeps_bitmaps)
        return mem_strdup("recorded in grains of 4 KiB; the image keeps the record");
    return mem_printf("recorded in grains of 4 KiB as long as the VM's process lives: %s",
                      disk->no_checkpoint);
}
