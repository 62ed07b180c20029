/* What the tests of the guard share: a host's folders, of which none exists before the
 * first write. */
#ifndef TESTS_UNIT_GUARD_KIT_H
#define TESTS_UNIT_GUARD_KIT_H

#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>

#include "daemon/guard.h"
#include "tests/unit/unit.h"

#define WEB   "0f8c1a52-6a3e-4c11-9d55-7f0e8b1d2c3a"
#define OTHER "11111111-2222-3333-4444-555555555555"

struct host {
    char root[32];
    char records[64];
    char confirmations[64];
    struct guard_folders folders;
};

static inline int
set_up(void **state)
{
    struct host *h = NEW(struct host);

    snprintf(h->root, sizeof h->root, "/tmp/test-guard.XXXXXX");
    if (mkdtemp(h->root) == NULL)
        return -1;
    snprintf(h->records, sizeof h->records, "%s/var/guard", h->root);
    snprintf(h->confirmations, sizeof h->confirmations, "%s/run/guard", h->root);
    h->folders = (struct guard_folders){ h->records, h->confirmations };
    *state = h;
    return 0;
}

static inline int
remove_entry(const char *path, const struct stat *st UNUSED, int kind UNUSED,
             struct FTW *where UNUSED)
{
    return remove(path);
}

static inline int
tear_down(void **state)
{
    struct host *h = *state;
    int status = nftw(h->root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);

    free(h);
    return status;
}

#endif
