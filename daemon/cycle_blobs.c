/* What belongs to a point beside its disks: definition, facts, UEFI variables. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "common/json.h"
#include "daemon/cycle_private.h"
#include "drivers/hypervisor.h"

/* Small files that belong to a point, in the order of BEGIN; NVRAM only where there is
 * some. */
enum blob {
    BLOB_XML,
    BLOB_FACTS,
    BLOB_NVRAM,
};

static bool
send_blob(struct cycle *c, uint16_t index, const char *data, size_t length,
          struct error **err)
{
    for (size_t done = 0; done < length; done += WIRE_MAX_DATA) {
        if (!stream_send_data(c->stream, WIRE_BLOB, index, done, data + done,
                              MIN(length - done, WIRE_MAX_DATA), err))
            return false;
        c->n_frames++;
    }
    return true;
}

/* The UEFI variables; a file that vanished meanwhile is no reason to fail. */
static bool
read_nvram(struct cycle *c, char **ret_data, size_t *ret_length, struct error **err)
{
    AUTOFD(fd) = open(c->domain->nvram, O_RDONLY | O_CLOEXEC);
    AUTOFREE(char) *data = NULL;
    struct stat st;
    size_t n = 0;

    if (fd < 0 || fstat(fd, &st) < 0)
        return error_errno(err, ERROR_HYPERVISOR, "open '%s'", c->domain->nvram);
    if (!S_ISREG(st.st_mode) || st.st_size > WIRE_MAX_BLOB_BYTES)
        return error_set(err, ERROR_HYPERVISOR, "'%s' is no file of at most 64 MiB",
                         c->domain->nvram);
    data = mem_alloc((size_t)st.st_size + 1, 1);
    while (n < (size_t)st.st_size) {
        ssize_t got = read(fd, data + n, (size_t)st.st_size - n);

        if (got < 0)
            return error_errno(err, ERROR_HYPERVISOR, "read '%s'", c->domain->nvram);
        if (got == 0)
            break;
        n += (size_t)got;
    }
    *ret_data = TAKE(data);
    *ret_length = n;
    return true;
}

/* What belongs to the VM and is not in its XML. */
static bool
send_facts(struct cycle *c, uint16_t index, struct error **err)
{
    AUTOJSON *o = json_object_new_object();
    const char *text;

    json_set_bool(o, "autostart", c->domain->autostart);
    text = json_text(o);
    return send_blob(c, index, text, strlen(text), err);
}

bool
cycle_send_blobs(struct cycle *c, const struct exchange_begin *begin, struct error **err)
{
    AUTOFREE(char) *nvram = NULL;
    size_t length = 0;

    if (!send_blob(c, BLOB_XML, c->domain->xml, strlen(c->domain->xml), err) ||
        !send_facts(c, BLOB_FACTS, err))
        return error_prefix(err, "domain XML");
    if (begin->n_blobs <= BLOB_NVRAM)
        return true;
    return read_nvram(c, &nvram, &length, err) &&
           send_blob(c, BLOB_NVRAM, nvram, length, err);
}

void
cycle_name_blobs(struct cycle *c, struct exchange_begin *begin)
{
    static const char *const names[] = {
        [BLOB_XML] = "domain.xml",
        [BLOB_FACTS] = "vm.json",
        [BLOB_NVRAM] = "nvram",
    };
    bool has_nvram = c->domain->nvram != NULL && access(c->domain->nvram, R_OK) == 0;

    begin->n_blobs = has_nvram ? BLOB_NVRAM + 1 : BLOB_NVRAM;
    for (size_t i = 0; i < begin->n_blobs; i++)
        snprintf(begin->blobs[i], sizeof begin->blobs[i], "%s", names[i]);
}

/*
 * What a point has beside the disks, as a number. The firmware may write its
 * variables, and the operator may change the definition, while no disk changes.
 */
uint64_t
cycle_hash_blobs(const struct cycle *c)
{
    struct stat st = { 0 };
    AUTOFREE(char) *text = NULL;

    if (c->domain->nvram != NULL && stat(c->domain->nvram, &st) < 0)
        st = (struct stat){ 0 };
    text = mem_printf("%d %llu %lld %lld.%09ld %s", c->domain->autostart,
                      (unsigned long long)st.st_ino, (long long)st.st_size,
                      (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, c->domain->xml);
    return XXH3_64bits(text, strlen(text));
}
