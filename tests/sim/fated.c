#include "tests/sim/fated.h"

#include "drivers/state/sqlite.h"
#include "tests/unit/unit.h"

static bool
get(struct state *s, const char *kind, const char *id, struct json_object **ret,
    struct error **err)
{
    struct state *real = ((struct fated *)s)->real;

    return real->ops->get(real, kind, id, ret, err);
}

static bool
list(struct state *s, const char *kind, const char *prefix, struct json_object **ret,
     struct error **err)
{
    struct state *real = ((struct fated *)s)->real;

    return real->ops->list(real, kind, prefix, ret, err);
}

/* Is it this one? */
static enum fate
fate_of_this(struct fated *f, const struct state_write *writes, size_t n)
{
    enum fate fate = FATE_NONE;

    pthread_mutex_lock(&f->lock);
    if (!f->dead && f->left > 0 && (f->counts == NULL || f->counts(f, writes, n)) &&
        --f->left == 0)
        fate = f->fate;
    pthread_mutex_unlock(&f->lock);
    return fate;
}

static void
die(struct fated *f, const struct state_write *writes, size_t n)
{
    f->dead = true;
    if (f->dies != NULL)
        f->dies(f, writes, n);
}

static bool
commit(struct state *s, const struct state_write *writes, size_t n, struct error **err)
{
    struct fated *f = (struct fated *)s;
    enum fate fate = fate_of_this(f, writes, n);
    bool ok;

    if (fate == FATE_FAIL)
        return error_set(err, ERROR_STATE, "the test lets this commit fail");
    if (fate == FATE_BEFORE)
        die(f, writes, n);
    if (f->dead)
        return error_set(err, ERROR_STATE, "this virtdrd is dead");
    ok = f->real->ops->commit(f->real, writes, n, err);
    f->commits++;
    if (fate == FATE_BEHIND) {
        die(f, writes, n);
        return ok && error_set(err, ERROR_STATE, "this virtdrd is dead");
    }
    if (f->told != NULL)
        f->told(f, writes, n);
    return ok;
}

static void
close_real(struct state *s)
{
    struct state *real = ((struct fated *)s)->real;

    real->ops->close(real);
}

static const struct state_ops ops = {
    .name = "fated", .close = close_real, .get = get, .list = list, .commit = commit
};

void
fated_open(struct fated *f, const char *path,
           void (*dies)(struct fated *f, const struct state_write *writes, size_t n))
{
    struct error *err = NULL;

    *f = (struct fated){ .head.ops = &ops, .dies = dies };
    pthread_mutex_init(&f->lock, NULL);
    assert_ok(state_sqlite_open(path, &f->real, &err), err);
}

void
fated_close(struct fated *f)
{
    close_real(&f->head);
    pthread_mutex_destroy(&f->lock);
}

static void
let(struct fated *f, enum fate fate, unsigned n,
    bool (*counts)(struct fated *f, const struct state_write *writes, size_t n))
{
    pthread_mutex_lock(&f->lock);
    f->fate = fate;
    f->left = n;
    f->counts = counts;
    pthread_mutex_unlock(&f->lock);
}

void
fated_let(struct fated *f, enum fate fate, unsigned n)
{
    let(f, fate, n, NULL);
}

void
fated_let_at(struct fated *f, enum fate fate,
             bool (*counts)(struct fated *f, const struct state_write *writes, size_t n))
{
    let(f, fate, 1, counts);
}
