#include "drivers/store/image_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/json.h"
#include "drivers/store/child.h"
#include "drivers/store/folder.h"
#include "drivers/store/qsd.h"

#define LOOK_MS         200
#define MEASURE_TIME_MS 600000
#define OPTIONS         "compat=1.1,lazy_refcounts=off,cluster_size=64k"

static uint64_t
bytes_of(const struct image_copy *copy)
{
    struct stat st;

    return fstatat(copy->folder, copy->to, &st, 0) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
}

static bool
verdict(const struct child *c, int status, struct error **err)
{
    AUTOFREE(char) *output = child_output(c);
    bool full = strstr(output, strerrordesc_np(ENOSPC)) != NULL ||
                strstr(output, strerrordesc_np(EDQUOT)) != NULL;

    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    return error_set(err, full ? ERROR_NO_SPACE : ERROR_STORE, "qemu-img failed: %s",
                     *output != '\0' ? output : "it gave no reason");
}

/* Until it has ended, or somebody wants it to. */
static bool
await(const struct image_copy *copy, struct child *c, int *ret_status, struct error **err)
{
    struct error *e = NULL;

    while (!child_wait(c, LOOK_MS, ret_status, &e)) {
        if (!error_is(e, ERROR_TIMEOUT))
            return error_propagate(err, e);
        error_clear(&e);
        if (!cancel_check(copy->cancel, err))
            return false;
        copy->progress(bytes_of(copy), copy->opaque);
    }
    return true;
}

bool
image_copy(const struct image_copy *copy, uint64_t *ret_bytes, struct error **err)
{
    const char *const argv[] = { "qemu-img", "convert", "-q", "-f",    "qcow2",
                                 "-O",       "qcow2",   "-o", OPTIONS, "--",
                                 copy->from, copy->to,  NULL };
    struct child_request request = { .argv = argv, .folder = copy->folder };
    struct child c;
    int status = 0;
    bool ok;

    if (!folder_unlink(copy->folder, copy->to, err) || !child_start(&request, &c, err))
        return false;
    ok = await(copy, &c, &status, err) && verdict(&c, status, err);
    child_end(&c);
    if (!ok)
        return false;
    if (fchmodat(copy->folder, copy->to, FOLDER_FILE_MODE, 0) < 0)
        return folder_errno(err, "chmod '%s'", copy->to);
    *ret_bytes = bytes_of(copy);
    return folder_sync(copy->folder, copy->to, err);
}

bool
image_copy_measure(int folder, const char *from, uint64_t *ret_bytes, struct error **err)
{
    const char *const argv[] = { "qemu-img", "measure", "--output", "json", "-f",
                                 "qcow2",    "-O",      "qcow2",    from,   NULL };
    struct child_request request = { .argv = argv, .folder = folder };
    AUTOFREE(char) *output = NULL;
    AUTOJSON *o = NULL;
    struct child c;
    int status = 0;
    bool ok;

    if (!child_start(&request, &c, err))
        return false;
    ok = child_wait(&c, MEASURE_TIME_MS, &status, err) && verdict(&c, status, err);
    if (ok)
        output = child_output(&c);
    child_end(&c);
    return ok && json_parse(output, strlen(output), &o, err) &&
           json_get_u64(o, "required", INT64_MAX, ret_bytes, err);
}

bool
image_copy_end_stale(int folder, struct error **err)
{
    return qsd_end_stale(folder, err);
}
