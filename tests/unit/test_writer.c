#include "tests/unit/replica_kit.h"

#include "drivers/store/writer.h"

#define ROUNDS 300
#define BYTES  ((3u << 20) + 4096 + 5) /* pieces before, within and behind blocks */

struct place {
    char folder[64];
    struct writer_file file;
    struct writer_file full; /* there is never room in it */
    struct writer *w;
    uint8_t *bytes;
};

static int
make_place(void **state)
{
    struct place *p = NEW(struct place);
    uint64_t seed = 88172645463325252ull;
    char path[96];

    snprintf(p->folder, sizeof p->folder, "/tmp/vdr-writer-XXXXXX");
    if (mkdtemp(p->folder) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/disk", p->folder);
    p->file = (struct writer_file){ .target = "vda" };
    p->file.fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    p->file.direct_fd = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
    p->full = (struct writer_file){ .target = "vdb", .direct_fd = -1 };
    p->full.fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    p->w = writer_new();
    p->bytes = mem_alloc(BYTES, 1);
    kit_fill(&seed, p->bytes, BYTES);
    *state = p;
    return p->file.fd >= 0 && p->full.fd >= 0 ? 0 : -1;
}

static int
remove_place(void **state)
{
    struct place *p = *state;

    writer_free(p->w);
    close(p->file.fd);
    close(p->full.fd);
    if (p->file.direct_fd >= 0)
        close(p->file.direct_fd);
    kit_remove_tree(p->folder);
    free(p->bytes);
    free(p);
    return 0;
}

static void
assert_file(const struct place *p, uint64_t offset, const uint8_t *bytes, size_t n)
{
    AUTOFREE(uint8_t) *found = mem_alloc(n, 1);

    assert_int_equal(pread(p->file.fd, found, n, (off_t)offset), n);
    assert_memory_equal(found, bytes, n);
}

static void
what_is_written_lands_wherever_it_begins_and_ends(void **state)
{
    static const uint64_t offsets[] = { 0, 4096, 512, 3, (1u << 20) - 1, 5000000 };
    struct place *p = *state;
    struct error *err = NULL;

    for (size_t i = 0; i < N_ELEMENTS(offsets); i++) {
        assert_ok(writer_data(p->w, &p->file, offsets[i], p->bytes, BYTES, &err), err);
        assert_ok(writer_drain(p->w, &err), err);
        assert_file(p, offsets[i], p->bytes, BYTES);
    }
}

static void
data_and_holes_keep_their_order(void **state)
{
    struct place *p = *state;
    AUTOFREE(uint8_t) *wanted = (uint8_t *)mem_memdup((const char *)p->bytes, BYTES);
    struct error *err = NULL;

    assert_ok(writer_data(p->w, &p->file, 0, p->bytes, BYTES, &err), err);
    assert_ok(writer_zero(p->w, &p->file, 1000, 2u << 20, &err), err);
    assert_ok(writer_data(p->w, &p->file, 5000, p->bytes, 100, &err), err);
    assert_ok(writer_drain(p->w, &err), err);
    memset(wanted + 1000, 0, 2u << 20);
    memcpy(wanted + 5000, p->bytes, 100);
    assert_file(p, 0, wanted, BYTES);
}

/* What still waited when an error was told is forgotten: it must not fail later on. */
static void
an_error_is_told_once(void **state)
{
    struct place *p = *state;

    for (int i = 0; i < ROUNDS; i++) {
        struct error *err = NULL;

        assert_false(writer_data(p->w, &p->full, 0, p->bytes, BYTES, &err) &&
                     writer_drain(p->w, &err));
        assert_int_equal(error_code(err), ERROR_NO_SPACE);
        error_clear(&err);
        assert_ok(writer_data(p->w, &p->file, 0, p->bytes, BYTES, &err), err);
        assert_ok(writer_drain(p->w, &err), err);
    }
    assert_file(p, 0, p->bytes, BYTES);
}

#define with_place(f) cmocka_unit_test_setup_teardown(f, make_place, remove_place)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        with_place(what_is_written_lands_wherever_it_begins_and_ends),
        with_place(data_and_holes_keep_their_order),
        with_place(an_error_is_told_once),
    };

    return cmocka_run_group_tests_name("writer", tests, NULL, NULL);
}
