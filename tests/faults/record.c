#include "tests/faults/record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/mem.h"

static void
take(struct record *r, const char *line)
{
    uint64_t seq = 0, hash = 0;

    if (sscanf(line, "acked %" SCNu64 " %" SCNx64, &seq, &hash) == 2) {
        r->acked[seq] = true;
        r->hashes[seq] = hash;
        r->newest = MAX(r->newest, seq);
    } else if (sscanf(line, "gave-up %" SCNu64, &seq) == 1) {
        r->gave_up[seq] = true;
    } else if (sscanf(line, "overlay %" SCNu64, &seq) == 1) {
        r->overlay = seq;
    } else if (sscanf(line, "sync %" SCNu64, &seq) == 1) {
        r->sync = seq;
    } else if (strcmp(line, "no-overlay\n") == 0) {
        r->overlay = 0;
    } else if (strcmp(line, "destroying\n") == 0) {
        r->destroying = true;
    }
}

bool
record_open(const char *path, struct record *ret, struct error **err)
{
    char line[128];
    FILE *file;

    *ret = (struct record){ .fd = -1 };
    ret->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    file = ret->fd < 0 ? NULL : fopen(path, "re");
    if (file == NULL)
        return error_errno(err, ERROR_STORE, "open '%s'", path);
    while (fgets(line, sizeof line, file) != NULL)
        take(ret, line);
    fclose(file);
    return true;
}

void
record_close(struct record *r)
{
    if (r->fd >= 0)
        close(TAKE_FD(r->fd));
}

static bool
append(struct record *r, char *line, struct error **err)
{
    size_t n = strlen(line);
    bool ok = write(r->fd, line, n) == (ssize_t)n && fsync(r->fd) == 0;

    if (!ok)
        error_errno(err, ERROR_STORE, "write the record");
    else
        take(r, line);
    free(line);
    return ok;
}

bool
record_acked(struct record *r, uint64_t seq, uint64_t hash, struct error **err)
{
    return append(r, mem_printf("acked %" PRIu64 " %" PRIx64 "\n", seq, hash), err);
}

bool
record_gave_up(struct record *r, uint64_t seq, struct error **err)
{
    return append(r, mem_printf("gave-up %" PRIu64 "\n", seq), err);
}

bool
record_overlay(struct record *r, uint64_t seq, struct error **err)
{
    return append(r, mem_printf("overlay %" PRIu64 "\n", seq), err);
}

bool
record_no_overlay(struct record *r, struct error **err)
{
    return append(r, mem_strdup("no-overlay\n"), err);
}

bool
record_sync(struct record *r, uint64_t seq, struct error **err)
{
    return append(r, mem_printf("sync %" PRIu64 "\n", seq), err);
}

bool
record_destroying(struct record *r, struct error **err)
{
    return append(r, mem_strdup("destroying\n"), err);
}

bool
record_wants(const struct record *r, uint64_t seq)
{
    return r->acked[seq] && !r->gave_up[seq];
}
