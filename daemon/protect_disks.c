#include "daemon/protect_disks.h"

#include <string.h>
#include <sys/stat.h>

#include "common/json.h"

#define BLOCK_BYTES 512 /* of st_blocks */

static bool
is_excluded(struct json_object *excluded, const char *target)
{
    for (size_t i = 0; excluded != NULL && i < json_object_array_length(excluded); i++)
        if (strcmp(json_object_get_string(json_object_array_get_idx(excluded, i)),
                   target) == 0)
            return true;
    return false;
}

static uint64_t
taken_by(const char *path)
{
    struct stat st;

    return path != NULL && stat(path, &st) == 0 && S_ISREG(st.st_mode)
               ? (uint64_t)st.st_blocks * BLOCK_BYTES
               : 0;
}

static void
excuse(char **excuses, const struct hv_disk *disk)
{
    char *longer = mem_printf("%s%sdisk '%s': %s", *excuses,
                              **excuses != '\0' ? "; " : "", disk->target, disk->excuse);

    free(*excuses);
    *excuses = longer;
}

static void
add_disk(struct json_object *disks, const struct hv_disk *disk)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "target", disk->target);
    json_set_u64(o, "capacity", disk->capacity_bytes);
    json_object_array_add(disks, o);
}

bool
protect_disks_check(const struct hv_domain *domain, struct json_object *excluded,
                    struct json_object **ret_disks, uint64_t *ret_needed,
                    struct error **err)
{
    AUTOJSON *disks = json_object_new_array();
    AUTOFREE(char) *excuses = mem_strdup("");
    uint64_t needed = 0;

    for (size_t i = 0; i < domain->n_disks; i++) {
        const struct hv_disk *disk = &domain->disks[i];

        if (disk->removable || is_excluded(excluded, disk->target))
            continue;
        if (disk->excuse != NULL) {
            excuse(&excuses, disk);
            continue;
        }
        add_disk(disks, disk);
        needed += taken_by(disk->path);
    }
    if (*excuses != '\0')
        return error_set(err, ERROR_UNSUPPORTED_DISK, "VM '%s': %s", domain->name,
                         excuses);
    if (json_object_array_length(disks) == 0)
        return error_set(err, ERROR_UNSUPPORTED_DISK,
                         "VM '%s' has no disk that can be replicated", domain->name);
    *ret_disks = TAKE(disks);
    *ret_needed = needed;
    return true;
}
