#include "drivers/store/remains.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/store/folder.h"
#include "drivers/store/layout.h"
#include "drivers/store/qsd.h"
#include "drivers/store/replica.h"

#define FAILOVERS "failover-"
#define KEPT      "unreplicated-" /* of a failover that lost a split brain */

struct removal {
    struct stat *keep;
    size_t n;
    bool found; /* something that is kept */
};

static void
know_kept(struct removal *m, const char *const *keep, size_t n)
{
    m->keep = mem_alloc(n + 1, sizeof *m->keep);
    for (size_t i = 0; i < n; i++)
        if (stat(keep[i], &m->keep[m->n]) == 0)
            m->n++;
}

/* By what the name means: a path may lead through links. */
static bool
is_kept(const struct removal *m, int at, const char *name)
{
    struct stat st;

    if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return false;
    for (size_t i = 0; i < m->n; i++)
        if (m->keep[i].st_dev == st.st_dev && m->keep[i].st_ino == st.st_ino)
            return true;
    return false;
}

static bool
remove_file(int at, const char *name, void *opaque, struct error **err)
{
    struct removal *m = opaque;

    if (!is_kept(m, at, name))
        return folder_unlink(at, name, err);
    m->found = true;
    return true;
}

/* The folder goes with the last of its files. */
static bool
empty_folder(int at, const char *name, void *opaque, struct error **err)
{
    if (faccessat(at, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT)
        return true;
    if (!folder_each(at, name, remove_file, opaque, err))
        return false;
    if (unlinkat(at, name, AT_REMOVEDIR) < 0 && errno != ENOTEMPTY && errno != EEXIST)
        return folder_errno(err, "remove folder '%s'", name);
    return true;
}

/* --- overlays ------------------------------------------------------------------------
 */

static bool
find_kept(int at, const char *name, void *opaque, struct error **err UNUSED)
{
    struct removal *m = opaque;

    m->found = m->found || is_kept(m, at, name);
    return true;
}

/* Somebody reads from it yet, or writes a copy of it. */
static bool
check_overlay(int at, const char *name, void *opaque, struct error **err)
{
    struct removal *m = opaque;

    m->found = strncmp(name, FAILOVERS, sizeof FAILOVERS - 1) == 0 ||
               strncmp(name, KEPT, sizeof KEPT - 1) == 0;
    if (!m->found && !folder_each(at, name, find_kept, m, err))
        return false;
    return m->found || error_set(err, ERROR_IN_PROGRESS,
                                 "overlay '%s' of the replica is in use", name);
}

static bool
each_overlay(int fd, folder_fn fn, struct removal *m, struct error **err)
{
    return faccessat(fd, REPLICA_OVERLAYS, F_OK, 0) < 0 ||
           folder_each(fd, REPLICA_OVERLAYS, fn, m, err);
}

/* --- all of it -----------------------------------------------------------------------
 */

/* Beside the folders. */
static bool
remove_top(int at, const char *name, void *opaque, struct error **err)
{
    static const char *const ours[] = { LAYOUT_FILE, REPLICA_README, REPLICA_LOCK,
                                        QSD_SOCKET,  "nvram-",       "tpm-" };

    for (size_t i = 0; i < N_ELEMENTS(ours); i++)
        if (strncmp(name, ours[i], strlen(ours[i])) == 0)
            return remove_file(at, name, opaque, err);
    return true;
}

/* layout.json first: what is half removed opens no more. */
static bool
remove_all(int fd, struct removal *m, struct error **err)
{
    static const char *const folders[] = { REPLICA_DISKS, REPLICA_JOURNAL,
                                           REPLICA_BLOBS };

    if (!qsd_end_stale(fd, err) || !each_overlay(fd, check_overlay, m, err) ||
        !folder_unlink(fd, LAYOUT_FILE, err) || !folder_sync(fd, ".", err))
        return false;
    for (size_t i = 0; i < N_ELEMENTS(folders); i++)
        if (!empty_folder(fd, folders[i], m, err))
            return false;
    if (!each_overlay(fd, empty_folder, m, err))
        return false;
    if (unlinkat(fd, REPLICA_OVERLAYS, AT_REMOVEDIR) < 0 && errno != ENOENT &&
        errno != ENOTEMPTY && errno != EEXIST)
        return folder_errno(err, "remove folder '%s'", REPLICA_OVERLAYS);
    return folder_each(fd, ".", remove_top, m, err) && folder_sync(fd, ".", err);
}

static bool
lock_store(int fd, const char *folder, int *ret, struct error **err)
{
    AUTOFD(lock) = openat(fd, REPLICA_LOCK, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

    if (lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) < 0)
        return error_set(err, ERROR_EXISTS, "store '%s' is open", folder);
    *ret = TAKE_FD(lock);
    return true;
}

bool
remains_remove(const char *folder, const char *const *keep, size_t n, struct error **err)
{
    AUTOFD(fd) = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTOFD(lock) = -1;
    struct removal m = { .n = 0 };
    bool ok;

    if (fd < 0 && errno == ENOENT)
        return true;
    if (fd < 0)
        return folder_errno(err, "open '%s'", folder);
    know_kept(&m, keep, n);
    ok = lock_store(fd, folder, &lock, err) && remove_all(fd, &m, err);
    free(m.keep);
    if (ok && rmdir(folder) < 0 && errno != ENOTEMPTY && errno != EEXIST)
        return folder_errno(err, "remove folder '%s'", folder);
    return ok || error_prefix(err, "remove what is left of the replica in '%s'", folder);
}
