#include "drivers/store/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>

#include "drivers/store/blank.h"
#include "drivers/store/child.h"
#include "drivers/store/folder.h"
#include "drivers/store/layout.h"

#define TIMEOUT_MS   120000
#define RECORD_GRAIN "65536"

static bool
run(int folder, const char *const *argv, struct error **err)
{
    struct child_request request = { .argv = argv, .folder = folder };

    return child_run(&request, TIMEOUT_MS, err);
}

/* What a crash has left of it is of no use: begun anew. */
static bool
create_raw(int folder, const char *path, uint64_t capacity_bytes, struct error **err)
{
    AUTOFD(fd) =
        openat(folder, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, FOLDER_FILE_MODE);

    if (fd < 0 || ftruncate(fd, (off_t)capacity_bytes) < 0 || fsync(fd) < 0)
        return folder_errno(err, "make image '%s'", path);
    return true;
}

static bool
create_qcow2(int folder, const char *path, uint64_t capacity_bytes,
             const struct store_original *below, struct error **err)
{
    AUTOFD(fd) =
        openat(folder, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, FOLDER_FILE_MODE);

    if (fd < 0)
        return folder_errno(err, "make image '%s'", path);
    if (!blank_write(fd, path, capacity_bytes, below, err))
        return error_prefix(err, "make image '%s'", path);
    return fsync(fd) == 0 || folder_errno(err, "make image '%s'", path);
}

bool
image_create_on(int folder, const char *path, uint64_t capacity_bytes,
                const struct store_original *original, struct error **err)
{
    return create_qcow2(folder, path, capacity_bytes, original, err);
}

bool
image_create(int folder, const char *path, uint64_t capacity_bytes, const char *backing,
             struct error **err)
{
    const struct store_original below = {
        backing, backing != NULL && layout_is_raw(backing) ? "raw" : "qcow2"
    };

    if (layout_is_raw(path))
        return create_raw(folder, path, capacity_bytes, err);
    return create_qcow2(folder, path, capacity_bytes, backing != NULL ? &below : NULL,
                        err);
}

/* An image as QEMU is to open it, alone: a fold may be writing one of those below. The
   caller frees. */
static char *
describe_alone(const char *path)
{
    return mem_printf("json:{\"driver\":\"qcow2\",\"backing\":null,\"file\":{\"driver\":"
                      "\"file\",\"filename\":\"%s\"}}",
                      path);
}

bool
image_record(int folder, const char *path, const char *bitmap, struct error **err)
{
    AUTOFREE(char) *image = describe_alone(path);
    const char *const argv[] = { "qemu-img", "bitmap", "--add", "-g", RECORD_GRAIN,
                                 "--",       image,    bitmap,  NULL };

    return run(folder, argv, err) ||
           error_prefix(err, "make record '%s' in image '%s'", bitmap, path);
}

static bool
grow_raw(int folder, const char *path, uint64_t capacity_bytes, struct error **err)
{
    AUTOFD(fd) = openat(folder, path, O_WRONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0 ||
        ((uint64_t)st.st_size < capacity_bytes &&
         ftruncate(fd, (off_t)capacity_bytes) < 0) ||
        fsync(fd) < 0)
        return folder_errno(err, "grow image '%s'", path);
    return true;
}

bool
image_grow(int folder, const char *path, uint64_t capacity_bytes, struct error **err)
{
    AUTOFREE(char) *size = mem_printf("%llu", (unsigned long long)capacity_bytes);
    AUTOFREE(char) *image = describe_alone(path);
    const char *const argv[] = { "qemu-img", "resize", "-q", "--", image, size, NULL };

    if (layout_is_raw(path))
        return grow_raw(folder, path, capacity_bytes, err);
    if (!run(folder, argv, err))
        return error_prefix(err, "grow image '%s'", path);
    return folder_sync(folder, path, err);
}

bool
image_rebase(int folder, const char *path, const char *backing, struct error **err)
{
    const char *format = backing != NULL && layout_is_raw(backing) ? "raw" : "qcow2";
    const char *const alone[] = { "qemu-img", "rebase", "-q", "-u", "-f", "qcow2",
                                  "-b",       "",       "--", path, NULL };
    const char *const on_top[] = { "qemu-img", "rebase", "-q",   "-u", "-f",
                                   "qcow2",    "-F",     format, "-b", backing,
                                   "--",       path,     NULL };

    if (!run(folder, backing == NULL ? alone : on_top, err))
        return error_prefix(err, "put image '%s' on '%s'", path,
                            backing != NULL ? backing : "nothing");
    return folder_sync(folder, path, err);
}

bool
image_commit(int folder, const char *image, struct pace *pace, struct error **err)
{
    AUTOFREE(char) *rate =
        mem_printf("%llu", (unsigned long long)pace->effort->rate_bytes_s);
    const char *const free_argv[] = { "qemu-img", "commit", "-q", "-d", image, NULL };
    const char *const slow_argv[] = { "qemu-img", "commit", "-q",  "-d",
                                      "-r",       rate,     image, NULL };
    struct child_request request = { .argv = pace->effort->rate_bytes_s > 0 ? slow_argv
                                                                            : free_argv,
                                     .folder = folder };

    return child_run_paced(&request, pace, NULL, err);
}

/* What qemu-img check ends with. */
#define CHECK_SOUND  0
#define CHECK_LEAKS  3 /* clusters that nothing uses */
#define CHECK_FAILED 1 /* it could not check: the header is damaged, or the file */
#define CHECK_BROKEN 2

static bool
check(int folder, const char *path, const char *const *argv, struct pace *pace,
      struct error **err)
{
    struct child_request request = { .argv = argv, .folder = folder };
    AUTOPTR(error) *why = NULL;
    int status = CHECK_SOUND;

    if (child_run_paced(&request, pace, &status, &why) || status == CHECK_LEAKS)
        return true;
    if (status != CHECK_FAILED && status != CHECK_BROKEN)
        return error_propagate(err, TAKE(why));
    return error_set(err, ERROR_CHECKSUM, "image '%s' is damaged: %s", path,
                     error_message(why));
}

bool
image_check(int folder, const char *path, struct pace *pace, struct error **err)
{
    AUTOFREE(char) *image = describe_alone(path);
    const char *const argv[] = { "qemu-img", "check", "-q", "-U", image, NULL };

    return check(folder, path, argv, pace, err);
}

bool
image_reclaim(int folder, const char *path, struct pace *pace, struct error **err)
{
    AUTOFREE(char) *image = describe_alone(path);
    const char *const argv[] = { "qemu-img", "check", "-q", "-r", "leaks", image, NULL };

    return check(folder, path, argv, pace, err);
}
