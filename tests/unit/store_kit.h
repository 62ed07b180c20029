/* What the tests of the replica store share: a store, and models of what it must hold. */
#ifndef TESTS_UNIT_STORE_KIT_H
#define TESTS_UNIT_STORE_KIT_H

#include "tests/unit/replica_kit.h"

#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>

#include "common/units.h"
#include "drivers/store/child.h"
#include "drivers/store/folder.h"
#include "drivers/store/layout.h"
#include "drivers/store/qcow2.h"

#define VDA_BYTES ((3u << 20) + 512)
#define VDB_BYTES ((1u << 20) + 65536 + 512)

static const struct store_ops *const ops = &store_qcow2_ops;

struct place {
    char parent[64];
    char folder[96];
    struct kit_model models[KIT_MAX_DISKS];
    size_t n;
    uint64_t seed;
    struct store *s;
};

static inline void
add_model(struct place *p, const char *target, uint64_t capacity)
{
    struct kit_model *m = &p->models[p->n++];

    snprintf(m->disk.target, sizeof m->disk.target, "%s", target);
    m->disk.capacity_bytes = capacity;
    m->bytes = mem_alloc(capacity, 1);
}

static inline void
grow_model(struct kit_model *m, uint64_t capacity)
{
    uint8_t *bytes = mem_alloc(capacity, 1);

    memcpy(bytes, m->bytes, m->disk.capacity_bytes);
    free(m->bytes);
    m->bytes = bytes;
    m->disk.capacity_bytes = capacity;
}

static inline void
create_store(struct place *p)
{
    struct store_disk disks[KIT_MAX_DISKS];
    struct error *err = NULL;

    for (size_t i = 0; i < p->n; i++)
        disks[i] = p->models[i].disk;
    assert_ok(ops->create(p->folder, disks, p->n, &err), err);
    assert_ok(ops->open(p->folder, &p->s, &err), err);
}

static inline int
make_place(void **state)
{
    struct place *p = NEW(struct place);

    snprintf(p->parent, sizeof p->parent, "/tmp/vdr-store-XXXXXX");
    if (mkdtemp(p->parent) == NULL)
        return -1;
    snprintf(p->folder, sizeof p->folder, "%s/replica", p->parent);
    p->seed = 88172645463325252ull;
    add_model(p, "vda", VDA_BYTES);
    add_model(p, "vdb", VDB_BYTES);
    *state = p;
    return 0;
}

static inline int
remove_place(void **state)
{
    struct place *p = *state;

    if (p->s != NULL)
        ops->close(p->s);
    umount2(p->parent, MNT_DETACH); /* of the tests that mounted something there */
    kit_remove_tree(p->parent);
    for (size_t i = 0; i < p->n; i++)
        free(p->models[i].bytes);
    free(p);
    return 0;
}

static inline void
reopen(struct place *p)
{
    struct error *err = NULL;

    if (p->s != NULL)
        ops->close(TAKE(p->s));
    assert_ok(ops->open(p->folder, &p->s, &err), err);
}

/* --- looking at what is there ------------------------------------------------------- */

static inline void
run(const char *const *argv)
{
    AUTOFD(root) = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct child_request request = { .argv = argv, .folder = root };
    struct error *err = NULL;

    assert_ok(child_run(&request, 60000, &err), err);
}

/* The content of an image and all below it, as a guest would see it. */
static inline void
assert_image(const struct place *p, const char *image, const struct kit_model *m)
{
    AUTOFREE(char) *raw = mem_printf("%s/content.raw", p->parent);
    const char *const argv[] = { "qemu-img", "convert", "-U",  "-f", "qcow2",
                                 "-O",       "raw",     image, raw,  NULL };
    AUTOFREE(uint8_t) *found = mem_alloc(m->disk.capacity_bytes, 1);
    AUTOFD(fd) = -1;
    struct stat st;

    run(argv);
    fd = open(raw, O_RDONLY | O_CLOEXEC);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, m->disk.capacity_bytes);
    assert_int_equal(read(fd, found, m->disk.capacity_bytes), m->disk.capacity_bytes);
    for (size_t i = 0; i < m->disk.capacity_bytes; i++)
        if (found[i] != m->bytes[i])
            fail_msg("disk %s differs at %zu", m->disk.target, i);
    unlink(raw);
}

static inline struct layout *
load_layout(const struct place *p)
{
    AUTOFD(fd) = open(p->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct layout *l = NULL;
    struct error *err = NULL;

    assert_ok(layout_load(fd, &l, &err), err);
    return l;
}

static inline char *
layer_file(const struct place *p, size_t disk, size_t from_top)
{
    AUTOPTR(layout) *l = load_layout(p);
    const struct layout_disk *d = &l->disks[disk];

    return mem_printf("%s/disks/%s", p->folder, d->layers[d->n_layers - 1 - from_top]);
}

static inline void
assert_content(const struct place *p)
{
    for (size_t i = 0; i < p->n; i++) {
        AUTOFREE(char) *tip = layer_file(p, i, 0);

        assert_image(p, tip, &p->models[i]);
    }
}

static inline uint64_t
file_sum(const char *path)
{
    AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t bytes[4096];
    uint64_t sum = 14695981039346656037ull;
    ssize_t n;

    assert_true(fd >= 0);
    while ((n = read(fd, bytes, sizeof bytes)) > 0)
        for (ssize_t i = 0; i < n; i++)
            sum = (sum ^ bytes[i]) * 1099511628211ull;
    return sum;
}

/* The newest point's, as layout.json names it. */
static inline void
assert_blob(struct place *p, uint64_t seq)
{
    AUTOFREE(char) *wanted = mem_printf("xml of %llu", (unsigned long long)seq);
    AUTOPTR(layout) *l = load_layout(p);
    const struct layout_blob *b = layout_find_blob(l, "domain.xml");
    AUTOFREE(char) *path = NULL;
    AUTOFREE(char) *data = NULL;
    struct error *err = NULL;
    size_t n = 0;

    assert_non_null(b);
    path = mem_printf("%s/aux/%s", p->folder, b->file);
    assert_ok(folder_read(AT_FDCWD, path, 4096, &data, &n, &err), err);
    assert_string_equal(data, wanted);
}

/* --- making journals ---------------------------------------------------------------- */

/* Mostly whole sectors; sometimes any bytes; often up to the disk's last one. */
static inline void
choose_range(struct place *p, uint64_t capacity, uint64_t max, uint64_t *offset,
             uint64_t *length)
{
    uint64_t unit = kit_random(&p->seed) % 8 == 0 ? 1 : 512;

    *offset = kit_random(&p->seed) % capacity / unit * unit;
    *length = (1 + kit_random(&p->seed) % (max / unit)) * unit;
    if (*length > capacity - *offset)
        *length = capacity - *offset;
}

static inline void
random_write(struct place *p, struct kit_writer *w, uint8_t *buffer)
{
    size_t disk = kit_random(&p->seed) % p->n;
    struct kit_model *m = &p->models[disk];
    uint64_t offset, length;

    choose_range(p, m->disk.capacity_bytes, 200000, &offset, &length);
    switch (kit_random(&p->seed) % 4) {
    case 0:
        memset(m->bytes + offset, 0, length);
        kit_zero(w, disk, offset, length);
        return;
    case 1: /* zeroes that come as data */
        memset(buffer, 0, length);
        break;
    default:
        kit_fill(&p->seed, buffer, length);
    }
    memcpy(m->bytes + offset, buffer, length);
    kit_data(w, disk, offset, buffer, length);
}

static inline void
random_journal(struct place *p, uint64_t seq, int writes)
{
    struct kit_writer w = kit_start(p->s, seq, p->models, p->n);
    AUTOFREE(uint8_t) *buffer = mem_alloc(200000, 1);

    for (int i = 0; i < writes; i++)
        random_write(p, &w, buffer);
    kit_finish(&w, seq);
}

/* Long enough that apply() can be interrupted in it. */
static inline void
long_journal(struct place *p, uint64_t seq)
{
    struct kit_writer w = kit_start(p->s, seq, p->models, p->n);
    AUTOFREE(uint8_t) *buffer = mem_alloc(65536, 1);

    for (int round = 0; round < 12; round++)
        for (size_t disk = 0; disk < p->n; disk++) {
            struct kit_model *m = &p->models[disk];

            for (uint64_t at = 0; at + 65536 <= m->disk.capacity_bytes; at += 65536) {
                kit_fill(&p->seed, buffer, 65536);
                memcpy(m->bytes + at, buffer, 65536);
                kit_data(&w, disk, at, buffer, 65536);
            }
        }
    kit_finish(&w, seq);
}

static inline void
apply(struct place *p, uint64_t seq)
{
    struct error *err = NULL;

    assert_ok(ops->apply(p->s, seq, NULL, &err), err);
    assert_int_equal(ops->applied(p->s), seq);
}

static inline void
touch(const struct place *p, const char *name)
{
    AUTOFREE(char) *path = mem_printf("%s/%s", p->folder, name);
    AUTOFD(fd) = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
}

static inline bool
there(const struct place *p, const char *name)
{
    AUTOFREE(char) *path = mem_printf("%s/%s", p->folder, name);

    return access(path, F_OK) == 0;
}

static inline void
scribble(const char *image)
{
    const char *const argv[] = {
        "qemu-io", "-f", "qcow2", "-c", "write -P 0xaa 4096 600000", image, NULL
    };

    run(argv);
}

static inline uint64_t
applying(const struct place *p)
{
    AUTOPTR(layout) *l = load_layout(p);

    return l->applying;
}

static inline pid_t
apply_in_child(struct place *p, uint64_t seq)
{
    pid_t child = fork();

    if (child == 0) {
        struct store *s = NULL;
        bool ok = ops->open(p->folder, &s, NULL) && ops->apply(s, seq, NULL, NULL) &&
                  ops->seal(s, NULL);

        if (ok)
            ops->close(s);
        _exit(ok ? 0 : 1);
    }
    assert_true(child > 0);
    return child;
}

/* False if it had ended by itself. */
static inline bool
kill_child_after(pid_t child, int us)
{
    struct timespec wait = { .tv_nsec = us * 1000L };
    int status;

    nanosleep(&wait, NULL);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status);
}

#define with_place(f) cmocka_unit_test_setup_teardown(f, make_place, remove_place)

#endif
