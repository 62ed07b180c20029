#include "drivers/store/retain.h"

#include "drivers/store/folder.h"
#include "drivers/store/journal.h"

/* For each mark of the layout. */
struct need {
    bool wanted;
    uint64_t last; /* the newest point that is rebuilt from it */
};

struct plan {
    const struct layout *l;
    struct need *needs;
};

/* What a point needs; nothing if it is none any more. */
static void
want(struct plan *p, uint64_t seq)
{
    const struct layout_mark *m = mark_before(p->l, seq);
    struct need *need;

    if (m == NULL)
        return;
    need = &p->needs[m - p->l->marks];
    need->wanted = true;
    need->last = MAX(need->last, seq);
}

/* Overlays stand on marks; those that are being made need the way to their point too. */
static void
want_footings(struct plan *p, struct replica *r)
{
    pthread_mutex_lock(&r->mutex);
    for (size_t i = 0; i < r->footings.n; i++) {
        const struct footing *f = &r->footings.items[i];

        want(p, f->mark);
        if (!f->ready)
            want(p, f->seq);
    }
    pthread_mutex_unlock(&r->mutex);
}

static struct need *
plan_needs(struct replica *r, const struct layout *l, const uint64_t *seqs, size_t n)
{
    struct plan p = { .l = l, .needs = mem_alloc(l->n_marks, sizeof *p.needs) };

    for (size_t i = 0; i < n; i++)
        want(&p, seqs[i]);
    want_footings(&p, r);
    want(&p, UINT64_MAX); /* the newest mark, and all behind it */
    return p.needs;
}

/* Before the first mark there is nothing but what waits to be applied. */
static bool
journal_stays(uint64_t seq, void *opaque)
{
    const struct plan *p = opaque;
    const struct layout_mark *m = seq > 0 ? mark_before(p->l, seq - 1) : NULL;

    if (m == NULL)
        return seq > p->l->applied;
    return seq <= p->needs[m - p->l->marks].last;
}

/* --- what goes ---------------------------------------------------------------------- */

/*
 * Journals that lead to a mark behind direct writes lead nowhere without it: were one
 * still there when its mark is gone, a replay could cross what it must not. So they
 * are gone for good before their marks are.
 */
static bool
drop_bridges(struct replica *r, const struct plan *p, struct error **err)
{
    bool dropped = false;

    for (size_t i = 0; i < p->l->n_marks; i++) {
        const struct layout_mark *m = &p->l->marks[i];

        if (!m->base || p->needs[i].wanted)
            continue;
        if (!journal_drop(r->journal_fd, m->seq, err))
            return false;
        journals_remove(&r->journals, m->seq);
        dropped = true;
    }
    return !dropped || folder_sync(r->journal_fd, ".", err);
}

/* The journals that go are forgotten at the same moment as the marks: an overlay that
   is begun later must not count on them. They are in *ret also if the marks stay. */
static bool
commit(struct replica *r, const struct plan *p, struct layout *next,
       struct journals_item **ret, size_t *ret_n, struct error **err)
{
    if (!drop_bridges(r, p, err)) {
        replica_change_abort(r, next);
        return false;
    }
    journals_sweep(&r->journals, journal_stays, (void *)p, ret, ret_n);
    for (size_t i = 0; i < p->l->n_marks; i++)
        if (!p->needs[i].wanted)
            mark_drop(next, p->l->marks[i].seq);
    if (next->n_marks == p->l->n_marks) {
        replica_change_abort(r, next);
        return true;
    }
    return replica_change_end(r, next, err);
}

static bool
remove_journals(struct replica *r, const struct journals_item *gone, size_t n,
                struct error **err)
{
    for (size_t i = 0; i < n; i++)
        if (!journal_drop(r->journal_fd, gone[i].seq, err))
            return false;
    return true;
}

static bool
remove_blobs(struct replica *r, const struct plan *p, struct error **err)
{
    AUTOPTR(layout) *now = replica_layout(r);

    for (size_t i = 0; i < p->l->n_marks; i++) {
        const struct layout_mark *m = &p->l->marks[i];

        for (size_t j = 0; !p->needs[i].wanted && j < m->n_blobs; j++)
            if (!layout_has_blob_file(now, m->blobs[j].file) &&
                !folder_unlink(r->blobs_fd, m->blobs[j].file, err))
                return false;
    }
    return true;
}

/*
 * On a full disk the layout cannot be written. The journals go all the same: a mark
 * without those behind it is as good, and they are the room that the next try needs.
 */
bool
retain_points(struct replica *r, const uint64_t *seqs, size_t n, struct error **err)
{
    AUTOFREE(struct journals_item) *gone = NULL;
    AUTOFREE(struct need) *needs = NULL;
    AUTOPTR(layout) *before = NULL;
    struct layout *next = replica_change_begin(r);
    struct plan p;
    size_t n_gone = 0;
    bool committed;

    before = replica_layout(r);
    needs = plan_needs(r, before, seqs, n);
    p = (struct plan){ .l = before, .needs = needs };
    committed = commit(r, &p, next, &gone, &n_gone, err);
    return remove_journals(r, gone, n_gone, committed ? err : NULL) && committed &&
           remove_blobs(r, &p, err);
}
