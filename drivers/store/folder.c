#include "drivers/store/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

bool
folder_errno(struct error **err, const char *format, ...)
{
    int saved = errno;
    bool full = saved == ENOSPC || saved == EDQUOT;
    AUTOFREE(char) *what = NULL;
    va_list args;

    va_start(args, format);
    what = mem_vprintf(format, args);
    va_end(args);
    errno = saved;
    return error_errno(err, full ? ERROR_NO_SPACE : ERROR_STORE, "%s", what);
}

bool
folder_make(int at, const char *name, struct error **err)
{
    if (mkdirat(at, name, FOLDER_MODE) < 0 && errno != EEXIST)
        return folder_errno(err, "make folder '%s'", name);

    /* Whatever the umask is. */
    if (fchmodat(at, name, FOLDER_MODE, 0) < 0)
        return folder_errno(err, "chmod folder '%s'", name);
    return true;
}

bool
folder_open(int at, const char *name, int *ret, struct error **err)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return folder_errno(err, "open folder '%s'", name);
    *ret = fd;
    return true;
}

bool
folder_sync(int at, const char *name, struct error **err)
{
    AUTOFD(fd) = openat(at, name, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0)
        return folder_errno(err, "sync '%s'", name);
    return true;
}

bool
folder_write_all(int fd, const char *name, const void *data, size_t n, struct error **err)
{
    const char *p = data;

    while (n > 0) {
        ssize_t done = write(fd, p, n);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return folder_errno(err, "write '%s'", name);
        p += done;
        n -= (size_t)done;
    }
    return true;
}

bool
folder_replace(int at, const char *name, const void *data, size_t n, struct error **err)
{
    AUTOFREE(char) *aside = mem_printf("%s.new", name);
    AUTOFD(fd) = openat(at, aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
                        FOLDER_FILE_MODE);

    if (fd < 0)
        return folder_errno(err, "open '%s'", aside);
    if (!folder_write_all(fd, aside, data, n, err))
        return false;
    if (fsync(fd) < 0)
        return folder_errno(err, "fsync '%s'", aside);
    if (renameat(at, aside, at, name) < 0)
        return folder_errno(err, "rename '%s' to '%s'", aside, name);
    return folder_sync(at, ".", err);
}

static bool
read_all(int fd, const char *name, char *data, size_t n, struct error **err)
{
    while (n > 0) {
        ssize_t done = read(fd, data, n);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return folder_errno(err, "read '%s'", name);
        if (done == 0)
            return error_set(err, ERROR_STORE, "read '%s': it became shorter", name);
        data += done;
        n -= (size_t)done;
    }
    return true;
}

bool
folder_read(int at, const char *name, size_t max, char **ret, size_t *ret_n,
            struct error **err)
{
    AUTOFD(fd) = openat(at, name, O_RDONLY | O_CLOEXEC);
    AUTOFREE(char) *data = NULL;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return folder_errno(err, "open '%s'", name);
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > max)
        return error_set(err, ERROR_STORE,
                         "read '%s': it is no file of at most %zu bytes", name, max);
    data = mem_alloc((size_t)st.st_size + 1, 1);
    if (!read_all(fd, name, data, (size_t)st.st_size, err))
        return false;
    *ret = TAKE(data);
    *ret_n = (size_t)st.st_size;
    return true;
}

bool
folder_each(int at, const char *name, folder_fn fn, void *opaque, struct error **err)
{
    AUTOFD(fd) = -1;
    struct dirent *entry;
    DIR *dir;
    bool ok = true;

    if (!folder_open(at, name, &fd, err))
        return false;
    dir = fdopendir(fd);
    if (dir == NULL)
        return folder_errno(err, "read folder '%s'", name);
    fd = -1; /* the stream's now */

    while (ok && (errno = 0, entry = readdir(dir)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            ok = fn(dirfd(dir), entry->d_name, opaque, err);
    if (ok && errno != 0)
        ok = folder_errno(err, "read folder '%s'", name);
    closedir(dir);
    return ok;
}

bool
folder_unlink(int at, const char *name, struct error **err)
{
    if (unlinkat(at, name, 0) < 0 && errno != ENOENT)
        return folder_errno(err, "remove '%s'", name);
    return true;
}

static bool
remove_file(int at, const char *name, void *opaque UNUSED, struct error **err)
{
    if (unlinkat(at, name, 0) < 0 && errno != ENOENT && errno != EISDIR)
        return folder_errno(err, "remove '%s'", name);
    return true;
}

bool
folder_remove(int at, const char *name, struct error **err)
{
    if (faccessat(at, name, F_OK, 0) < 0 && errno == ENOENT)
        return true;
    if (!folder_each(at, name, remove_file, NULL, err))
        return false;
    if (unlinkat(at, name, AT_REMOVEDIR) < 0 && errno != ENOTEMPTY && errno != EEXIST)
        return folder_errno(err, "remove folder '%s'", name);
    return true;
}

bool
folder_space(const char *path, uint64_t *ret_used_bytes, uint64_t *ret_free_bytes,
             struct error **err)
{
    AUTOFREE(char) *copy = mem_strdup(path);
    char *const paths[] = { copy, NULL };
    uint64_t used = 0;
    struct statvfs fs;
    FTSENT *entry;
    FTS *tree;

    if (statvfs(path, &fs) < 0)
        return folder_errno(err, "look at the file system of '%s'", path);
    tree = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, NULL);
    if (tree == NULL)
        return folder_errno(err, "read folder '%s'", path);

    /* Files come and go while we look; those that are gone take nothing. */
    while ((entry = fts_read(tree)) != NULL)
        if (entry->fts_info == FTS_F || entry->fts_info == FTS_D)
            used += (uint64_t)entry->fts_statp->st_blocks * 512;
    fts_close(tree);
    *ret_used_bytes = used;
    *ret_free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    return true;
}
