#include "drivers/capture/scratch_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

#define STAT_BLOCK_BYTES 512

static const char image_suffix[] = ".scratch";

bool
scratch_files_socket(const char *folder, const char *stem, char **ret, struct error **err)
{
    AUTOFREE(char) *path = mem_printf("%s/%s.sock", folder, stem);

    if (strlen(path) >= sizeof((struct sockaddr_un *)NULL)->sun_path)
        return error_set(
            err, ERROR_CONFIG,
            "the scratch folder '%s' has too long a path for a socket in it; "
            "choose one of at most %zu bytes",
            folder,
            sizeof((struct sockaddr_un *)NULL)->sun_path - 1 -
                strlen(path + strlen(folder)));
    *ret = TAKE(path);
    return true;
}

char *
scratch_files_image(const char *folder, const char *stem, const char *target)
{
    return mem_printf("%s/%s-%s%s", folder, stem, target, image_suffix);
}

static bool
is_image(const char *file, const char *stem)
{
    size_t n = strlen(stem), length = strlen(file);

    return strncmp(file, stem, n) == 0 && file[n] == '-' &&
           length > n + sizeof image_suffix &&
           strcmp(file + length - strlen(image_suffix), image_suffix) == 0;
}

static bool
is_socket(const char *file, const char *stem)
{
    return strncmp(file, stem, strlen(stem)) == 0 &&
           strcmp(file + strlen(stem), ".sock") == 0;
}

bool
scratch_files_is_served(const char *socket)
{
    FILE *list = fopen("/proc/net/unix", "re");
    AUTOFREE(char) *line = NULL;
    size_t size = 0;
    bool found = false;

    if (list == NULL)
        return false;
    while (!found && getline(&line, &size, list) > 0) {
        const char *path = strrchr(line, ' ');

        line[strcspn(line, "\n")] = '\0';
        found = path != NULL && strcmp(path + 1, socket) == 0;
    }
    fclose(list);
    return found;
}

bool
scratch_files_used(const char *folder, const char *stem, uint64_t *ret_bytes)
{
    DIR *dir = opendir(folder);
    uint64_t total = 0;
    struct stat s;

    if (dir == NULL)
        return false;
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir))
        if (is_image(e->d_name, stem) &&
            fstatat(dirfd(dir), e->d_name, &s, AT_SYMLINK_NOFOLLOW) == 0)
            total += (uint64_t)s.st_blocks * STAT_BLOCK_BYTES;
    closedir(dir);
    *ret_bytes = total;
    return true;
}

bool
scratch_files_remove(const char *folder, const char *stem, struct error **err)
{
    DIR *dir = opendir(folder);
    bool ok = true;

    if (dir == NULL)
        return errno == ENOENT || error_errno(err, ERROR_STORE, "open '%s'", folder);
    for (const struct dirent *e = readdir(dir); e != NULL && ok; e = readdir(dir))
        if ((is_image(e->d_name, stem) || is_socket(e->d_name, stem)) &&
            unlinkat(dirfd(dir), e->d_name, 0) < 0 && errno != ENOENT)
            ok = error_errno(err, ERROR_STORE, "remove '%s/%s'", folder, e->d_name);
    closedir(dir);
    return ok;
}
