#include "drivers/store/replay.h"

#include <fcntl.h>
#include <stdio.h>

#include "drivers/store/folder.h"

/* One journal. */
struct run {
    const struct replay *r;
    const struct journal_manifest *manifest;
    size_t disks[WIRE_MAX_DISKS]; /* of the manifest -> of the tip */
    void *content;                /* WIRE_MAX_DATA bytes to unpack into */
};

void
replay_blob_file(const char *prefix, const char *blob, char ret[LAYOUT_NAME_MAX])
{
    snprintf(ret, LAYOUT_NAME_MAX, "%.40s%.32s", prefix, blob);
}

/* All of them empty: one that has no content has no frame either. */
static bool
make_blobs(struct run *run, struct error **err)
{
    char file[LAYOUT_NAME_MAX];

    for (size_t i = 0; i < run->manifest->n_blobs; i++) {
        AUTOFD(fd) = -1;

        replay_blob_file(run->r->prefix, run->manifest->blobs[i], file);
        fd = openat(run->r->blobs, file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
                    FOLDER_FILE_MODE);
        if (fd < 0)
            return folder_errno(err, "open blob '%s'", file);
    }
    return true;
}

static bool
begin(struct run *run, struct error **err)
{
    const struct journal_manifest *m = run->manifest;

    for (size_t i = 0; run->r->tip != NULL && i < m->n_disks; i++)
        if (!tip_find(run->r->tip, m->disks[i].target, &run->disks[i]))
            return error_set(err, ERROR_PROTOCOL, "disk '%s' is not open",
                             m->disks[i].target);
    return make_blobs(run, err);
}

static bool
write_blob(struct run *run, const struct wire_frame *frame, const void *content,
           struct error **err)
{
    char file[LAYOUT_NAME_MAX];
    AUTOFD(fd) = -1;

    replay_blob_file(run->r->prefix, run->manifest->blobs[frame->disk], file);
    fd = openat(run->r->blobs, file, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || lseek(fd, (off_t)frame->offset, SEEK_SET) < 0)
        return folder_errno(err, "open blob '%s'", file);
    return folder_write_all(fd, file, content, frame->length, err);
}

static bool
take(struct run *run, const struct wire_frame *frame, const void *payload,
     struct error **err)
{
    struct tip *tip = run->r->tip;
    const void *content = NULL;

    if (frame->type == WIRE_BEGIN)
        return begin(run, err);
    if (frame->type == WIRE_END)
        return true;
    if (tip == NULL && frame->type != WIRE_BLOB)
        return error_set(err, ERROR_CHECKSUM, "it writes, which it did not before");
    if (frame->type == WIRE_ZERO)
        return tip_zero(tip, run->disks[frame->disk], frame->offset, frame->length, err);

    /* The reader let through DATA and BLOB besides these. */
    if (!wire_unpack(frame, payload, run->content, &content, err))
        return false;
    if (frame->type == WIRE_BLOB)
        return write_blob(run, frame, content, err);
    return tip_write(tip, run->disks[frame->disk], frame->offset, content, frame->length,
                     err);
}

bool
replay_journal(const struct replay *r, uint64_t seq, struct error **err)
{
    AUTOPTR(journal_reader) *reader = NULL;
    AUTOFREE(void) *content = mem_alloc(WIRE_MAX_DATA, 1);
    struct run run = { .r = r, .content = content };
    struct wire_frame frame;
    const void *payload;
    bool end = false;

    if (!journal_reader_open(r->journals, seq, &reader, err))
        return false;
    run.manifest = journal_reader_manifest(reader);
    for (;;) {
        if (!cancel_check(r->cancel, err) ||
            !journal_reader_next(reader, &frame, &payload, &end, err))
            return false;
        if (end)
            return true;
        if (!take(&run, &frame, payload, err))
            return error_prefix(err, "journal %llu, frame %u", (unsigned long long)seq,
                                frame.sequence);
        if (r->read != NULL)
            r->read(WIRE_HEADER_BYTES + frame.stored, r->opaque);
    }
}
