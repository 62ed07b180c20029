/* overlay.json from any bytes, with the hash that they need: what is taken can be saved
 * and is taken again. */
#include <stdbool.h>
#include <string.h>

#include "drivers/store/footing.h"
#include "drivers/store/hashed.h"
#include "tests/fuzz/file.h"

#define must(condition)   \
    do {                  \
        if (!(condition)) \
            abort();      \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
check_same(const struct footing *a, const struct footing *b)
{
    must(a->seq == b->seq && a->mark == b->mark && a->n_disks == b->n_disks);
    for (size_t i = 0; i < a->n_disks; i++)
        must(strcmp(a->disks[i].target, b->disks[i].target) == 0 &&
             strcmp(a->disks[i].layer, b->disks[i].layer) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    AUTOFREE(char) *text = mem_memdup(data, n);
    bool hashed = hashed_put(text, n);
    int at = fuzz_put(FOOTING_FILE, text, n);
    struct footing f = { .ready = false }, again = { .ready = false };

    if (footing_load(&f, at, NULL)) {
        must(hashed && f.n_disks <= WIRE_MAX_DISKS);
        must(footing_save(&f, at, NULL) && footing_load(&again, at, NULL));
        check_same(&f, &again);
        footing_clear(&again);
    }
    footing_clear(&f);
    fuzz_remove(FOOTING_FILE);
    return 0;
}
