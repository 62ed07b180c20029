/* What belongs to a point beside its disks: definition, facts, UEFI variables, TPM,
 * secrets. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/auxiliary.h"
#include "daemon/cycle_private.h"
#include "daemon/events.h"
#include "drivers/hypervisor.h"
#include "drivers/hypervisor/domain_secret.h"

#define READ_TRIES 5

/* A file that was written so shortly ago may be written again under the same time. */
#define UNSETTLED_MS 1000

/* --- files that change under us ---------------------------------------------------- */

static bool
is_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static bool
read_all(int fd, size_t size, struct cycle_blob *ret)
{
    AUTOFREE(char) *data = mem_alloc(size + 1, 1);
    size_t n = 0;

    while (n < size) {
        ssize_t got = pread(fd, data + n, size - n, (off_t)n);

        if (got < 0)
            return false;
        if (got == 0)
            break;
        n += (size_t)got;
    }
    free(ret->data);
    ret->data = TAKE(data);
    ret->length = n;
    return true;
}

/* *ret_stable: nobody wrote to the file, or replaced it, while it was read. */
static bool
read_once(const char *path, struct cycle_blob *ret, bool *ret_stable, struct error **err)
{
    AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat before, after;

    if (fd < 0 || fstat(fd, &before) < 0)
        return error_errno(err, ERROR_HYPERVISOR, "open '%s'", path);
    if (!S_ISREG(before.st_mode) || before.st_size > WIRE_MAX_BLOB_BYTES)
        return error_set(err, ERROR_HYPERVISOR, "'%s' is no file of at most 64 MiB",
                         path);
    if (!read_all(fd, (size_t)before.st_size, ret))
        return error_errno(err, ERROR_HYPERVISOR, "read '%s'", path);
    *ret_stable = stat(path, &after) == 0 && is_same_file(&before, &after);
    return true;
}

/*
 * swtpm replaces its file, QEMU writes into that of the UEFI variables, which the
 * firmware keeps whole for itself: if it never stands still, the last reading is no
 * worse than a power cut. One that vanished meanwhile is empty: no reason to fail.
 */
static bool
read_file(const char *path, struct cycle_blob *ret, struct error **err)
{
    bool stable = false;

    for (int i = 0; i < READ_TRIES && !stable; i++) {
        struct error *e = NULL;

        if (!read_once(path, ret, &stable, &e)) {
            if (access(path, F_OK) < 0 && errno == ENOENT) {
                error_free(e);
                return true;
            }
            return error_propagate(err, e);
        }
    }
    return true;
}

static void
take_text(struct cycle_blob *b, const char *text)
{
    b->data = mem_strdup(text);
    b->length = strlen(text);
}

/* --- secrets ------------------------------------------------------------------------ */

static bool
has_secrets(const struct cycle *c)
{
    struct domain_secret_ref *refs = NULL;
    size_t n = 0;

    if (!domain_secret_refs(c->domain->xml, &refs, &n, NULL))
        return false;
    domain_secret_refs_free(refs, n);
    return n > 0;
}

static bool
ask_secrets(struct cycle *c, struct json_object **ret, struct error **err)
{
    struct hypervisor *hv = c->daemon->hypervisor;

    return hv->ops->read_secrets(hv, c->domain->xml, ret, err);
}

/* Once, until all of them can be read again. */
static void
warn_of_problems(struct cycle *c, struct json_object *secrets)
{
    bool any = false;

    for (size_t i = 0; i < json_object_array_length(secrets); i++) {
        const char *problem =
            json_string_or(json_object_array_get_idx(secrets, i), "problem", NULL);

        if (problem != NULL && !c->r->warned_of_secrets)
            events_emit(c->daemon, EVENT_WARNING, &c->log, "secret-missing",
                        "%s: the replica will not have it", problem);
        any = any || problem != NULL;
    }
    c->r->warned_of_secrets = any;
}

/* Empty, not absent, where they are not wanted: that replaces those of earlier points. */
static bool
read_secrets(struct cycle *c, struct cycle_blob *b, struct error **err)
{
    AUTOJSON *o = json_object_new_object();
    struct json_object *secrets = NULL;

    if (!c->daemon->config->replicate_secrets || !c->takes_secrets)
        return true;
    if (!ask_secrets(c, &secrets, err))
        return false;
    json_set(o, AUXILIARY_SECRETS, secrets);
    warn_of_problems(c, secrets);
    take_text(b, json_text(o));
    return true;
}

/* --- the blobs --------------------------------------------------------------------- */

/* What belongs to the VM and is not in its XML. */
static void
take_facts(const struct cycle *c, struct cycle_blob *b)
{
    AUTOJSON *o = json_object_new_object();

    json_set_bool(o, "autostart", c->domain->autostart);
    take_text(b, json_text(o));
}

static bool
read_blob(struct cycle *c, struct cycle_blob *b, struct error **err)
{
    if (strcmp(b->name, AUXILIARY_XML) == 0) {
        take_text(b, c->domain->xml);
        return true;
    }
    if (strcmp(b->name, AUXILIARY_FACTS) == 0) {
        take_facts(c, b);
        return true;
    }
    if (strcmp(b->name, AUXILIARY_NVRAM) == 0)
        return read_file(c->domain->nvram, b, err);
    if (strcmp(b->name, AUXILIARY_SECRETS) == 0)
        return read_secrets(c, b, err);
    return read_file(c->domain->tpm, b, err);
}

bool
cycle_read_blobs(struct cycle *c, struct error **err)
{
    for (size_t i = 0; i < c->n_blobs; i++)
        if (!read_blob(c, &c->blobs[i], err))
            return false;
    return true;
}

static bool
send_blob(struct cycle *c, uint16_t index, struct error **err)
{
    const struct cycle_blob *b = &c->blobs[index];

    for (size_t done = 0; done < b->length; done += WIRE_MAX_DATA) {
        if (!stream_send_data(c->stream, WIRE_BLOB, index, done, b->data + done,
                              MIN(b->length - done, WIRE_MAX_DATA), err))
            return error_prefix(err, "send '%s'", b->name);
        c->n_frames++;
    }
    return true;
}

bool
cycle_send_blobs(struct cycle *c, struct error **err)
{
    for (size_t i = 0; i < c->n_blobs; i++)
        if (!send_blob(c, (uint16_t)i, err))
            return false;
    return true;
}

void
cycle_drop_blobs(struct cycle *c)
{
    for (size_t i = 0; i < c->n_blobs; i++) {
        if (c->blobs[i].data != NULL) /* there may be keys in it */
            explicit_bzero(c->blobs[i].data, c->blobs[i].length);
        free(c->blobs[i].data);
    }
    c->n_blobs = 0;
}

static void
add_blob(struct cycle *c, const char *name, struct exchange_begin *begin)
{
    c->blobs[c->n_blobs++] = (struct cycle_blob){ .name = name };
    snprintf(begin->blobs[begin->n_blobs++], sizeof begin->blobs[0], "%s", name);
}

static bool
is_there(const char *path)
{
    return path != NULL && access(path, R_OK) == 0;
}

void
cycle_name_blobs(struct cycle *c, struct exchange_begin *begin)
{
    cycle_drop_blobs(c);
    begin->n_blobs = 0;
    add_blob(c, AUXILIARY_XML, begin);
    add_blob(c, AUXILIARY_FACTS, begin);
    if (is_there(c->domain->nvram))
        add_blob(c, AUXILIARY_NVRAM, begin);
    if (is_there(c->domain->tpm))
        add_blob(c, auxiliary_tpm_blob(c->domain->tpm_version), begin);
    if (c->has_secrets)
        add_blob(c, AUXILIARY_SECRETS, begin);
}

/* --- have they changed? ------------------------------------------------------------ */

static void
hash_file(XXH3_state_t *hash, const char *path)
{
    struct stat st = { 0 };
    int64_t age_ms, now_ms = 0;

    if (path == NULL || stat(path, &st) < 0)
        st = (struct stat){ 0 };
    XXH3_64bits_update(hash, &st.st_ino, sizeof st.st_ino);
    XXH3_64bits_update(hash, &st.st_size, sizeof st.st_size);
    XXH3_64bits_update(hash, &st.st_mtim, sizeof st.st_mtim);
    age_ms =
        units_now_ms() - (int64_t)st.st_mtim.tv_sec * 1000 - st.st_mtim.tv_nsec / 1000000;
    if (age_ms >= 0 && age_ms < UNSETTLED_MS)
        now_ms = units_now_ms(); /* like no other: the next cycle looks again */
    XXH3_64bits_update(hash, &now_ms, sizeof now_ms);
}

/* One that cannot be asked for now makes no point; reading it for one says why. */
static void
hash_secrets(XXH3_state_t *hash, struct cycle *c)
{
    AUTOJSON *secrets = NULL;
    const char *text;

    if (!c->has_secrets || !c->daemon->config->replicate_secrets ||
        !ask_secrets(c, &secrets, NULL))
        return;
    text = json_text(secrets);
    XXH3_64bits_update(hash, text, strlen(text));
}

/*
 * What a point has beside the disks, as a number. The firmware may write its
 * variables, the guest to its TPM, the operator the definition, while no disk changes.
 */
uint64_t
cycle_hash_blobs(struct cycle *c)
{
    XXH3_state_t *hash = XXH3_createState();
    uint64_t result;

    c->has_secrets = has_secrets(c);
    XXH3_64bits_reset(hash);
    XXH3_64bits_update(hash, &c->domain->autostart, sizeof c->domain->autostart);
    XXH3_64bits_update(hash, c->domain->xml, strlen(c->domain->xml));
    hash_file(hash, c->domain->nvram);
    hash_file(hash, c->domain->tpm);
    hash_secrets(hash, c);
    result = XXH3_64bits_digest(hash);
    XXH3_freeState(hash);
    return result;
}
