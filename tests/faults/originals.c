#include "tests/faults/originals.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "common/json.h"
#include "drivers/store/child.h"

#define TIMEOUT_MS 60000
#define MAX_SUM    40

static const char *const formats[MODEL_DISKS] = { "qcow2", "raw" };

void
originals_open(const char *scratch, struct originals *ret)
{
    for (size_t i = 0; i < MODEL_DISKS; i++) {
        ret->paths[i] = mem_printf("%s/../original%zu.%s", scratch, i, formats[i]);
        ret->images[i] =
            (struct store_original){ .path = ret->paths[i], .format = formats[i] };
    }
}

void
originals_close(struct originals *o)
{
    for (size_t i = 0; i < MODEL_DISKS; i++)
        free(o->paths[i]);
}

/* --- make ----------------------------------------------------------------------------
 */

static bool
write_raw(size_t disk UNUSED, uint64_t offset, const void *data, size_t length,
          void *opaque, struct error **err)
{
    const int *fd = opaque;

    return data == NULL || pwrite(*fd, data, length, (off_t)offset) == (ssize_t)length ||
           error_errno(err, ERROR_STORE, "write an original");
}

static bool
make_raw(size_t disk, const char *path, struct error **err)
{
    AUTOFD(fd) = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 || ftruncate(fd, (off_t)model_original_bytes(disk)) < 0)
        return error_errno(err, ERROR_STORE, "make '%s'", path);
    return model_original(disk, write_raw, &fd, err);
}

static bool
make_qcow2(const char *raw, const char *path, struct error **err)
{
    AUTOFD(root) = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const char *const argv[] = { "qemu-img", "convert", "-f", "raw", "-O",
                                 "qcow2",    raw,       path, NULL };
    struct child_request request = { .argv = argv, .folder = root };

    return child_run(&request, TIMEOUT_MS, err);
}

static bool
make(size_t disk, const char *path, struct error **err)
{
    AUTOFREE(char) *raw = mem_printf("%s.new", path);

    if (strcmp(formats[disk], "raw") == 0)
        return make_raw(disk, path, err);
    return make_raw(disk, raw, err) && make_qcow2(raw, path, err) &&
           (unlink(raw) == 0 || error_errno(err, ERROR_STORE, "remove '%s'", raw));
}

/* --- what they are -------------------------------------------------------------------
 */

static char *
sum_path(const char *scratch)
{
    return mem_printf("%s/../originals.sums", scratch);
}

static bool
mix(const char *path, uint64_t *hash, struct error **err)
{
    AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    void *map;

    if (fd < 0 || fstat(fd, &st) < 0)
        return error_errno(err, ERROR_INTERNAL, "WRONG: original '%s'", path);
    map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return error_errno(err, ERROR_INTERNAL, "map '%s'", path);
    *hash = XXH3_64bits_withSeed(map, (size_t)st.st_size, *hash);
    munmap(map, (size_t)st.st_size);
    return true;
}

static bool
sum_up(const char *scratch, char ret[MAX_SUM], struct error **err)
{
    struct originals o;
    uint64_t hash = 0;
    bool ok = true;

    originals_open(scratch, &o);
    for (size_t i = 0; i < MODEL_DISKS; i++)
        ok = ok && mix(o.paths[i], &hash, err);
    originals_close(&o);
    snprintf(ret, MAX_SUM, "%" PRIx64 "\n", hash);
    return ok;
}

bool
originals_make(const char *scratch, struct error **err)
{
    AUTOFREE(char) *path = sum_path(scratch);
    AUTOFD(fd) = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    char sum[MAX_SUM];
    struct originals o;
    bool ok = fd >= 0 || error_errno(err, ERROR_STORE, "make '%s'", path);

    originals_open(scratch, &o);
    for (size_t i = 0; i < MODEL_DISKS; i++)
        ok = ok && make(i, o.paths[i], err);
    originals_close(&o);
    return ok && sum_up(scratch, sum, err) &&
           (write(fd, sum, strlen(sum)) == (ssize_t)strlen(sum) ||
            error_errno(err, ERROR_STORE, "write '%s'", path));
}

bool
originals_check(const char *scratch, struct error **err)
{
    AUTOFREE(char) *path = sum_path(scratch);
    AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC);
    char now[MAX_SUM], before[MAX_SUM] = "";

    if (fd < 0 || read(fd, before, sizeof before - 1) <= 0)
        return error_errno(err, ERROR_STORE, "read '%s'", path);
    return sum_up(scratch, now, err) &&
           (strcmp(now, before) == 0 ||
            error_set(err, ERROR_INTERNAL, "WRONG: an original image was written to"));
}
