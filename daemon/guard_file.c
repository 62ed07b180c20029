#include "daemon/guard_file.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define MAX_FILE (64u << 10) /* a record is a few hundred bytes */

/* Only the daemon and libvirt's hook look in, both as root. */
#define FOLDER_MODE 0700

/* A UUID becomes a file's name: anything else could lead out of the folder. */
bool
guard_file_uuid(const char *uuid, char ret[GUARD_UUID_TEXT], struct error **err)
{
    static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    char lower[GUARD_UUID_TEXT];
    size_t i;

    for (i = 0; form[i] != '\0'; i++) {
        unsigned char c = (unsigned char)uuid[i];

        if (form[i] == 'x' ? !isxdigit(c) : c != '-')
            return error_set(err, ERROR_USAGE, "'%.64s' is no UUID of a domain", uuid);
        lower[i] = (char)tolower(c);
    }
    if (uuid[i] != '\0')
        return error_set(err, ERROR_USAGE, "'%.64s' is no UUID of a domain", uuid);
    lower[i] = '\0';
    memcpy(ret, lower, sizeof lower);
    return true;
}

/* --- files ---------------------------------------------------------------- */

/* All bytes of a small file, which may hold no NUL. errno tells why not. */
bool
guard_file_read(const char *path, char **ret)
{
    AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    AUTOFREE(char) *text = mem_alloc(1, MAX_FILE + 1);
    size_t n = 0;

    if (fd < 0)
        return false;
    while (n < MAX_FILE) {
        ssize_t got = read(fd, text + n, MAX_FILE - n);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return false;
        if (got == 0)
            break;
        n += (size_t)got;
    }
    if (n == MAX_FILE || strlen(text) != n) {
        errno = n == MAX_FILE ? EFBIG : EILSEQ;
        return false;
    }
    *ret = TAKE(text);
    return true;
}

static bool
write_all(int fd, const char *text)
{
    size_t left = strlen(text);

    while (left > 0) {
        ssize_t put = write(fd, text, left);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return false;
        text += put;
        left -= (size_t)put;
    }
    return true;
}

static bool
sync_folder(const char *path)
{
    AUTOFD(fd) = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd >= 0 && fsync(fd) == 0;
}

/* Makes one folder and its name in the parent durable. errno tells why not. */
static bool
make_one_folder(const char *path, mode_t mode)
{
    AUTOFREE(char) *parent = mem_strdup(path);
    char *slash = strrchr(parent, '/');

    if (mkdir(path, mode) < 0)
        return errno == EEXIST;
    if (slash == NULL)
        return sync_folder(".");
    slash[slash == parent ? 1 : 0] = '\0';
    return sync_folder(parent);
}

static bool
make_folder(const char *path, struct error **err)
{
    AUTOFREE(char) *part = mem_strdup(path);
    struct stat st;

    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return true;
    for (char *p = part + 1; (p = strchr(p, '/')) != NULL; p++) {
        *p = '\0';
        if (!make_one_folder(part, 0755))
            return error_errno(err, ERROR_STATE, "make folder '%s'", part);
        *p = '/';
    }
    if (!make_one_folder(path, FOLDER_MODE))
        return error_errno(err, ERROR_STATE, "make folder '%s'", path);
    return true;
}

/*
 * Whole or not at all under its name, and durable. The lock keeps two threads
 * from sharing the file aside, whose fixed name bounds what crashes leave.
 */
bool
guard_file_write(const char *folder, const char *uuid, const char *text,
                 struct error **err)
{
    AUTOFREE(char) *aside = mem_printf(".%s.new", uuid);
    AUTOFD(dir) = -1;
    AUTOFD(fd) = -1;

    if (!make_folder(folder, err))
        return false;
    dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || flock(dir, LOCK_EX) < 0)
        return error_errno(err, ERROR_STATE, "lock folder '%s'", folder);
    fd = openat(dir, aside, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || !write_all(fd, text) || fsync(fd) < 0)
        return error_errno(err, ERROR_STATE, "write '%s/%s'", folder, aside);
    if (renameat(dir, aside, dir, uuid) < 0 || fsync(dir) < 0)
        return error_errno(err, ERROR_STATE, "write '%s/%s'", folder, uuid);
    return true;
}

bool
guard_file_remove(const char *folder, const char *uuid, struct error **err)
{
    AUTOFREE(char) *aside = mem_printf(".%s.new", uuid);
    AUTOFD(dir) = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (dir < 0 && errno == ENOENT)
        return true;
    if (dir < 0 || flock(dir, LOCK_EX) < 0)
        return error_errno(err, ERROR_STATE, "lock folder '%s'", folder);
    if ((unlinkat(dir, aside, 0) < 0 && errno != ENOENT) ||
        (unlinkat(dir, uuid, 0) < 0 && errno != ENOENT) || fsync(dir) < 0)
        return error_errno(err, ERROR_STATE, "remove '%s/%s'", folder, uuid);
    return true;
}
