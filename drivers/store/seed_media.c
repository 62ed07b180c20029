#include "drivers/store/seed_media.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/json.h"
#include "common/xxh3.h"
#include "drivers/store/folder.h"
#include "drivers/store/hashed.h"
#include "drivers/store/layout.h"

#define FORMAT     1
#define READ_BYTES (1u << 20)
#define HASH_TEXT  (2 * BLOCK_HASH_BYTES + 1)

void
seed_media_file(const char *target, char ret[SEED_MEDIA_FILE_MAX])
{
    snprintf(ret, SEED_MEDIA_FILE_MAX, "%s.qcow2", target);
}

/* --- hashes ---------------------------------------------------------------------------
 */

static void
hash_to_text(const uint8_t hash[BLOCK_HASH_BYTES], char ret[HASH_TEXT])
{
    for (size_t i = 0; i < BLOCK_HASH_BYTES; i++)
        snprintf(ret + 2 * i, 3, "%02x", hash[i]);
}

static int
digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool
hash_from_text(const char *text, uint8_t ret[BLOCK_HASH_BYTES])
{
    if (strlen(text) != 2 * (size_t)BLOCK_HASH_BYTES)
        return false;
    for (size_t i = 0; i < BLOCK_HASH_BYTES; i++) {
        int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        ret[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static bool
hash_file(int fd, XXH3_state_t *state, struct pace *pace, uint64_t *ret_bytes,
          struct error **err)
{
    AUTOFREE(char) *buffer = mem_alloc_pages(READ_BYTES);
    uint64_t at = 0;

    for (;;) {
        ssize_t n = pread(fd, buffer, READ_BYTES, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, ERROR_STORE, "read at %llu", (unsigned long long)at);
        if (n == 0)
            break;
        XXH3_128bits_update(state, buffer, (size_t)n);
        at += (uint64_t)n;
        if (!pace_spend(pace, (uint64_t)n, err))
            return false;
    }
    *ret_bytes = at;
    return true;
}

bool
seed_media_hash(int fd, struct pace *pace, uint64_t *ret_bytes,
                uint8_t ret[BLOCK_HASH_BYTES], struct error **err)
{
    XXH3_state_t *state = XXH3_createState();
    XXH128_canonical_t canonical;
    bool ok;

    /* What the medium has counts, not what memory has of it. */
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    XXH3_128bits_reset(state);
    ok = hash_file(fd, state, pace, ret_bytes, err);
    if (ok) {
        XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state));
        memcpy(ret, canonical.digest, BLOCK_HASH_BYTES);
    }
    XXH3_freeState(state);
    return ok;
}

bool
seed_media_check(int fd, const struct seed_media_disk *disk, struct pace *pace,
                 struct error **err)
{
    uint8_t hash[BLOCK_HASH_BYTES];
    uint64_t bytes = 0;
    struct stat st;

    if (fstat(fd, &st) < 0)
        return error_errno(err, ERROR_STORE, "stat the image of disk '%s'", disk->target);
    if ((uint64_t)st.st_size != disk->file_bytes)
        return error_set(err, ERROR_CHECKSUM,
                         "the image of disk '%s' has %llu bytes, but %llu were written; "
                         "copy the folder again",
                         disk->target, (unsigned long long)st.st_size,
                         (unsigned long long)disk->file_bytes);
    if (!seed_media_hash(fd, pace, &bytes, hash, err))
        return error_prefix(err, "the image of disk '%s'", disk->target);
    return memcmp(hash, disk->hash, sizeof hash) == 0 ||
           error_set(err, ERROR_CHECKSUM,
                     "the image of disk '%s' is not what was written; copy the folder "
                     "again, or export it anew",
                     disk->target);
}

/* --- the manifest ---------------------------------------------------------------------
 */

static struct json_object *
disk_json(const struct seed_media_disk *d)
{
    struct json_object *o = json_object_new_object();
    char file[SEED_MEDIA_FILE_MAX], hash[HASH_TEXT];

    seed_media_file(d->target, file);
    hash_to_text(d->hash, hash);
    json_set_string(o, "target", d->target);
    json_set_u64(o, "capacity", d->capacity_bytes);
    json_set_string(o, "file", file);
    json_set_string(o, "format", "qcow2");
    json_set_u64(o, "size", d->file_bytes);
    json_set_string(o, "xxh3", hash);
    return o;
}

bool
seed_media_save(const struct seed_media *m, int at, struct error **err)
{
    AUTOJSON *o = json_object_new_object();
    struct json_object *disks = json_object_new_array();

    json_set_int(o, "format", FORMAT);
    json_set_string(o, "vmName", m->vm_name);
    json_set_string(o, "vmId", m->vm_uuid);
    json_set_string(o, "host", m->host);
    json_set_int(o, "time", m->time_ms);
    json_set_string(o, "record", m->record);
    for (size_t i = 0; i < m->n_disks; i++)
        json_object_array_add(disks, disk_json(&m->disks[i]));
    json_set(o, "disks", disks);
    return hashed_save(at, SEED_MEDIA_MANIFEST, o, err);
}

static bool
is_record_name(const char *text)
{
    size_t n = strlen(text);

    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)text[i]) && text[i] != '-')
            return false;
    return n <= CAPTURE_NAME_MAX;
}

static bool
parse_disk(struct json_object *o, struct seed_media *m, struct error **err)
{
    struct seed_media_disk *d = &m->disks[m->n_disks];
    const char *target, *hash;

    if (!json_get_string(o, "target", &target, err) ||
        !json_get_string(o, "xxh3", &hash, err) ||
        !json_get_u64(o, "capacity", WIRE_MAX_DISK_BYTES, &d->capacity_bytes, err) ||
        !json_get_u64(o, "size", WIRE_MAX_DISK_BYTES, &d->file_bytes, err) ||
        !layout_check_disk(target, d->capacity_bytes, err))
        return false;
    for (size_t i = 0; i < m->n_disks; i++)
        if (strcmp(m->disks[i].target, target) == 0)
            return error_set(err, ERROR_PROTOCOL, "disk '%s' is there twice", target);
    if (!hash_from_text(hash, d->hash))
        return error_set(err, ERROR_PROTOCOL, "disk '%s' has no valid hash", target);
    snprintf(d->target, sizeof d->target, "%s", target);
    m->n_disks++;
    return true;
}

static bool
parse_disks(struct json_object *o, struct seed_media *m, struct error **err)
{
    struct json_object *disks;
    size_t n;

    if (!json_get_array(o, "disks", &disks, err))
        return false;
    n = json_object_array_length(disks);
    if (n == 0 || n > WIRE_MAX_DISKS)
        return error_set(err, ERROR_PROTOCOL, "%zu disks: 1 to %d are possible", n,
                         WIRE_MAX_DISKS);
    for (size_t i = 0; i < n; i++)
        if (!parse_disk(json_object_array_get_idx(disks, i), m, err))
            return error_prefix(err, "disk %zu", i);
    return true;
}

static bool
parse(struct json_object *o, struct seed_media *m, struct error **err)
{
    const char *uuid, *name, *record, *host;
    int64_t format;

    if (!json_get_int(o, "format", FORMAT, FORMAT, &format, err) ||
        !json_get_string(o, "vmId", &uuid, err) ||
        !json_get_string(o, "vmName", &name, err) ||
        !json_get_string(o, "host", &host, err) ||
        !json_get_string(o, "record", &record, err) ||
        !json_get_int(o, "time", 0, INT64_MAX, &m->time_ms, err))
        return false;
    if (!id_is_valid(uuid) || !is_record_name(record))
        return error_set(err, ERROR_PROTOCOL, "'vmId' or 'record' is not valid");
    snprintf(m->vm_uuid, sizeof m->vm_uuid, "%s", uuid);
    snprintf(m->vm_name, sizeof m->vm_name, "%s", name);
    snprintf(m->host, sizeof m->host, "%s", host);
    snprintf(m->record, sizeof m->record, "%s", record);
    return parse_disks(o, m, err);
}

bool
seed_media_load(int at, struct seed_media *ret, struct error **err)
{
    AUTOFREE(struct seed_media) *m = NEW(struct seed_media);
    AUTOJSON *o = NULL;
    struct stat st;

    if (fstatat(at, SEED_MEDIA_MANIFEST, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT)
        return error_set(err, ERROR_NOT_FOUND,
                         "it has no %s: the export into it did not come to its end",
                         SEED_MEDIA_MANIFEST);
    if (!S_ISREG(st.st_mode))
        return error_set(err, ERROR_FORBIDDEN, "its %s is no regular file",
                         SEED_MEDIA_MANIFEST);
    if (!hashed_load(at, SEED_MEDIA_MANIFEST, &o, err))
        return false;
    if (!parse(o, m, err))
        return error_prefix(err, "%s", SEED_MEDIA_MANIFEST);
    *ret = *m;
    return true;
}
