/*
 * layout.json from any bytes, with the hash that they need: what is taken keeps to its
 * limits, names no file elsewhere, and is the same when it was saved and loaded again.
 */
#include <stdbool.h>
#include <string.h>

#include "drivers/store/folder.h"
#include "drivers/store/hashed.h"
#include "drivers/store/layout.h"
#include "drivers/store/mark.h"
#include "tests/fuzz/file.h"

#define MAX_FILE (64u << 20)

#define must(condition)   \
    do {                  \
        if (!(condition)) \
            abort();      \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
check_name(const char *name)
{
    must(name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL);
    must(strlen(name) < LAYOUT_NAME_MAX);
}

static void
check_disk(const struct layout_disk *d)
{
    must(layout_check_disk(d->target, d->capacity_bytes, NULL));
    must(d->n_layers >= LAYOUT_MIN_LAYERS && d->n_layers <= LAYOUT_MAX_LAYERS);
    for (size_t i = 0; i < d->n_layers; i++) {
        check_name(d->layers[i]);
        must(layout_layer_index(d, d->layers[i]) == i);
    }
}

static void
check_mark(const struct layout *l, const struct layout_mark *m)
{
    for (size_t i = 0; i < m->n_views; i++) {
        const struct layout_disk *d = layout_find(l, m->views[i].target);

        must(d != NULL && layout_layer_index(d, m->views[i].layer) + 1 < d->n_layers);
    }
    for (size_t i = 0; i < m->n_blobs; i++)
        check_name(m->blobs[i].file);
}

/* Everything that the store relies on without looking again. */
static void
check(const struct layout *l)
{
    must(l->n_marks <= MARK_MAX);
    for (size_t i = 0; i < l->n_disks; i++)
        check_disk(&l->disks[i]);
    for (size_t i = 0; i < l->n_blobs; i++)
        check_name(l->blobs[i].file);
    for (size_t i = 0; i < l->n_marks; i++) {
        must(i == 0 || l->marks[i - 1].seq < l->marks[i].seq);
        check_mark(l, &l->marks[i]);
    }
    must(l->fold.target[0] == '\0' || layout_find(l, l->fold.target) != NULL);
}

static char *
save(const struct layout *l, int at)
{
    char *text = NULL;
    size_t n = 0;

    must(layout_save(l, at, NULL) &&
         folder_read(at, LAYOUT_FILE, MAX_FILE, &text, &n, NULL));
    return text;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    AUTOFREE(char) *text = mem_memdup(data, n);
    bool hashed = hashed_put(text, n);
    int at = fuzz_put(LAYOUT_FILE, text, n);
    struct layout *l = NULL, *again = NULL;

    if (layout_load(at, &l, NULL)) {
        AUTOFREE(char) *first = NULL;
        AUTOFREE(char) *second = NULL;

        must(hashed);
        check(l);
        first = save(l, at);
        must(layout_load(at, &again, NULL));
        second = save(again, at);
        must(strcmp(first, second) == 0);
        layout_free(again);
        layout_free(l);
    }
    fuzz_remove(LAYOUT_FILE);
    return 0;
}
