#include "drivers/store/fold.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/json.h"
#include "drivers/store/chain.h"
#include "drivers/store/clusters.h"
#include "drivers/store/folder.h"
#include "drivers/store/image.h"
#include "drivers/store/original.h"
#include "drivers/store/overlay.h"
#include "drivers/store/scrub.h"
#include "drivers/store/sums.h"

struct fold {
    struct replica *r;
    struct layout *l;   /* as it was at the beginning */
    int disks;          /* the folder */
    struct cancel stop; /* an overlay wants what we fold */
    struct pace pace;

    struct layout_fold what;
    const struct layout_disk *d;
    size_t lower; /* the index; upper and next follow */
    bool hidden;  /* upper stands alone: lower is not needed at all */

    struct sums
        *lower_sums; /* as they must be while it is written; NULL: there are none */
    struct sums *next_sums;
    bool lower_differs, next_differs; /* they have to be saved */
};

static const char *
upper(const struct fold *f)
{
    return f->d->layers[f->lower + 1];
}

static const char *
next(const struct fold *f)
{
    return f->d->layers[f->lower + 2];
}

/* --- which ------------------------------------------------------------------------ */

/* Does anything need what this layer holds? */
static bool
is_needed(const struct fold *f, const struct layout_disk *d, size_t layer)
{
    struct store_damage reach;

    scrub_layer_reach(f->l, f->disks, d, layer, &reach);
    return reach.first <= reach.last;
}

/* Known to be damaged: to fold it would make the damage look right. */
static bool
is_spoilt(const struct fold *f, const struct layout_disk *d, size_t layer)
{
    AUTOPTR(sums) *s = NULL;

    return sums_load_or_none(f->disks, d->layers[layer], &s, NULL) && s != NULL &&
           s->damaged && is_needed(f, d, layer);
}

/* The lowest layer that no overlay stands on, nor on one above it. The first one on an
   original stays empty: it shows what the original holds, and no more of it. */
static size_t
first_free(const struct fold *f, const struct layout_disk *d)
{
    size_t highest;

    if (overlay_in_use(f->r, d, &highest))
        return highest + 1;
    return d->original.path != NULL ? 1 : 0;
}

/* A layer right below one that stands alone, and that no mark names. */
static bool
find_hidden(const struct fold *f, const struct layout_disk *d, size_t *ret)
{
    size_t first = first_free(f, d);

    for (size_t i = scrub_n_sealed(f->l, d); i-- > first + 1;)
        if (!mark_names_layer(f->l, d->layers[i - 1]) &&
            chain_is_bottom(f->disks, d->layers[i])) {
            *ret = i - 1;
            return true;
        }
    return false;
}

/* The lowest layer that can take in the one above it. */
static bool
find_lower(const struct fold *f, const struct layout_disk *d, size_t *ret)
{
    size_t n = scrub_n_sealed(f->l, d);
    size_t first = first_free(f, d);

    for (size_t i = first; i + 2 < n; i++)
        if (!mark_names_layer(f->l, d->layers[i]) && !is_spoilt(f, d, i) &&
            !is_spoilt(f, d, i + 1) && !is_spoilt(f, d, i + 2)) {
            *ret = i;
            return true;
        }
    return false;
}

static uint64_t
layer_bytes(const struct fold *f, const char *layer)
{
    struct stat st;

    return fstatat(f->disks, layer, &st, 0) < 0 ? 0 : (uint64_t)st.st_blocks;
}

static void
take(struct fold *f, const struct layout_disk *d, size_t lower)
{
    f->d = d;
    f->lower = lower;
    f->hidden = chain_is_bottom(f->disks, d->layers[lower + 1]);
    f->what = (struct layout_fold){ .target = "" };
    snprintf(f->what.target, sizeof f->what.target, "%s", d->target);
    snprintf(f->what.lower, sizeof f->what.lower, "%s", d->layers[lower]);
    snprintf(f->what.upper, sizeof f->what.upper, "%s", d->layers[lower + 1]);
}

/* Of all disks the least work. */
static bool
choose(struct fold *f)
{
    uint64_t least = UINT64_MAX;

    for (size_t i = 0; i < f->l->n_disks; i++) {
        const struct layout_disk *d = &f->l->disks[i];
        uint64_t bytes;
        size_t lower;

        if (find_hidden(f, d, &lower))
            bytes = 0;
        else if (find_lower(f, d, &lower))
            bytes = layer_bytes(f, d->layers[lower + 1]);
        else
            continue;
        if (f->d == NULL || bytes < least) {
            least = bytes;
            take(f, d, lower);
        }
    }
    return f->d != NULL;
}

static bool
is_begun(const struct fold *f)
{
    return f->l->fold.target[0] != '\0';
}

/* What was begun comes first; layout_load() has checked that its layers are there. */
static bool
resume(struct fold *f)
{
    const struct layout_disk *d = layout_find(f->l, f->l->fold.target);
    size_t lower = layout_layer_index(d, f->l->fold.lower);

    if (lower + 2 >= scrub_n_sealed(f->l, d))
        return false;
    take(f, d, lower);
    return true;
}

/* --- checked before ----------------------------------------------------------------- */

static bool
record(struct fold *f, const struct layout_fold *what, struct error **err)
{
    struct layout *l = replica_change_begin(f->r);

    l->fold = *what;
    return replica_change_end(f->r, l, err);
}

/* The layers stay as they are, and so does all that stands on them. */
static bool
refuse(struct fold *f, const char *layer, struct error *why, struct error **err)
{
    static const struct layout_fold none = { .target = "" };
    struct sums_job job = { f->disks, layer, &f->pace };
    AUTOPTR(error) *reason = why;

    if (!sums_blame(&job, err) || (is_begun(f) && !record(f, &none, err)))
        return false;
    return error_propagate(err, TAKE(reason));
}

/* The blocks that are known in s, and not in but; s may be NULL. */
static bool
check(struct fold *f, size_t layer, const struct sums *s, const struct sums *but,
      struct error **err)
{
    const char *name = f->d->layers[layer];
    struct sums_job job = { f->disks, name, &f->pace };
    struct sums_verdict v;
    struct error *why = NULL;

    if (s == NULL)
        return true;
    if (!sums_check(&job, s, but, &v, err))
        return false;
    if (!sums_found_damage(&v) || !is_needed(f, f->d, layer))
        return true;
    error_set(&why, ERROR_CHECKSUM, "layer '%s' is damaged and cannot be folded", name);
    return refuse(f, name, why, err);
}

static bool
check_upper(struct fold *f, struct error **err)
{
    AUTOPTR(sums) *s = NULL;

    return sums_load_or_none(f->disks, upper(f), &s, err) &&
           check(f, f->lower + 1, s, NULL, err);
}

static void
forget_range(uint64_t offset, uint64_t length, void *opaque)
{
    sums_forget(opaque, offset, length);
}

/* What the fold may write of the lower layer. */
static bool
forget_written(struct fold *f, struct sums *s, struct error **err)
{
    struct error *why = NULL;
    uint64_t capacity = 0;

    if (!clusters_capacity(f->disks, upper(f), &capacity, &why) ||
        !clusters_each(f->disks, upper(f), forget_range, s, &why))
        return error_is(why, ERROR_CHECKSUM) ? refuse(f, upper(f), why, err)
                                             : error_propagate(err, why);
    if (!layout_is_raw(f->what.lower))
        sums_forget_all(s);
    else if (capacity > s->size && s->size > 0)
        sums_forget(s, s->size - 1, 1); /* the last block becomes a longer one */
    s->changing = true;
    return true;
}

/* What is written is checked before: else damage beside it would be summed as right. */
static bool
check_lower(struct fold *f, struct error **err)
{
    AUTOPTR(sums) *before = NULL;

    if (!sums_load_or_none(f->disks, f->what.lower, &before, err))
        return false;
    if (before == NULL)
        return true;
    f->lower_sums = sums_copy(before);
    if (!forget_written(f, f->lower_sums, err) ||
        !check(f, f->lower, before, f->lower_sums, err))
        return false;
    if (sums_know_nothing(f->lower_sums))
        f->lower_sums->damaged = false; /* nothing of it is left */
    f->lower_differs = !sums_equal(before, f->lower_sums);
    return true;
}

/* Its header, which will name another layer, unless it stands alone. */
static bool
check_next(struct fold *f, struct error **err)
{
    AUTOPTR(sums) *before = NULL;

    if (chain_is_bottom(f->disks, next(f)))
        return true;
    if (!sums_load_or_none(f->disks, next(f), &before, err))
        return false;
    if (before == NULL)
        return true;
    f->next_sums = sums_copy(before);
    sums_forget(f->next_sums, 0, 1);
    f->next_differs = !sums_equal(before, f->next_sums);
    return check(f, f->lower + 2, before, f->next_sums, err);
}

/* --- the copy ----------------------------------------------------------------------- */

static struct json_object *
describe_layer(const char *layer, struct json_object *backing)
{
    struct json_object *o = json_object_new_object();
    struct json_object *file = json_object_new_object();
    char path[LAYOUT_PATH_MAX];

    layout_path(layer, path);
    json_set_string(file, "driver", "file");
    json_set_string(file, "filename", path);
    json_set_string(o, "driver", layout_is_raw(layer) ? "raw" : "qcow2");
    json_set(o, "file", file);
    if (!layout_is_raw(layer))
        json_set(o, "backing", backing); /* null: it has none, whatever its header says */
    return o;
}

/* The upper layer and all that it stands on: no name in a header is trusted. */
static char *
describe_chain(const struct fold *f)
{
    size_t bottom = chain_find_bottom(f->disks, f->d, f->lower);
    struct json_object *o = NULL;
    char *text;

    if (bottom == 0 && f->d->original.path != NULL)
        o = original_node(&f->d->original);
    for (size_t i = bottom; i <= f->lower + 1; i++)
        o = describe_layer(f->d->layers[i], o);
    text = mem_printf("json:%s", json_text(o));
    json_object_put(o);
    return text;
}

/*
 * Before the copy, and while nobody opens the chain: the table that is moved by this
 * is read when an image is opened.
 */
static bool
grow_lower(struct fold *f, const char *path, struct error **err)
{
    uint64_t wanted = 0, present = 0;
    bool raw = layout_is_raw(f->what.lower);
    bool ok = clusters_capacity(f->disks, upper(f), &wanted, err) &&
              (raw || clusters_capacity(f->disks, f->what.lower, &present, err));

    if (ok && (raw || present < wanted)) {
        struct layout *l = replica_change_begin(f->r);

        ok = image_grow(f->r->fd, path, wanted, err);
        replica_change_abort(f->r, l);
    }
    return ok;
}

/* A copy that was killed has left clusters that nothing uses. */
static bool
reclaim_lower(struct fold *f, const char *path, struct error **err)
{
    struct error *why = NULL;

    if (!is_begun(f) || layout_is_raw(f->what.lower) ||
        image_reclaim(f->r->fd, path, &f->pace, &why))
        return true;
    return error_is(why, ERROR_CHECKSUM) ? refuse(f, f->what.lower, why, err)
                                         : error_propagate(err, why);
}

static bool
copy_down(struct fold *f, struct error **err)
{
    AUTOFREE(char) *chain = describe_chain(f);
    char path[LAYOUT_PATH_MAX];

    layout_path(f->what.lower, path);
    return reclaim_lower(f, path, err) && grow_lower(f, path, err) &&
           image_commit(f->r->fd, chain, &f->pace, err) &&
           folder_sync(f->r->fd, path, err);
}

/* --- the change --------------------------------------------------------------------- */

/* An overlay that is made later has the header read by QEMU. */
static bool
move_next(struct fold *f, struct error **err)
{
    char path[LAYOUT_PATH_MAX];
    bool alone = false;

    if (!clusters_alone(f->disks, next(f), &alone, err))
        return false;
    layout_path(next(f), path);
    return alone ||
           ((!f->next_differs || sums_save(f->disks, next(f), f->next_sums, err)) &&
            image_rebase(f->r->fd, path, f->what.lower, err));
}

/* The layer that goes. */
static const char *
gone(const struct fold *f)
{
    return f->hidden ? f->what.lower : f->what.upper;
}

static bool
commit(struct fold *f, struct error **err)
{
    struct layout *l = replica_change_begin(f->r);
    struct layout_disk *d = layout_find(l, f->what.target);
    size_t i = layout_layer_index(d, gone(f));

    d->n_layers--;
    memmove(d->layers[i], d->layers[i + 1], (d->n_layers - i) * sizeof d->layers[0]);
    if (!f->hidden)
        mark_move(l, f->what.upper, f->what.lower);
    l->fold = (struct layout_fold){ .target = "" };
    return replica_change_end(f->r, l, err);
}

static bool
remove_gone(struct fold *f, struct error **err)
{
    return folder_unlink(f->disks, gone(f), err) && sums_remove(f->disks, gone(f), err) &&
           folder_sync(f->disks, ".", err);
}

/* While it is in memory; one that is stopped leaves the block to the next digest. */
static void
sum_header(struct fold *f)
{
    struct sums_job job = { f->disks, next(f), &f->pace };

    if (f->next_sums != NULL)
        (void)sums_digest(&job, NULL);
}

/* --- all of it ---------------------------------------------------------------------- */

static bool
prepare(struct fold *f, struct error **err)
{
    return check_upper(f, err) && check_lower(f, err) && check_next(f, err) &&
           (is_begun(f) || record(f, &f->what, err)) &&
           (!f->lower_differs || sums_save(f->disks, f->what.lower, f->lower_sums, err));
}

static bool
run(struct fold *f, struct error **err)
{
    bool ok;

    if (!overlay_fold_begins(f->r, &f->what, &f->stop))
        return error_set(err, ERROR_CANCELLED, "an overlay stands on it");
    ok = (f->hidden || (prepare(f, err) && copy_down(f, err) && move_next(f, err))) &&
         commit(f, err);
    overlay_fold_ended(f->r);
    if (!ok)
        return error_prefix(err, "fold layer '%s' into '%s'", f->what.upper,
                            f->what.lower);
    if (!remove_gone(f, err))
        return false;
    if (!f->hidden)
        sum_header(f);
    return true;
}

/* A fold that was begun waits as long as an overlay stands on its layers. */
static bool
is_free(const struct fold *f)
{
    size_t highest;

    return !overlay_in_use(f->r, f->d, &highest) || highest < f->lower;
}

bool
fold_once(struct replica *r, const struct store_effort *effort, bool *ret_folded,
          struct error **err)
{
    struct fold f = { .r = r, .disks = -1 };
    bool ok, there = false;

    f.pace = (struct pace){ .effort = effort, .also = &f.stop };
    f.l = replica_layout(r);
    ok = folder_open(r->fd, REPLICA_DISKS, &f.disks, err);
    if (ok)
        there = (is_begun(&f) ? resume(&f) : choose(&f)) && is_free(&f);
    ok = ok && (!there || run(&f, err));
    if (ok)
        *ret_folded = there;
    sums_free(f.lower_sums);
    sums_free(f.next_sums);
    layout_free(f.l);
    if (f.disks >= 0)
        close(f.disks);
    return ok;
}
