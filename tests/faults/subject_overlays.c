/* What a target does with overlays, and with the images that a replica stands on. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "drivers/store/child.h"
#include "drivers/store/qcow2.h"
#include "tests/faults/model.h"
#include "tests/faults/subject.h"

#define GUEST_TIMEOUT_MS 60000
#define DRILL            "drill"
#define FAILOVER         "failover"
#define KEPT             "kept"
#define CLONE            "clone"

static const struct store_ops *const ops = &store_qcow2_ops;

/* --- the originals ------------------------------------------------------------------ */

bool
subject_first(struct subject *s, uint64_t seq, struct error **err)
{
    AUTOFREE(char) *xml = mem_printf("xml of %" PRIu64, seq);
    const struct store_blob blob = { "domain.xml", xml, strlen(xml) };
    const struct store_first first = { .seq = seq, .blobs = &blob, .n_blobs = 1 };
    AUTOPTR(model) *m = NULL;

    if (!ops->mark_originals(s->store, &first, err))
        return false;
    m = model_new(seq);
    return record_acked(&s->record, seq, model_hash(m), err);
}

bool
subject_accept(struct subject *s, uint64_t seq UNUSED, struct error **err)
{
    return ops->accept_originals(s->store, err);
}

/* --- making ------------------------------------------------------------------------- */

static bool
make(struct subject *s, const struct store_overlay *wanted,
     const struct record_overlay *promise, struct error **err)
{
    char **paths = NULL;
    size_t n = 0;

    if (!ops->overlay_create(s->store, wanted, &paths, &n, err))
        return false;
    for (size_t i = 0; i < n; i++)
        free(paths[i]);
    free(paths);
    return record_overlay(&s->record, promise, err);
}

bool
subject_overlay(struct subject *s, uint64_t seq, struct error **err)
{
    const struct store_overlay wanted = { .id = DRILL, .seq = seq };

    return make(s, &wanted, &(struct record_overlay){ DRILL, seq, false }, err);
}

bool
subject_failover(struct subject *s, uint64_t seq, struct error **err)
{
    const struct store_overlay wanted = { .id = FAILOVER,
                                          .seq = seq,
                                          .record = "record" };

    return make(s, &wanted, &(struct record_overlay){ FAILOVER, seq, false }, err);
}

bool
subject_clone(struct subject *s, uint64_t seq, struct error **err)
{
    const struct store_overlay wanted = { .id = CLONE, .from = KEPT };

    return make(s, &wanted, &(struct record_overlay){ CLONE, seq, true }, err);
}

/* --- the guest ---------------------------------------------------------------------- */

/* Our environment, but no faults: what a guest does is none of the store's steps. */
static char **
guest_environment(void)
{
    size_t n = 0, kept = 0;
    char **copy;

    while (environ[n] != NULL)
        n++;
    copy = mem_alloc(n + 1, sizeof *copy);
    for (size_t i = 0; i < n; i++)
        if (strncmp(environ[i], "LD_PRELOAD=", 11) != 0)
            copy[kept++] = environ[i];
    return copy;
}

bool
subject_guest(struct subject *s, uint64_t seq, struct error **err)
{
    AUTOFREE(char) *image = mem_printf("%s/overlay/" FAILOVER "/vda.qcow2", s->folder);
    AUTOFREE(char) *write =
        mem_printf("write -P 0x%x 0 %u", SUBJECT_GUEST_BYTE, SUBJECT_GUEST_BYTES);
    const char *const argv[] = { "qemu-io", "-f",    "qcow2", "-c", write,
                                 "-c",      "flush", image,   NULL };
    AUTOFREE(char *) *environment = guest_environment();
    AUTOFD(root) = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const struct child_request request = { .argv = argv,
                                           .environment = environment,
                                           .folder = root };

    return child_run(&request, GUEST_TIMEOUT_MS, err) &&
           record_overlay(&s->record, &(struct record_overlay){ FAILOVER, seq, true },
                          err);
}

/* --- another name ------------------------------------------------------------------- */

static bool
keep(struct subject *s, struct error **err)
{
    const struct record_overlay *before = record_find(&s->record, FAILOVER);
    struct record_overlay kept = { .id = KEPT };
    if (before == NULL)
        return error_set(err, ERROR_INTERNAL, "there is nothing to keep");
    kept.seq = before->seq;
    kept.written = before->written;
    return ops->overlay_keep(s->store, FAILOVER, KEPT, err) &&
           record_kept(&s->record, FAILOVER, &kept, err);
}

bool
subject_keep(struct subject *s, uint64_t seq UNUSED, struct error **err)
{
    return record_keeping(&s->record, FAILOVER, err) && keep(s, err);
}

bool
subject_keep_again(struct subject *s, struct error **err)
{
    return keep(s, err);
}

/* --- removing ----------------------------------------------------------------------- */

static bool
remove_overlay(struct subject *s, const char *id, struct error **err)
{
    return record_no_overlay(&s->record, id, err) &&
           ops->overlay_remove(s->store, id, err);
}

bool
subject_no_overlay(struct subject *s, uint64_t seq UNUSED, struct error **err)
{
    return remove_overlay(s, DRILL, err);
}

bool
subject_no_clone(struct subject *s, uint64_t seq UNUSED, struct error **err)
{
    return remove_overlay(s, CLONE, err);
}

bool
subject_no_kept(struct subject *s, uint64_t seq UNUSED, struct error **err)
{
    return remove_overlay(s, KEPT, err);
}
