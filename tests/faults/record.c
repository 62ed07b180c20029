#include "tests/faults/record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/mem.h"

/* The place of that id; of "", a free one. */
static struct record_overlay *
place_of(struct record *r, const char *id)
{
    for (size_t i = 0; i < RECORD_MAX_OVERLAYS; i++)
        if (strcmp(r->overlays[i].id, id) == 0)
            return &r->overlays[i];
    return NULL;
}

const struct record_overlay *
record_find(const struct record *r, const char *id)
{
    for (size_t i = 0; i < RECORD_MAX_OVERLAYS; i++)
        if (strcmp(r->overlays[i].id, id) == 0)
            return &r->overlays[i];
    return NULL;
}

static void
take_overlay(struct record *r, const char *id, uint64_t seq, bool written)
{
    struct record_overlay *o = place_of(r, id);

    if (o == NULL)
        o = place_of(r, "");
    if (o == NULL)
        abort();
    snprintf(o->id, sizeof o->id, "%s", id);
    o->seq = seq;
    o->written = written;
}

static void
take_no_overlay(struct record *r, const char *id)
{
    struct record_overlay *o = place_of(r, id);

    if (o != NULL)
        *o = (struct record_overlay){ .seq = 0 };
}

static bool
take_of_overlays(struct record *r, const char *line)
{
    char id[RECORD_ID_MAX], as[RECORD_ID_MAX];
    unsigned written = 0;
    uint64_t seq = 0;

    if (sscanf(line, "overlay %31s %" SCNu64 " %u", id, &seq, &written) == 3) {
        take_overlay(r, id, seq, written != 0);
    } else if (sscanf(line, "kept %31s %31s %" SCNu64 " %u", id, as, &seq, &written) ==
               4) {
        r->keeping = false;
        take_no_overlay(r, id);
        take_overlay(r, as, seq, written != 0);
    } else if (sscanf(line, "keeping %31s", id) == 1) {
        r->keeping = true;
    } else if (sscanf(line, "no-overlay %31s", id) == 1) {
        take_no_overlay(r, id);
    } else {
        return false;
    }
    return true;
}

static void
take(struct record *r, const char *line)
{
    uint64_t seq = 0, hash = 0;

    if (take_of_overlays(r, line))
        return;
    if (sscanf(line, "acked %" SCNu64 " %" SCNx64, &seq, &hash) == 2) {
        r->acked[seq] = true;
        r->hashes[seq] = hash;
        r->newest = MAX(r->newest, seq);
    } else if (sscanf(line, "gave-up %" SCNu64, &seq) == 1) {
        r->gave_up[seq] = true;
    } else if (sscanf(line, "sync %" SCNu64, &seq) == 1) {
        r->sync = seq;
    } else if (strcmp(line, "home\n") == 0) {
        r->home = true;
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
    if (r->n_promises != NULL)
        atomic_fetch_add(r->n_promises, 1);
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
record_overlay(struct record *r, const struct record_overlay *o, struct error **err)
{
    return append(r, mem_printf("overlay %s %" PRIu64 " %d\n", o->id, o->seq, o->written),
                  err);
}

bool
record_keeping(struct record *r, const char *id, struct error **err)
{
    return append(r, mem_printf("keeping %s\n", id), err);
}

bool
record_kept(struct record *r, const char *id, const struct record_overlay *as,
            struct error **err)
{
    return append(
        r, mem_printf("kept %s %s %" PRIu64 " %d\n", id, as->id, as->seq, as->written),
        err);
}

bool
record_no_overlay(struct record *r, const char *id, struct error **err)
{
    return append(r, mem_printf("no-overlay %s\n", id), err);
}

bool
record_home(struct record *r, struct error **err)
{
    return append(r, mem_strdup("home\n"), err);
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
