#include "tests/faults/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "drivers/store/folder.h"
#include "drivers/store/layout.h"
#include "drivers/store/qcow2.h"
#include "tests/faults/model.h"
#include "tests/faults/originals.h"
#include "tests/faults/views.h"

#define SUMS ".sums"

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
add_views(struct views *v, char **paths, size_t n, const struct record_overlay *o,
          struct error **err)
{
    if (n != MODEL_DISKS)
        return wrong(err, "it has %zu disks", n);
    for (size_t i = 0; i < n; i++) {
        AUTOFREE(char) *name = mem_printf("%s-%zu", o->id, i);
        const struct view view = { .path = paths[i],
                                   .name = name,
                                   .seq = o->seq,
                                   .disk = i,
                                   .written = o->written };

        views_add(v, &view);
    }
    return true;
}

static bool
check_model(struct subject *s, uint64_t seq, struct error **err)
{
    AUTOPTR(model) *m = model_new(seq);

    return model_hash(m) == s->record.hashes[seq] ||
           wrong(err, "the model is not what it was when the point was acknowledged");
}

/* Makes the overlay, or finds it; its disks are looked at later. */
static bool
take_view(struct subject *s, const struct record_overlay *o, struct views *v,
          struct error **err)
{
    struct store_overlay wanted = { .id = o->id, .seq = o->seq };
    char **paths = NULL;
    size_t n = 0;
    bool ok = check_model(s, o->seq, err) &&
              ops->overlay_create(s->store, &wanted, &paths, &n, err) &&
              add_views(v, paths, n, o, err) && compare_blob(s, o->id, o->seq, err);

    for (size_t i = 0; i < n; i++)
        free(paths[i]);
    free(paths);
    return ok || error_prefix(err, "point %" PRIu64 " (overlay '%s')", o->seq, o->id);
}

static void
name_check(uint64_t seq, struct record_overlay *ret)
{
    *ret = (struct record_overlay){ .seq = seq };
    snprintf(ret->id, sizeof ret->id, "check-%" PRIu64, seq);
}

/* All at once: what costs is to start the one who reads them. */
static bool
verify_seqs(struct subject *s, const uint64_t *seqs, size_t n, struct error **err)
{
    struct views v = { NULL, 0 };
    struct record_overlay o;
    bool ok = true;

    for (size_t i = 0; ok && i < n; i++) {
        name_check(seqs[i], &o);
        ok = take_view(s, &o, &v, err);
    }
    ok = ok && views_check(&v, s->scratch, err);
    s->n_seen += ok ? n : 0;
    for (size_t i = 0; ok && i < n; i++) {
        name_check(seqs[i], &o);
        ok = ops->overlay_remove(s->store, o.id, err);
    }
    views_clear(&v);
    return ok;
}

bool
verify_point(struct subject *s, uint64_t seq, struct error **err)
{
    return verify_seqs(s, &seq, 1, err);
}

bool
verify_points(struct subject *s, struct error **err)
{
    uint64_t seqs[RECORD_MAX_SEQ];
    size_t n = 0;

    for (uint64_t seq = 1; seq <= s->record.newest; seq++)
        if (record_wants(&s->record, seq))
            seqs[n++] = seq;
    return verify_seqs(s, seqs, n, err);
}

/* The oldest one, and the newest one. */
static bool
verify_ends(struct subject *s, struct error **err)
{
    uint64_t seqs[] = { 1, s->record.newest };

    while (seqs[0] < s->record.newest && !record_wants(&s->record, seqs[0]))
        seqs[0]++;
    return verify_seqs(s, seqs, seqs[0] == seqs[1] ? 1 : 2, err);
}

/* --- overlays that were there ---------------------------------------------------------
 */

static bool
settle_overlay(struct subject *s, const char *id, struct views *v, size_t *n_found,
               struct error **err)
{
    const struct record_overlay *promise = record_find(&s->record, id);

    if (promise == NULL)
        return ops->overlay_remove(s->store, id, err);
    *n_found += 1;
    return take_view(s, promise, v, err);
}

static size_t
count_promises(const struct record *r)
{
    size_t n = 0;

    for (size_t i = 0; i < RECORD_MAX_OVERLAYS; i++)
        n += r->overlays[i].id[0] != '\0';
    return n;
}

/* One that was made must still show its point; one that was not asked for any more goes.
   A change of name that was begun is done once more, as the daemon does it. */
static bool
verify_overlays(struct subject *s, struct error **err)
{
    size_t n = 0, n_found = 0, n_promised;
    struct views v = { NULL, 0 };
    char **ids = NULL;
    bool ok;

    if (s->record.keeping && !subject_keep_again(s, err))
        return false;
    n_promised = count_promises(&s->record);
    ok = ops->overlays(s->store, &ids, &n, err);
    for (size_t i = 0; i < n; i++) {
        ok = ok && settle_overlay(s, ids[i], &v, &n_found, err);
        free(ids[i]);
    }
    free(ids);
    ok = ok && views_check(&v, s->scratch, err);
    views_clear(&v);
    return ok && (n_found == n_promised ||
                  wrong(err, "%zu overlays are there, not %zu", n_found, n_promised));
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

    if (s->record.newest == 0 && access(layout, F_OK) < 0 &&
        !subject_create(s, s->record.home ? MODEL_HOME : 0, err))
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

/* The originals' point is asked for until it was acknowledged. */
static bool
ask_again(struct subject *s, struct error **err)
{
    return !s->record.home || s->record.newest != 0 ||
           subject_first(s, MODEL_BEFORE, err);
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
    if (s->record.home && !originals_check(s->scratch, err))
        return false;
    if (s->record.destroying)
        return verify_destroyed(s, err);
    if (!open_twice(s, err) || !verify_overlays(s, err) || !ask_again(s, err) ||
        !take_journals(s, err) || !verify_points(s, err))
        return error_prefix(err, "after the fault");
    if (!go_on(s, err) || !verify_ends(s, err) || !subject_close(s, 0, err) ||
        !verify_files(s, err) || !folder_each(AT_FDCWD, "/proc", check_process, s, err))
        return error_prefix(err, "going on");
    return true;
}
