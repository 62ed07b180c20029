#include "drivers/store/seed_image.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "common/json.h"
#include "common/wire.h"

/* docs/interop/qcow2.txt of QEMU: where things are in the header, all big endian. */
#define HEAD_BYTES          (64u << 10)
#define QCOW2_MAGIC         0x514649fbu
#define QCOW2_V2_BYTES      72
#define QCOW2_V3_BYTES      104
#define QCOW2_AT_VERSION    4
#define QCOW2_AT_BACKING    8
#define QCOW2_AT_NAME_BYTES 16
#define QCOW2_AT_SIZE       24
#define QCOW2_AT_CRYPT      32
#define QCOW2_AT_FEATURES   72
#define QCOW2_AT_LENGTH     100
#define QCOW2_MAX_NAME      1023
#define FEATURE_CORRUPT     (1u << 1)
#define FEATURE_DATA_FILE   (1u << 2)
#define FEATURES_KNOWN      0x1fu /* dirty, corrupt, data file, compression, subclusters */
#define EXTENSION_END       0u
#define EXTENSION_FORMAT    0xe2792acau
#define EXTENSION_HEAD      8
#define FORMAT_NAME_MAX     15

/* The beginning of an image's file. */
struct head {
    uint8_t *bytes; /* HEAD_BYTES, zeroes behind the file's end */
    size_t n;
};

/* --- opening --------------------------------------------------------------------------
 */

/* The part of path below folder; NULL if it is not below it. */
static const char *
below(const char *folder, const char *path)
{
    size_t n = strlen(folder);

    if (path[0] != '/')
        return path;
    while (n > 0 && folder[n - 1] == '/')
        n--;
    if (strncmp(path, folder, n) != 0 || path[n] != '/')
        return NULL;
    path += n;
    return path + strspn(path, "/");
}

static bool
outside(const char *folder, const char *path, const char *why, struct error **err)
{
    return error_set(err, ERROR_FORBIDDEN, "'%s' is not in the folder for seeds, '%s'%s",
                     path, folder, why);
}

static bool
cannot_open(const char *folder, const char *path, struct error **err)
{
    switch (errno) {
    case EXDEV:
        return outside(folder, path, ": it leads out of it", err);
    case ELOOP:
        return outside(folder, path, ": a symbolic link is in its way", err);
    case ENOENT:
    case ENOTDIR:
        return error_set(err, ERROR_NOT_FOUND, "there is no '%s' in '%s'", path, folder);
    default:
        return error_errno(err, ERROR_STORE, "open '%s'", path);
    }
}

bool
seed_image_open_below(const char *folder, const char *path, int flags, int *ret,
                      struct error **err)
{
    struct open_how how = { .flags = (uint64_t)(flags | O_CLOEXEC),
                            .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
                                       RESOLVE_NO_MAGICLINKS };
    AUTOFD(at) = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    const char *rest = below(folder, path);
    int fd;

    if (at < 0)
        return error_errno(err, ERROR_STORE, "open the folder for seeds '%s'", folder);
    if (rest == NULL)
        return outside(folder, path, "", err);
    fd = (int)syscall(SYS_openat2, at, *rest != '\0' ? rest : ".", &how, sizeof how);
    if (fd < 0)
        return cannot_open(folder, path, err);
    *ret = fd;
    return true;
}

/* Nobody waits for a FIFO's other end, and a device is no image of a disk here. */
static bool
open_file(const char *folder, const char *path, int *ret, struct error **err)
{
    AUTOFD(fd) = -1;
    struct stat st;

    if (!seed_image_open_below(folder, path, O_RDONLY | O_NONBLOCK, &fd, err))
        return false;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return error_set(err, ERROR_UNSUPPORTED_DISK, "'%s' is no regular file", path);
    *ret = TAKE_FD(fd);
    return true;
}

static bool
read_head(int fd, const char *path, struct head *ret, struct error **err)
{
    AUTOFREE(uint8_t) *bytes = mem_alloc(1, HEAD_BYTES);
    size_t n = 0;

    while (n < HEAD_BYTES) {
        ssize_t got = pread(fd, bytes + n, HEAD_BYTES - n, (off_t)n);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_errno(err, ERROR_STORE, "read '%s'", path);
        if (got == 0)
            break;
        n += (size_t)got;
    }
    *ret = (struct head){ TAKE(bytes), n };
    return true;
}

/* --- formats --------------------------------------------------------------------------
 */

static uint32_t
get32(const struct head *h, size_t at)
{
    uint32_t v;

    memcpy(&v, h->bytes + at, sizeof v);
    return be32toh(v);
}

static uint64_t
get64(const struct head *h, size_t at)
{
    uint64_t v;

    memcpy(&v, h->bytes + at, sizeof v);
    return be64toh(v);
}

static bool
has_magic(const struct head *h)
{
    return h->n >= sizeof(uint32_t) && get32(h, 0) == QCOW2_MAGIC;
}

/* The name of a format that is neither of the two; NULL: it looks like none. */
static const char *
find_foreign(const struct head *h)
{
    static const struct {
        const char *magic, *name;
        size_t at;
    } known[] = {
        { "KDMV", "vmdk", 0 },
        { "# Disk DescriptorFile", "vmdk", 0 },
        { "vhdxfile", "vhdx", 0 },
        { "conectix", "vpc", 0 },
        { "\x7f\x10\xda\xbe", "vdi", 64 },
        { "QED", "qed", 0 },
        { "LUKS\xba\xbe", "luks", 0 },
        { "WithoutFreeSpace", "parallels", 0 },
        { "WithouFreSpacExt", "parallels", 0 },
    };

    for (size_t i = 0; i < N_ELEMENTS(known); i++)
        if (memcmp(h->bytes + known[i].at, known[i].magic, strlen(known[i].magic)) == 0)
            return known[i].name;
    return NULL;
}

static bool
ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);

    return n >= m && strcmp(text + n - m, end) == 0;
}

/*
 * The guest of a raw disk can write the header of any format into it. So what looks like
 * qcow2 counts as that only if the name says so too, or the operator.
 */
static bool
find_format(const struct head *h, const char *path, enum seed_format *format,
            struct error **err)
{
    const char *foreign = find_foreign(h);

    if (*format == SEED_FORMAT_RAW)
        return true;
    if (*format == SEED_FORMAT_QCOW2)
        return has_magic(h) ||
               error_set(err, ERROR_UNSUPPORTED_DISK, "'%s' is no qcow2 image", path);
    if (has_magic(h) && !ends_with(path, ".qcow2"))
        return error_set(
            err, ERROR_USAGE,
            "'%s' may be a qcow2 image, or a raw one whose guest has written "
            "something like it: say which, 'qcow2:%s' or 'raw:%s'",
            path, path, path);
    if (!has_magic(h) && (ends_with(path, ".qcow2") || foreign != NULL))
        return error_set(
            err, ERROR_UNSUPPORTED_DISK,
            "'%s' looks like a %s image%s; convert it to raw or qcow2, or say "
            "'raw:%s' if it is one",
            path, foreign != NULL ? foreign : "qcow2",
            foreign != NULL ? "" : ", but has no header of one", path);
    *format = has_magic(h) ? SEED_FORMAT_QCOW2 : SEED_FORMAT_RAW;
    return true;
}

/* --- qcow2 ----------------------------------------------------------------------------
 */

static bool
cannot_read(const char *path, const char *why, struct error **err)
{
    return error_set(err, ERROR_UNSUPPORTED_DISK, "'%s' %s", path, why);
}

static bool
check_features(const struct head *h, const char *path, struct error **err)
{
    uint64_t features = get32(h, QCOW2_AT_VERSION) > 2 ? get64(h, QCOW2_AT_FEATURES) : 0;

    if (get32(h, QCOW2_AT_CRYPT) != 0)
        return cannot_read(path, "is encrypted: virt-dr has no key for it", err);
    if (features & FEATURE_DATA_FILE)
        return cannot_read(path,
                           "has its data in another file, which is not followed; "
                           "make one image of it with qemu-img convert",
                           err);
    if (features & FEATURE_CORRUPT)
        return cannot_read(path, "is marked as corrupt; see qemu-img check", err);
    if (features & ~(uint64_t)FEATURES_KNOWN)
        return cannot_read(path, "needs features that are not known here", err);
    return true;
}

static bool
check_qcow2(const struct head *h, const char *path, struct error **err)
{
    uint32_t version;

    if (h->n < QCOW2_V2_BYTES)
        return cannot_read(path, "is cut off", err);
    version = get32(h, QCOW2_AT_VERSION);
    if ((version != 2 && version != 3) || (version == 3 && h->n < QCOW2_V3_BYTES))
        return cannot_read(path, "is no qcow2 image of version 2 or 3", err);
    if (get64(h, QCOW2_AT_SIZE) > WIRE_MAX_DISK_BYTES)
        return cannot_read(path, "says to be larger than any disk", err);
    return check_features(h, path, err);
}

/* *ret is NULL if it stands alone. */
static bool
find_backing(const struct head *h, const char *path, char **ret, struct error **err)
{
    uint64_t at = get64(h, QCOW2_AT_BACKING);
    uint32_t n = get32(h, QCOW2_AT_NAME_BYTES);

    *ret = NULL;
    if (at == 0)
        return true;
    if (n == 0 || n > QCOW2_MAX_NAME || at > h->n || n > h->n - at ||
        memchr(h->bytes + at, '\0', n) != NULL)
        return cannot_read(path, "has no valid name of a backing file", err);
    *ret = mem_memdup(h->bytes + at, n);
    return true;
}

static enum seed_format
format_from_name(const char *name)
{
    return strcmp(name, "raw") == 0     ? SEED_FORMAT_RAW
           : strcmp(name, "qcow2") == 0 ? SEED_FORMAT_QCOW2
                                        : SEED_FORMAT_FIND;
}

/* As the header says; SEED_FORMAT_FIND if it says nothing that can be used. */
static enum seed_format
find_backing_format(const struct head *h)
{
    size_t at =
        get32(h, QCOW2_AT_VERSION) > 2 ? get32(h, QCOW2_AT_LENGTH) : QCOW2_V2_BYTES;

    while (at <= h->n && h->n - at >= EXTENSION_HEAD) {
        uint32_t type = get32(h, at), n = get32(h, at + sizeof type);
        char name[FORMAT_NAME_MAX + 1] = "";

        at += EXTENSION_HEAD;
        if (type == EXTENSION_END || n > h->n - at)
            return SEED_FORMAT_FIND;
        if (type == EXTENSION_FORMAT) {
            memcpy(name, h->bytes + at, MIN(n, FORMAT_NAME_MAX));
            return format_from_name(name);
        }
        at += ((size_t)n + 7) / 8 * 8;
    }
    return SEED_FORMAT_FIND;
}

/* A relative name is meant from the folder of the image that has it in its header. */
static char *
backing_path(const char *path, const char *name)
{
    AUTOFREE(char) *copy = mem_strdup(path);

    return name[0] == '/' ? mem_strdup(name) : mem_printf("%s/%s", dirname(copy), name);
}

/* --- an image and those below it ------------------------------------------------------
 */

static bool
take_file(struct seed_image *image, const char *folder, const char *path,
          struct head *ret_head, struct error **err)
{
    struct stat st;
    int fd = -1;

    if (image->n == SEED_IMAGE_MAX)
        return error_set(err, ERROR_UNSUPPORTED_DISK,
                         "more than %d images lie on each other; make one of them with "
                         "qemu-img convert",
                         SEED_IMAGE_MAX);
    if (!open_file(folder, path, &fd, err))
        return false;
    image->fds[image->n++] = fd;
    if (fstat(fd, &st) < 0)
        return error_errno(err, ERROR_STORE, "stat '%s'", path);
    image->stored_bytes += (uint64_t)st.st_blocks * 512;
    if (image->n == 1)
        image->capacity_bytes = (uint64_t)st.st_size; /* unless its header says else */
    return read_head(fd, path, ret_head, err);
}

/* One file; *ret_below is the path of the next one and *format its format. */
static bool
take_image(struct seed_image *image, const char *folder, const char *path,
           enum seed_format *format, char **ret_below, struct error **err)
{
    AUTOFREE(uint8_t) *bytes = NULL;
    AUTOFREE(char) *name = NULL;
    struct head h = { 0 };

    *ret_below = NULL;
    if (!take_file(image, folder, path, &h, err))
        return false;
    bytes = h.bytes;
    if (!find_format(&h, path, format, err))
        return false;
    image->formats[image->n - 1] = *format;
    if (*format == SEED_FORMAT_RAW)
        return true;
    if (!check_qcow2(&h, path, err) || !find_backing(&h, path, &name, err))
        return false;
    if (image->n == 1)
        image->capacity_bytes = get64(&h, QCOW2_AT_SIZE);
    if (name == NULL)
        return true;
    *format = find_backing_format(&h);
    if (*format == SEED_FORMAT_FIND)
        return cannot_read(path,
                           "does not say that its backing file is raw or qcow2; say "
                           "it with qemu-img rebase -u -F",
                           err);
    *ret_below = backing_path(path, name);
    return true;
}

bool
seed_image_open(const char *folder, const char *path, enum seed_format format,
                struct seed_image *ret, struct error **err)
{
    struct seed_image image = { 0 };
    AUTOFREE(char) *at = mem_strdup(path);
    bool ok = true;

    while (ok && at != NULL) {
        char *next = NULL;

        ok = take_image(&image, folder, at, &format, &next, err);
        if (!ok && image.n > 1)
            error_prefix(err, "a backing file of '%s'", path);
        free(at);
        at = next;
    }
    if (!ok) {
        seed_image_close(&image);
        return false;
    }
    *ret = image;
    return true;
}

void
seed_image_close(struct seed_image *image)
{
    for (size_t i = 0; i < image->n; i++)
        close(image->fds[i]);
    *image = (struct seed_image){ 0 };
}

static struct json_object *
file_node(int fd)
{
    struct json_object *o = json_object_new_object();
    AUTOFREE(char) *path = mem_printf("/proc/self/fd/%d", fd);

    json_set_string(o, "driver", "file");
    json_set_string(o, "filename", path);
    return o;
}

struct json_object *
seed_image_node(const struct seed_image *image, int first_fd, uint64_t most_bytes)
{
    struct json_object *node = NULL, *top;

    for (size_t i = image->n; i-- > 0;) {
        struct json_object *o = json_object_new_object();
        bool raw = image->formats[i] == SEED_FORMAT_RAW;

        json_set_string(o, "driver", raw ? "raw" : "qcow2");
        json_set(o, "file", file_node(first_fd + (int)i));
        if (!raw)
            json_set(o, "backing", node); /* null: not what the header says */
        node = o;
    }
    top = json_object_new_object();
    json_set_string(top, "driver", "raw");
    json_set_u64(top, "size", MIN(image->capacity_bytes, most_bytes));
    json_set(top, "file", node);
    return top;
}
