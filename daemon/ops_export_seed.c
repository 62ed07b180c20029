/*
 * export-seed: the disks of a VM at one moment, in a folder that is carried to the host
 * that will keep its replica (seed_media.h). The source's side.
 *
 * data: {domain (UUID), folder, record}; the resource is the VM. Findings: {first, name
 * (of points), made, captured}. The manifest comes last; a crash on the way begins the
 * images again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/id.h"
#include "common/json.h"
#include "common/units.h"
#include "daemon/cycle.h"
#include "daemon/daemon.h"
#include "daemon/events.h"
#include "daemon/ops.h"
#include "daemon/replication.h"
#include "daemon/seed_capture.h"
#include "daemon/seed_source.h"
#include "drivers/store/folder.h"
#include "drivers/store/hashed.h"
#include "drivers/store/seed_media.h"

/* Says whose images these are as long as there is no manifest. */
#define LABEL "unfinished.json"

static const char *
folder_of(struct op *op)
{
    return json_string_or(op->data, "folder", "");
}

static const char *
uuid_of(struct op *op)
{
    return json_string_or(op->data, "domain", "");
}

static void
fill_capture(struct op *op, struct seed_capture *ret)
{
    *ret =
        (struct seed_capture){ .op = op,
                               .vm_uuid = uuid_of(op),
                               .folder = folder_of(op),
                               .first = json_string_or(op->data, "first", ""),
                               .record = json_string_or(op->data, "name", ""),
                               .keeps_record = json_bool_or(op->data, "record", true) };
}

/* --- check ----------------------------------------------------------------------------
 */

static bool
check_vm(struct op *op, struct error **err)
{
    struct hypervisor *hv = op->daemon->hypervisor;
    AUTOPTR(replication) *r = NULL;
    AUTOPTR(hv_domain) *domain = NULL;

    if (!hv->ops->lookup(hv, uuid_of(op), &domain, err))
        return false;
    if (replications_find(op->daemon->replications, uuid_of(op), &r, NULL))
        return error_set(err, ERROR_INVALID_STATE,
                         "VM '%s' is protected already; a seed is for one that is not",
                         r->vm_name);
    return true;
}

/* Of this VM: an export before this one, or one that was cut off. */
static bool
is_of_vm(struct op *op, int at)
{
    AUTOFREE(struct seed_media) *media = NEW(struct seed_media);
    AUTOJSON *label = NULL;

    if (seed_media_load(at, media, NULL))
        return strcmp(media->vm_uuid, uuid_of(op)) == 0;
    return hashed_load(at, LABEL, &label, NULL) &&
           strcmp(json_string_or(label, "vmId", ""), uuid_of(op)) == 0;
}

/* What file systems have in their top folder is no content. */
static bool
look_at_name(int at UNUSED, const char *name, void *opaque, struct error **err UNUSED)
{
    static const char *const theirs[] = { "lost+found", "System Volume Information",
                                          LABEL ".new" };
    bool *empty = opaque;

    for (size_t i = 0; i < N_ELEMENTS(theirs); i++)
        if (strcmp(name, theirs[i]) == 0)
            return true;
    *empty = false;
    return true;
}

static bool
check_folder(struct op *op, struct error **err)
{
    AUTOFD(at) = -1;
    bool made = mkdir(folder_of(op), FOLDER_MODE) == 0, empty = true;

    if (!made && errno != EEXIST)
        return error_errno(err, errno == ENOENT ? ERROR_NOT_FOUND : ERROR_PERMISSION,
                           "make folder '%s'", folder_of(op));
    if (made)
        json_set_bool(op->data, "made", true);
    if (!folder_open(AT_FDCWD, folder_of(op), &at, err) ||
        !folder_each(at, ".", look_at_name, &empty, err))
        return false;
    return empty || is_of_vm(op, at) ||
           error_set(err, ERROR_EXISTS,
                     "folder '%s' is not empty; an export takes a folder of its own",
                     folder_of(op));
}

static bool
check(struct op *op, struct error **err)
{
    char first[ID_TEXT], record[ID_TEXT];
    AUTOFREE(char) *first_name = NULL;
    AUTOFREE(char) *record_name = NULL;

    if (!check_vm(op, err) || !check_folder(op, err))
        return false;
    if (json_string_or(op->data, "first", NULL) != NULL)
        return true; /* the second time */
    id_new(first);
    id_new(record);
    first_name = mem_printf("virt-dr-%s", first);
    record_name = mem_printf("virt-dr-%s", record);
    json_set_string(op->data, "first", first_name);
    json_set_string(op->data, "name", record_name);
    return true;
}

static bool
remove_made(struct op *op, struct error **err UNUSED)
{
    if (json_bool_or(op->data, "made", false))
        (void)rmdir(folder_of(op)); /* what is somebody else's keeps it */
    return true;
}

/* --- capture --------------------------------------------------------------------------
 */

static bool
label(struct op *op, struct error **err)
{
    AUTOJSON *o = json_object_new_object();
    AUTOFD(at) = -1;

    json_set_string(o, "vmId", uuid_of(op));
    json_set_string(o, "vmName", op->log.vm);
    return folder_open(AT_FDCWD, folder_of(op), &at, err) &&
           hashed_save(at, LABEL, o, err) &&
           folder_unlink(at, SEED_MEDIA_MANIFEST, err) && folder_sync(at, ".", err);
}

static bool
is_image(const char *name)
{
    const char *dot = strrchr(name, '.');

    return dot != NULL && strcmp(dot, ".qcow2") == 0;
}

/* Only in a folder that has the label, so all images in it are ours. */
static bool
remove_one(int at, const char *name, void *opaque UNUSED, struct error **err)
{
    return (!is_image(name) && strcmp(name, LABEL ".new") != 0 &&
            strcmp(name, SEED_MEDIA_MANIFEST ".new") != 0) ||
           folder_unlink(at, name, err);
}

static bool
remove_images(struct op *op, struct error **err)
{
    AUTOFD(at) = open(folder_of(op), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return at < 0 || /* the medium is gone */
           faccessat(at, LABEL, F_OK, AT_SYMLINK_NOFOLLOW) < 0 ||
           folder_each(at, ".", remove_one, NULL, err);
}

static bool
unlabel(struct op *op, struct error **err)
{
    AUTOFREE(char) *path = mem_printf("%s/" LABEL, folder_of(op));

    return folder_unlink(AT_FDCWD, path, err);
}

static bool
capture(struct op *op, struct error **err)
{
    struct seed_capture s;
    struct json_object *captured = NULL;

    fill_capture(op, &s);
    if (!check_vm(op, err) || !label(op, err) || !remove_images(op, err) ||
        !seed_capture_run(&s, &captured, err))
        return false;
    json_set(op->data, "captured", captured);
    return true;
}

static bool
undo_capture(struct op *op, struct error **err)
{
    struct seed_capture s;
    bool cleaned, removed;

    fill_capture(op, &s);
    cleaned = seed_capture_clean(&s, err);
    removed =
        remove_images(op, cleaned ? err : NULL) && unlabel(op, cleaned ? err : NULL);
    return cleaned && removed;
}

/* --- finish ---------------------------------------------------------------------------
 */

struct hashing {
    struct op *op;
    uint64_t before, total;
};

static void
show_progress(uint64_t done, uint64_t total UNUSED, void *opaque)
{
    struct hashing *h = opaque;

    op_transfer(h->op, MIN(h->before + done, h->total), h->total);
}

/* Read back from the medium, which may not have kept what it took. */
static bool
hash_image(struct hashing *h, int at, struct seed_media_disk *disk, struct error **err)
{
    struct daemon *d = h->op->daemon;
    const struct store_effort effort = { .rate_bytes_s = d->config->upkeep_rate_bytes,
                                         .cancel = &h->op->cancel,
                                         .progress = show_progress,
                                         .opaque = h };
    struct pace pace = { .effort = &effort, .total = UINT64_MAX };
    char file[SEED_MEDIA_FILE_MAX];
    AUTOFD(fd) = -1;

    seed_media_file(disk->target, file);
    fd = openat(at, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fsync(fd) < 0)
        return folder_errno(err, "flush '%s'", file);
    if (!seed_media_hash(fd, &pace, &disk->file_bytes, disk->hash, err))
        return error_prefix(err, "'%s'", file);
    h->before += disk->file_bytes;
    return true;
}

static void
fill_media(struct op *op, struct seed_media *m)
{
    struct json_object *captured = json_object_or_null(op->data, "captured");
    struct json_object *disks = json_array_or_null(captured, "disks");
    bool recorded = json_bool_or(captured, "recorded", false);

    snprintf(m->vm_uuid, sizeof m->vm_uuid, "%s", uuid_of(op));
    snprintf(m->vm_name, sizeof m->vm_name, "%s", op->log.vm);
    snprintf(m->host, sizeof m->host, "%s", op->daemon->config->host_name);
    m->time_ms = json_int_or(captured, "time", 0);
    snprintf(m->record, sizeof m->record, "%s",
             recorded ? json_string_or(op->data, "name", "") : "");
    for (size_t i = 0; i < json_object_array_length(disks); i++) {
        struct json_object *o = json_object_array_get_idx(disks, i);
        struct seed_media_disk *disk = &m->disks[m->n_disks++];

        snprintf(disk->target, sizeof disk->target, "%s",
                 json_string_or(o, "target", ""));
        disk->capacity_bytes = (uint64_t)json_int_or(o, "capacity", 0);
    }
}

static bool
hash_images(struct op *op, int at, struct seed_media *m, struct error **err)
{
    struct hashing h = { .op = op };
    struct stat st;

    for (size_t i = 0; i < m->n_disks; i++) {
        char file[SEED_MEDIA_FILE_MAX];

        seed_media_file(m->disks[i].target, file);
        if (fstatat(at, file, &st, AT_SYMLINK_NOFOLLOW) == 0)
            h.total += (uint64_t)st.st_size;
    }
    for (size_t i = 0; i < m->n_disks; i++)
        if (!hash_image(&h, at, &m->disks[i], err))
            return false;
    return true;
}

/* The record of an earlier export is of no use any more, and nobody else ends it. */
static bool
forget_earlier(struct op *op, const char *present, struct error **err)
{
    AUTOPTR(replication) *r = NULL;
    AUTOJSON *doc = NULL;
    const char *record;

    if (!seed_source_find(op->daemon, uuid_of(op), &doc, err))
        return false;
    record = json_string_or(doc, "record", "");
    if (record[0] == '\0' || strcmp(record, present) == 0)
        return true;
    r = replication_new(SIDE_SOURCE, op->resource_id, uuid_of(op), op->log.vm, "");
    r->capture = json_object_get(json_object_or_null(doc, "capture"));
    json_append_string(r->stale, record);
    return cycle_forget_all(op->daemon, r, err);
}

/* Whose the record is, is known before there is a manifest that names it. */
static bool
keep_record(struct op *op, const struct seed_media *m, struct error **err)
{
    struct json_object *captured = json_object_or_null(op->data, "captured");
    AUTOJSON *doc = json_object_new_object();

    if (!forget_earlier(op, m->record, err))
        return false;
    if (m->record[0] == '\0')
        return seed_source_drop(op->daemon, uuid_of(op), err);
    json_set_string(doc, "record", m->record);
    json_set_string(doc, "vmName", m->vm_name);
    json_set_string(doc, "folder", folder_of(op));
    json_set_int(doc, "time", m->time_ms);
    json_set(doc, "disks", json_object_get(json_array_or_null(captured, "disks")));
    json_set(doc, "capture", json_object_get(json_object_or_null(captured, "capture")));
    return seed_source_keep(op->daemon, uuid_of(op), doc, err);
}

static void
tell_result(struct op *op, const struct seed_media *m)
{
    struct json_object *disks = json_object_new_array();
    uint64_t bytes = 0;

    for (size_t i = 0; i < m->n_disks; i++) {
        json_append_string(disks, m->disks[i].target);
        bytes += m->disks[i].file_bytes;
    }
    op->result = json_object_new_object();
    json_set_string(op->result, "vmName", m->vm_name);
    json_set_string(op->result, "folder", folder_of(op));
    json_set_int(op->result, "timestamp", m->time_ms);
    json_set_bool(op->result, "recorded", m->record[0] != '\0');
    json_set_u64(op->result, "writtenBytes", bytes);
    json_set(op->result, "disks", disks);
}

static bool
finish(struct op *op, struct error **err)
{
    AUTOFREE(struct seed_media) *m = NEW(struct seed_media);
    AUTOFD(at) = -1;

    fill_media(op, m);
    if (!folder_open(AT_FDCWD, folder_of(op), &at, err) || !hash_images(op, at, m, err) ||
        !keep_record(op, m, err) || !seed_media_save(m, at, err) || !unlabel(op, err) ||
        !folder_sync(at, ".", err))
        return false;
    tell_result(op, m);
    return true;
}

/* With the images goes what belonged to them. */
static bool
undo_finish(struct op *op, struct error **err)
{
    AUTOJSON *doc = NULL;

    if (!seed_source_find(op->daemon, uuid_of(op), &doc, err))
        return false;
    return strcmp(json_string_or(doc, "record", ""),
                  json_string_or(op->data, "name", "")) != 0 ||
           seed_source_drop(op->daemon, uuid_of(op), err);
}

static void
ended(struct op *op, const struct error *failure)
{
    if (failure == NULL)
        events_emit(op->daemon, EVENT_INFO, &op->log, "seed-exported",
                    "the disks of VM '%s' are in '%s', for its first sync elsewhere",
                    op->log.vm, folder_of(op));
}

/* clang-format off */
static const struct op_step steps[] = {
    /* name       run      undo          timeout_s  commits */
    { "check",    check,   remove_made,  30,        false },
    { "capture",  capture, undo_capture, 0,         false },
    { "finish",   finish,  undo_finish,  0,         true },
    { 0 },
};
/* clang-format on */

const struct op_kind op_export_seed = {
    .name = "export-seed", .result_type = "seed", .steps = steps, .ended = ended
};
