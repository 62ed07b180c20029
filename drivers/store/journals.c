#include "drivers/store/journals.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "drivers/store/folder.h"
#include "drivers/store/journal.h"

#define FIRST_ROOM 64

void
journals_init(struct journals *j)
{
    *j = (struct journals){ .items = NULL };
    pthread_mutex_init(&j->lock, NULL);
}

void
journals_clear(struct journals *j)
{
    pthread_mutex_destroy(&j->lock);
    free(j->items);
}

/* The index of the first that is not below seq. */
static size_t
position(const struct journals *j, uint64_t seq)
{
    size_t low = 0, high = j->n;

    /* Nearly always it is the newest that is asked for. */
    if (j->n > 0 && j->items[j->n - 1].seq < seq)
        return j->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (j->items[middle].seq < seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool
is_there(const struct journals *j, size_t at, uint64_t seq)
{
    return at < j->n && j->items[at].seq == seq;
}

static void
make_room(struct journals *j)
{
    if (j->n < j->size)
        return;
    j->size = MAX(FIRST_ROOM, j->size * 2);
    j->items = mem_realloc(j->items, j->size, sizeof *j->items);
}

void
journals_add(struct journals *j, uint64_t seq, uint64_t bytes)
{
    size_t at;

    pthread_mutex_lock(&j->lock);
    at = position(j, seq);
    if (!is_there(j, at, seq)) {
        make_room(j);
        memmove(j->items + at + 1, j->items + at, (j->n - at) * sizeof *j->items);
        j->n++;
    }
    j->items[at] = (struct journals_item){ .seq = seq, .bytes = bytes };
    pthread_mutex_unlock(&j->lock);
}

void
journals_remove(struct journals *j, uint64_t seq)
{
    size_t at;

    pthread_mutex_lock(&j->lock);
    at = position(j, seq);
    if (is_there(j, at, seq)) {
        j->n--;
        memmove(j->items + at, j->items + at + 1, (j->n - at) * sizeof *j->items);
    }
    pthread_mutex_unlock(&j->lock);
}

bool
journals_load(struct journals *j, int at, struct error **err)
{
    AUTOFREE(uint64_t) *seqs = NULL;
    size_t n = 0;

    if (!journal_list(at, &seqs, &n, err))
        return false;
    for (size_t i = 0; i < n; i++) {
        uint64_t bytes = 0;

        if (!journal_bytes(at, seqs[i], &bytes, err))
            return false;
        journals_add(j, seqs[i], bytes);
    }
    return true;
}

void
journals_list(struct journals *j, uint64_t **ret, size_t *ret_n)
{
    uint64_t *seqs;

    pthread_mutex_lock(&j->lock);
    seqs = mem_alloc(j->n, sizeof *seqs);
    for (size_t i = 0; i < j->n; i++)
        seqs[i] = j->items[i].seq;
    *ret = seqs;
    *ret_n = j->n;
    pthread_mutex_unlock(&j->lock);
}

uint64_t
journals_newest(struct journals *j)
{
    uint64_t seq;

    pthread_mutex_lock(&j->lock);
    seq = j->n > 0 ? j->items[j->n - 1].seq : 0;
    pthread_mutex_unlock(&j->lock);
    return seq;
}

struct journals_sum
journals_between(struct journals *j, uint64_t after, uint64_t last)
{
    struct journals_sum sum = { .n = 0 };

    pthread_mutex_lock(&j->lock);
    for (size_t i = after < UINT64_MAX ? position(j, after + 1) : j->n;
         i < j->n && j->items[i].seq <= last; i++) {
        sum.n++;
        sum.bytes += j->items[i].bytes;
    }
    pthread_mutex_unlock(&j->lock);
    return sum;
}

void
journals_sweep(struct journals *j, journals_fn stays, void *opaque,
               struct journals_item **ret, size_t *ret_n)
{
    struct journals_item *gone = NULL;
    size_t n_gone = 0, kept = 0;

    pthread_mutex_lock(&j->lock);
    for (size_t i = 0; i < j->n; i++) {
        if (stays(j->items[i].seq, opaque)) {
            j->items[kept++] = j->items[i];
            continue;
        }
        if (gone == NULL)
            gone = mem_alloc(j->n, sizeof *gone);
        gone[n_gone++] = j->items[i];
    }
    j->n = kept;
    *ret = gone;
    *ret_n = n_gone;
    pthread_mutex_unlock(&j->lock);
}
