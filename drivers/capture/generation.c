#include "drivers/capture/generation.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "drivers/store/backing.h"

#define MAX_CHAIN      64 /* images below one another */
#define MAX_SMALL_FILE 512

static void
mix(uint64_t *g, const void *data, size_t n)
{
    *g = XXH3_64bits_withSeed(data, n, *g);
}

/* A file of /proc or /sys, as far as it fits. */
static bool
mix_small_file(uint64_t *g, const char *path, struct error **err)
{
    AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC);
    char text[MAX_SMALL_FILE];
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);

    if (n < 0)
        return error_errno(err, ERROR_STORE, "read '%s'", path);
    mix(g, text, (size_t)n);
    return true;
}

#define STAT_FIELDS    17
#define FIELD_WRITTEN  6 /* sectors */
#define FIELD_DISCARDS 13

/*
 * What the kernel counts of a device (Documentation/block/stat.rst): sectors, not
 * requests, as a flush counts as a request to write nothing.
 */
static bool
mix_device_counters(uint64_t *g, dev_t device, struct error **err)
{
    AUTOFREE(char) *path =
        mem_printf("/sys/dev/block/%u:%u/stat", major(device), minor(device));
    AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC);
    char text[MAX_SMALL_FILE] = "";
    char *at = text;

    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
        return error_errno(err, ERROR_STORE, "read '%s'", path);
    for (unsigned field = 0; field < STAT_FIELDS; field++) {
        char *word = strsep(&at, " \n");

        while (word != NULL && *word == '\0')
            word = strsep(&at, " \n");
        if (word == NULL)
            break;
        if (field == FIELD_WRITTEN || field == FIELD_DISCARDS)
            mix(g, word, strlen(word) + 1);
    }
    return mix_small_file(g, "/proc/sys/kernel/random/boot_id", err);
}

/* What is in the page cache still would count as a write later. */
static bool
mix_device(uint64_t *g, int fd, const struct stat *s, const char *path,
           struct error **err)
{
    if (fsync(fd) < 0)
        return error_errno(err, ERROR_STORE, "flush '%s'", path);
    mix(g, &s->st_rdev, sizeof s->st_rdev);
    return mix_device_counters(g, s->st_rdev, err);
}

static void
mix_content(uint64_t *g, const struct stat *s)
{
    const int64_t values[] = { (int64_t)s->st_dev, (int64_t)s->st_ino, s->st_size,
                               s->st_mtim.tv_sec, s->st_mtim.tv_nsec };

    mix(g, values, sizeof values);
}

static void
mix_file(uint64_t *g, const struct stat *s)
{
    const int64_t values[] = { s->st_ctim.tv_sec, s->st_ctim.tv_nsec };

    mix_content(g, s);
    mix(g, values, sizeof values);
}

typedef void (*mix_fn)(uint64_t *g, const struct stat *s);

static bool
mix_image(uint64_t *g, const char *path, mix_fn mix_one, char **ret_backing,
          struct error **err)
{
    AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat s;

    if (fd < 0 || fstat(fd, &s) < 0)
        return error_errno(err, ERROR_STORE, "look at '%s'", path);
    mix(g, path, strlen(path));
    *ret_backing = backing_of(fd, path);
    if (S_ISBLK(s.st_mode))
        return mix_device(g, fd, &s, path, err);
    mix_one(g, &s);
    return true;
}

static bool
mix_chain(uint64_t *g, const char *top, mix_fn mix_one, struct error **err)
{
    AUTOFREE(char) *path = mem_strdup(top);

    for (unsigned i = 0; i < MAX_CHAIN && path != NULL; i++) {
        AUTOFREE(char) *backing = NULL;

        if (!mix_image(g, path, mix_one, &backing, err))
            return false;
        free(path);
        path = TAKE(backing);
        if (path != NULL && strncmp(path, "json:", 5) == 0)
            break; /* described in QEMU's own way: the image above names it */
    }
    return true;
}

bool
generation_of(const char *const *paths, size_t n, uint64_t *ret, struct error **err)
{
    uint64_t g = n;

    for (size_t i = 0; i < n; i++)
        if (!mix_chain(&g, paths[i], mix_file, err))
            return false;
    *ret = g != 0 ? g : 1;
    return true;
}

bool
generation_of_content(const char *path, uint64_t *ret, struct error **err)
{
    uint64_t g = 1;

    if (!mix_chain(&g, path, mix_content, err))
        return false;
    *ret = g != 0 ? g : 1;
    return true;
}
