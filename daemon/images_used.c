#include "daemon/images_used.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "drivers/store/backing.h"
#include "drivers/store/folder.h"
#include "drivers/store/remains.h"
#include "drivers/store/replica.h"

static void
add(struct images_used *u, const char *path)
{
    u->paths = mem_realloc(u->paths, u->n + 1, sizeof *u->paths);
    u->paths[u->n++] = mem_strdup(path);
}

static bool
add_chain(struct images_used *u, const char *path, struct error **err)
{
    char **chain = NULL;
    size_t n = 0;

    if (!backing_chain(path, &chain, &n, err))
        return false;
    for (size_t i = 0; i < n; i++)
        add(u, chain[i]);
    backing_chain_free(chain, n);
    return true;
}

bool
images_used_by_domain(struct images_used *u, const struct hv_domain *domain,
                      struct error **err)
{
    for (size_t i = 0; i < domain->n_disks; i++) {
        const struct hv_disk *disk = &domain->disks[i];
        bool has_chain = !disk->removable && disk->format != NULL &&
                         strcmp(disk->format, "qcow2") == 0;

        if (disk->path == NULL)
            continue;
        add(u, disk->path);
        if (has_chain && !add_chain(u, disk->path, err))
            return error_prefix(err, "disk '%s'", disk->target);
    }
    if (domain->nvram != NULL)
        add(u, domain->nvram);
    return true;
}

struct walk {
    struct images_used *used;
    const char *folder;
};

static bool
add_layer(int at UNUSED, const char *name, void *opaque, struct error **err)
{
    struct walk *walk = opaque;
    AUTOFREE(char) *path = mem_printf("%s/" REPLICA_DISKS "/%s", walk->folder, name);

    return add_chain(walk->used, path, err);
}

bool
images_used_by_replica(struct images_used *u, const char *folder, struct error **err)
{
    AUTOFD(fd) = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct walk walk = { .used = u, .folder = folder };

    if (fd < 0)
        return folder_errno(err, "open '%s'", folder);
    return folder_each(fd, REPLICA_DISKS, add_layer, &walk, err);
}

bool
images_used_remove_others(const struct images_used *u, const char *folder,
                          struct error **err)
{
    return remains_remove(folder, (const char *const *)u->paths, u->n, err);
}

void
images_used_clear(struct images_used *u)
{
    for (size_t i = 0; i < u->n; i++)
        free(u->paths[i]);
    free(u->paths);
    *u = (struct images_used){ .n = 0 };
}
