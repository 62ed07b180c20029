#include "daemon/seed.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/peers.h"
#include "daemon/tasks.h"

/* --- what is asked for ----------------------------------------------------------------
 */

static bool
read_format(struct json_object *o, enum seed_format *ret, struct error **err)
{
    const char *name = "";

    if (!json_opt_string(o, "format", &name, err))
        return false;
    *ret = strcmp(name, "raw") == 0     ? SEED_FORMAT_RAW
           : strcmp(name, "qcow2") == 0 ? SEED_FORMAT_QCOW2
                                        : SEED_FORMAT_FIND;
    return *ret != SEED_FORMAT_FIND || name[0] == '\0' ||
           error_set(err, ERROR_USAGE, "a seed is 'raw' or 'qcow2', not '%s'", name);
}

static bool
check_disk(struct json_object *o, struct error **err)
{
    const char *target, *path;
    enum seed_format format;

    return json_get_string(o, "target", &target, err) &&
           json_get_string(o, "path", &path, err) && read_format(o, &format, err);
}

bool
seed_check_request(struct json_object *request, struct error **err)
{
    struct json_object *disks = json_array_or_null(request, "disks");
    const char *folder = "";

    if (!json_opt_string(request, "folder", &folder, err))
        return false;
    if ((folder[0] != '\0') == (disks != NULL) ||
        (disks != NULL && json_object_array_length(disks) == 0))
        return error_set(err, ERROR_USAGE,
                         "a seed is a folder, or an image for each of some disks");
    for (size_t i = 0; disks != NULL && i < json_object_array_length(disks); i++)
        if (!check_disk(json_object_array_get_idx(disks, i), err))
            return error_prefix(err, "seed %zu", i);
    return true;
}

/* --- opening --------------------------------------------------------------------------
 */

static bool
find_folder(struct daemon *d, const char *peer_id, const char **ret, struct error **err)
{
    const struct config_peer *policy;
    struct peer_name peer;

    if (!peers_find(d->peers, peer_id, &peer, err))
        return false;
    policy = config_peer(d->config, peer.name);
    if (policy == NULL || policy->seed_folder == NULL)
        return error_set(err, ERROR_FORBIDDEN,
                         "host '%s' takes no seeds for '%s': say where they may be, with "
                         "seed_folder in the section [peer %s] of its virtdrd.conf",
                         d->config->host_name, peer.name, peer.name);
    *ret = policy->seed_folder;
    return true;
}

static const struct store_disk *
find_disk(const struct seed_wanted *wanted, const char *target)
{
    for (size_t i = 0; i < wanted->n_disks; i++)
        if (strcmp(wanted->disks[i].target, target) == 0)
            return &wanted->disks[i];
    return NULL;
}

static bool
has_part(const struct seed *s, const char *target)
{
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->parts[i].target, target) == 0)
            return true;
    return false;
}

static struct seed_part *
add_part(struct seed *s, const struct store_disk *disk)
{
    struct seed_part *part = &s->parts[s->n++];

    snprintf(part->target, sizeof part->target, "%s", disk->target);
    return part;
}

static bool
take_disk(struct seed *s, const char *folder, const struct seed_wanted *wanted,
          struct json_object *o, struct error **err)
{
    const char *target = json_string_or(o, "target", "");
    const struct store_disk *disk = find_disk(wanted, target);
    enum seed_format format;

    if (disk == NULL)
        return error_set(err, ERROR_USAGE, "VM '%s' has no disk '%s' that is replicated",
                         wanted->vm_name, target);
    if (has_part(s, target))
        return error_set(err, ERROR_USAGE, "disk '%s' has two seeds", target);
    return read_format(o, &format, err) &&
           (seed_image_open(folder, json_string_or(o, "path", ""), format,
                            &add_part(s, disk)->image, err) ||
            error_prefix(err, "the seed of disk '%s'", target));
}

static bool
take_disks(struct seed *s, const char *folder, const struct seed_wanted *wanted,
           struct error **err)
{
    struct json_object *disks = json_array_or_null(wanted->request, "disks");

    for (size_t i = 0; i < json_object_array_length(disks); i++)
        if (!take_disk(s, folder, wanted, json_object_array_get_idx(disks, i), err))
            return false;
    return true;
}

/* export-seed writes images that stand alone; one that does not is somebody else's. */
static bool
take_media_disk(struct seed *s, const char *folder, const char *path,
                const struct store_disk *disk, const struct seed_media_disk *media,
                struct error **err)
{
    struct seed_part *part = add_part(s, disk);
    char file[SEED_MEDIA_FILE_MAX];
    AUTOFREE(char) *image = NULL;

    seed_media_file(disk->target, file);
    image = mem_printf("%s/%s", path, file);
    part->media = media;
    if (!seed_image_open(folder, image, SEED_FORMAT_QCOW2, &part->image, err))
        return error_prefix(err, "the image of disk '%s'", disk->target);
    return part->image.n == 1 ||
           error_set(err, ERROR_FORBIDDEN,
                     "the image of disk '%s' lies on another one, which no export does",
                     disk->target);
}

static bool
load_media(struct seed *s, const char *folder, const struct seed_wanted *wanted,
           struct error **err)
{
    const char *path = json_string_or(wanted->request, "folder", "");
    AUTOFD(at) = -1;

    if (!seed_image_open_below(folder, path, O_RDONLY | O_DIRECTORY, &at, err) ||
        !seed_media_load(at, &s->media, err))
        return error_prefix(err, "the seed in '%s'", path);
    return strcmp(s->media.vm_uuid, wanted->vm_uuid) == 0 ||
           error_set(err, ERROR_USAGE,
                     "the seed in '%s' is of VM '%s' (UUID %s), not of '%s' (UUID %s)",
                     path, s->media.vm_name, s->media.vm_uuid, wanted->vm_name,
                     wanted->vm_uuid);
}

static bool
take_media(struct seed *s, const char *folder, const struct seed_wanted *wanted,
           struct error **err)
{
    const char *path = json_string_or(wanted->request, "folder", "");

    if (!load_media(s, folder, wanted, err))
        return false;
    for (size_t i = 0; i < s->media.n_disks; i++) {
        const struct seed_media_disk *media = &s->media.disks[i];
        const struct store_disk *disk = find_disk(wanted, media->target);

        if (disk != NULL && !take_media_disk(s, folder, path, disk, media, err))
            return false;
    }
    return s->n > 0 || error_set(err, ERROR_USAGE,
                                 "the seed in '%s' has none of the disks of VM '%s' that "
                                 "are replicated",
                                 path, wanted->vm_name);
}

/* --- what has to be known about it ----------------------------------------------------
 */

static void warn(struct seed *s, const char *format, ...) PRINTF(2, 3);

static void
warn(struct seed *s, const char *format, ...)
{
    AUTOFREE(char) *text = NULL;
    va_list args;

    va_start(args, format);
    text = mem_vprintf(format, args);
    va_end(args);
    json_append_string(s->warnings, text);
}

static void
judge_part(struct seed *s, const struct seed_part *part, const struct store_disk *disk)
{
    uint64_t has = part->image.capacity_bytes;
    char seed[UNITS_TEXT_MAX], wanted[UNITS_TEXT_MAX];

    if (has != disk->capacity_bytes)
        warn(s, "disk '%s' has %s, its seed %s: %s", disk->target,
             units_format_size(disk->capacity_bytes, wanted),
             units_format_size(has, seed),
             has > disk->capacity_bytes ? "what is beyond its end is left out"
                                        : "the rest is compared with zeroes");
    if (part->media != NULL && part->media->capacity_bytes != disk->capacity_bytes)
        s->record = ""; /* what was recorded says nothing of a disk that grew */
}

static void
judge(struct seed *s, const struct seed_wanted *wanted)
{
    s->record = s->media.record;
    for (size_t i = 0; i < s->n; i++)
        judge_part(s, &s->parts[i], find_disk(wanted, s->parts[i].target));
    for (size_t i = 0; i < wanted->n_disks; i++)
        if (!has_part(s, wanted->disks[i].target)) {
            warn(s, "disk '%s' has no seed: all that it holds is sent",
                 wanted->disks[i].target);
            s->record = "";
        }
}

bool
seed_open(struct daemon *d, const struct seed_wanted *wanted, struct seed **ret,
          struct error **err)
{
    AUTOPTR(seed) *s = NEW(struct seed);
    const char *folder = NULL;

    s->warnings = json_object_new_array();
    if (!seed_check_request(wanted->request, err) ||
        !find_folder(d, wanted->peer_id, &folder, err))
        return false;
    if (json_array_or_null(wanted->request, "disks") != NULL
            ? !take_disks(s, folder, wanted, err)
            : !take_media(s, folder, wanted, err))
        return false;
    judge(s, wanted);
    *ret = TAKE(s);
    return true;
}

void
seed_free(struct seed *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->n; i++)
        seed_image_close(&s->parts[i].image);
    json_object_put(s->warnings);
    free(s);
}

/* --- its state ------------------------------------------------------------------------
 */

struct json_object *
seed_new_state(struct json_object *request)
{
    struct json_object *o;

    if (request == NULL)
        return NULL;
    o = json_object_new_object();
    json_set(o, "request", json_object_get(request));
    json_set_string(o, "state", "waiting");
    return o;
}

struct json_object *
seed_view(const struct replication *r)
{
    struct json_object *copy = NULL;

    if (r->seed != NULL)
        json_object_deep_copy(r->seed, &copy, NULL);
    return copy;
}

bool
seed_is(const struct replication *r, const char *state)
{
    return strcmp(json_string_or(r->seed, "state", ""), state) == 0;
}

void
seed_set(struct replication *r, const char *state)
{
    if (r->seed != NULL)
        json_set_string(r->seed, "state", state);
}

bool
seed_check_settled(const struct replication *r, struct error **err)
{
    if (!seed_is(r, "waiting") && !seed_is(r, "importing"))
        return true;
    return error_set(err, ERROR_IN_PROGRESS, "the seed of VM '%s' is being imported",
                     r->vm_name);
}

bool
seed_begin(struct daemon *d, struct replication *r, const char *user, struct error **err)
{
    struct tasks_request task = { .kind = "import-seed",
                                  .resource_id = r->id,
                                  .resource_name = r->vm_name,
                                  .user = user };
    AUTOJSON *started = NULL;
    bool wanted;

    pthread_mutex_lock(&r->lock);
    wanted = !r->seeding && !seed_check_settled(r, NULL);
    if (wanted)
        r->seeding = true;
    pthread_mutex_unlock(&r->lock);
    if (!wanted || tasks_start(d->tasks, &task, &started, err))
        return true;
    pthread_mutex_lock(&r->lock);
    r->seeding = false;
    pthread_mutex_unlock(&r->lock);
    return error_prefix(err, "import the seed");
}
