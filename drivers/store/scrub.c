#include "drivers/store/scrub.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "drivers/store/blob.h"
#include "drivers/store/chain.h"
#include "drivers/store/folder.h"
#include "drivers/store/image.h"
#include "drivers/store/journal.h"
#include "drivers/store/mark.h"
#include "drivers/store/original.h"
#include "drivers/store/sums.h"

struct scrub {
    struct replica *r;
    struct layout *l; /* as it was at the beginning */
    int disks;        /* the folder */
    struct pace pace;
    const struct scrub_listener *listener;
};

/* --- who needs what ----------------------------------------------------------------- */

size_t
scrub_n_sealed(const struct layout *l, const struct layout_disk *d)
{
    size_t n = 0;

    for (size_t i = 0; i < l->n_marks; i++) {
        const struct layout_view *view = mark_view(&l->marks[i], d->target);

        if (view != NULL)
            n = MAX(n, layout_layer_index(d, view->layer) + 1);
    }
    return n;
}

/* The mark shows this layer, or what is above it. */
static bool
stands_on(const struct layout_mark *m, const struct layout_disk *d, size_t layer)
{
    const struct layout_view *view = mark_view(m, d->target);

    return view != NULL && layout_layer_index(d, view->layer) >= layer;
}

/* The lowest layer above that does not need this one. A resync makes such, and it stays
   one when the mark behind the resync is dropped. */
static size_t
find_cover(const struct layout *l, int disks, const struct layout_disk *d, size_t layer)
{
    size_t n = scrub_n_sealed(l, d);

    for (size_t i = layer + 1; i < n; i++)
        if (chain_is_bottom(disks, d->layers[i]))
            return i;
    return d->n_layers;
}

void
scrub_layer_reach(const struct layout *l, int disks, const struct layout_disk *d,
                  size_t layer, struct store_damage *ret)
{
    size_t cover = find_cover(l, disks, d, layer);
    size_t i = 0;

    while (i < l->n_marks && !stands_on(&l->marks[i], d, layer))
        i++;
    ret->first = i < l->n_marks ? l->marks[i].seq : l->applied;
    while (i < l->n_marks && !stands_on(&l->marks[i], d, cover))
        i++;
    ret->tip = i == l->n_marks;
    ret->last = ret->tip ? UINT64_MAX : l->marks[i].seq - 1;
}

/*
 * A journal leads from the mark before it to the points up to the next mark,
 * whose own layers have all of it. What is behind the last mark is in the tip.
 */
static void
journal_reach(const struct layout *l, uint64_t seq, struct store_damage *ret)
{
    size_t i = 0;

    while (i < l->n_marks && l->marks[i].seq < seq)
        i++;
    ret->first = seq;
    ret->tip = seq > l->applied;
    if (ret->tip)
        ret->last = UINT64_MAX; /* it can be neither applied nor left out */
    else
        ret->last = i < l->n_marks ? l->marks[i].seq - 1 : l->applied;
}

/* --- telling ------------------------------------------------------------------------ */

static void
tell(const struct scrub *s, const struct store_damage *damage)
{
    s->listener->damaged(damage, s->listener->opaque);
}

static char *
verdict_text(const struct sums_verdict *v, const char *layer)
{
    if (v->missing)
        return mem_printf("layer '%s' is missing", layer);
    if (v->n_damaged == 0)
        return mem_printf("layer '%s' has another size than when it was sealed", layer);
    return mem_printf("layer '%s' is damaged in %llu places of a MiB, the first at "
                      "offset %llu%s",
                      layer, (unsigned long long)v->n_damaged,
                      (unsigned long long)v->first_damaged,
                      v->resized ? ", and has another size than when it was sealed" : "");
}

static void
tell_layer(const struct scrub *s, const struct layout_disk *d, size_t layer,
           const char *text)
{
    AUTOFREE(char) *file = mem_printf(REPLICA_DISKS "/%s", d->layers[layer]);
    struct store_damage damage = { .file = file, .text = text };

    scrub_layer_reach(s->l, s->disks, d, layer, &damage);
    tell(s, &damage);
}

/* --- journals ----------------------------------------------------------------------- */

static bool
read_journal(struct scrub *s, uint64_t seq, struct error **err)
{
    AUTOPTR(journal_reader) *reader = NULL;
    struct wire_frame frame;
    const void *payload;
    bool end = false;

    if (!journal_reader_open(s->r->journal_fd, seq, &reader, err))
        return false;
    while (!end) {
        if (!journal_reader_next(reader, &frame, &payload, &end, err) ||
            (!end && !pace_spend(&s->pace, WIRE_HEADER_BYTES + frame.stored, err)))
            return false;
    }
    return true;
}

static bool
check_journal(struct scrub *s, uint64_t seq, struct error **err)
{
    AUTOPTR(error) *why = NULL;
    AUTOFREE(char) *file = NULL;
    struct store_damage damage = { .file = NULL };

    if (read_journal(s, seq, &why) || error_is(why, ERROR_POINT_NOT_FOUND))
        return true; /* it went meanwhile */
    if (error_is(why, ERROR_CANCELLED) || error_is(why, ERROR_TIMEOUT))
        return error_propagate(err, TAKE(why));
    file = mem_printf(REPLICA_JOURNAL "/%012llu", (unsigned long long)seq);
    damage.file = file;
    damage.text = error_message(why);
    journal_reach(s->l, seq, &damage);
    tell(s, &damage);
    return true;
}

static bool
check_journals(struct scrub *s, const uint64_t *seqs, size_t n, struct error **err)
{
    for (size_t i = 0; i < n; i++)
        if (!check_journal(s, seqs[i], err))
            return false;
    return true;
}

/* --- blobs -------------------------------------------------------------------------- */

static bool
names_blob(const struct journal_manifest *m, const char *name)
{
    for (size_t i = 0; i < m->n_blobs; i++)
        if (strcmp(m->blobs[i], name) == 0)
            return true;
    return false;
}

/* The last point from `seq` to `limit` whose blob of this name is the one of seq. */
static uint64_t
last_with_blob(const struct scrub *s, const char *name, uint64_t seq, uint64_t limit)
{
    struct journal_manifest *m = NEW(struct journal_manifest);

    while (seq < limit && journal_peek(s->r->journal_fd, seq + 1, m, NULL) &&
           !names_blob(m, name))
        seq++;
    free(m);
    return seq;
}

static void
tell_blob(const struct scrub *s, const struct layout_blob *b, size_t mark,
          const char *text)
{
    const struct layout_mark *m = &s->l->marks[mark];
    uint64_t limit = mark + 1 < s->l->n_marks ? m[1].seq - 1 : s->l->applied;
    AUTOFREE(char) *file = mem_printf(REPLICA_BLOBS "/%s", b->file);
    struct store_damage damage = { .file = file, .text = text, .first = m->seq };

    damage.last = last_with_blob(s, b->name, m->seq, limit);
    tell(s, &damage);
}

/* Retain may have dropped the mark, and its blobs, since we began. */
static bool
is_wanted(const struct scrub *s, uint64_t mark)
{
    AUTOPTR(layout) *now = replica_layout(s->r);

    return mark_find(now, mark) != NULL;
}

/* Each mark's, though some share a file: each tells of its own points. The newest
   point's are a mark's before anybody is given them. */
static bool
check_blobs(const struct scrub *s, struct error **err)
{
    for (size_t i = 0; i < s->l->n_marks; i++)
        for (size_t j = 0; j < s->l->marks[i].n_blobs; j++) {
            const struct layout_blob *b = &s->l->marks[i].blobs[j];
            AUTOPTR(error) *why = NULL;
            AUTOFREE(char) *data = NULL;

            if (blob_read(s->r->blobs_fd, b, &data, &why))
                continue;
            if (!error_is(why, ERROR_CHECKSUM))
                return error_propagate(err, TAKE(why));
            if (is_wanted(s, s->l->marks[i].seq))
                tell_blob(s, b, i, error_message(why));
        }
    return true;
}

/* --- layers ------------------------------------------------------------------------- */

/* What a fold is writing, or has begun to write, is not as it will be. */
static bool
is_being_folded(const struct layout *l, const char *layer)
{
    return strcmp(l->fold.lower, layer) == 0;
}

static bool
check_tables(struct scrub *s, const struct layout_disk *d, size_t layer,
             struct error **err)
{
    AUTOPTR(error) *why = NULL;
    char path[LAYOUT_PATH_MAX];

    if (layout_is_raw(d->layers[layer]))
        return true;
    layout_path(d->layers[layer], path);
    if (image_check(s->r->fd, path, &s->pace, &why))
        return true;
    if (!error_is(why, ERROR_CHECKSUM))
        return error_propagate(err, TAKE(why));
    tell_layer(s, d, layer, error_message(why));
    return true;
}

/* Sums that cannot be read make no point a bad one: only nobody can tell. */
static void
tell_sums(const struct scrub *s, const char *layer, const struct error *why)
{
    AUTOFREE(char) *file = mem_printf(REPLICA_DISKS "/%s" SUMS_SUFFIX, layer);
    struct store_damage damage = {
        .file = file, .first = UINT64_MAX, .last = 0, .text = error_message(why)
    };

    tell(s, &damage);
}

static bool
load_sums(const struct scrub *s, const char *layer, struct sums **ret, struct error **err)
{
    AUTOPTR(error) *why = NULL;

    if (sums_load(s->disks, layer, ret, &why))
        return true;
    if (!error_is(why, ERROR_CHECKSUM))
        return error_propagate(err, TAKE(why));
    tell_sums(s, layer, why);
    *ret = NULL;
    return sums_remove(s->disks, layer, err);
}

/* So that no fold makes it look right; it may have been restored meanwhile. */
static bool
remember(const struct scrub *s, const char *layer, struct sums *sums,
         const struct sums_verdict *v, struct error **err)
{
    if (v->missing || sums->damaged == sums_found_damage(v))
        return true;
    sums->damaged = sums_found_damage(v);
    return sums_save(s->disks, layer, sums, err);
}

/* Compares with the sums that are there. */
static bool
check_known(struct scrub *s, const char *layer, struct sums_verdict *ret,
            struct error **err)
{
    struct sums_job job = { s->disks, layer, &s->pace };
    AUTOPTR(sums) *sums = NULL;

    if (!load_sums(s, layer, &sums, err))
        return false;
    if (sums != NULL)
        return sums_check(&job, sums, NULL, ret, err) &&
               remember(s, layer, sums, ret, err);
    ret->missing = faccessat(s->disks, layer, F_OK, 0) < 0 && errno == ENOENT;
    return true;
}

/* Makes those that are not there yet; what stays unknown could not be read. */
static bool
make_unknown(struct scrub *s, const struct layout_disk *d, size_t layer,
             struct error **err)
{
    struct sums_job job = { s->disks, d->layers[layer], &s->pace };
    AUTOPTR(sums) *sums = NULL;
    AUTOFREE(char) *text = NULL;

    if (!sums_digest(&job, err) ||
        !sums_load_or_none(s->disks, d->layers[layer], &sums, err))
        return false;
    if (sums == NULL || sums_complete(sums))
        return true;
    text = mem_printf("layer '%s' cannot be read in places", d->layers[layer]);
    tell_layer(s, d, layer, text);
    return true;
}

static bool
check_layer(struct scrub *s, const struct layout_disk *d, size_t layer,
            struct error **err)
{
    struct sums_verdict v = { .missing = false };
    AUTOFREE(char) *text = NULL;

    if (!check_known(s, d->layers[layer], &v, err))
        return false;
    if (sums_found_damage(&v)) {
        text = verdict_text(&v, d->layers[layer]);
        tell_layer(s, d, layer, text);
        return true;
    }
    if (is_being_folded(s->l, d->layers[layer]))
        return true;
    return make_unknown(s, d, layer, err) && check_tables(s, d, layer, err);
}

/* There are no checksums of it, but it must be what it was. */
static bool
check_original(const struct scrub *s, const struct layout_disk *d, struct error **err)
{
    struct store_damage damage = { .file = d->original.path };
    enum store_original_state state;
    AUTOFREE(char) *text = NULL;

    if (d->original.path == NULL)
        return true;
    if (!original_look(&d->original, &state, err))
        return false;
    scrub_layer_reach(s->l, s->disks, d, 0, &damage);
    if (state == STORE_ORIGINAL_SAME || damage.first > damage.last)
        return true;
    text = mem_printf("the original image '%s' %s", d->original.path,
                      state == STORE_ORIGINAL_GONE ? "is gone, or not whole any more"
                                                   : "has changed");
    damage.text = text;
    tell(s, &damage);
    return true;
}

static bool
check_layers(struct scrub *s, struct error **err)
{
    for (size_t i = 0; i < s->l->n_disks; i++) {
        const struct layout_disk *d = &s->l->disks[i];
        size_t n = scrub_n_sealed(s->l, d);

        if (!check_original(s, d, err))
            return false;
        for (size_t j = 0; j < n; j++)
            if (!check_layer(s, d, j, err))
                return error_prefix(err, "layer '%s'", d->layers[j]);
    }
    return true;
}

/* --- all ---------------------------------------------------------------------------- */

static uint64_t
file_bytes(int at, const char *name)
{
    struct stat st;

    return fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? 0
                                                           : (uint64_t)st.st_blocks * 512;
}

/* How much there is to read, about. */
static uint64_t
count_bytes(const struct scrub *s, const uint64_t *seqs, size_t n)
{
    uint64_t total = 0;

    for (size_t i = 0; i < n; i++) {
        AUTOFREE(char) *name = mem_printf("%012llu", (unsigned long long)seqs[i]);

        total += file_bytes(s->r->journal_fd, name);
    }
    for (size_t i = 0; i < s->l->n_disks; i++)
        for (size_t j = 0; j < scrub_n_sealed(s->l, &s->l->disks[i]); j++)
            total += file_bytes(s->disks, s->l->disks[i].layers[j]);
    return total;
}

static void
end(struct scrub *s)
{
    layout_free(s->l);
    if (s->disks >= 0)
        close(s->disks);
}

static bool
begin(struct scrub *s, struct replica *r, const struct store_effort *effort,
      struct error **err)
{
    *s = (struct scrub){ .r = r, .disks = -1, .pace = { .effort = effort } };
    s->l = replica_layout(r);
    return folder_open(r->fd, REPLICA_DISKS, &s->disks, err);
}

static bool
run(struct scrub *s, struct error **err)
{
    AUTOFREE(uint64_t) *seqs = NULL;
    size_t n = 0;

    journals_list(&s->r->journals, &seqs, &n);
    s->pace.total = count_bytes(s, seqs, n);
    return check_journals(s, seqs, n, err) && check_blobs(s, err) && check_layers(s, err);
}

bool
scrub_run(struct replica *r, const struct store_effort *effort,
          const struct scrub_listener *listener, uint64_t *ret_bytes, struct error **err)
{
    struct scrub s;
    bool ok = begin(&s, r, effort, err);

    s.listener = listener;
    ok = ok && run(&s, err);
    if (ok)
        *ret_bytes = s.pace.done;
    end(&s);
    return ok;
}

/* --- digest ------------------------------------------------------------------------- */

static bool
digest(struct scrub *s, struct error **err)
{
    for (size_t i = 0; i < s->l->n_disks; i++) {
        const struct layout_disk *d = &s->l->disks[i];
        size_t n = scrub_n_sealed(s->l, d);

        for (size_t j = 0; j < n; j++) {
            struct sums_job job = { s->disks, d->layers[j], &s->pace };

            if (!is_being_folded(s->l, d->layers[j]) && !sums_digest(&job, err))
                return error_prefix(err, "layer '%s'", d->layers[j]);
        }
    }
    return true;
}

bool
scrub_digest(struct replica *r, const struct store_effort *effort, struct error **err)
{
    struct scrub s;
    bool ok = begin(&s, r, effort, err) && digest(&s, err);

    end(&s);
    return ok;
}
