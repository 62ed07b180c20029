#include "tests/unit/replica_kit.h"

#include "drivers/store/journal.h"
#include "drivers/store/replay.h"

static const struct store_ops ops = {
    .journal_append = journal_append,
    .journal_commit = journal_commit,
    .journal_abort = journal_abort,
};

struct place {
    char folder[64];
    int fd;
};

static int
make_place(void **state)
{
    struct place *p = NEW(struct place);

    snprintf(p->folder, sizeof p->folder, "/tmp/vdr-journal-XXXXXX");
    if (mkdtemp(p->folder) == NULL)
        return -1;
    p->fd = open(p->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *state = p;
    return p->fd < 0;
}

static int
remove_place(void **state)
{
    struct place *p = *state;

    close(p->fd);
    kit_remove_tree(p->folder);
    free(p);
    return 0;
}

static const struct kit_model models[] = {
    { .disk = { .target = "vda", .capacity_bytes = 1 << 20 } },
    { .disk = { .target = "vdb", .capacity_bytes = 4096 + 512 } },
};

static struct kit_writer
start(struct place *p, uint64_t seq, uint64_t said_seq)
{
    struct kit_writer w = { .ops = &ops };
    struct error *err = NULL;
    AUTOJSON *begin = kit_begin(said_seq, models, 2);

    assert_ok(journal_new(p->fd, seq, &w.journal, &err), err);
    kit_append_json(w.ops, w.journal, &w.frame, WIRE_BEGIN, begin);
    return w;
}

static void
write_journal(struct place *p, uint64_t seq)
{
    struct kit_writer w = start(p, seq, seq);
    uint8_t data[3000];
    uint64_t seed = seq + 1;

    kit_fill(&seed, data, sizeof data);
    kit_data(&w, 0, 512, data, sizeof data);
    kit_zero(&w, 1, 4096, 512);
    kit_data(&w, 1, 0, data, 512);
    kit_finish(&w, seq);
}

static bool
verify(struct place *p, uint64_t seq, struct error **err)
{
    struct journal_checker checked;

    return journal_verify(p->fd, seq, NULL, &checked, err);
}

static void
frames_come_back_as_they_were_appended(void **state)
{
    static const enum wire_type wanted[] = { WIRE_BEGIN, WIRE_DATA, WIRE_ZERO,
                                             WIRE_DATA,  WIRE_BLOB, WIRE_END };
    struct place *p = *state;
    AUTOPTR(journal_reader) *r = NULL;
    struct error *err = NULL;
    struct wire_frame frame;
    const void *payload;
    bool end = false;

    write_journal(p, 7);
    assert_ok(verify(p, 7, &err), err);
    assert_ok(journal_reader_open(p->fd, 7, &r, &err), err);
    for (size_t i = 0; i < N_ELEMENTS(wanted); i++) {
        assert_ok(journal_reader_next(r, &frame, &payload, &end, &err), err);
        assert_false(end);
        assert_int_equal(frame.type, wanted[i]);
        if (frame.type == WIRE_BLOB)
            assert_memory_equal(payload, "xml of 7", frame.stored);
    }
    assert_ok(journal_reader_next(r, &frame, &payload, &end, &err), err);
    assert_true(end);
}

static void
a_journal_is_visible_only_when_it_was_committed(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    AUTOFREE(uint64_t) *seqs = NULL;
    size_t n = 0;
    struct kit_writer w;

    write_journal(p, 1000000000000);
    write_journal(p, 2);
    write_journal(p, 1);
    w = start(p, 3, 3);
    assert_ok(journal_list(p->fd, &seqs, &n, &err), err);
    assert_int_equal(n, 3);
    assert_int_equal(seqs[0], 1);
    assert_int_equal(seqs[1], 2);
    assert_int_equal(seqs[2], 1000000000000);
    assert_fails(journal_commit(w.journal, &err), err, ERROR_PROTOCOL);
    assert_fails(verify(p, 3, &err), err, ERROR_POINT_NOT_FOUND);
    assert_ok(journal_drop(p->fd, 2, &err), err);
    assert_ok(journal_drop(p->fd, 2, &err), err);
    assert_fails(verify(p, 2, &err), err, ERROR_POINT_NOT_FOUND);
}

/* It is read twice, and may have become another between. */
static void
a_replay_that_expects_no_writes_refuses_them(void **state)
{
    struct place *p = *state;
    const struct replay replay = { .journals = p->fd, .blobs = p->fd, .prefix = "x." };
    struct error *err = NULL;

    write_journal(p, 7);
    assert_fails(replay_journal(&replay, 7, &err), err, ERROR_CHECKSUM);
}

/* Whoever copies files about by hand must not keep the store from opening. */
static void
a_file_that_is_only_nearly_called_like_a_journal_is_none(void **state)
{
    static const char *const strays[] = { "0000000000007", "000000000008x", "9" };
    struct place *p = *state;
    AUTOFREE(uint64_t) *seqs = NULL;
    struct error *err = NULL;
    size_t n = 0;

    write_journal(p, 7);
    for (size_t i = 0; i < N_ELEMENTS(strays); i++) {
        AUTOFD(fd) = openat(p->fd, strays[i], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
    }
    assert_ok(journal_list(p->fd, &seqs, &n, &err), err);
    assert_int_equal(n, 1);
    assert_int_equal(seqs[0], 7);
}

static void
parts_of_a_crashed_run_are_removed(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    struct kit_writer w;

    write_journal(p, 1);
    w = start(p, 2, 2);
    assert_int_equal(faccessat(p->fd, "000000000002.part", F_OK, 0), 0);
    assert_ok(journal_remove_parts(p->fd, &err), err);
    assert_int_equal(faccessat(p->fd, "000000000002.part", F_OK, 0), -1);
    assert_ok(verify(p, 1, &err), err);
    journal_abort(w.journal);
}

/* --- damage ------------------------------------------------------------------------- */

static uint8_t *
read_raw(struct place *p, const char *name, size_t *ret_n)
{
    AUTOFD(fd) = openat(p->fd, name, O_RDONLY | O_CLOEXEC);
    struct stat st;
    uint8_t *bytes;

    assert_int_equal(fstat(fd, &st), 0);
    bytes = mem_alloc((size_t)st.st_size, 1);
    assert_int_equal(read(fd, bytes, (size_t)st.st_size), st.st_size);
    *ret_n = (size_t)st.st_size;
    return bytes;
}

static void
write_raw(struct place *p, const char *name, const uint8_t *bytes, size_t n)
{
    AUTOFD(fd) = openat(p->fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), n);
}

static void
assert_damaged(struct place *p, const char *how, size_t at)
{
    struct error *err = NULL;

    if (verify(p, 1, &err))
        fail_msg("a journal %s at %zu was accepted", how, at);
    if (error_code(err) != ERROR_CHECKSUM && error_code(err) != ERROR_PROTOCOL)
        fail_msg("a journal %s at %zu: wrong code: %s", how, at, error_message(err));
    error_clear(&err);
}

static void
every_flipped_bit_is_found(void **state)
{
    struct place *p = *state;
    AUTOFREE(uint8_t) *bytes = NULL;
    AUTOFD(fd) = -1;
    size_t n;

    write_journal(p, 1);
    bytes = read_raw(p, "000000000001", &n);
    fd = openat(p->fd, "000000000001", O_WRONLY | O_CLOEXEC);
    for (size_t i = 0; i < n; i++) {
        uint8_t flipped = bytes[i] ^ (uint8_t)(1 << i % 8);

        assert_int_equal(pwrite(fd, &flipped, 1, (off_t)i), 1);
        assert_damaged(p, "flipped", i);
        assert_int_equal(pwrite(fd, &bytes[i], 1, (off_t)i), 1);
    }
    assert_true(verify(p, 1, NULL));
}

static void
every_truncation_is_found(void **state)
{
    struct place *p = *state;
    AUTOFREE(uint8_t) *bytes = NULL;
    AUTOFD(fd) = -1;
    size_t n;

    write_journal(p, 1);
    bytes = read_raw(p, "000000000001", &n);
    fd = openat(p->fd, "000000000001", O_WRONLY | O_CLOEXEC);
    while (n > 0) {
        assert_int_equal(ftruncate(fd, (off_t)--n), 0);
        assert_damaged(p, "cut", n);
    }
}

static void
anything_behind_the_end_is_found(void **state)
{
    struct place *p = *state;
    AUTOFREE(uint8_t) *bytes = NULL;
    AUTOFREE(uint8_t) *twice = NULL;
    size_t n;

    write_journal(p, 1);
    bytes = read_raw(p, "000000000001", &n);
    twice = mem_alloc(n, 2);
    memcpy(twice, bytes, n);
    memcpy(twice + n, bytes, n);
    write_raw(p, "000000000001", twice, n + 1);
    assert_damaged(p, "longer", n);
    write_raw(p, "000000000001", twice, 2 * n);
    assert_damaged(p, "doubled", n);
}

/* Both frames are intact; only their order is wrong. */
static void
frames_in_another_order_are_found(void **state)
{
    struct place *p = *state;
    AUTOFREE(uint8_t) *bytes = NULL;
    AUTOFREE(uint8_t) *other = NULL;
    size_t n, begin, data = WIRE_HEADER_BYTES + 3000, zero = WIRE_HEADER_BYTES;

    write_journal(p, 1);
    bytes = read_raw(p, "000000000001", &n);
    begin = WIRE_HEADER_BYTES + bytes[24] + 256u * bytes[25];
    other = (uint8_t *)mem_memdup(bytes, n);
    memcpy(other + begin, bytes + begin + data, zero);
    memcpy(other + begin + zero, bytes + begin, data);
    write_raw(p, "000000000001", other, n);
    assert_damaged(p, "reordered", begin);
}

static void
a_journal_under_anothers_number_is_found(void **state)
{
    struct place *p = *state;

    write_journal(p, 2);
    assert_int_equal(renameat(p->fd, "000000000002", p->fd, "000000000001"), 0);
    assert_damaged(p, "renamed", 0);
}

/* --- frames that do not fit --------------------------------------------------------- */

static bool
append(struct kit_writer *w, struct wire_frame frame, const void *payload,
       struct error **err)
{
    uint8_t header[WIRE_HEADER_BYTES];

    frame.sequence = w->frame.sequence;
    wire_encode(&frame, payload, header);
    return journal_append(w->journal, &frame, payload, err);
}

static void
frames_that_do_not_fit_are_refused_on_their_way_in(void **state)
{
    static const struct wire_frame wrong[] = {
        { .type = WIRE_ZERO, .disk = 2, .length = 512 },
        { .type = WIRE_ZERO, .disk = 1, .offset = 4096, .length = 513 },
        { .type = WIRE_ZERO, .disk = 1, .offset = UINT64_MAX, .length = 2 },
        { .type = WIRE_DATA, .disk = 0, .offset = 1 << 20, .length = 1, .stored = 1 },
        { .type = WIRE_BLOB, .disk = 1, .length = 1, .stored = 1 },
        { .type = WIRE_BLOB, .disk = 0, .offset = 1, .length = 1, .stored = 1 },
        { .type = WIRE_BEGIN, .length = 2, .stored = 2 },
        { .type = WIRE_ACK, .length = 2, .stored = 2 },
    };
    struct place *p = *state;

    for (size_t i = 0; i < N_ELEMENTS(wrong); i++) {
        struct kit_writer w = start(p, 1, 1);
        struct error *err = NULL;

        assert_fails(append(&w, wrong[i], "{}", &err), err, ERROR_PROTOCOL);
        journal_abort(w.journal);
    }
    assert_int_equal(faccessat(p->fd, "000000000001.part", F_OK, 0), -1);
}

static void
assert_begin_refused(struct place *p, const char *text)
{
    struct kit_writer w = { .ops = &ops };
    struct wire_frame frame = { .type = WIRE_BEGIN,
                                .length = strlen(text),
                                .stored = (uint32_t)strlen(text) };
    struct error *err = NULL;

    assert_ok(journal_new(p->fd, 1, &w.journal, &err), err);
    assert_fails(append(&w, frame, text, &err), err, ERROR_PROTOCOL);
    journal_abort(w.journal);
}

static void
a_begin_that_would_make_bad_names_or_sizes_is_refused(void **state)
{
    struct place *p = *state;

#define DISK(target, capacity)                                      \
    "{\"sequence\":1,\"blobs\":[],\"disks\":[{\"target\":\"" target \
    "\",\"capacity\":" capacity "}]}"
#define BLOB(name) "{\"sequence\":1,\"disks\":[],\"blobs\":[\"" name "\"]}"
    assert_begin_refused(p, "no JSON");
    assert_begin_refused(p, "{\"sequence\":2,\"disks\":[],\"blobs\":[]}");
    assert_begin_refused(p, "{\"sequence\":1,\"blobs\":[]}");
    assert_begin_refused(p, DISK("../vda", "512"));
    assert_begin_refused(p, DISK("", "512"));
    assert_begin_refused(p, DISK("a123456789012345678901234567890123456789", "512"));
    assert_begin_refused(p, DISK("vda", "513"));
    assert_begin_refused(p, DISK("vda", "0"));
    assert_begin_refused(p, DISK("vda", "-512"));
    assert_begin_refused(p, DISK("vda", "18446744073709551104"));
    assert_begin_refused(p, BLOB("a/b"));
    assert_begin_refused(p, BLOB(""));
    assert_begin_refused(p, BLOB("a123456789012345678901234567890123456789"));
}

static void
a_payload_that_changed_in_memory_is_refused(void **state)
{
    struct place *p = *state;
    struct kit_writer w = start(p, 1, 1);
    struct wire_frame frame = {
        .type = WIRE_DATA, .length = 4, .stored = 4, .sequence = 1
    };
    uint8_t header[WIRE_HEADER_BYTES];
    struct error *err = NULL;

    wire_encode(&frame, "good", header);
    assert_fails(journal_append(w.journal, &frame, "bad!", &err), err, ERROR_CHECKSUM);
    journal_abort(w.journal);
}

#define with_place(f) cmocka_unit_test_setup_teardown(f, make_place, remove_place)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        with_place(frames_come_back_as_they_were_appended),
        with_place(a_journal_is_visible_only_when_it_was_committed),
        with_place(a_replay_that_expects_no_writes_refuses_them),
        with_place(a_file_that_is_only_nearly_called_like_a_journal_is_none),
        with_place(parts_of_a_crashed_run_are_removed),
        with_place(every_flipped_bit_is_found),
        with_place(every_truncation_is_found),
        with_place(anything_behind_the_end_is_found),
        with_place(frames_in_another_order_are_found),
        with_place(a_journal_under_anothers_number_is_found),
        with_place(frames_that_do_not_fit_are_refused_on_their_way_in),
        with_place(a_begin_that_would_make_bad_names_or_sizes_is_refused),
        with_place(a_payload_that_changed_in_memory_is_refused),
    };

    return cmocka_run_group_tests_name("journal", tests, NULL, NULL);
}
