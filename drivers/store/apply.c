#include "drivers/store/apply.h"

#include <stdio.h>

#include "drivers/store/blob.h"
#include "drivers/store/folder.h"
#include "drivers/store/journal.h"
#include "drivers/store/replay.h"
#include "drivers/store/seal.h"

/* One run. */
struct apply {
    struct replica *r;
    uint64_t seq;
    struct cancel *cancel;
    const struct journal_manifest *manifest;
    char prefix[LAYOUT_NAME_MAX]; /* of its blobs' files */
    bool first;                   /* since direct writes */
};

/* --- blobs -------------------------------------------------------------------------- */

/* Makes them durable; `ret` has WIRE_MAX_BLOBS. */
static bool
finish_blobs(const struct apply *a, struct layout_blob *ret, struct error **err)
{
    for (size_t i = 0; i < a->manifest->n_blobs; i++) {
        struct layout_blob *b = &ret[i];

        snprintf(b->name, sizeof b->name, "%s", a->manifest->blobs[i]);
        replay_blob_file(a->prefix, b->name, b->file);
        if (!folder_sync(a->r->blobs_fd, b->file, err) ||
            !blob_describe(a->r->blobs_fd, b, err))
            return false;
    }
    return a->manifest->n_blobs == 0 || folder_sync(a->r->blobs_fd, ".", err);
}

/* Best effort: open() removes what is left as well. */
static void
remove_old_blobs(struct replica *r, const struct layout *before)
{
    AUTOPTR(layout) *l = replica_layout(r);

    for (size_t i = 0; i < before->n_blobs; i++)
        if (!layout_has_blob_file(l, before->blobs[i].file))
            (void)folder_unlink(r->blobs_fd, before->blobs[i].file, NULL);
}

/* --- the steps ---------------------------------------------------------------------- */

static bool
mark_applying(struct apply *a, struct error **err)
{
    AUTOPTR(layout) *l = replica_layout(a->r);
    struct layout *next;

    if (l->applying == a->seq)
        return true;
    next = replica_change_begin(a->r);
    next->applying = a->seq;
    return replica_change_end(a->r, next, err);
}

/*
 * No replay may ever have to cross direct writes: the first point behind them is a mark
 * from the instant at which it is one.
 */
static bool
mark_applied(struct apply *a, struct error **err)
{
    AUTOPTR(layout) *before = replica_layout(a->r);
    struct layout_blob blobs[WIRE_MAX_BLOBS];
    struct seal_tips tips;
    struct layout *next;

    if (!finish_blobs(a, blobs, err) ||
        (a->first && (!seal_cut(a->r, err) || !seal_make_tips(a->r, &tips, err))))
        return false;
    next = replica_change_begin(a->r);
    next->applied = a->seq;
    next->applying = 0;
    for (size_t i = 0; i < a->manifest->n_blobs; i++)
        layout_set_blob(next, &blobs[i]);
    if (a->first) {
        next->direct = false;
        seal_add_tips(&tips, next);
        mark_add(next, a->seq, true);
    }
    if (!replica_change_end(a->r, next, err))
        return false;
    remove_old_blobs(a->r, before);
    return true;
}

/* A cycle in which no disk changed needs neither the mark nor the tip. */
static bool
write_tip(struct apply *a, bool writes, struct error **err)
{
    struct replay replay = { .journals = a->r->journal_fd,
                             .blobs = a->r->blobs_fd,
                             .prefix = a->prefix,
                             .cancel = a->cancel };
    bool ok;

    if (!writes)
        return replay_journal(&replay, a->seq, err);
    if (!mark_applying(a, err) || !replica_need_tip(a->r, err))
        return false;
    replay.tip = a->r->tip;
    tip_set_cancel(a->r->tip, a->cancel);
    ok = replay_journal(&replay, a->seq, err) && tip_flush(a->r->tip, err);
    if (ok)
        tip_set_cancel(a->r->tip, NULL);
    else
        replica_drop_tip(a->r);
    return ok;
}

static bool
apply_one(struct replica *r, const struct layout *l, uint64_t seq, struct cancel *cancel,
          struct error **err)
{
    struct journal_checker checked = { .seq = 0 };
    struct apply a = {
        .r = r,
        .seq = seq,
        .cancel = cancel,
        .manifest = &checked.manifest,
        .first = l->direct,
    };

    snprintf(a.prefix, sizeof a.prefix, "%012llu.", (unsigned long long)seq);
    if (!replica_settle(r, err) ||
        !journal_verify(r->journal_fd, seq, cancel, &checked, err) ||
        !replica_match(r, checked.manifest.disks, checked.manifest.n_disks, err))
        return false;

    /* Direct writes before this belong to the state that the journal builds on. */
    return replica_flush(r, err) && write_tip(&a, checked.n_writes > 0, err) &&
           mark_applied(&a, err);
}

bool
apply_unfinished(struct replica *r, struct cancel *cancel, struct error **err)
{
    AUTOPTR(layout) *l = replica_layout(r);

    if (l->applying == 0 || apply_one(r, l, l->applying, cancel, err))
        return true;
    return error_prefix(err, "apply journal %llu again, which was interrupted",
                        (unsigned long long)l->applying);
}

bool
apply_journal(struct replica *r, uint64_t seq, struct cancel *cancel, struct error **err)
{
    AUTOPTR(layout) *l = replica_layout(r);
    AUTOPTR(layout) *now = NULL;

    if (seq <= l->applied)
        return true;
    if (l->applying > seq)
        return error_set(
            err, ERROR_STORE,
            "apply journal %llu: %llu, which comes after it, is in the tip in "
            "part",
            (unsigned long long)seq, (unsigned long long)l->applying);
    if (l->applying != seq && !apply_unfinished(r, cancel, err))
        return false;
    now = replica_layout(r);
    return apply_one(r, now, seq, cancel, err) ||
           error_prefix(err, "apply journal %llu", (unsigned long long)seq);
}
