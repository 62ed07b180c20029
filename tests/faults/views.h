/*
 * What images show, read by QEMU as a guest would: all of them by one storage daemon.
 */
#ifndef TESTS_FAULTS_VIEWS_H
#define TESTS_FAULTS_VIEWS_H

#include "tests/faults/subject.h"

/* An overlay's image, and what it must show. */
struct view {
    char *path;
    char *name;
    uint64_t seq;
    size_t disk;
    bool written; /* by the guest */
};

/* Zeroed memory is an empty one. */
struct views {
    struct view *items;
    size_t n;
};

void views_add(struct views *v, const struct view *view); /* its texts are copied */
void views_clear(struct views *v);

/* Fails with the first that shows anything else. Scratch: as the subject's. */
bool views_check(const struct views *v, const char *scratch, struct error **err);

#endif
