#include "drivers/store/apply.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "drivers/store/folder.h"
#include "drivers/store/journal.h"

/* One run. */
struct apply {
    struct replica *r;
    uint64_t seq;
    struct cancel *cancel;
    const struct journal_manifest *manifest;
    size_t disks[WIRE_MAX_DISKS]; /* of the manifest -> of the layout */
    void *content;                /* WIRE_MAX_DATA bytes to unpack into */
};

/* --- blobs -------------------------------------------------------------------------- */

static void
blob_file(const struct apply *a, size_t blob, char ret[LAYOUT_NAME_MAX])
{
    snprintf(ret, LAYOUT_NAME_MAX, "%012llu.%.32s", (unsigned long long)a->seq,
             a->manifest->blobs[blob]);
}

/* All of them empty: one that has no content has no frame either. */
static bool
make_blobs(struct apply *a, struct error **err)
{
    char file[LAYOUT_NAME_MAX];

    for (size_t i = 0; i < a->manifest->n_blobs; i++) {
        AUTOFD(fd) = -1;

        blob_file(a, i, file);
        fd = openat(a->r->blobs_fd, file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
                    FOLDER_FILE_MODE);
        if (fd < 0)
            return folder_errno(err, "open blob '%s'", file);
    }
    return true;
}

static bool
write_blob(struct apply *a, const struct wire_frame *frame, const void *content,
           struct error **err)
{
    char file[LAYOUT_NAME_MAX];
    AUTOFD(fd) = -1;

    blob_file(a, frame->disk, file);
    fd = openat(a->r->blobs_fd, file, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || lseek(fd, (off_t)frame->offset, SEEK_SET) < 0)
        return folder_errno(err, "open blob '%s'", file);
    return folder_write_all(fd, file, content, frame->length, err);
}

static bool
sync_blobs(struct apply *a, struct layout *next, struct error **err)
{
    char file[LAYOUT_NAME_MAX];

    for (size_t i = 0; i < a->manifest->n_blobs; i++) {
        blob_file(a, i, file);
        if (!folder_sync(a->r->blobs_fd, file, err))
            return false;
        layout_set_blob(next, a->manifest->blobs[i], file);
    }
    return a->manifest->n_blobs == 0 || folder_sync(a->r->blobs_fd, ".", err);
}

/* Best effort: open() removes what is left as well. */
static void
remove_old_blobs(struct apply *a, const struct layout *before)
{
    for (size_t i = 0; i < before->n_blobs; i++)
        if (!layout_has_blob_file(a->r->layout, before->blobs[i].file))
            (void)folder_unlink(a->r->blobs_fd, before->blobs[i].file, NULL);
}

/* --- frames ------------------------------------------------------------------------- */

static bool
apply_frame(struct apply *a, const struct wire_frame *frame, const void *payload,
            struct error **err)
{
    const void *content = NULL;

    if (frame->type == WIRE_ZERO)
        return tip_zero(a->r->tip, a->disks[frame->disk], frame->offset, frame->length,
                        err);
    if (frame->type != WIRE_DATA && frame->type != WIRE_BLOB)
        return true; /* the checker let through BEGIN and END besides these */
    if (!wire_unpack(frame, payload, a->content, &content, err))
        return false;
    if (frame->type == WIRE_BLOB)
        return write_blob(a, frame, content, err);
    return tip_write(a->r->tip, a->disks[frame->disk], frame->offset, content,
                     frame->length, err);
}

static bool
apply_frames(struct apply *a, struct error **err)
{
    AUTOPTR(journal_reader) *reader = NULL;
    struct wire_frame frame;
    const void *payload;
    bool end = false;

    if (!journal_reader_open(a->r->journal_fd, a->seq, &reader, err))
        return false;
    for (;;) {
        if (!cancel_check(a->cancel, err) ||
            !journal_reader_next(reader, &frame, &payload, &end, err))
            return false;
        if (end)
            return true;
        if (!apply_frame(a, &frame, payload, err))
            return error_prefix(err, "frame %u", frame.sequence);
    }
}

/* --- the steps ---------------------------------------------------------------------- */

static bool
mark_applying(struct apply *a, struct error **err)
{
    struct layout *next;

    if (a->r->layout->applying == a->seq)
        return true;
    next = layout_copy(a->r->layout);
    next->applying = a->seq;
    return replica_commit(a->r, next, err);
}

static bool
mark_applied(struct apply *a, struct error **err)
{
    AUTOPTR(layout) *before = layout_copy(a->r->layout);
    AUTOPTR(layout) *next = layout_copy(a->r->layout);

    if (!sync_blobs(a, next, err))
        return false;
    next->applied = a->seq;
    next->applying = 0;
    if (!replica_commit(a->r, TAKE(next), err))
        return false;
    remove_old_blobs(a, before);
    return true;
}

static void
map_disks(struct apply *a)
{
    for (size_t i = 0; i < a->manifest->n_disks; i++)
        a->disks[i] = (size_t)(layout_find(a->r->layout, a->manifest->disks[i].target) -
                               a->r->layout->disks);
}

/* A cycle in which no disk changed needs neither the mark nor the tip. */
static bool
write_tip(struct apply *a, bool writes, struct error **err)
{
    bool ok;

    if (!make_blobs(a, err))
        return false;
    if (!writes)
        return apply_frames(a, err);
    if (!mark_applying(a, err) || !replica_need_tip(a->r, err))
        return false;
    tip_set_cancel(a->r->tip, a->cancel);
    ok = apply_frames(a, err) && tip_flush(a->r->tip, err);
    if (ok)
        tip_set_cancel(a->r->tip, NULL);
    else
        replica_drop_tip(a->r);
    return ok;
}

static bool
apply_one(struct replica *r, uint64_t seq, struct cancel *cancel, struct error **err)
{
    struct journal_checker checked = { .seq = 0 };
    AUTOFREE(char) *content = mem_alloc(WIRE_MAX_DATA, 1);
    struct apply a = {
        .r = r,
        .seq = seq,
        .cancel = cancel,
        .manifest = &checked.manifest,
        .content = content,
    };

    if (!journal_verify(r->journal_fd, seq, cancel, &checked, err) ||
        !replica_match(r, checked.manifest.disks, checked.manifest.n_disks, err))
        return false;
    map_disks(&a);

    /* Direct writes before this belong to the state that the journal builds on. */
    return replica_flush(r, err) && write_tip(&a, checked.n_writes > 0, err) &&
           mark_applied(&a, err);
}

bool
apply_unfinished(struct replica *r, struct cancel *cancel, struct error **err)
{
    uint64_t seq = r->layout->applying;

    if (seq == 0 || apply_one(r, seq, cancel, err))
        return true;
    return error_prefix(err, "apply journal %llu again, which was interrupted",
                        (unsigned long long)seq);
}

bool
apply_journal(struct replica *r, uint64_t seq, struct cancel *cancel, struct error **err)
{
    uint64_t unfinished = r->layout->applying;

    if (seq <= r->layout->applied)
        return true;
    if (unfinished > seq)
        return error_set(
            err, ERROR_STORE,
            "apply journal %llu: %llu, which comes after it, is in the tip in "
            "part",
            (unsigned long long)seq, (unsigned long long)unfinished);
    if (unfinished != seq && !apply_unfinished(r, cancel, err))
        return false;
    return apply_one(r, seq, cancel, err) ||
           error_prefix(err, "apply journal %llu", (unsigned long long)seq);
}
