/*
 * The images that a replica can stand on: made once for each arena, and never changed
 * again, whatever becomes of the store. They lie beside the folder "scratch".
 */
#ifndef TESTS_FAULTS_ORIGINALS_H
#define TESTS_FAULTS_ORIGINALS_H

#include "common/error.h"
#include "drivers/store_types.h"
#include "tests/faults/model.h"

struct originals {
    struct store_original images[MODEL_DISKS];
    char *paths[MODEL_DISKS];
};

/* Where they are. */
void originals_open(const char *scratch, struct originals *ret);
void originals_close(struct originals *o);

/* Makes them; those that are there are made anew. */
bool originals_make(const char *scratch, struct error **err);

/* Fails if they are not as they were made. */
bool originals_check(const char *scratch, struct error **err);

#endif
