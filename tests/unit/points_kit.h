/* Points and what each of them must hold, for the tests that recover them. */
#ifndef TESTS_UNIT_POINTS_KIT_H
#define TESTS_UNIT_POINTS_KIT_H

#include "tests/unit/store_kit.h"

#include <dirent.h>

#define HISTORY_MAX 64

/* Copies of a place's models, by seq. */
struct history {
    struct kit_model models[HISTORY_MAX][KIT_MAX_DISKS];
    size_t n[HISTORY_MAX]; /* disks; 0: no such point */
};

static inline void
remember(struct history *h, const struct place *p, uint64_t seq)
{
    h->n[seq] = p->n;
    for (size_t i = 0; i < p->n; i++) {
        const struct kit_model *m = &p->models[i];

        free(h->models[seq][i].bytes);
        h->models[seq][i] = *m;
        h->models[seq][i].bytes =
            (uint8_t *)mem_memdup((const char *)m->bytes, m->disk.capacity_bytes);
    }
}

static inline void
history_free(struct history *h)
{
    for (size_t i = 0; i < HISTORY_MAX; i++)
        for (size_t j = 0; j < KIT_MAX_DISKS; j++)
            free(h->models[i][j].bytes);
    free(h);
}
DEFINE_AUTOPTR(history);

/* A journal of random writes and what the disks hold behind it; not applied. */
static inline void
make_point(struct place *p, struct history *h, uint64_t seq)
{
    random_journal(p, seq, 6);
    remember(h, p, seq);
}

static inline bool
try_overlay(struct place *p, const char *id, uint64_t seq, struct error **err)
{
    struct store_overlay wanted = { .id = id, .seq = seq };
    char **paths = NULL;
    size_t n = 0;
    bool ok = ops->overlay_create(p->s, &wanted, &paths, &n, err);

    for (size_t i = 0; i < n; i++)
        free(paths[i]);
    free(paths);
    return ok;
}

static inline void
assert_overlay_blob(struct place *p, const char *id, uint64_t seq)
{
    AUTOFREE(char) *wanted = mem_printf("xml of %llu", (unsigned long long)seq);
    AUTOFREE(char) *data = NULL;
    struct error *err = NULL;
    size_t n = 0;

    assert_ok(ops->overlay_blob(p->s, id, "domain.xml", &data, &n, &err), err);
    assert_int_equal(n, strlen(wanted));
    assert_string_equal(data, wanted);
}

/* Each disk of the overlay, byte for byte, and no other. */
static inline void
assert_overlay(struct place *p, const struct history *h, const char *id, uint64_t seq)
{
    struct store_overlay wanted = { .id = id, .seq = seq };
    struct error *err = NULL;
    char **paths = NULL;
    size_t n = 0;

    assert_ok(ops->overlay_create(p->s, &wanted, &paths, &n, &err), err);
    assert_int_equal(n, h->n[seq]);
    for (size_t i = 0; i < n; i++) {
        AUTOFREE(char) *end = mem_printf("/%s.qcow2", h->models[seq][i].disk.target);

        assert_non_null(strstr(paths[i], end));
        assert_image(p, paths[i], &h->models[seq][i]);
        free(paths[i]);
    }
    free(paths);
    assert_overlay_blob(p, id, seq);
}

/* The point of that seq in an overlay that is made for it and removed. */
static inline void
assert_point(struct place *p, const struct history *h, uint64_t seq)
{
    struct error *err = NULL;

    assert_overlay(p, h, "look", seq);
    assert_ok(ops->overlay_remove(p->s, "look", &err), err);
}

static inline void
assert_no_point(struct place *p, uint64_t seq)
{
    struct error *err = NULL;

    assert_fails(try_overlay(p, "look", seq, &err), err, ERROR_POINT_NOT_FOUND);
    assert_false(there(p, "overlay/look"));
    assert_false(there(p, "overlay/look.part"));
}

static inline void
seal(struct place *p)
{
    struct error *err = NULL;

    assert_ok(ops->seal(p->s, &err), err);
}

/* All of both disks anew, as a resync does. */
static inline void
write_all_directly(struct place *p)
{
    struct error *err = NULL;

    for (size_t i = 0; i < p->n; i++) {
        struct kit_model *m = &p->models[i];
        uint64_t half = m->disk.capacity_bytes / 1024 * 512;

        kit_fill(&p->seed, m->bytes, half);
        memset(m->bytes + half, 0, m->disk.capacity_bytes - half);
        assert_ok(ops->write(p->s, m->disk.target, 0, m->bytes, half, &err), err);
        assert_ok(
            ops->zero(p->s, m->disk.target, half, m->disk.capacity_bytes - half, &err),
            err);
    }
}

static inline size_t
count_files(const struct place *p, const char *folder)
{
    AUTOFREE(char) *path = mem_printf("%s/%s", p->folder, folder);
    DIR *dir = opendir(path);
    struct dirent *entry;
    size_t n = 0;

    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL)
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

#endif
