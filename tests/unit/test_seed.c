/* Images that a replica begins with: what is taken, what is refused, what is in it then.
 */
#include "tests/unit/store_kit.h"

#include <endian.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "common/json.h"
#include "drivers/store/hashed.h"
#include "drivers/store/seed_image.h"
#include "drivers/store/seed_media.h"

#define UUID "0f8b2c4a-1111-4222-8333-444455556666"

static void
no_progress(uint64_t done, uint64_t total, void *opaque)
{
    assert_true(done <= total);
    *(unsigned *)opaque += 1;
}

/* --- making seeds ---------------------------------------------------------------------
 */

/* PARENT/seeds, and PARENT/other beside it. */
static int
make_seeds(void **state)
{
    struct place *p;
    AUTOFREE(char) *seeds = NULL;
    AUTOFREE(char) *other = NULL;

    if (make_place(state) != 0)
        return -1;
    p = *state;
    create_store(p);
    seeds = mem_printf("%s/seeds", p->parent);
    other = mem_printf("%s/other", p->parent);
    return mkdir(seeds, 0755) | mkdir(other, 0755);
}

static char *
seed_path(const struct place *p, const char *name)
{
    return mem_printf("%s/seeds/%s", p->parent, name);
}

/* Some data and some holes. */
static void
fill_model(struct kit_model *m)
{
    for (size_t i = 0; i < m->disk.capacity_bytes; i++)
        m->bytes[i] = i % 262144 < 100000 ? (uint8_t)(i * 7 + i / 4096) : 0;
}

static void
write_file(const char *path, const void *data, size_t n)
{
    AUTOFD(fd) = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, n), n);
}

static char *
make_raw(const struct place *p, const char *name, const struct kit_model *m)
{
    char *path = seed_path(p, name);

    write_file(path, m->bytes, m->disk.capacity_bytes);
    return path;
}

static char *
make_qcow2(const struct place *p, const char *name, const struct kit_model *m)
{
    AUTOFREE(char) *raw = make_raw(p, "made.raw", m);
    char *path = seed_path(p, name);
    const char *const argv[] = { "qemu-img", "convert", "-f", "raw", "-O",
                                 "qcow2",    raw,       path, NULL };

    run(argv);
    unlink(raw);
    return path;
}

/* An empty image whose header names another one; nobody looks whether that is there. */
static char *
make_on(const struct place *p, const char *name, const char *backing, const char *format)
{
    char *path = seed_path(p, name);
    const char *const argv[] = { "qemu-img", "create", "-q",    "-u", "-f", "qcow2", "-F",
                                 format,     "-b",     backing, path, "2M", NULL };

    run(argv);
    return path;
}

static bool
open_seed(const struct place *p, const char *path, enum seed_format format,
          struct seed_image *ret, struct error **err)
{
    AUTOFREE(char) *folder = mem_printf("%s/seeds", p->parent);

    return seed_image_open(folder, path, format, ret, err);
}

static bool
take(struct place *p, const char *target, const char *path, struct error **err)
{
    unsigned calls = 0;
    struct cancel cancel = { 0 };
    const struct store_effort effort = { .cancel = &cancel,
                                         .progress = no_progress,
                                         .opaque = &calls };
    struct seed_image image = { 0 };
    bool ok = open_seed(p, path, SEED_FORMAT_FIND, &image, err) &&
              ops->adopt(p->s, target, &image, &effort, err);

    seed_image_close(&image);
    return ok;
}

/* --- what is taken --------------------------------------------------------------------
 */

static void
a_raw_and_a_qcow2_image_become_the_base(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *raw = NULL;
    AUTOFREE(char) *qcow2 = NULL;
    struct error *err = NULL;
    uint64_t before[2];

    for (size_t i = 0; i < p->n; i++)
        fill_model(&p->models[i]);
    raw = make_raw(p, "a.img", &p->models[0]);
    qcow2 = make_qcow2(p, "b.qcow2", &p->models[1]);
    before[0] = file_sum(raw);
    before[1] = file_sum(qcow2);
    assert_ok(take(p, "vda", raw, &err), err);
    assert_ok(take(p, "vdb", "b.qcow2", &err), err);
    assert_content(p);
    assert_true(file_sum(raw) == before[0]);
    assert_true(file_sum(qcow2) == before[1]);
}

/* Then the zeroes are the seed's, and take nothing more. */
static bool
can_share(const struct place *p, const char *path)
{
    AUTOFREE(char) *twin = seed_path(p, "twin");
    AUTOFD(from) = open(path, O_RDONLY | O_CLOEXEC);
    AUTOFD(to) = open(twin, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    return ioctl(to, FICLONE, from) == 0;
}

static void
zeroes_of_a_seed_take_no_space(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *raw = NULL;
    AUTOFREE(char) *base = NULL;
    struct error *err = NULL;
    struct stat st;

    memset(p->models[0].bytes + (1u << 20), 7, 4096);
    raw = make_raw(p, "a.raw", &p->models[0]);
    assert_ok(take(p, "vda", raw, &err), err);
    assert_content(p);
    base = layer_file(p, 0, 1);
    assert_int_equal(stat(base, &st), 0);
    assert_true((uint64_t)st.st_blocks * 512 < (1u << 19) || can_share(p, raw));
}

static void
a_seed_with_backing_files_shows_what_its_guest_sees(void **state)
{
    struct place *p = *state;
    struct kit_model *m = &p->models[0];
    AUTOFREE(char) *base = NULL;
    AUTOFREE(char) *top = seed_path(p, "top.qcow2");
    const char *const create[] = { "qemu-img", "create", "-q",        "-f", "qcow2", "-F",
                                   "qcow2",    "-b",     "low.qcow2", top,  NULL };
    const char *const io[] = { "qemu-io", "-f", "qcow2", "-c", "write -q -P 9 65536 8192",
                               top,       NULL };
    struct error *err = NULL;

    fill_model(m);
    base = make_qcow2(p, "low.qcow2", m);
    run(create);
    run(io);
    memset(m->bytes + 65536, 9, 8192);
    assert_ok(take(p, "vda", top, &err), err);
    assert_content(p);
}

/* The disk has grown, or the seed is of another one: the compare puts that right. */
static void
a_seed_of_another_size_is_cut_or_followed_by_zeroes(void **state)
{
    struct place *p = *state;
    struct kit_model small = { .bytes = p->models[0].bytes };
    AUTOFREE(char) *raw = NULL;
    AUTOFREE(char) *qcow2 = NULL;
    struct error *err = NULL;

    fill_model(&p->models[0]);
    memset(p->models[0].bytes + (1u << 20), 0, VDA_BYTES - (1u << 20));
    small.disk.capacity_bytes = 1u << 20;
    memcpy(p->models[1].bytes, p->models[0].bytes, VDB_BYTES);
    raw = make_raw(p, "small.raw", &small);
    qcow2 = make_qcow2(p, "large.qcow2", &p->models[0]);
    assert_ok(take(p, "vda", raw, &err), err);
    assert_ok(take(p, "vdb", qcow2, &err), err);
    assert_content(p);
    assert_ok(take(p, "vdb", raw, &err), err); /* again, after a failure for example */
    assert_content(p);
}

static void
a_replica_that_has_a_content_takes_no_seed(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *raw = NULL;
    struct error *err = NULL;

    raw = make_raw(p, "a.raw", &p->models[0]);
    random_journal(p, 1, 3);
    apply(p, 1);
    assert_fails(take(p, "vda", raw, &err), err, ERROR_INVALID_STATE);
    assert_content(p);
}

static void
a_seed_that_is_cancelled_is_stopped(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *qcow2 = make_qcow2(p, "a.qcow2", &p->models[0]);
    struct cancel cancel = { 0 };
    const struct store_effort effort = { .cancel = &cancel };
    struct seed_image image = { 0 };
    struct error *err = NULL;

    fill_model(&p->models[0]);
    free(qcow2);
    qcow2 = make_raw(p, "a.raw", &p->models[0]);
    cancel_request(&cancel);
    assert_ok(open_seed(p, qcow2, SEED_FORMAT_RAW, &image, &err), err);
    assert_fails(ops->adopt(p->s, "vda", &image, &effort, &err), err, ERROR_CANCELLED);
    seed_image_close(&image);
}

/* --- what is refused ------------------------------------------------------------------
 */

static void
assert_refused(struct place *p, const char *path, enum error_code code)
{
    struct seed_image image = { 0 };
    struct error *err = NULL;

    assert_fails(open_seed(p, path, SEED_FORMAT_FIND, &image, &err), err, code);
    assert_int_equal(image.n, 0);
}

static void
a_seed_outside_of_its_folder_is_refused(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *beside = mem_printf("%s/other/a.raw", p->parent);
    AUTOFREE(char) *alike = mem_printf("%s/seeds-of-another/a.raw", p->parent);
    AUTOFREE(char) *link = seed_path(p, "link.raw");
    AUTOFREE(char) *folder_link = seed_path(p, "folder");
    AUTOFREE(char) *up = seed_path(p, "../other/a.raw");

    write_file(beside, "secret", 6);
    assert_int_equal(symlink(beside, link), 0);
    assert_int_equal(symlink("../other", folder_link), 0);
    assert_refused(p, beside, ERROR_FORBIDDEN);
    assert_refused(p, alike, ERROR_FORBIDDEN);
    assert_refused(p, "/etc/shadow", ERROR_FORBIDDEN);
    assert_refused(p, "../other/a.raw", ERROR_FORBIDDEN);
    assert_refused(p, up, ERROR_FORBIDDEN);
    assert_refused(p, "link.raw", ERROR_FORBIDDEN);
    assert_refused(p, "folder/a.raw", ERROR_FORBIDDEN);
    assert_refused(p, "nothing.raw", ERROR_NOT_FOUND);
    assert_refused(p, "", ERROR_UNSUPPORTED_DISK);
}

/* Headers are written by guests, too. */
static void
a_backing_file_outside_of_the_folder_is_refused(void **state)
{
    struct place *p = *state;
    static const char *const files[] = { "/etc/shadow", "../other/a.raw", "link.raw",
                                         "../../../../../../etc/shadow" };
    AUTOFREE(char) *link = seed_path(p, "link.raw");

    assert_int_equal(symlink("/etc/passwd", link), 0);
    for (size_t i = 0; i < N_ELEMENTS(files); i++) {
        AUTOFREE(char) *path = make_on(p, "evil.qcow2", files[i], "raw");

        assert_refused(p, path, ERROR_FORBIDDEN);
    }
}

static void
a_backing_file_that_is_no_file_is_refused(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *nbd = make_on(p, "nbd.qcow2", "nbd://192.0.2.1/x", "raw");
    AUTOFREE(char) *fifo = seed_path(p, "fifo.raw");
    AUTOFREE(char) *loop = make_on(p, "loop.qcow2", "loop.qcow2", "qcow2");

    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_refused(p, nbd, ERROR_NOT_FOUND);
    assert_refused(p, fifo, ERROR_UNSUPPORTED_DISK);
    assert_refused(p, loop, ERROR_UNSUPPORTED_DISK);
}

static void
a_backing_file_of_no_said_format_is_refused(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *path = make_on(p, "top.qcow2", "low.raw", "raw");
    AUTOFD(fd) = open(path, O_RDWR | O_CLOEXEC);
    uint8_t head[512];
    uint32_t end = 0;

    assert_int_equal(pread(fd, head, sizeof head, 0), sizeof head);
    for (size_t at = 104; at + 8 <= sizeof head; at += 8) {
        uint32_t type;

        memcpy(&type, head + at, sizeof type);
        if (be32toh(type) == 0xe2792aca)
            assert_int_equal(pwrite(fd, &end, sizeof end, (off_t)at), sizeof end);
    }
    assert_refused(p, path, ERROR_UNSUPPORTED_DISK);
}

/* Its data would be read from a file that its header names. */
static void
an_image_with_its_data_elsewhere_is_refused(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *path = seed_path(p, "outer.qcow2");
    AUTOFREE(char) *data = mem_printf("data_file=%s/other/data.raw", p->parent);
    const char *const argv[] = { "qemu-img", "create", "-q", "-f", "qcow2",
                                 "-o",       data,     path, "1M", NULL };

    run(argv);
    assert_refused(p, path, ERROR_UNSUPPORTED_DISK);
}

static void
a_raw_disk_whose_guest_wrote_a_header_is_asked_about(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *made = make_on(p, "made.qcow2", "/etc/shadow", "raw");
    AUTOFREE(char) *raw = seed_path(p, "disk.raw");
    AUTOFREE(char) *image = seed_path(p, "disk");
    struct seed_image seed = { 0 };
    struct error *err = NULL;

    assert_int_equal(rename(made, raw), 0);
    assert_refused(p, raw, ERROR_USAGE);
    assert_int_equal(link(raw, image), 0);
    assert_refused(p, image, ERROR_USAGE);
    assert_ok(open_seed(p, raw, SEED_FORMAT_RAW, &seed, &err), err);
    assert_int_equal(seed.n, 1);
    assert_int_equal(seed.formats[0], SEED_FORMAT_RAW);
    seed_image_close(&seed);
}

static void
other_formats_and_halves_are_refused(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *vmdk = seed_path(p, "a.vmdk");
    AUTOFREE(char) *half = seed_path(p, "half.qcow2");
    AUTOFREE(char) *empty = seed_path(p, "empty.qcow2");
    AUTOFREE(char) *huge = make_qcow2(p, "huge.qcow2", &p->models[1]);
    const char *const argv[] = { "qemu-img", "create", "-q", "-f",
                                 "vmdk",     vmdk,     "1M", NULL };
    uint64_t size = htobe64(UINT64_MAX - 511);
    AUTOFD(fd) = open(huge, O_RDWR | O_CLOEXEC);

    run(argv);
    write_file(half, "QFI\xfb\0\0\0\3", 8);
    write_file(empty, "", 0);
    assert_int_equal(pwrite(fd, &size, sizeof size, 24), sizeof size);
    assert_refused(p, vmdk, ERROR_UNSUPPORTED_DISK);
    assert_refused(p, half, ERROR_UNSUPPORTED_DISK);
    assert_refused(p, empty, ERROR_UNSUPPORTED_DISK);
    assert_refused(p, huge, ERROR_UNSUPPORTED_DISK);
}

/* QEMU finds what our look at the header cannot. */
static void
a_qcow2_image_that_is_damaged_fails_and_can_be_followed_by_another(void **state)
{
    struct place *p = *state;
    AUTOFREE(char) *qcow2 = NULL;
    struct error *err = NULL;
    uint8_t junk[64];
    uint64_t table; /* where the first level is */
    AUTOFD(fd) = -1;

    fill_model(&p->models[0]);
    qcow2 = make_qcow2(p, "a.qcow2", &p->models[0]);
    fd = open(qcow2, O_RDWR | O_CLOEXEC);
    assert_int_equal(pread(fd, &table, sizeof table, 40), sizeof table);
    memset(junk, 0xa5, sizeof junk);
    assert_int_equal(pwrite(fd, junk, sizeof junk, (off_t)be64toh(table)), sizeof junk);
    assert_fails(take(p, "vda", qcow2, &err), err, ERROR_STORE);
    free(qcow2);
    qcow2 = make_qcow2(p, "a.qcow2", &p->models[0]);
    assert_ok(take(p, "vda", qcow2, &err), err);
    assert_content(p);
}

/* --- media ----------------------------------------------------------------------------
 */

/* A folder with the image of vda, and its manifest. */
static void
make_media(struct place *p, struct seed_media *ret)
{
    struct seed_media *m = ret;
    const struct store_effort effort = { 0 };
    struct pace pace = { .effort = &effort };
    AUTOFREE(char) *folder = seed_path(p, "");
    AUTOFREE(char) *path = NULL;
    AUTOFD(at) = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTOFD(fd) = -1;
    struct error *err = NULL;

    fill_model(&p->models[0]);
    path = make_qcow2(p, "vda.qcow2", &p->models[0]);
    *m = (struct seed_media){ .vm_uuid = UUID,
                              .vm_name = "web",
                              .host = "a",
                              .time_ms = 1234,
                              .record = "virt-dr-x",
                              .n_disks = 1 };
    snprintf(m->disks[0].target, sizeof m->disks[0].target, "vda");
    m->disks[0].capacity_bytes = VDA_BYTES;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_ok(seed_media_hash(fd, &pace, &m->disks[0].file_bytes, m->disks[0].hash, &err),
              err);
    assert_ok(seed_media_save(m, at, &err), err);
}

static bool
load(const struct place *p, struct seed_media *ret, struct error **err)
{
    AUTOFREE(char) *folder = seed_path(p, "");
    AUTOFD(at) = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return seed_media_load(at, ret, err);
}

static void
a_manifest_is_read_as_it_was_written(void **state)
{
    struct place *p = *state;
    AUTOFREE(struct seed_media) *m = NEW(struct seed_media);
    AUTOFREE(struct seed_media) *found = NEW(struct seed_media);
    struct error *err = NULL;

    make_media(p, m);
    assert_ok(load(p, found, &err), err);
    assert_string_equal(found->vm_uuid, UUID);
    assert_string_equal(found->vm_name, "web");
    assert_string_equal(found->record, "virt-dr-x");
    assert_int_equal(found->time_ms, 1234);
    assert_int_equal(found->n_disks, 1);
    assert_string_equal(found->disks[0].target, "vda");
    assert_int_equal(found->disks[0].capacity_bytes, VDA_BYTES);
    assert_memory_equal(found->disks[0].hash, m->disks[0].hash, BLOCK_HASH_BYTES);
}

static bool
check_image(const struct place *p, const struct seed_media *m, struct error **err)
{
    AUTOFREE(char) *path = seed_path(p, "vda.qcow2");
    const struct store_effort effort = { 0 };
    struct pace pace = { .effort = &effort };
    AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC);

    return seed_media_check(fd, &m->disks[0], &pace, err);
}

static void
an_image_on_media_that_changed_is_told(void **state)
{
    struct place *p = *state;
    AUTOFREE(struct seed_media) *m = NEW(struct seed_media);
    AUTOFREE(char) *path = seed_path(p, "vda.qcow2");
    AUTOFD(fd) = -1;
    struct error *err = NULL;
    uint8_t byte;

    make_media(p, m);
    assert_ok(check_image(p, m, &err), err);
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pread(fd, &byte, 1, 400000), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, 400000), 1);
    assert_fails(check_image(p, m, &err), err, ERROR_CHECKSUM);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, 400000), 1);
    assert_ok(check_image(p, m, &err), err);
    assert_int_equal(ftruncate(fd, (off_t)m->disks[0].file_bytes - 1), 0);
    assert_fails(check_image(p, m, &err), err, ERROR_CHECKSUM);
}

static void
a_folder_without_a_manifest_is_not_whole(void **state)
{
    struct place *p = *state;
    AUTOFREE(struct seed_media) *m = NEW(struct seed_media);
    AUTOFREE(char) *manifest = seed_path(p, SEED_MEDIA_MANIFEST);
    struct error *err = NULL;

    assert_fails(load(p, m, &err), err, ERROR_NOT_FOUND);
    assert_int_equal(symlink("/etc/shadow", manifest), 0);
    assert_fails(load(p, m, &err), err, ERROR_FORBIDDEN);
}

/* As somebody would write it who knows how the hash is made. */
static void
put_manifest(const struct place *p, const char *text)
{
    AUTOFREE(char) *folder = seed_path(p, "");
    AUTOFD(at) = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTOJSON *o = NULL;
    struct error *err = NULL;

    assert_ok(json_parse(text, strlen(text), &o, &err), err);
    assert_ok(hashed_save(at, SEED_MEDIA_MANIFEST, o, &err), err);
}

static void
a_manifest_that_lies_is_refused(void **state)
{
    struct place *p = *state;
    static const char good[] =
        "{\"format\":1,\"vmId\":\"" UUID
        "\",\"vmName\":\"web\",\"host\":\"a\",\"time\":1,"
        "\"record\":\"\",\"disks\":[{\"target\":\"vda\",\"capacity\":1048576,\"size\":1,"
        "\"xxh3\":\"00112233445566778899aabbccddeeff\"}]}";
    static const struct {
        const char *from, *to;
    } lies[] = {
        { "\"vda\"", "\"../vda\"" },
        { "\"vda\"", "\"/etc\"" },
        { "1048576", "0" },
        { "1048576", "-512" },
        { "1048576", "144115188075855872" },
        { "1048576", "\"many\"" },
        { UUID, "web" },
        { "\"record\":\"\"", "\"record\":\"../x\"" },
        { "\"format\":1", "\"format\":2" },
        { "ddeeff", "ddeefg" },
        { "eeff", "ee" },
        { "\"disks\":[", "\"disk\":[" },
    };
    AUTOFREE(struct seed_media) *m = NEW(struct seed_media);
    struct error *err = NULL;

    put_manifest(p, good);
    assert_ok(load(p, m, &err), err);
    for (size_t i = 0; i < N_ELEMENTS(lies); i++) {
        const char *at = strstr(good, lies[i].from);
        AUTOFREE(char) *text = mem_printf("%.*s%s%s", (int)(at - good), good, lies[i].to,
                                          at + strlen(lies[i].from));

        put_manifest(p, text);
        assert_fails(load(p, m, &err), err, ERROR_PROTOCOL);
    }
}

static void
a_bit_of_a_manifest_that_flipped_is_told(void **state)
{
    struct place *p = *state;
    AUTOFREE(struct seed_media) *m = NEW(struct seed_media);
    AUTOFREE(char) *path = seed_path(p, SEED_MEDIA_MANIFEST);
    AUTOFREE(char) *text = NULL;
    char *digit;
    struct error *err = NULL;
    size_t n = 0;

    make_media(p, m);
    assert_ok(folder_read(AT_FDCWD, path, 65536, &text, &n, &err), err);
    digit = strstr(text, "1234");
    assert_non_null(digit);
    *digit = '3';
    write_file(path, text, n);
    assert_fails(load(p, m, &err), err, ERROR_STORE);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_seeds, remove_place)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_raw_and_a_qcow2_image_become_the_base),
        TEST(zeroes_of_a_seed_take_no_space),
        TEST(a_seed_with_backing_files_shows_what_its_guest_sees),
        TEST(a_seed_of_another_size_is_cut_or_followed_by_zeroes),
        TEST(a_replica_that_has_a_content_takes_no_seed),
        TEST(a_seed_that_is_cancelled_is_stopped),
        TEST(a_seed_outside_of_its_folder_is_refused),
        TEST(a_backing_file_outside_of_the_folder_is_refused),
        TEST(a_backing_file_that_is_no_file_is_refused),
        TEST(a_backing_file_of_no_said_format_is_refused),
        TEST(an_image_with_its_data_elsewhere_is_refused),
        TEST(a_raw_disk_whose_guest_wrote_a_header_is_asked_about),
        TEST(other_formats_and_halves_are_refused),
        TEST(a_qcow2_image_that_is_damaged_fails_and_can_be_followed_by_another),
        TEST(a_manifest_is_read_as_it_was_written),
        TEST(an_image_on_media_that_changed_is_told),
        TEST(a_folder_without_a_manifest_is_not_whole),
        TEST(a_manifest_that_lies_is_refused),
        TEST(a_bit_of_a_manifest_that_flipped_is_told),
    };

    return cmocka_run_group_tests_name("seed", tests, NULL, NULL);
}
