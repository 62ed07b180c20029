#include "drivers/store/original.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/json.h"
#include "drivers/capture/generation.h"
#include "drivers/store/blob.h"
#include "drivers/store/child.h"
#include "drivers/store/clusters.h"
#include "drivers/store/folder.h"
#include "drivers/store/image.h"
#include "drivers/store/replay.h"

#define TIMEOUT_MS 60000

/* --- looking ------------------------------------------------------------------------ */

/* Has QEMU all that it needs of the image and those below it? */
static bool
can_be_opened(const char *path, const char *format, struct error **err)
{
    AUTOFD(root) = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const char *const argv[] = { "qemu-img", "info", "-U", "--backing-chain",
                                 "-f",       format, "--", path,
                                 NULL };
    struct child_request request = { .argv = argv, .folder = root };
    AUTOPTR(error) *why = NULL;

    if (child_run(&request, TIMEOUT_MS, &why))
        return true;
    return error_set(err, ERROR_NOT_FOUND, "original image '%s' cannot be opened: %s",
                     path, error_message(why));
}

/* Of a file or a device. */
static bool
find_size(const char *path, uint64_t *ret, struct error **err)
{
    AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    off_t end = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);

    if (end < 0)
        return error_errno(err, ERROR_NOT_FOUND, "original image '%s'", path);
    *ret = (uint64_t)end;
    return true;
}

static bool
look(const char *path, const char *format, struct layout_original *ret,
     struct error **err)
{
    if (!find_size(path, &ret->size_bytes, err) || !can_be_opened(path, format, err) ||
        !generation_of_content(path, &ret->fingerprint, err))
        return false;
    snprintf(ret->format, sizeof ret->format, "%s", format);
    return true;
}

bool
original_look(const struct layout_original *original, enum store_original_state *ret,
              struct error **err)
{
    struct layout_original now = { .path = original->path };
    AUTOPTR(error) *why = NULL;

    if (original->path == NULL) {
        *ret = STORE_ORIGINAL_NONE;
        return true;
    }
    if (!look(original->path, original->format, &now, &why)) {
        if (!error_is(why, ERROR_NOT_FOUND))
            return error_propagate(err, TAKE(why));
        *ret = STORE_ORIGINAL_GONE;
        return true;
    }
    if (now.size_bytes < original->size_bytes)
        *ret = STORE_ORIGINAL_GONE;
    else
        *ret = now.fingerprint == original->fingerprint ? STORE_ORIGINAL_SAME
                                                        : STORE_ORIGINAL_CHANGED;
    return true;
}

/* --- below a disk ------------------------------------------------------------------- */

bool
original_put_below(int fd, struct layout_disk *d, const struct store_original *original,
                   struct error **err)
{
    struct layout_original known = { .path = (char *)original->path };
    char file[LAYOUT_NAME_MAX], path[LAYOUT_PATH_MAX];

    if (!layout_check_original(original->path, original->format, err) ||
        !look(original->path, original->format, &known, err))
        return error_prefix(err, "disk '%s'", d->target);
    layout_set_original(d, &known);
    layout_next_file(d, file);
    layout_path(file, path);
    if (!image_create_on(fd, path, d->capacity_bytes, original, err))
        return false;
    layout_add_layer(d, file);
    return true;
}

/* Devices have a driver of their own. */
static const char *
protocol_of(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISBLK(st.st_mode) ? "host_device" : "file";
}

struct json_object *
original_node(const struct layout_original *original)
{
    struct json_object *o = json_object_new_object();
    struct json_object *file = json_object_new_object();

    json_set_string(file, "driver", protocol_of(original->path));
    json_set_string(file, "filename", original->path);
    json_set_string(file, "locking", "off");
    json_set_bool(file, "read-only", true);
    json_set_string(o, "driver", original->format);
    json_set(o, "file", file);
    json_set_bool(o, "read-only", true);
    return o;
}

/* --- the point ---------------------------------------------------------------------- */

static bool
is_empty(const struct replica *r, const struct layout *l, bool *ret, struct error **err)
{
    *ret = l->applied == 0 && l->applying == 0 && l->n_marks == 0 && r->tip == NULL &&
           r->base.n_files == 0;
    for (size_t i = 0; *ret && i < l->n_disks; i++) {
        const struct layout_disk *d = &l->disks[i];
        char path[LAYOUT_PATH_MAX];

        layout_path(d->layers[d->n_layers - 1], path);
        if (d->n_layers != LAYOUT_MIN_LAYERS)
            *ret = false;
        else if (!clusters_none(r->fd, path, ret, err))
            return false;
    }
    return true;
}

static bool
write_blob(struct replica *r, const struct store_blob *blob, struct layout_blob *ret,
           struct error **err)
{
    AUTOFD(fd) = openat(r->blobs_fd, ret->file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
                        FOLDER_FILE_MODE);

    if (fd < 0)
        return folder_errno(err, "open blob '%s'", ret->file);
    return folder_write_all(fd, ret->file, blob->data, blob->length, err) &&
           folder_sync(r->blobs_fd, ret->file, err) &&
           blob_describe(r->blobs_fd, ret, err);
}

/* `ret` has WIRE_MAX_BLOBS. */
static bool
write_blobs(struct replica *r, const struct store_first *first, struct layout_blob *ret,
            struct error **err)
{
    AUTOFREE(char) *prefix = mem_printf("%012llu.", (unsigned long long)first->seq);

    if (first->n_blobs > WIRE_MAX_BLOBS)
        return error_set(err, ERROR_PROTOCOL, "more than %d blobs", WIRE_MAX_BLOBS);
    for (size_t i = 0; i < first->n_blobs; i++) {
        const struct store_blob *blob = &first->blobs[i];

        if (!layout_check_blob(blob->name, err))
            return false;
        snprintf(ret[i].name, sizeof ret[i].name, "%s", blob->name);
        replay_blob_file(prefix, blob->name, ret[i].file);
        if (!write_blob(r, blob, &ret[i], err))
            return false;
    }
    return folder_sync(r->blobs_fd, ".", err);
}

/* A disk without an original is not one of the point's. */
static void
drop_empty_views(const struct layout *l, struct layout_mark *m)
{
    size_t n = 0;

    for (size_t i = 0; i < m->n_views; i++)
        if (layout_find(l, m->views[i].target)->original.path != NULL)
            m->views[n++] = m->views[i];
    m->n_views = n;
}

bool
original_mark(struct replica *r, const struct store_first *first, struct error **err)
{
    AUTOPTR(layout) *l = replica_layout(r);
    struct layout_blob blobs[WIRE_MAX_BLOBS];
    struct layout *next;
    bool empty = false;

    if (first->seq != 0 && mark_find(l, first->seq) != NULL)
        return true;
    if (!is_empty(r, l, &empty, err))
        return false;
    if (first->seq == 0 || !empty || journals_newest(&r->journals) != 0)
        return error_set(err, ERROR_INVALID_STATE,
                         "the originals can only be a point as long as nothing was "
                         "written to the replica");
    if (!write_blobs(r, first, blobs, err))
        return false;
    next = replica_change_begin(r);
    next->applied = first->seq;
    next->direct = false;
    for (size_t i = 0; i < first->n_blobs; i++)
        layout_set_blob(next, &blobs[i]);
    drop_empty_views(next, mark_add(next, first->seq, true));
    return replica_change_end(r, next, err);
}

/* --- after a change ----------------------------------------------------------------- */

static bool
look_again(struct layout *next, struct error **err)
{
    for (size_t i = 0; i < next->n_disks; i++) {
        struct layout_original *o = &next->disks[i].original;

        if (o->path != NULL && !look(o->path, o->format, o, err))
            return error_prefix(err, "disk '%s'", next->disks[i].target);
    }
    return true;
}

bool
original_accept(struct replica *r, struct error **err)
{
    AUTOPTR(layout) *l = replica_layout(r);
    AUTOPTR(layout) *seen = layout_copy(l);
    struct layout *next;

    /* It takes a while, and only the tip's thread changes which originals there are. */
    if (!look_again(seen, err) || !replica_flush(r, err))
        return false;
    replica_drop_tip(r); /* it knows the images as they were */
    next = replica_change_begin(r);
    for (size_t i = 0; i < next->n_disks; i++) {
        struct layout_original *o = &next->disks[i].original;

        o->size_bytes = seen->disks[i].original.size_bytes;
        o->fingerprint = seen->disks[i].original.fingerprint;
    }
    return replica_change_end(r, next, err);
}
