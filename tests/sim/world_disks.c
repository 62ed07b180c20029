/* What the guest writes, and what images hold of it. */
#include "tests/sim/world.h"

#include <fcntl.h>
#include <unistd.h>

#include "daemon/replica.h"
#include "drivers/store/layout.h"
#include "tests/sim/files.h"

/* --- the guest -----------------------------------------------------------------------
 */

/* Random numbers that are the same in each run. */
static uint64_t
random_number(struct world *w)
{
    w->seed ^= w->seed << 13;
    w->seed ^= w->seed >> 7;
    w->seed ^= w->seed << 17;
    return w->seed;
}

void
world_guest_writes_at(struct world_host *h, unsigned n)
{
    struct capture_driver *capture = h->capture;
    struct world *w = h->world;
    uint8_t run[3 * FAKE_CAPTURE_BLOCK];
    const char *target;
    uint64_t capacity;

    for (size_t i = 0; (target = fake_capture_disk(capture, i, &capacity)) != NULL; i++)
        for (unsigned k = 0; k < n; k++) {
            size_t length = random_number(w) % sizeof run + 1;
            uint64_t offset = random_number(w) % (capacity - length);
            bool zero = random_number(w) % 4 == 0;

            for (size_t b = 0; b < length; b++)
                run[b] = zero ? 0 : (uint8_t)(random_number(w) >> 17);
            fake_capture_write(capture, target, offset, run, length);
        }
}

void
world_guest_writes(struct world *w, unsigned n)
{
    world_guest_writes_at(&w->source, n);
}

/* --- what the replica holds
 * ---------------------------------------------------------------- */

void
world_model_take_at(struct world_host *h, struct world_model *ret)
{
    struct capture_driver *capture = h->capture;
    const char *target;

    *ret = (struct world_model){ 0 };
    while ((target = fake_capture_disk(capture, ret->n, &ret->capacity_bytes[ret->n])) !=
           NULL) {
        snprintf(ret->target[ret->n], sizeof ret->target[0], "%s", target);
        ret->bytes[ret->n] = (uint8_t *)mem_memdup(fake_capture_content(capture, target),
                                                   ret->capacity_bytes[ret->n]);
        ret->n++;
    }
}

void
world_model_take(struct world *w, struct world_model *ret)
{
    world_model_take_at(&w->source, ret);
}

void
world_model_free(struct world_model *m)
{
    for (size_t i = 0; i < m->n; i++)
        free(m->bytes[i]);
}

void
world_check_image(struct world *w, const char *path, const struct world_model *m,
                  size_t disk)
{
    AUTOFREE(char) *raw = mem_printf("%s/read.raw", w->folder);
    AUTOFREE(char) *bytes = NULL;
    size_t n = 0;

    run_program((const char *const[]){ "qemu-img", "convert", "-U", "-O", "raw", path,
                                       raw, NULL });
    bytes = file_read_bytes(raw, &n);
    assert_non_null(bytes);
    assert_int_equal(n, m->capacity_bytes[disk]);
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)bytes[i] != m->bytes[disk][i])
            fail_msg("'%s' differs from what it must hold at byte %zu", path, i);
}

void
world_check_tip_at(struct world_host *h, const struct world_model *m)
{
    AUTOPTR(replication) *r = world_replication(h);
    AUTOFD(fd) = open(r->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    AUTOPTR(layout) *l = NULL;
    struct error *err = NULL;

    assert_ok(replica_apply(&h->d, r, NULL, &err), err);
    assert_ok(layout_load(fd, &l, &err), err);
    for (size_t i = 0; i < m->n; i++) {
        const struct layout_disk *d = layout_find(l, m->target[i]);
        AUTOFREE(char) *path = NULL;

        assert_non_null(d);
        path = mem_printf("%s/disks/%s", r->folder, d->layers[d->n_layers - 1]);
        world_check_image(h->world, path, m, i);
    }
}

void
world_check_tip(struct world *w, const struct world_model *m)
{
    world_check_tip_at(&w->target, m);
}

void
world_check_overlay(struct world *w, uint64_t epoch, const struct world_model *m)
{
    for (size_t i = 0; i < m->n; i++) {
        AUTOFREE(char) *path =
            mem_printf("%s/b/storage/%s/overlay/failover-%llu/%s.qcow2", w->folder,
                       WORLD_REPLICA, (unsigned long long)epoch, m->target[i]);

        world_check_image(w, path, m, i);
    }
}
