#include "drivers/store/layer_map.h"

#include <assert.h>
#include <fcntl.h>
#include <string.h>

#include "drivers/store/clusters.h"
#include "drivers/store/folder.h"

#define LOOK_CLUSTERS 256 /* at once */

struct layer_map {
    int base;                /* a raw bottom's file; -1: there is none */
    bool foreign;            /* the bottom is an original of another format */
    struct clusters **items; /* the layers above it, lowest first */
    size_t n;
    uint64_t capacity_bytes;
};

/* --- opening ------------------------------------------------------------------------ */

static bool
open_layer(struct layer_map *m, int disks, const char *file, struct error **err)
{
    struct clusters *c = NULL;

    if (layout_is_raw(file)) {
        m->base = openat(disks, file, O_RDONLY | O_CLOEXEC);
        return m->base >= 0 || folder_errno(err, "open layer '%s'", file);
    }
    if (!clusters_open(disks, file, &c, err))
        return false;
    m->items[m->n++] = c;
    return clusters_bytes(c) == LAYER_GRAIN ||
           error_set(err, ERROR_STORE, "layer '%s' has clusters of %llu bytes", file,
                     (unsigned long long)clusters_bytes(c));
}

/* A raw one is read as a base is; what others hold only QEMU can tell. */
static bool
open_original(struct layer_map *m, const struct layout_original *original,
              struct error **err)
{
    m->foreign = strcmp(original->format, "raw") != 0;
    if (!m->foreign)
        m->base = open(original->path, O_RDONLY | O_CLOEXEC);
    return m->foreign || m->base >= 0 ||
           folder_errno(err, "open original '%s'", original->path);
}

bool
layer_map_open(int disks, const struct layout_disk *d, size_t bottom,
               struct layer_map **ret, struct error **err)
{
    AUTOPTR(layer_map) *m = NEW(struct layer_map);

    m->base = -1;
    m->items = mem_alloc(d->n_layers, sizeof(struct clusters *));
    m->capacity_bytes = d->capacity_bytes;
    if (bottom == 0 && d->original.path != NULL && !open_original(m, &d->original, err))
        return false;
    for (size_t i = bottom; i < d->n_layers; i++)
        if (!open_layer(m, disks, d->layers[i], err))
            return false;
    *ret = TAKE(m);
    return true;
}

void
layer_map_free(struct layer_map *m)
{
    if (m == NULL)
        return;
    for (size_t i = 0; i < m->n; i++)
        clusters_free(m->items[i]);
    if (m->base >= 0)
        close(m->base);
    free(m->items);
    free(m);
}

/* --- looking ------------------------------------------------------------------------ */

/* A cluster, and which file shows it. */
struct found {
    struct cluster cluster;
    int fd;
};

/* Takes what a layer holds of those that no higher one does; *ret_left: how many stay. */
static void
take(struct found *found, const struct cluster *of, size_t n, int fd, size_t *ret_left)
{
    *ret_left = 0;
    for (size_t i = 0; i < n; i++) {
        if (found[i].cluster.kind == CLUSTER_BELOW)
            found[i] = (struct found){ of[i], fd };
        *ret_left += found[i].cluster.kind == CLUSTER_BELOW;
    }
}

static bool
look(const struct layer_map *m, uint64_t offset, uint64_t length, struct found *ret,
     struct error **err)
{
    size_t n = (size_t)((length + LAYER_GRAIN - 1) / LAYER_GRAIN), left = n;
    struct cluster clusters[LOOK_CLUSTERS];
    enum cluster_kind below = m->foreign ? CLUSTER_OTHER : CLUSTER_ZERO;

    for (size_t i = 0; i < n; i++)
        ret[i] = (struct found){ { CLUSTER_BELOW, 0 }, -1 };
    for (size_t i = m->n; i-- > 0 && left > 0;) {
        if (!clusters_look(m->items[i], offset, length, clusters, err))
            return false;
        take(ret, clusters, n, clusters_fd(m->items[i]), &left);
    }
    for (size_t i = 0; i < n; i++) /* below all of them */
        clusters[i] = (struct cluster){ m->base >= 0 ? CLUSTER_DATA : below,
                                        offset + i * LAYER_GRAIN };
    take(ret, clusters, n, m->base, &left);
    return true;
}

static struct layer_run
run_of(const struct found *f, uint64_t offset, uint64_t length)
{
    struct layer_run run = { LAYER_OTHER, offset, length, -1, 0 };

    if (f->cluster.kind == CLUSTER_ZERO)
        run.kind = LAYER_ZERO;
    if (f->cluster.kind != CLUSTER_DATA)
        return run;
    run.kind = LAYER_FILE;
    run.fd = f->fd;
    run.at = f->cluster.at;
    return run;
}

static bool
goes_on(const struct layer_run *run, const struct layer_run *next)
{
    return run->kind == next->kind && run->fd == next->fd &&
           (run->kind != LAYER_FILE || run->at + run->length == next->at);
}

static bool
tell(const struct found *found, uint64_t offset, uint64_t length, layer_run_fn fn,
     void *opaque, struct error **err)
{
    uint64_t end = offset + length;
    struct layer_run run = run_of(found, offset, MIN(LAYER_GRAIN, length));

    for (uint64_t at = offset + run.length; at < end;) {
        struct layer_run next = run_of(++found, at, MIN(LAYER_GRAIN, end - at));

        at += next.length;
        if (goes_on(&run, &next)) {
            run.length += next.length;
            continue;
        }
        if (!fn(opaque, &run, err))
            return false;
        run = next;
    }
    return fn(opaque, &run, err);
}

bool
layer_map_each(const struct layer_map *m, uint64_t offset, uint64_t length,
               layer_run_fn fn, void *opaque, struct error **err)
{
    struct found found[LOOK_CLUSTERS];

    assert(offset % LAYER_GRAIN == 0 && length <= m->capacity_bytes &&
           offset <= m->capacity_bytes - length);
    while (length > 0) {
        uint64_t n = MIN(length, (uint64_t)LOOK_CLUSTERS * LAYER_GRAIN);

        if (!look(m, offset, n, found, err) || !tell(found, offset, n, fn, opaque, err))
            return false;
        offset += n;
        length -= n;
    }
    return true;
}
