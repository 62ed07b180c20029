#include "tests/faults/subject.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "common/json.h"
#include "common/wire.h"
#include "drivers/store/qcow2.h"
#include "tests/faults/model.h"
#include "tests/faults/originals.h"

#define MAX_FOLDS 100
#define MAX_TRIES 4

static const struct store_ops *const ops = &store_qcow2_ops;

/* --- life --------------------------------------------------------------------------- */

static bool
map_faults(struct subject *s, struct error **err)
{
    const char *path = getenv(FAULTLINE_STATE);
    AUTOFD(fd) = -1;
    void *map;

    if (path == NULL)
        return true;
    fd = open(path, O_RDWR | O_CLOEXEC);
    map = fd < 0
              ? MAP_FAILED
              : mmap(NULL, sizeof *s->faults, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return error_errno(err, ERROR_STORE, "map '%s'", path);
    s->faults = map;
    s->record.n_promises = &s->faults->promises;
    atomic_store(&s->faults->subject, getpid());
    return true;
}

bool
subject_begin(struct subject *s, const char *folder, const char *scratch,
              struct error **err)
{
    AUTOFREE(char) *record = mem_printf("%s/record", scratch);

    *s = (struct subject){ .folder = mem_strdup(folder),
                           .scratch = mem_strdup(scratch),
                           .record = { .fd = -1 } };
    return record_open(record, &s->record, err) && map_faults(s, err);
}

void
subject_end(struct subject *s)
{
    if (s->store != NULL)
        ops->close(TAKE(s->store));
    record_close(&s->record);
    free(s->folder);
    free(s->scratch);
}

bool
subject_create(struct subject *s, uint64_t seq, struct error **err)
{
    struct store_disk disks[MODEL_DISKS];
    struct originals o;
    bool ok;

    model_disks(seq, disks);
    originals_open(s->scratch, &o);
    for (size_t i = 0; seq >= MODEL_HOME && i < MODEL_DISKS; i++)
        disks[i].stands_on = &o.images[i];
    ok = (seq < MODEL_HOME || record_home(&s->record, err)) &&
         ops->create(s->folder, disks, MODEL_DISKS, err);
    originals_close(&o);
    return ok;
}

bool
subject_open(struct subject *s, uint64_t seq UNUSED, struct error **err)
{
    return ops->open(s->folder, &s->store, err);
}

bool
subject_close(struct subject *s, uint64_t seq UNUSED, struct error **err UNUSED)
{
    ops->close(TAKE(s->store));
    return true;
}

bool
subject_destroy(struct subject *s, uint64_t seq UNUSED, struct error **err)
{
    return record_destroying(&s->record, err) && ops->destroy(s->folder, err);
}

/* --- direct writes --------------------------------------------------------------------
 */

static bool
write_directly(size_t disk, uint64_t offset, const void *data, size_t length,
               void *opaque, struct error **err)
{
    struct subject *s = opaque;
    struct store_disk disks[MODEL_DISKS];

    model_disks(0, disks); /* for their names */
    if (data == NULL)
        return ops->zero(s->store, disks[disk].target, offset, length, err);
    return ops->write(s->store, disks[disk].target, offset, data, length, err);
}

/* As the daemon does: below a resync, what the points so far need is sealed. */
static bool
make_way(struct subject *s, uint64_t seq, struct error **err)
{
    if (seq == 1 || seq == MODEL_BEFORE + 1)
        return true;
    if (s->record.sync == seq)
        return ops->reset(s->store, err);
    return ops->seal(s->store, err) && record_sync(&s->record, seq, err);
}

bool
subject_sync(struct subject *s, uint64_t seq, struct error **err)
{
    return make_way(s, seq, err) && model_sync(seq, write_directly, s, err) &&
           ops->flush(s->store, err);
}

/* --- receive --------------------------------------------------------------------------
 */

struct sender {
    struct journal *journal;
    uint32_t sequence;
};

static bool
send_frame(struct sender *to, struct wire_frame frame, const void *payload,
           struct error **err)
{
    uint8_t header[WIRE_HEADER_BYTES];

    frame.sequence = to->sequence++;
    wire_encode(&frame, payload, header);
    return ops->journal_append(to->journal, &frame, payload, err);
}

static bool
send_json(struct sender *to, enum wire_type type, struct json_object *o,
          struct error **err)
{
    const char *text = json_text(o);
    uint32_t n = (uint32_t)strlen(text);

    return send_frame(to, (struct wire_frame){ .type = type, .length = n, .stored = n },
                      text, err);
}

static struct json_object *
begin_json(uint64_t seq)
{
    struct json_object *o = json_object_new_object();
    struct json_object *list = json_object_new_array();
    struct json_object *blobs = json_object_new_array();
    struct store_disk disks[MODEL_DISKS];

    model_disks(seq, disks);
    for (size_t i = 0; i < MODEL_DISKS; i++) {
        struct json_object *d = json_object_new_object();

        json_set_string(d, "target", disks[i].target);
        json_set_u64(d, "capacity", disks[i].capacity_bytes);
        json_object_array_add(list, d);
    }
    json_append_string(blobs, "domain.xml");
    json_set_u64(o, "sequence", seq);
    json_set(o, "disks", list);
    json_set(o, "blobs", blobs);
    return o;
}

static bool
send_write(size_t disk, uint64_t offset, const void *data, size_t length, void *opaque,
           struct error **err)
{
    struct wire_frame frame = { .type = data != NULL ? WIRE_DATA : WIRE_ZERO,
                                .disk = (uint16_t)disk,
                                .offset = offset,
                                .length = length,
                                .stored = data != NULL ? (uint32_t)length : 0 };

    return send_frame(opaque, frame, data != NULL ? data : "", err);
}

/* Its text is "xml of SEQ". */
static bool
send_blob(struct sender *to, uint64_t seq, struct error **err)
{
    AUTOFREE(char) *xml = mem_printf("xml of %" PRIu64, seq);
    uint32_t n = (uint32_t)strlen(xml);

    return send_frame(
        to, (struct wire_frame){ .type = WIRE_BLOB, .length = n, .stored = n }, xml, err);
}

static bool
send_point(struct sender *to, uint64_t seq, struct error **err)
{
    AUTOJSON *begin = begin_json(seq);
    AUTOJSON *end = json_object_new_object();

    json_set_u64(end, "timestamp", seq);
    return send_json(to, WIRE_BEGIN, begin, err) &&
           model_delta(seq, send_write, to, err) && send_blob(to, seq, err) &&
           send_json(to, WIRE_END, end, err);
}

bool
subject_receive(struct subject *s, uint64_t seq, struct error **err)
{
    struct sender to = { .journal = NULL };
    AUTOPTR(model) *m = NULL;

    if (!ops->journal_begin(s->store, seq, &to.journal, err))
        return false;
    if (!send_point(&to, seq, err)) {
        ops->journal_abort(to.journal);
        return false;
    }
    if (!ops->journal_commit(to.journal, err))
        return false;
    m = model_new(seq);
    return record_acked(&s->record, seq, model_hash(m), err);
}

/* --- the rest -------------------------------------------------------------------------
 */

bool
subject_apply(struct subject *s, uint64_t seq, struct error **err)
{
    return ops->apply(s->store, seq, NULL, err);
}

bool
subject_seal(struct subject *s, uint64_t seq UNUSED, struct error **err)
{
    return ops->seal(s->store, err);
}

static uint64_t
first_seq(const struct subject *s)
{
    return s->record.home ? MODEL_HOME : 0;
}

bool
subject_retain(struct subject *s, uint64_t kept, struct error **err)
{
    uint64_t seqs[64];
    size_t n = 0;

    if (ops->retain == NULL)
        return true;
    for (uint64_t i = 1; i < 64; i++) {
        bool stays = (kept >> i & 1) != 0 || kept >> i == 0;
        uint64_t seq = first_seq(s) + i;

        if (record_wants(&s->record, seq) && stays)
            seqs[n++] = seq;
        else if (record_wants(&s->record, seq) && !record_gave_up(&s->record, seq, err))
            return false;
    }
    return ops->retain(s->store, seqs, n, err);
}

bool
subject_fold(struct subject *s, uint64_t seq UNUSED, struct error **err)
{
    struct store_effort effort = { .rate_bytes_s = 0 };
    bool folded = true;

    for (int i = 0; folded && ops->fold != NULL; i++) {
        if (i >= MAX_FOLDS)
            return error_set(err, ERROR_INTERNAL, "there is always more to fold");
        if (!ops->fold(s->store, &effort, &folded, err))
            return false;
    }
    return true;
}

bool
subject_digest(struct subject *s, uint64_t seq UNUSED, struct error **err)
{
    struct store_effort effort = { .rate_bytes_s = 0 };

    return ops->digest == NULL || ops->digest(s->store, &effort, err);
}

static void
note_damage(const struct store_damage *damage, void *opaque)
{
    char **found = opaque;
    AUTOFREE(char) *before = *found;

    *found = mem_printf("%s%s: %s; ", before != NULL ? before : "", damage->file,
                        damage->text);
}

bool
subject_scrub(struct subject *s, uint64_t seq UNUSED, struct error **err)
{
    struct store_effort effort = { .rate_bytes_s = 0 };
    AUTOFREE(char) *found = NULL;
    uint64_t bytes = 0;

    if (ops->scrub == NULL)
        return true;
    if (!ops->scrub(s->store, &effort, note_damage, &found, &bytes, err))
        return false;
    return found == NULL || error_set(err, ERROR_CHECKSUM, "scrub found %s", found);
}

/* --- steps that may fail --------------------------------------------------------------
 */

static void
make_space(struct faultline_state *faults)
{
    atomic_store(&faults->full, 0);
    if (faults->ballast[0] != '\0')
        unlink(faults->ballast);
}

/* May the step fail like this, now? Then the fault goes away after its second time. */
static bool
is_expected(struct subject *s, int try, const struct error *why)
{
    if (s->faults == NULL || atomic_load(&s->faults->fired) == 0)
        return false;
    if (s->faults->action == FAULTLINE_KILL_CHILD)
        return try == 0 && error_code(why) == ERROR_STORE;
    if (s->faults->action != FAULTLINE_FULL || error_code(why) != ERROR_NO_SPACE ||
        atomic_load(&s->faults->full) == 0)
        return false;
    atomic_fetch_add(&s->faults->n_refused, 1);
    if (try > 0)
        make_space(s->faults);
    return true;
}

bool
subject_run(struct subject *s, const struct subject_step *step, struct error **err)
{
    if (s->faults != NULL)
        snprintf(s->faults->phase, sizeof s->faults->phase, "%s", step->phase);
    for (int try = 0; try < MAX_TRIES; try++) {
        AUTOPTR(error) *why = NULL;

        if (step->run(s, step->seq, &why))
            return true;
        if (!is_expected(s, try, why))
            return error_set(err, error_code(why), "%s %" PRIu64 ", try %d: %s: %s",
                             step->phase, step->seq, try + 1,
                             error_code_string(error_code(why)), error_message(why));
    }
    return error_set(err, ERROR_INTERNAL, "%s %" PRIu64 " fails and fails", step->phase,
                     step->seq);
}
