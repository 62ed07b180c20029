#include "drivers/store/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "common/json.h"
#include "common/units.h"
#include "drivers/store/folder.h"

#define PART       ".part"
#define MIN_DIGITS 12

static void
journal_name(uint64_t seq, const char *suffix, char ret[JOURNAL_NAME_MAX])
{
    snprintf(ret, JOURNAL_NAME_MAX, "%0*llu%s", MIN_DIGITS, (unsigned long long)seq,
             suffix);
}

/* --- what may come when ------------------------------------------------------------ */

static bool
take_disk(struct json_object *o, struct journal_manifest *m, struct error **err)
{
    struct store_disk *d = &m->disks[m->n_disks];
    const char *target = NULL;

    if (!json_get_string(o, "target", &target, err) ||
        !json_get_u64(o, "capacity", WIRE_MAX_DISK_BYTES, &d->capacity_bytes, err) ||
        !layout_check_disk(target, d->capacity_bytes, err))
        return false;
    for (size_t i = 0; i < m->n_disks; i++)
        if (strcmp(m->disks[i].target, target) == 0)
            return error_set(err, ERROR_PROTOCOL, "disk '%s' is there twice", target);
    snprintf(d->target, sizeof d->target, "%s", target);
    m->n_disks++;
    return true;
}

static bool
take_blob(struct json_object *o, struct journal_manifest *m, struct error **err)
{
    const char *name = json_object_get_string(o);

    if (name == NULL)
        return error_set(err, ERROR_PROTOCOL, "a blob has no name");
    if (!layout_check_blob(name, err))
        return false;
    for (size_t i = 0; i < m->n_blobs; i++)
        if (strcmp(m->blobs[i], name) == 0)
            return error_set(err, ERROR_PROTOCOL, "blob '%s' is there twice", name);
    snprintf(m->blobs[m->n_blobs++], LAYOUT_NAME_MAX, "%s", name);
    return true;
}

typedef bool (*take_fn)(struct json_object *o, struct journal_manifest *m,
                        struct error **err);

static bool
take_array(struct json_object *array, size_t max, take_fn take,
           struct journal_manifest *m, struct error **err)
{
    size_t n = json_object_array_length(array);

    if (n > max)
        return error_set(err, ERROR_PROTOCOL, "BEGIN lists more than %zu", max);
    for (size_t i = 0; i < n; i++)
        if (!take(json_object_array_get_idx(array, i), m, err))
            return false;
    return true;
}

static bool
take_begin(struct journal_checker *c, const struct wire_frame *frame, const void *payload,
           struct error **err)
{
    struct json_object *disks = NULL, *blobs = NULL;
    AUTOJSON *o = NULL;
    uint64_t seq = 0;

    if (!json_parse(payload, frame->stored, &o, err) ||
        !json_get_u64(o, "sequence", UINT64_MAX, &seq, err) ||
        !json_get_array(o, "disks", &disks, err) ||
        !json_get_array(o, "blobs", &blobs, err))
        return error_prefix(err, "BEGIN");
    if (seq != c->seq)
        return error_set(err, ERROR_PROTOCOL, "BEGIN is that of sequence %llu",
                         (unsigned long long)seq);
    return take_array(disks, WIRE_MAX_DISKS, take_disk, &c->manifest, err) &&
           take_array(blobs, WIRE_MAX_BLOBS, take_blob, &c->manifest, err);
}

static bool
take_range(struct journal_checker *c, const struct wire_frame *frame, struct error **err)
{
    const struct store_disk *d;

    if (frame->disk >= c->manifest.n_disks)
        return error_set(err, ERROR_PROTOCOL, "there is no disk %u", frame->disk);
    d = &c->manifest.disks[frame->disk];
    if (frame->length > d->capacity_bytes ||
        frame->offset > d->capacity_bytes - frame->length)
        return error_set(err, ERROR_PROTOCOL, "%llu bytes at %llu are beyond disk '%s'",
                         (unsigned long long)frame->length,
                         (unsigned long long)frame->offset, d->target);
    c->n_writes++;
    return true;
}

/* Pieces of a blob come in order and without gaps. */
static bool
take_blob_piece(struct journal_checker *c, const struct wire_frame *frame,
                struct error **err)
{
    if (frame->disk >= c->manifest.n_blobs)
        return error_set(err, ERROR_PROTOCOL, "there is no blob %u", frame->disk);
    if (frame->offset != c->blob_bytes[frame->disk] ||
        frame->length > WIRE_MAX_BLOB_BYTES - frame->offset)
        return error_set(
            err, ERROR_PROTOCOL, "%llu bytes at %llu do not follow blob '%s'",
            (unsigned long long)frame->length, (unsigned long long)frame->offset,
            c->manifest.blobs[frame->disk]);
    c->blob_bytes[frame->disk] += frame->length;
    return true;
}

static bool
take_type(struct journal_checker *c, const struct wire_frame *frame, const void *payload,
          struct error **err)
{
    switch (frame->type) {
    case WIRE_BEGIN:
        return take_begin(c, frame, payload, err);
    case WIRE_DATA:
    case WIRE_ZERO:
        return take_range(c, frame, err);
    case WIRE_BLOB:
        return take_blob_piece(c, frame, err);
    case WIRE_END:
        c->ended = true;
        return true;
    case WIRE_HELLO:
    case WIRE_READY:
    case WIRE_HASHES:
    case WIRE_WANT:
    case WIRE_ACK:
    case WIRE_ERROR:
    case WIRE_N_TYPES:
        break;
    }
    return error_set(err, ERROR_PROTOCOL, "a frame of type %d is not for a journal",
                     (int)frame->type);
}

bool
journal_checker_take(struct journal_checker *c, const struct wire_frame *frame,
                     const void *payload, struct error **err)
{
    bool ok;

    if (frame->sequence != c->next)
        ok = error_set(err, ERROR_PROTOCOL, "it has number %u", frame->sequence);
    else if ((frame->type == WIRE_BEGIN) != (c->next == 0))
        ok = error_set(err, ERROR_PROTOCOL, "BEGIN must be the first, and only that");
    else if (c->ended)
        ok = error_set(err, ERROR_PROTOCOL, "it comes after END");
    else
        ok = take_type(c, frame, payload, err);
    if (!ok)
        return error_prefix(err, "journal %llu, frame %u", (unsigned long long)c->seq,
                            c->next);
    c->next++;
    return true;
}

/* --- writing ------------------------------------------------------------------------ */

struct journal {
    int folder;
    int fd;
    char part[JOURNAL_NAME_MAX];
    char name[JOURNAL_NAME_MAX];
    struct journal_checker checker;
    struct journals *journals; /* NULL: nobody is told */
};

void
journal_tell(struct journal *j, struct journals *journals)
{
    j->journals = journals;
}

bool
journal_new(int at, uint64_t seq, struct journal **ret, struct error **err)
{
    struct journal *j = NEW(struct journal);

    j->checker.seq = seq;
    j->fd = -1;
    journal_name(seq, PART, j->part);
    journal_name(seq, "", j->name);
    j->folder = fcntl(at, F_DUPFD_CLOEXEC, 0);
    if (j->folder >= 0)
        j->fd = openat(at, j->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
                       FOLDER_FILE_MODE);
    if (j->fd < 0) {
        folder_errno(err, "open journal '%s'", j->part);
        journal_abort(j);
        return false;
    }
    *ret = j;
    return true;
}

static bool
write_frame(struct journal *j, const uint8_t *header, const void *payload, size_t stored,
            struct error **err)
{
    struct iovec parts[] = {
        { .iov_base = (void *)header, .iov_len = WIRE_HEADER_BYTES },
        { .iov_base = (void *)payload, .iov_len = stored },
    };
    ssize_t done = writev(j->fd, parts, 2);
    size_t n;

    if (done < 0 && errno != EINTR)
        return folder_errno(err, "write journal '%s'", j->part);
    n = done < 0 ? 0 : (size_t)done;
    if (n < WIRE_HEADER_BYTES) {
        if (!folder_write_all(j->fd, j->part, header + n, WIRE_HEADER_BYTES - n, err))
            return false;
        n = WIRE_HEADER_BYTES;
    }
    n -= WIRE_HEADER_BYTES;
    return folder_write_all(j->fd, j->part, (const char *)payload + n, stored - n, err);
}

bool
journal_append(struct journal *j, const struct wire_frame *frame, const void *payload,
               struct error **err)
{
    struct wire_frame copy = *frame;
    uint8_t header[WIRE_HEADER_BYTES];

    if (!journal_checker_take(&j->checker, frame, payload, err))
        return false;

    /* The header is written anew; its hash must be the one that came with it. */
    wire_encode(&copy, payload, header);
    if (copy.hash != frame->hash)
        return error_set(err, ERROR_CHECKSUM, "journal %llu, frame %u changed on its way",
                         (unsigned long long)j->checker.seq, frame->sequence);
    if (!write_frame(j, header, payload, frame->stored, err))
        return false;

    /* Here already: whoever commits holds locks that others wait for. */
    if (frame->type == WIRE_END && fsync(j->fd) < 0)
        return folder_errno(err, "fsync journal '%s'", j->part);
    return true;
}

static void
journal_free(struct journal *j)
{
    if (j->fd >= 0)
        close(j->fd);
    if (j->folder >= 0)
        close(j->folder);
    free(j);
}

void
journal_abort(struct journal *j)
{
    if (j == NULL)
        return;
    if (j->fd >= 0)
        unlinkat(j->folder, j->part, 0);
    journal_free(j);
}

static bool
journal_finish(struct journal *j, struct error **err)
{
    struct stat st;

    if (!j->checker.ended)
        return error_set(err, ERROR_PROTOCOL, "journal %llu has no END",
                         (unsigned long long)j->checker.seq);
    if (fsync(j->fd) < 0 || fstat(j->fd, &st) < 0)
        return folder_errno(err, "fsync journal '%s'", j->part);
    if (renameat(j->folder, j->part, j->folder, j->name) < 0)
        return folder_errno(err, "rename journal '%s'", j->part);
    if (!folder_sync(j->folder, ".", err))
        return false;
    if (j->journals != NULL)
        journals_add(j->journals, j->checker.seq, (uint64_t)st.st_size);
    return true;
}

bool
journal_commit(struct journal *j, struct error **err)
{
    if (!journal_finish(j, err)) {
        journal_abort(j);
        return false;
    }
    journal_free(j);
    return true;
}

/* --- reading ------------------------------------------------------------------------ */

struct journal_reader {
    int fd;
    char name[JOURNAL_NAME_MAX];
    void *payload;
    size_t size; /* of payload */
    struct journal_checker checker;
};

bool
journal_reader_open(int at, uint64_t seq, struct journal_reader **ret, struct error **err)
{
    AUTOPTR(journal_reader) *r = NEW(struct journal_reader);

    r->checker.seq = seq;
    journal_name(seq, "", r->name);
    r->fd = openat(at, r->name, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0 && errno == ENOENT)
        return error_set(err, ERROR_POINT_NOT_FOUND, "there is no journal %llu",
                         (unsigned long long)seq);
    if (r->fd < 0)
        return folder_errno(err, "open journal '%s'", r->name);
    posix_fadvise(r->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    *ret = TAKE(r);
    return true;
}

void
journal_reader_free(struct journal_reader *r)
{
    if (r == NULL)
        return;
    if (r->fd >= 0)
        close(r->fd);
    free(r->payload);
    free(r);
}

/* Reads n bytes, fewer only at the file's end. */
static bool
read_up_to(struct journal_reader *r, void *data, size_t n, size_t *ret_n,
           struct error **err)
{
    size_t have = 0;

    while (have < n) {
        ssize_t done = read(r->fd, (char *)data + have, n - have);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return folder_errno(err, "read journal '%s'", r->name);
        if (done == 0)
            break;
        have += (size_t)done;
    }
    *ret_n = have;
    return true;
}

static bool
cut_off(const struct journal_reader *r, struct error **err)
{
    return error_set(err, ERROR_CHECKSUM,
                     "journal %llu is damaged: it is cut off at frame %u",
                     (unsigned long long)r->checker.seq, r->checker.next);
}

static bool
read_payload(struct journal_reader *r, size_t stored, struct error **err)
{
    size_t n = 0;

    if (stored > r->size) {
        free(r->payload);
        r->payload = mem_alloc_pages(stored); /* wire_decode() has checked the limit */
        r->size = stored;
    }
    if (!read_up_to(r, r->payload, stored, &n, err))
        return false;
    return n == stored || cut_off(r, err);
}

/* All of it was checked before it was written: what does not fit now is damage. */
static bool
damaged(const struct journal_reader *r, struct error *why, struct error **err)
{
    if (!error_is(why, ERROR_PROTOCOL) && !error_is(why, ERROR_CHECKSUM))
        return error_propagate(err, why);
    error_set(err, ERROR_CHECKSUM, "journal %llu is damaged: frame %u: %s",
              (unsigned long long)r->checker.seq, r->checker.next, error_message(why));
    error_free(why);
    return false;
}

bool
journal_reader_next(struct journal_reader *r, struct wire_frame *ret_frame,
                    const void **ret_payload, bool *ret_end, struct error **err)
{
    struct error *why = NULL;
    uint8_t header[WIRE_HEADER_BYTES];
    struct wire_frame frame;
    size_t n = 0;

    if (!read_up_to(r, header, sizeof header, &n, err))
        return false;
    if (n == 0 && r->checker.ended) {
        *ret_end = true;
        return true;
    }
    if (n < sizeof header)
        return cut_off(r, err);
    if (!wire_decode(header, &frame, &why))
        return damaged(r, why, err);
    if (!read_payload(r, frame.stored, err))
        return false;
    if (!wire_check(&frame, r->payload, &why) ||
        !journal_checker_take(&r->checker, &frame, r->payload, &why))
        return damaged(r, why, err);
    *ret_frame = frame;
    *ret_payload = r->payload;
    *ret_end = false;
    return true;
}

const struct journal_manifest *
journal_reader_manifest(const struct journal_reader *r)
{
    return &r->checker.manifest;
}

bool
journal_peek(int at, uint64_t seq, struct journal_manifest *ret, struct error **err)
{
    AUTOPTR(journal_reader) *r = NULL;
    struct wire_frame frame;
    const void *payload;
    bool end = false;

    if (!journal_reader_open(at, seq, &r, err) ||
        !journal_reader_next(r, &frame, &payload, &end, err))
        return false;
    *ret = r->checker.manifest;
    return true;
}

bool
journal_verify(int at, uint64_t seq, struct cancel *cancel, struct journal_checker *ret,
               struct error **err)
{
    AUTOPTR(journal_reader) *r = NULL;
    struct wire_frame frame;
    const void *payload;
    bool end = false;

    if (!journal_reader_open(at, seq, &r, err))
        return false;
    while (!end)
        if (!cancel_check(cancel, err) ||
            !journal_reader_next(r, &frame, &payload, &end, err))
            return false;
    *ret = r->checker;
    return true;
}

/* --- the folder --------------------------------------------------------------------- */

struct seqs {
    uint64_t *seqs;
    size_t n;
};

static bool
collect(int at UNUSED, const char *name, void *opaque, struct error **err UNUSED)
{
    struct seqs *found = opaque;
    char wanted[JOURNAL_NAME_MAX];
    uint64_t seq;

    if (!units_parse_u64(name, 0, UINT64_MAX, &seq, NULL))
        return true;
    journal_name(seq, "", wanted);
    if (strcmp(name, wanted) != 0)
        return true; /* not ours: a number has one name */
    found->seqs = mem_realloc(found->seqs, found->n + 1, sizeof *found->seqs);
    found->seqs[found->n++] = seq;
    return true;
}

static int
compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

bool
journal_list(int at, uint64_t **ret, size_t *ret_n, struct error **err)
{
    struct seqs found = { .seqs = NULL };

    if (!folder_each(at, ".", collect, &found, err)) {
        free(found.seqs);
        return false;
    }
    if (found.n > 0)
        qsort(found.seqs, found.n, sizeof *found.seqs, compare);
    *ret = found.seqs;
    *ret_n = found.n;
    return true;
}

bool
journal_bytes(int at, uint64_t seq, uint64_t *ret, struct error **err)
{
    char name[JOURNAL_NAME_MAX];
    struct stat st;

    journal_name(seq, "", name);
    if (fstatat(at, name, &st, 0) < 0)
        return folder_errno(err, "look at journal '%s'", name);
    *ret = (uint64_t)st.st_size;
    return true;
}

bool
journal_drop(int at, uint64_t seq, struct error **err)
{
    char name[JOURNAL_NAME_MAX];

    journal_name(seq, "", name);
    return folder_unlink(at, name, err);
}

static bool
remove_part(int at, const char *name, void *opaque UNUSED, struct error **err)
{
    size_t n = strlen(name);

    if (n < strlen(PART) || strcmp(name + n - strlen(PART), PART) != 0)
        return true;
    return folder_unlink(at, name, err);
}

bool
journal_remove_parts(int at, struct error **err)
{
    return folder_each(at, ".", remove_part, NULL, err);
}
