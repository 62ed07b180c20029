#include "tests/unit/replica_kit.h"

#include <sys/inotify.h>

#include "common/units.h"
#include "drivers/store/child.h"
#include "drivers/store/clusters.h"
#include "drivers/store/folder.h"
#include "drivers/store/image.h"
#include "drivers/store/sums.h"

#define MIB   (1u << 20)
#define LAYER "vda.0000.raw"
#define SIZE  (20 * MIB + 12345)

struct place {
    char folder[64];
    int fd;
    struct store_effort effort;
    struct cancel cancel;
    struct pace pace;
    struct sums_job job;
};

static int
make_place(void **state)
{
    struct place *p = NEW(struct place);
    uint64_t seed = 88172645463325252ull;
    AUTOFREE(uint8_t) *bytes = mem_alloc(MIB, 1);
    AUTOFD(fd) = -1;

    snprintf(p->folder, sizeof p->folder, "/tmp/vdr-sums-XXXXXX");
    if (mkdtemp(p->folder) == NULL)
        return -1;
    p->fd = open(p->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    p->effort.cancel = &p->cancel;
    p->pace.effort = &p->effort;
    p->job = (struct sums_job){ p->fd, LAYER, &p->pace };
    fd = openat(p->fd, LAYER, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (ftruncate(fd, SIZE) < 0)
        return -1;
    kit_fill(&seed, bytes, MIB);

    /* Blocks 3, 4 and 10; the rest is a hole, but for the file's last bytes. */
    if (pwrite(fd, bytes, MIB, 3 * MIB) != MIB ||
        pwrite(fd, bytes, MIB, 4 * MIB) != MIB ||
        pwrite(fd, bytes, MIB, 10 * MIB) != MIB || pwrite(fd, "end", 3, SIZE - 3) != 3)
        return -1;
    *state = p;
    return 0;
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

static void
digest(struct place *p)
{
    struct error *err = NULL;

    assert_ok(sums_digest(&p->job, &err), err);
}

static struct sums *
load(struct place *p)
{
    struct sums *s = NULL;
    struct error *err = NULL;

    assert_ok(sums_load(p->fd, LAYER, &s, &err), err);
    return s;
}

static struct sums_verdict
check(struct place *p)
{
    AUTOPTR(sums) *s = load(p);
    struct sums_verdict v;
    struct error *err = NULL;

    assert_non_null(s);
    assert_ok(sums_check(&p->job, s, NULL, &v, &err), err);
    return v;
}

static void
flip_bits(struct place *p, const char *name, uint64_t offset, uint8_t bits)
{
    AUTOFD(fd) = openat(p->fd, name, O_RDWR | O_CLOEXEC);
    uint8_t byte = 0;

    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= bits;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
}

static void
flip(struct place *p, const char *name, uint64_t offset)
{
    flip_bits(p, name, offset, 4);
}

static void
a_layer_that_nobody_changed_is_found_sound(void **state)
{
    struct place *p = *state;
    struct sums_verdict v;

    assert_null(load(p));
    digest(p);
    v = check(p);
    assert_false(sums_found_damage(&v));
    assert_int_equal(v.n_unknown, 0);
}

static void
a_bit_is_found_in_data_in_a_hole_and_in_the_last_bytes(void **state)
{
    const uint64_t places[] = { 0, 3 * MIB + 77, 11 * MIB - 1, 12 * MIB, SIZE - 1 };
    struct place *p = *state;

    digest(p);
    for (size_t i = 0; i < N_ELEMENTS(places); i++) {
        struct sums_verdict v;

        flip(p, LAYER, places[i]);
        v = check(p);
        assert_int_equal(v.n_damaged, 1);
        assert_int_equal(v.first_damaged, places[i] / MIB * MIB);
        flip(p, LAYER, places[i]);
        v = check(p);
        assert_false(sums_found_damage(&v));
    }
}

static void
holes_are_not_read(void **state)
{
    struct place *p = *state;

    digest(p);
    assert_in_range(p->pace.done, 3 * MIB, 5 * MIB);
}

static void
a_layer_that_was_cut_off_or_grew_or_went_is_found(void **state)
{
    struct place *p = *state;
    AUTOFD(fd) = openat(p->fd, LAYER, O_RDWR | O_CLOEXEC);
    struct sums_verdict v;

    digest(p);
    assert_int_equal(ftruncate(fd, 10 * MIB), 0);
    v = check(p);
    assert_true(v.resized);
    assert_int_equal(v.n_damaged, 2); /* holes read as they did */
    digest(p);                        /* does not make it right */
    v = check(p);
    assert_true(v.resized);
    assert_int_equal(ftruncate(fd, SIZE + 1), 0);
    v = check(p);
    assert_true(v.resized);
    assert_int_equal(unlinkat(p->fd, LAYER, 0), 0);
    v = check(p);
    assert_true(v.missing);
}

static void
what_was_forgotten_is_neither_right_nor_wrong_until_it_is_made_anew(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    struct sums_verdict v;
    AUTOPTR(sums) *s = NULL;

    digest(p);
    s = load(p);
    sums_forget(s, 4 * MIB - 1, 2);
    s->changing = true;
    assert_ok(sums_save(p->fd, LAYER, s, &err), err);
    flip(p, LAYER, 3 * MIB);
    flip(p, LAYER, 4 * MIB);
    v = check(p);
    assert_false(sums_found_damage(&v));
    assert_int_equal(v.n_unknown, 2);
    p->pace.done = 0;
    digest(p);
    assert_int_equal(p->pace.done, 2 * MIB); /* the others are not read again */
    flip(p, LAYER, 4 * MIB);
    v = check(p);
    assert_int_equal(v.first_damaged, 4 * MIB);
}

static void
a_layer_that_a_fold_made_larger_gets_the_sums_of_what_is_new(void **state)
{
    struct place *p = *state;
    AUTOFD(fd) = openat(p->fd, LAYER, O_RDWR | O_CLOEXEC);
    struct error *err = NULL;
    struct sums_verdict v;
    AUTOPTR(sums) *s = NULL;

    digest(p);
    s = load(p);
    s->changing = true;
    assert_ok(sums_save(p->fd, LAYER, s, &err), err);
    assert_int_equal(ftruncate(fd, 25 * MIB), 0);
    v = check(p);
    assert_false(v.resized);
    digest(p);
    v = check(p);
    assert_false(sums_found_damage(&v));
    assert_int_equal(v.n_unknown, 0);
    flip(p, LAYER, SIZE + 1);
    v = check(p);
    assert_int_equal(v.first_damaged, 20 * MIB);
}

static void
damaged_sums_are_told_and_made_anew(void **state)
{
    struct place *p = *state;
    const char *name = LAYER SUMS_SUFFIX;
    struct error *err = NULL;
    struct sums *s = NULL;
    struct stat st;

    digest(p);
    assert_int_equal(fstatat(p->fd, name, &st, 0), 0);
    for (off_t at = 0; at < st.st_size; at++) {
        flip(p, name, (uint64_t)at);
        assert_fails(sums_load(p->fd, LAYER, &s, &err), err, ERROR_CHECKSUM);
        flip(p, name, (uint64_t)at);
    }
    for (off_t n = st.st_size - 1; n >= 0; n -= 7) {
        AUTOFREE(char) *path = mem_printf("%s/%s", p->folder, name);

        assert_int_equal(truncate(path, n), 0);
        assert_fails(sums_load(p->fd, LAYER, &s, &err), err, ERROR_CHECKSUM);
    }
    digest(p);
    s = load(p);
    assert_true(sums_complete(s));
    sums_free(s);
}

static void
a_digest_that_is_stopped_keeps_what_it_has_made(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;
    struct sums *s;

    cancel_set_timeout(&p->cancel, 400);
    p->effort.rate_bytes_s = 4 * MIB; /* four blocks in a second */
    assert_fails(sums_digest(&p->job, &err), err, ERROR_TIMEOUT);
    s = load(p);
    assert_non_null(s);
    assert_false(sums_complete(s));
    sums_free(s);
    cancel_set_timeout(&p->cancel, 0);
    p->effort.rate_bytes_s = 0;
    p->pace = (struct pace){ .effort = &p->effort };
    digest(p);
    assert_in_range(p->pace.done, MIB, 3 * MIB);
    s = load(p);
    assert_true(sums_complete(s));
    sums_free(s);
}

/* How often a file got its name. Equal events that follow each other are one: so the
   making of each file is there too. */
static size_t
count_renames(int events)
{
    char buffer[65536] __attribute__((aligned(8)));
    ssize_t n = read(events, buffer, sizeof buffer);
    size_t renames = 0;

    for (ssize_t at = 0; at < n;) {
        const struct inotify_event *e = (const void *)(buffer + at);

        renames += e->mask == IN_MOVED_TO;
        at += (ssize_t)(sizeof *e + e->len);
    }
    return renames;
}

/* The file with the sums is written as a whole: each time costs more the larger it is. */
static void
a_large_disk_with_nothing_in_it_has_its_sums_written_once(void **state)
{
    struct place *p = *state;
    AUTOFD(fd) = openat(p->fd, LAYER, O_WRONLY | O_CLOEXEC);
    AUTOFD(events) = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    AUTOPTR(sums) *s = NULL;
    struct error *err = NULL;

    assert_int_equal(ftruncate(fd, 256ll << 30), 0);
    assert_true(inotify_add_watch(events, p->folder, IN_MOVED_TO | IN_CREATE) >= 0);
    assert_ok(sums_digest(&p->job, &err), err);
    assert_int_equal(count_renames(events), 1);
    assert_ok(sums_load(p->fd, LAYER, &s, &err), err);
    assert_true(sums_complete(s));
}

static void
the_pace_is_kept(void **state)
{
    struct place *p = *state;
    int64_t begin = units_monotonic_ms(), took;

    p->effort.rate_bytes_s = 8 * MIB;
    digest(p); /* three blocks and a bit, the first at once */
    took = units_monotonic_ms() - begin;
    assert_in_range(took, 330, 5000);
}

/* --- what a qcow2 image itself holds --------------------------------------------------
 */

struct ranges {
    uint64_t offset[8], length[8];
    size_t n;
};

static void
note(uint64_t offset, uint64_t length, void *opaque)
{
    struct ranges *r = opaque;

    assert_true(r->n < N_ELEMENTS(r->offset));
    r->offset[r->n] = offset;
    r->length[r->n++] = length;
}

static void
write_image(struct place *p, const char *const *commands)
{
    const char *argv[24] = { "qemu-io", "-f", "qcow2" };
    struct child_request request = { .argv = argv, .folder = p->fd };
    struct error *err = NULL;
    size_t n = 3;

    for (; *commands != NULL; commands++) {
        argv[n++] = "-c";
        argv[n++] = *commands;
    }
    argv[n] = "x.qcow2";
    assert_ok(child_run(&request, 60000, &err), err);
}

static void
the_clusters_of_an_image_are_those_that_were_written(void **state)
{
    static const char *const writes[] = { "write -P 1 64k 128k", "write -z -u 1M 64k",
                                          "write -P 3 600M 64k", "write -P 4 1400M 512",
                                          NULL };
    struct place *p = *state;
    struct ranges r = { .n = 0 };
    struct error *err = NULL;
    uint64_t capacity = 0;

    assert_ok(image_create(p->fd, "x.qcow2", 1400ull * MIB + 512, NULL, &err), err);
    assert_ok(clusters_each(p->fd, "x.qcow2", note, &r, &err), err);
    assert_int_equal(r.n, 0);
    write_image(p, writes);
    assert_ok(clusters_each(p->fd, "x.qcow2", note, &r, &err), err);
    assert_int_equal(r.n, 4);
    assert_int_equal(r.offset[0], 65536);
    assert_int_equal(r.length[0], 131072);
    assert_int_equal(r.offset[1], MIB);
    assert_int_equal(r.offset[2], 600ull * MIB);
    assert_int_equal(r.offset[3], 1400ull * MIB);
    assert_int_equal(r.length[3], 512);
    assert_ok(clusters_capacity(p->fd, "x.qcow2", &capacity, &err), err);
    assert_int_equal(capacity, 1400ull * MIB + 512);
}

static void
tables_that_cannot_be_right_are_refused(void **state)
{
    struct place *p = *state;
    struct ranges r = { .n = 0 };
    struct error *err = NULL;
    uint64_t capacity;

    assert_fails(clusters_capacity(p->fd, LAYER, &capacity, &err), err, ERROR_CHECKSUM);
    assert_ok(image_create(p->fd, "x.qcow2", 100 * MIB, NULL, &err), err);
    flip(p, "x.qcow2", 41); /* where the first table is */
    assert_fails(clusters_each(p->fd, "x.qcow2", note, &r, &err), err, ERROR_CHECKSUM);
    assert_fails(image_check(p->fd, "x.qcow2", &p->pace, &err), err, ERROR_CHECKSUM);
    flip(p, "x.qcow2", 41);
    flip_bits(p, "x.qcow2", 40, 0x80); /* the same, beyond all offsets that there are */
    assert_fails(clusters_each(p->fd, "x.qcow2", note, &r, &err), err, ERROR_CHECKSUM);
    flip_bits(p, "x.qcow2", 40, 0x80);
    assert_ok(image_check(p->fd, "x.qcow2", &p->pace, &err), err);
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, make_place, remove_place)
    const struct CMUnitTest tests[] = {
        T(a_layer_that_nobody_changed_is_found_sound),
        T(a_bit_is_found_in_data_in_a_hole_and_in_the_last_bytes),
        T(holes_are_not_read),
        T(a_layer_that_was_cut_off_or_grew_or_went_is_found),
        T(what_was_forgotten_is_neither_right_nor_wrong_until_it_is_made_anew),
        T(a_layer_that_a_fold_made_larger_gets_the_sums_of_what_is_new),
        T(damaged_sums_are_told_and_made_anew),
        T(a_digest_that_is_stopped_keeps_what_it_has_made),
        T(a_large_disk_with_nothing_in_it_has_its_sums_written_once),
        T(the_pace_is_kept),
        T(the_clusters_of_an_image_are_those_that_were_written),
        T(tables_that_cannot_be_right_are_refused),
    };

    return cmocka_run_group_tests_name("sums", tests, NULL, NULL);
}
