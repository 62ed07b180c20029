#include "drivers/store/seed_writer.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "drivers/store/child.h"
#include "drivers/store/folder.h"
#include "drivers/store/seed_media.h"
#include "drivers/store/tip.h"

#define TIMEOUT_MS 120000
#define OPTIONS    "compat=1.1,lazy_refcounts=off,cluster_size=64k"

struct seed_writer {
    struct tip *tip;
};

/* The file is there first: its mode is then ours, on media too that know of no other. */
static bool
make_image(const char *path, uint64_t capacity_bytes, int work, struct error **err)
{
    AUTOFREE(char) *size = mem_printf("%llu", (unsigned long long)capacity_bytes);
    const char *const argv[] = { "qemu-img", "create", "-q", "-f", "qcow2", "-o",
                                 OPTIONS,    "--",     path, size, NULL };
    struct child_request request = { .argv = argv, .folder = work };
    AUTOFD(fd) = -1;

    if (!folder_unlink(AT_FDCWD, path, err))
        return false;
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
              FOLDER_FILE_MODE);
    if (fd < 0)
        return folder_errno(err, "make image '%s'", path);
    return child_run(&request, TIMEOUT_MS, err) ||
           error_prefix(err, "make image '%s'", path);
}

static bool
add_image(const struct seed_writer_settings *s, const struct store_disk *disk,
          struct chain *chain, struct error **err)
{
    char file[SEED_MEDIA_FILE_MAX];
    AUTOFREE(char) *path = NULL;

    seed_media_file(disk->target, file);
    path = mem_printf("%s/%s", s->folder, file);
    snprintf(chain->target, sizeof chain->target, "%s", disk->target);
    chain->capacity_bytes = disk->capacity_bytes;
    chain_add(chain, path);
    return make_image(path, disk->capacity_bytes, s->work, err);
}

bool
seed_writer_open(const struct seed_writer_settings *settings, struct seed_writer **ret,
                 struct error **err)
{
    struct chain *chains = mem_alloc(settings->n_disks, sizeof *chains);
    struct tip *tip = NULL;
    bool ok = true;

    for (size_t i = 0; ok && i < settings->n_disks; i++)
        ok = add_image(settings, &settings->disks[i], &chains[i], err);
    ok = ok && tip_open(settings->work, QSD_SOCKET, chains, settings->n_disks, &tip, err);
    chains_free(chains, settings->n_disks);
    if (!ok)
        return false;
    tip_set_cancel(tip, settings->cancel);
    *ret = NEW(struct seed_writer);
    (*ret)->tip = tip;
    return true;
}

bool
seed_writer_data(struct seed_writer *w, size_t disk, uint64_t offset, const void *data,
                 size_t length, struct error **err)
{
    return tip_write(w->tip, disk, offset, data, length, err);
}

bool
seed_writer_zero(struct seed_writer *w, size_t disk, uint64_t offset, uint64_t length,
                 struct error **err)
{
    return tip_zero(w->tip, disk, offset, length, err);
}

bool
seed_writer_flush(struct seed_writer *w, struct error **err)
{
    return tip_flush(w->tip, err);
}

void
seed_writer_close(struct seed_writer *w)
{
    if (w == NULL)
        return;
    tip_close(w->tip);
    free(w);
}

bool
seed_writer_end_stale(int work, struct error **err)
{
    return qsd_end_stale(work, err);
}
