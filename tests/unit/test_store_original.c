#include "tests/unit/points_kit.h"

#include <sys/ioctl.h>
#include <linux/loop.h>
#include <sys/sysmacros.h>

#include "tests/unit/hashes_kit.h"

#define MORE_BYTES ((1u << 20) + 1536)

static const struct store_effort full_speed = { .rate_bytes_s = 0 };

/* The originals of a place's disks. */
struct originals {
    struct store_original items[KIT_MAX_DISKS];
    char paths[KIT_MAX_DISKS][128];
    uint64_t sums[KIT_MAX_DISKS];
};

static struct originals all;

static void
write_file(const char *path, const void *data, size_t n)
{
    AUTOFD(fd) = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, n), n);
}

/* A raw original of that size; what the model has of it, and zeroes behind. */
static void
make_raw(struct place *p, size_t disk, size_t bytes)
{
    struct kit_model *m = &p->models[disk];
    AUTOFREE(uint8_t) *content = mem_alloc(1, bytes);

    kit_fill(&p->seed, content, bytes);
    memset(content + 200000, 0, 300000);
    memcpy(m->bytes, content, MIN(bytes, m->disk.capacity_bytes));
    snprintf(all.paths[disk], sizeof all.paths[disk], "%s/%s.img", p->parent,
             m->disk.target);
    write_file(all.paths[disk], content, bytes);
    all.items[disk] = (struct store_original){ all.paths[disk], "raw" };
}

/* A qcow2 original on another image, which has half of it. */
static void
make_qcow2(struct place *p, size_t disk)
{
    struct kit_model *m = &p->models[disk];
    AUTOFREE(char) *size = mem_printf("%llu", (unsigned long long)m->disk.capacity_bytes);
    AUTOFREE(char) *base = mem_printf("%s/%s.base", p->parent, m->disk.target);
    const char *const create[] = { "qemu-img", "create", "-q", "-f",  "qcow2",
                                   "-b",       base,     "-F", "raw", all.paths[disk],
                                   size,       NULL };
    const char *const fill[] = {
        "qemu-io", "-f", "qcow2", "-c", "write -P 0x5a 0 70000", all.paths[disk], NULL
    };

    make_raw(p, disk, m->disk.capacity_bytes);
    rename(all.paths[disk], base);
    run(create);
    run(fill);
    memset(m->bytes, 0x5a, 70000);
    all.items[disk].format = "qcow2";
}

static void
remember_originals(const struct place *p)
{
    for (size_t i = 0; i < p->n; i++)
        all.sums[i] = file_sum(all.paths[i]);
}

static void
assert_originals_untouched(const struct place *p)
{
    for (size_t i = 0; i < p->n; i++)
        assert_true(file_sum(all.paths[i]) == all.sums[i]);
}

static bool
try_create(struct place *p, struct error **err)
{
    struct store_disk disks[KIT_MAX_DISKS];

    for (size_t i = 0; i < p->n; i++) {
        disks[i] = p->models[i].disk;
        disks[i].stands_on = &all.items[i];
    }
    return ops->create(p->folder, disks, p->n, err);
}

static void
create_on_originals(struct place *p)
{
    struct error *err = NULL;

    remember_originals(p);
    assert_ok(try_create(p, &err), err);
    assert_ok(ops->open(p->folder, &p->s, &err), err);
}

/* vda on a raw image that is longer than it, vdb on qcow2 with a backing file. */
static void
create_usual(struct place *p)
{
    make_raw(p, 0, VDA_BYTES + MORE_BYTES);
    make_qcow2(p, 1);
    create_on_originals(p);
}

static void
mark_first(struct place *p, uint64_t seq)
{
    AUTOFREE(char) *xml = mem_printf("xml of %llu", (unsigned long long)seq);
    struct store_blob blob = { "domain.xml", xml, strlen(xml) };
    struct store_first first = { .seq = seq, .blobs = &blob, .n_blobs = 1 };
    struct error *err = NULL;

    assert_ok(ops->mark_originals(p->s, &first, &err), err);
    assert_int_equal(ops->applied(p->s), seq);
}

/* Some of both disks, as a compare finds it. */
static void
write_directly(struct place *p)
{
    struct error *err = NULL;

    for (size_t i = 0; i < p->n; i++) {
        struct kit_model *m = &p->models[i];

        kit_fill(&p->seed, m->bytes + 65536 + 4096, 8192);
        assert_ok(ops->write(p->s, m->disk.target, 65536 + 4096, m->bytes + 65536 + 4096,
                             8192, &err),
                  err);
        memset(m->bytes + 4096, 0, 4096);
        assert_ok(ops->zero(p->s, m->disk.target, 4096, 4096, &err), err);
    }
    assert_ok(ops->flush(p->s, &err), err);
}

static enum store_original_state
state_of(struct place *p, const char *target)
{
    enum store_original_state state = STORE_ORIGINAL_NONE;
    struct error *err = NULL;

    assert_ok(ops->original(p->s, target, &state, &err), err);
    return state;
}

static void
fold_all(struct place *p)
{
    struct error *err = NULL;
    bool folded = true;

    while (folded)
        assert_ok(ops->fold(p->s, &full_speed, &folded, &err), err);
}

static void
retain(struct place *p, const uint64_t *seqs, size_t n)
{
    struct error *err = NULL;

    assert_ok(ops->retain(p->s, seqs, n, &err), err);
}

/* --- what it shows ------------------------------------------------------------------ */

static void
a_disk_shows_what_its_original_holds(void **state)
{
    struct place *p = *state;
    struct store_status status;
    struct error *err = NULL;

    create_usual(p);
    assert_ok(ops->status(p->s, &status, &err), err);
    assert_true(status.layer_bytes <
                VDB_BYTES); /* the originals' bytes are not its own */
    assert_content(p);
    assert_all_hashes(p);
    reopen(p);
    assert_all_hashes(p);
    assert_originals_untouched(p);
}

static void
a_disk_that_is_longer_than_its_original_ends_with_zeroes(void **state)
{
    struct place *p = *state;

    make_raw(p, 0, VDA_BYTES - MORE_BYTES);
    make_raw(p, 1, VDB_BYTES - 65536 - 512);
    create_on_originals(p);
    assert_content(p);
    assert_all_hashes(p);
    write_directly(p);
    assert_all_hashes(p);
    assert_content(p);
    assert_originals_untouched(p);
}

static void
direct_writes_go_on_top_and_hashes_show_both(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);

    create_usual(p);
    write_directly(p);
    assert_all_hashes(p);
    make_point(p, h, 1);
    apply(p, 1);
    assert_all_hashes(p);
    assert_point(p, h, 1);
    assert_content(p);
    assert_originals_untouched(p);
}

/* What compares everything and finds all different hides the original. */
static void
a_disk_that_was_written_whole_needs_its_original_no_more(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);

    create_usual(p);
    write_all_directly(p);
    make_point(p, h, 1);
    apply(p, 1);
    unlink(all.paths[0]);
    unlink(all.paths[1]);
    reopen(p);
    assert_point(p, h, 1);
    make_point(p, h, 2);
    apply(p, 2);
    assert_all_hashes(p);
    assert_content(p);
}

/* --- points ------------------------------------------------------------------------- */

static void
what_the_originals_hold_is_a_point(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    const uint64_t with[] = { 3, 8 }, without[] = { 8 };

    create_usual(p);
    mark_first(p, 3);
    mark_first(p, 3);
    remember(h, p, 3);
    assert_point(p, h, 3);
    write_directly(p);
    assert_point(p, h, 3);
    for (uint64_t seq = 5; seq <= 8; seq++) {
        make_point(p, h, seq);
        apply(p, seq);
        seal(p);
    }
    reopen(p);
    for (uint64_t seq = 5; seq <= 8; seq++)
        assert_point(p, h, seq);
    retain(p, with, N_ELEMENTS(with));
    fold_all(p);
    assert_point(p, h, 3);
    assert_point(p, h, 8);
    assert_no_point(p, 6);
    retain(p, without, N_ELEMENTS(without));
    fold_all(p);
    assert_no_point(p, 3);
    assert_point(p, h, 8);
    assert_all_hashes(p);
    assert_originals_untouched(p);
}

/* As when both sides have a record since the moment of the originals. */
static void
a_journal_follows_the_originals_without_a_compare(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);

    create_usual(p);
    mark_first(p, 7);
    remember(h, p, 7);
    for (uint64_t seq = 8; seq <= 10; seq++) {
        make_point(p, h, seq);
        apply(p, seq);
    }
    for (uint64_t seq = 7; seq <= 10; seq++)
        assert_point(p, h, seq);
    assert_all_hashes(p);
    assert_originals_untouched(p);
}

static void
only_an_untouched_replica_can_make_a_point_of_its_originals(void **state)
{
    struct place *p = *state;
    struct store_first first = { .seq = 1 };
    struct error *err = NULL;

    create_usual(p);
    write_directly(p);
    assert_fails(ops->mark_originals(p->s, &first, &err), err, ERROR_INVALID_STATE);
    reopen(p);
    assert_fails(ops->mark_originals(p->s, &first, &err), err, ERROR_INVALID_STATE);
}

/* --- all that a replica does -------------------------------------------------------- */

static void
folds_scrubs_and_resets_leave_the_originals_alone(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    const uint64_t last[] = { 12 };
    struct error *err = NULL;
    struct store_status status;
    uint64_t bytes = 0;

    create_usual(p);
    write_directly(p);
    for (uint64_t seq = 1; seq <= 12; seq++) {
        if (seq == 4) /* the original is longer still, which must not be seen */
            grow_model(&p->models[0], VDA_BYTES + MORE_BYTES / 3 / 512 * 512);
        make_point(p, h, seq);
        apply(p, seq);
        if (seq != 7)
            seal(p);
        if (seq % 4 == 0)
            assert_ok(ops->digest(p->s, &full_speed, &err), err);
    }
    assert_all_hashes(p);
    retain(p, last, 1);
    fold_all(p);
    assert_ok(ops->status(p->s, &status, &err), err);
    assert_int_equal(status.n_layers, 4); /* the empty one, two and the tip */
    assert_ok(ops->scrub(p->s, &full_speed, NULL, NULL, &bytes, &err), err);
    write_directly(p);
    assert_ok(ops->reset(p->s, &err), err);
    for (size_t i = 0; i < p->n; i++)
        memcpy(p->models[i].bytes, h->models[12][i].bytes,
               p->models[i].disk.capacity_bytes);
    assert_all_hashes(p);
    assert_content(p);
    reopen(p);
    assert_point(p, h, 12);
    assert_originals_untouched(p);
    ops->close(TAKE(p->s));
    assert_ok(ops->destroy(p->folder, &err), err);
    assert_false(there(p, "disks"));
    assert_originals_untouched(p);
}

static void
no_image_is_adopted_over_an_original(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;

    create_usual(p);
    assert_fails(ops->adopt(p->s, "vda", NULL, &full_speed, &err), err,
                 ERROR_INVALID_STATE);
}

/* --- an original that does not stay what it is -------------------------------------- */

static void
an_original_that_changes_is_told_and_can_be_accepted(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    const uint8_t other[512] = { 1, 2, 3 };
    struct error *err = NULL;

    create_usual(p);
    write_directly(p);
    make_point(p, h, 1);
    apply(p, 1);
    assert_int_equal(state_of(p, "vda"), STORE_ORIGINAL_SAME);
    chmod(all.paths[0], 0640); /* as libvirt does */
    assert_int_equal(state_of(p, "vda"), STORE_ORIGINAL_SAME);
    {
        AUTOFD(fd) = open(all.paths[0], O_WRONLY | O_CLOEXEC);

        assert_int_equal(pwrite(fd, other, sizeof other, 2u << 20), sizeof other);
    }
    reopen(p);
    assert_int_equal(state_of(p, "vda"), STORE_ORIGINAL_CHANGED);
    assert_int_equal(state_of(p, "vdb"), STORE_ORIGINAL_SAME);
    assert_ok(ops->accept_originals(p->s, &err), err);
    assert_int_equal(state_of(p, "vda"), STORE_ORIGINAL_SAME);
    memset(p->models[0].bytes + (2u << 20), 0x77, 512); /* the compare finds it */
    assert_ok(
        ops->write(p->s, "vda", 2u << 20, p->models[0].bytes + (2u << 20), 512, &err),
        err);
    make_point(p, h, 2);
    apply(p, 2);
    assert_all_hashes(p);
    assert_point(p, h, 2);
    reopen(p);
    assert_int_equal(state_of(p, "vda"), STORE_ORIGINAL_SAME);
}

static void
an_original_that_is_cut_or_gone_is_told_and_open_succeeds(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;

    create_usual(p);
    mark_first(p, 1);
    assert_int_equal(truncate(all.paths[0], VDA_BYTES / 512 * 256), 0);
    assert_int_equal(truncate(all.paths[1], 70000), 0); /* its header stays */
    reopen(p);
    assert_int_equal(state_of(p, "vda"), STORE_ORIGINAL_GONE);
    assert_int_equal(state_of(p, "vdb"), STORE_ORIGINAL_GONE);
    unlink(all.paths[0]);
    reopen(p);
    assert_int_equal(state_of(p, "vda"), STORE_ORIGINAL_GONE);
    assert_int_equal(ops->applied(p->s), 1);
    assert_fails(ops->accept_originals(p->s, &err), err, ERROR_NOT_FOUND);
    assert_fails(ops->write(p->s, "vda", 0, "x", 1, &err) && ops->flush(p->s, &err), err,
                 ERROR_STORE);
    ops->close(TAKE(p->s));
    assert_ok(ops->destroy(p->folder, &err), err);
}

static void
an_original_whose_backing_file_is_gone_is_gone(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *base = mem_printf("%s/vdb.base", p->parent);

    create_usual(p);
    unlink(base);
    assert_int_equal(state_of(p, "vdb"), STORE_ORIGINAL_GONE);
    assert_int_equal(state_of(p, "vda"), STORE_ORIGINAL_SAME);
}

struct told {
    size_t n;
    struct store_damage last;
};

static void
on_damage(const struct store_damage *damage, void *opaque)
{
    struct told *told = opaque;

    told->n++;
    told->last = *damage;
}

static void
a_scrub_tells_which_points_a_changed_original_spoils(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    struct told told = { .n = 0 };
    struct error *err = NULL;
    uint64_t bytes = 0;

    create_usual(p);
    mark_first(p, 1);
    make_point(p, h, 2);
    apply(p, 2);
    seal(p);
    write_file(all.paths[0], h->models[2][0].bytes, VDA_BYTES + 0);
    assert_ok(ops->scrub(p->s, &full_speed, on_damage, &told, &bytes, &err), err);
    assert_int_equal(told.n, 1);
    assert_int_equal(told.last.first, 1);
    assert_true(told.last.last == UINT64_MAX);
    assert_true(told.last.tip);
}

static void
what_is_no_image_is_refused_as_an_original(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;

    make_raw(p, 0, VDA_BYTES);
    make_raw(p, 1, VDB_BYTES);
    all.items[1].format = "qcow2";
    assert_fails(try_create(p, &err), err, ERROR_NOT_FOUND);
    all.items[1].format = "raw";
    all.items[1].path = "/nowhere/x.img";
    assert_fails(try_create(p, &err), err, ERROR_NOT_FOUND);
    all.items[1].path = "x.img";
    assert_fails(try_create(p, &err), err, ERROR_PROTOCOL);
    all.items[1].path = all.paths[1];
    all.items[1].format = "raw,file.locking=off";
    assert_fails(try_create(p, &err), err, ERROR_PROTOCOL);
}

/* --- records ------------------------------------------------------------------------ */

static bool
overlay_with_record(struct place *p, const char *id, uint64_t seq, struct error **err)
{
    struct store_overlay wanted = { .id = id, .seq = seq, .record = "virtdr-fork-9" };
    char **paths = NULL;
    size_t n = 0;
    bool ok = ops->overlay_create(p->s, &wanted, &paths, &n, err);

    for (size_t i = 0; i < n; i++)
        free(paths[i]);
    free(paths);
    return ok;
}

/* What qemu-img says of an image; the caller frees. */
static char *
info_of(const struct place *p, const char *image)
{
    AUTOFREE(char) *file = mem_printf("%s/info", p->parent);
    AUTOFREE(char) *command =
        mem_printf("qemu-img info --output=json '%s/%s' >%s", p->folder, image, file);
    const char *const argv[] = { "sh", "-c", command, NULL };
    struct error *err = NULL;
    char *text = NULL;
    size_t n = 0;

    run(argv);
    assert_ok(folder_read(AT_FDCWD, file, 65536, &text, &n, &err), err);
    return text;
}

static void
an_overlay_records_from_its_first_write_on(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    AUTOFREE(char) *image = mem_printf("%s/overlay/failover-2/vda.qcow2", p->folder);
    AUTOFREE(char) *info = NULL;
    AUTOFREE(char) *map = mem_printf(
        "qemu-storage-daemon --blockdev file,node-name=f,filename=%s "
        "--blockdev qcow2,node-name=q,file=f "
        "--nbd-server addr.type=unix,addr.path=%s/nbd.s "
        "--export nbd,id=e,node-name=q,name=q,writable=on,bitmaps.0=virtdr-fork-9 "
        "--pidfile %s/qsd.pid --daemonize && "
        "nbdinfo --map=qemu:dirty-bitmap:virtdr-fork-9 'nbd+unix:///q?socket=%s/nbd.s' "
        ">%s/map; kill $(cat %s/qsd.pid)",
        image, p->parent, p->parent, p->parent, p->parent, p->parent);
    const char *const write[] = { "qemu-io", "-f", "qcow2", "-c", "write -P 0xaa 1M 4k",
                                  image,     NULL };
    const char *const look[] = { "sh", "-c", map, NULL };
    AUTOFREE(char) *file = mem_printf("%s/map", p->parent);
    AUTOFREE(char) *text = NULL;
    struct error *err = NULL;
    size_t n = 0;

    create_usual(p);
    mark_first(p, 1);
    remember(h, p, 1);
    make_point(p, h, 2);
    make_point(p, h, 3);
    apply(p, 2);
    apply(p, 3);
    assert_ok(overlay_with_record(p, "failover-2", 2, &err), err); /* it is replayed */
    assert_overlay(p, h, "failover-2", 2);
    info = info_of(p, "overlay/failover-2/vdb.qcow2");
    assert_non_null(strstr(info, "\"name\": \"virtdr-fork-9\""));
    assert_non_null(strstr(info, "\"granularity\": 65536"));
    assert_non_null(strstr(info, "\"auto\""));
    assert_null(strstr(info, "in-use"));
    run(write);
    run(look);
    assert_ok(folder_read(AT_FDCWD, file, 65536, &text, &n, &err), err);
    assert_string_equal(text, "         0     1048576    0  clean\n"
                              "   1048576       65536    1  dirty\n"
                              "   1114112     2032128    0  clean\n");
}

/* --- block devices ------------------------------------------------------------------ */

static int
attach_loop(const char *file, char *ret, size_t n)
{
    AUTOFD(control) = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    AUTOFD(fd) = open(file, O_RDWR | O_CLOEXEC);
    int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
    int loop;

    if (number < 0)
        return -1;
    snprintf(ret, n, "/dev/loop%d", number);
    (void)mknod(ret, S_IFBLK | 0600, makedev(7, (unsigned)number));
    loop = open(ret, O_RDWR | O_CLOEXEC);
    if (loop < 0 || ioctl(loop, LOOP_SET_FD, fd) < 0) {
        if (loop >= 0)
            close(loop);
        return -1;
    }
    return loop;
}

static void
a_block_device_can_be_an_original(void **state)
{
    struct place *p = *state;
    AUTOPTR(history) *h = NEW(struct history);
    AUTOFREE(char) *file = NULL;
    AUTOFD(loop) = -1;
    char device[32];

    make_raw(p, 0, VDA_BYTES);
    make_raw(p, 1, VDB_BYTES);
    file = mem_strdup(all.paths[0]);
    loop = attach_loop(file, device, sizeof device);
    if (loop < 0) {
        if (getenv("REQUIRE_REAL") != NULL)
            fail_msg("no loop device");
        print_message("skipped: no loop device\n");
        skip();
    }
    snprintf(all.paths[0], sizeof all.paths[0], "%s", device);
    create_on_originals(p);
    assert_int_equal(state_of(p, "vda"), STORE_ORIGINAL_SAME);
    write_directly(p);
    make_point(p, h, 1);
    apply(p, 1);
    assert_all_hashes(p);
    assert_point(p, h, 1);
    assert_int_equal(state_of(p, "vda"), STORE_ORIGINAL_SAME);
    assert_originals_untouched(p);
    assert_int_equal(pwrite(loop, "other", 5, 512), 5);
    assert_int_equal(state_of(p, "vda"), STORE_ORIGINAL_CHANGED);
    ioctl(loop, LOOP_CLR_FD, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        with_place(a_disk_shows_what_its_original_holds),
        with_place(a_disk_that_is_longer_than_its_original_ends_with_zeroes),
        with_place(direct_writes_go_on_top_and_hashes_show_both),
        with_place(a_disk_that_was_written_whole_needs_its_original_no_more),
        with_place(what_the_originals_hold_is_a_point),
        with_place(a_journal_follows_the_originals_without_a_compare),
        with_place(only_an_untouched_replica_can_make_a_point_of_its_originals),
        with_place(folds_scrubs_and_resets_leave_the_originals_alone),
        with_place(no_image_is_adopted_over_an_original),
        with_place(an_original_that_changes_is_told_and_can_be_accepted),
        with_place(an_original_that_is_cut_or_gone_is_told_and_open_succeeds),
        with_place(an_original_whose_backing_file_is_gone_is_gone),
        with_place(a_scrub_tells_which_points_a_changed_original_spoils),
        with_place(what_is_no_image_is_refused_as_an_original),
        with_place(an_overlay_records_from_its_first_write_on),
        with_place(a_block_device_can_be_an_original),
    };

    return cmocka_run_group_tests_name("store: originals", tests, NULL, NULL);
}
