#include "tests/faults/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "drivers/store/child.h"
#include "drivers/store/folder.h"
#include "drivers/store/layout.h"
#include "drivers/store/qcow2.h"
#include "tests/faults/model.h"

#define CONVERT_TIMEOUT_MS 60000
#define SUMS               ".sums"

static const struct store_ops *const ops = &store_qcow2_ops;

static bool wrong(struct error **err, const char *format, ...) PRINTF(2, 3);

static bool
wrong(struct error **err, const char *format, ...)
{
    AUTOFREE(char) *text = NULL;
    va_list args;

    va_start(args, format);
    text = mem_vprintf(format, args);
    va_end(args);
    return error_set(err, ERROR_INTERNAL, "WRONG: %s", text);
}

/* --- one point ------------------------------------------------------------------------
 */

/* Reads an image and all below it as a guest would, by QEMU. */
static bool
compare_image(struct subject *s, const struct model *m, size_t disk, const char *image,
              struct error **err)
{
    AUTOFREE(char) *raw = mem_printf("%s/content.raw", s->scratch);
    const char *const argv[] = { "qemu-img", "convert", "-U",  "-f", "qcow2",
                                 "-O",       "raw",     image, raw,  NULL };
    AUTOFD(root) = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct child_request request = { .argv = argv, .folder = root };
    AUTOFD(fd) = -1;
    uint64_t at = 0;
    bool same;

    if (!child_run(&request, CONVERT_TIMEOUT_MS, err))
        return false;
    fd = open(raw, O_RDONLY | O_CLOEXEC);
    same = fd >= 0 && model_compare(m, disk, fd, &at);
    unlink(raw);
    return same || wrong(err, "disk '%s' differs at %" PRIu64, m->disks[disk].target, at);
}

static bool
compare_blob(struct subject *s, const char *id, uint64_t seq, struct error **err)
{
    AUTOFREE(char) *expected = mem_printf("xml of %" PRIu64, seq);
    AUTOFREE(char) *found = NULL;
    size_t n = 0;

    if (!ops->overlay_blob(s->store, id, "domain.xml", &found, &n, err))
        return false;
    return strcmp(found, expected) == 0 ||
           wrong(err, "the blob is '%s', not '%s'", found, expected);
}

static bool
compare_paths(struct subject *s, char **paths, size_t n, uint64_t seq, struct error **err)
{
    AUTOPTR(model) *m = model_new(seq);

    if (model_hash(m) != s->record.hashes[seq])
        return wrong(err, "the model is not what it was when the point was acknowledged");
    if (n != MODEL_DISKS)
        return wrong(err, "it has %zu disks", n);
    for (size_t i = 0; i < n; i++)
        if (!compare_image(s, m, i, paths[i], err))
            return false;
    return true;
}

/* Makes the overlay, or finds it, and looks. */
static bool
check_overlay(struct subject *s, const char *id, uint64_t seq, struct error **err)
{
    struct store_overlay wanted = { .id = id, .seq = seq };
    char **paths = NULL;
    size_t n = 0;
    bool ok = ops->overlay_create(s->store, &wanted, &paths, &n, err) &&
              compare_paths(s, paths, n, seq, err) && compare_blob(s, id, seq, err);

    for (size_t i = 0; i < n; i++)
        free(paths[i]);
    free(paths);
    return ok || error_prefix(err, "point %" PRIu64 " (overlay '%s')", seq, id);
}

bool
verify_point(struct subject *s, uint64_t seq, struct error **err)
{
    AUTOFREE(char) *id = mem_printf("check-%" PRIu64, seq);

    return check_overlay(s, id, seq, err) && ops->overlay_remove(s->store, id, err);
}

bool
verify_points(struct subject *s, struct error **err)
{
    for (uint64_t seq = 1; seq <= s->record.newest; seq++)
        if (record_wants(&s->record, seq) && !verify_point(s, seq, err))
            return false;
    return true;
}

/* The oldest one, and the newest one. */
static bool
verify_ends(struct subject *s, struct error **err)
{
    uint64_t oldest = 1;

    while (oldest < s->record.newest && !record_wants(&s->record, oldest))
        oldest++;
    return verify_point(s, oldest, err) && verify_point(s, s->record.newest, err);
}

/* --- overlays that were there ---------------------------------------------------------
 */

static bool
take_overlay(struct subject *s, const char *id, bool *ret_found, struct error **err)
{
    if (strcmp(id, RECORD_OVERLAY) != 0 || s->record.overlay == 0)
        return ops->overlay_remove(s->store, id, err);
    *ret_found = true;
    return check_overlay(s, id, s->record.overlay, err);
}

/* One that was made must still show its point; one that was not asked for any more goes.
 */
static bool
verify_overlays(struct subject *s, struct error **err)
{
    char **ids = NULL;
    bool ok, found = false;
    size_t n = 0;

    ok = ops->overlays(s->store, &ids, &n, err);
    for (size_t i = 0; i < n; i++) {
        ok = ok && take_overlay(s, ids[i], &found, err);
        free(ids[i]);
    }
    free(ids);
    if (ok && s->record.overlay != 0 && !found)
        return wrong(err, "overlay '%s' is gone", RECORD_OVERLAY);
    return ok;
}

/* --- the folder -----------------------------------------------------------------------
 */

struct listing {
    char *text;
    const char *folder;
    const struct layout *layout;
};

static bool
add_to_listing(int at, const char *name, void *opaque, struct error **err UNUSED)
{
    struct listing *l = opaque;
    AUTOFREE(char) *before = l->text;
    struct stat st = { .st_size = 0 };

    fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW);
    l->text = mem_printf("%s%s/%s %lld\n", before != NULL ? before : "", l->folder, name,
                         S_ISDIR(st.st_mode) ? 0LL : (long long)st.st_size);
    return true;
}

/* Names and sizes of all that is there; the order is the file system's, which is stable.
 */
static bool
list_files(struct subject *s, char **ret, struct error **err)
{
    static const char *const folders[] = { ".", "disks", "journal", "aux", "overlay" };
    struct listing l = { .text = NULL };
    AUTOFD(fd) = -1;

    if (!folder_open(AT_FDCWD, s->folder, &fd, err))
        return false;
    for (size_t i = 0; i < N_ELEMENTS(folders); i++) {
        l.folder = folders[i];
        if (!folder_each(fd, folders[i], add_to_listing, &l, err)) {
            free(l.text);
            return false;
        }
    }
    *ret = l.text;
    return true;
}

static bool
is_layer(const struct layout *l, const char *name)
{
    size_t n = strlen(name);
    AUTOFREE(char) *layer = mem_strdup(name);

    if (n > strlen(SUMS) && strcmp(name + n - strlen(SUMS), SUMS) == 0)
        layer[n - strlen(SUMS)] = '\0';
    return layout_has_layer(l, layer);
}

static bool
check_name(int at UNUSED, const char *name, void *opaque, struct error **err)
{
    static const char *const top[] = { "disks", "journal",     "aux",       "overlay",
                                       "lock",  "layout.json", "README.txt" };
    const struct listing *l = opaque;
    bool known = false;

    if (strcmp(l->folder, "disks") == 0)
        known = is_layer(l->layout, name);
    else if (strcmp(l->folder, "aux") == 0)
        known = layout_has_blob_file(l->layout, name);
    else if (strcmp(l->folder, "journal") == 0)
        known = strspn(name, "0123456789") == strlen(name);
    else
        for (size_t i = 0; i < N_ELEMENTS(top); i++)
            known = known || strcmp(name, top[i]) == 0;
    return known || wrong(err, "'%s/%s' is left over", l->folder, name);
}

bool
verify_files(struct subject *s, struct error **err)
{
    static const char *const folders[] = { ".", "disks", "journal", "aux" };
    AUTOPTR(layout) *layout = NULL;
    AUTOFD(fd) = -1;

    if (!folder_open(AT_FDCWD, s->folder, &fd, err) || !layout_load(fd, &layout, err))
        return false;
    for (size_t i = 0; i < N_ELEMENTS(folders); i++) {
        struct listing l = { .folder = folders[i], .layout = layout };

        if (!folder_each(fd, folders[i], check_name, &l, err))
            return false;
    }
    return true;
}

static bool
check_process(int proc, const char *pid, void *opaque, struct error **err)
{
    struct subject *s = opaque;
    AUTOFREE(char) *link = mem_printf("%s/cwd", pid);
    struct stat st, folder;

    if (pid[0] < '0' || pid[0] > '9' || fstatat(proc, link, &st, 0) < 0 ||
        stat(s->folder, &folder) < 0)
        return true;
    return st.st_dev != folder.st_dev || st.st_ino != folder.st_ino ||
           wrong(err, "process %s is left over", pid);
}

/* --- as after a start -----------------------------------------------------------------
 */

/* Nothing was promised as long as no point was acknowledged: it may have to be made anew.
 */
static bool
open_store(struct subject *s, struct error **err)
{
    AUTOFREE(char) *layout = mem_printf("%s/layout.json", s->folder);

    if (s->record.newest == 0 && access(layout, F_OK) < 0 && !subject_create(s, 0, err))
        return false;
    return subject_open(s, 0, err);
}

/* What the first opening has repaired, a second one finds in order. */
static bool
open_twice(struct subject *s, struct error **err)
{
    AUTOFREE(char) *first = NULL;
    AUTOFREE(char) *second = NULL;

    if (!open_store(s, err) || !list_files(s, &first, err) || !subject_close(s, 0, err) ||
        !subject_open(s, 0, err) || !list_files(s, &second, err))
        return error_prefix(err, "open");
    return strcmp(first, second) == 0 ||
           wrong(err, "a second opening changes files, from\n%sto\n%s", first, second);
}

/* As the daemon: what was not acknowledged goes, the rest is applied. */
static bool
take_journals(struct subject *s, struct error **err)
{
    AUTOFREE(uint64_t) *seqs = NULL;
    size_t n = 0;

    if (!ops->journal_list(s->store, &seqs, &n, err))
        return false;
    for (size_t i = 0; i < n; i++)
        if (seqs[i] > s->record.newest && !ops->journal_drop(s->store, seqs[i], err))
            return false;
    for (size_t i = 0; i < n && seqs[i] <= s->record.newest; i++)
        if (!ops->apply(s->store, seqs[i], NULL, err))
            return error_prefix(err, "apply %" PRIu64, seqs[i]);
    return ops->applied(s->store) == s->record.newest ||
           wrong(err, "applied is %" PRIu64 ", acknowledged %" PRIu64,
                 ops->applied(s->store), s->record.newest);
}

static bool
go_on(struct subject *s, struct error **err)
{
    uint64_t seq = s->record.newest + 1;

    if (model_has_sync(seq) && !subject_sync(s, seq, err))
        return false;
    return subject_receive(s, seq, err) && subject_apply(s, seq, err) &&
           subject_seal(s, seq, err) && subject_retain(s, UINT64_MAX, err) &&
           subject_fold(s, seq, err) && subject_digest(s, seq, err) &&
           subject_scrub(s, seq, err);
}

static bool
verify_destroyed(struct subject *s, struct error **err)
{
    if (!subject_destroy(s, 0, err))
        return false;
    return access(s->folder, F_OK) < 0 || wrong(err, "the folder is left over");
}

bool
verify_store(struct subject *s, struct error **err)
{
    if (s->record.destroying)
        return verify_destroyed(s, err);
    if (!open_twice(s, err) || !verify_overlays(s, err) || !take_journals(s, err) ||
        !verify_points(s, err))
        return error_prefix(err, "after the fault");
    if (!go_on(s, err) || !verify_ends(s, err) || !subject_close(s, 0, err) ||
        !verify_files(s, err) || !folder_each(AT_FDCWD, "/proc", check_process, s, err))
        return error_prefix(err, "going on");
    return true;
}
