/*
 * Where a store is put to the test: a folder in memory, or a file system of its
 * own on a loop device, whose power can be cut.
 *
 *     BASE/files/store  the store; files/ is what is mounted
 *     BASE/scratch/     what no fault reaches: the record, messages
 *     BASE/original*    images that stores stand on
 *     BASE/saved/NAME/  a store and its record, as they were at some time
 *     BASE/state        faultline.so's
 *
 * One process works in one arena. What it leaves is removed with it.
 */
#ifndef TESTS_FAULTS_ARENA_H
#define TESTS_FAULTS_ARENA_H

#include <sys/types.h>

#include "common/error.h"
#include "tests/faults/faultline.h"

struct arena {
    char *base;
    char *store;
    char *scratch;
    char *state_path;
    char *program;  /* store_scenario */
    char *preload;  /* faultline.so */
    const char *fs; /* NULL: memory; else "xfs", "ext4" */
    struct faultline_state *state;
};

/* tools: the folder with store_scenario and faultline.so. */
bool arena_open(const char *tools, const char *fs, struct arena *ret, struct error **err);
void arena_close(struct arena *a);

/* An empty arena, nothing planned. */
bool arena_clear(struct arena *a, struct error **err);

/* Remembers the store and its record under a name; a clear arena gets them back, durably.
 */
bool arena_save(struct arena *a, const char *name, struct error **err);
bool arena_restore(struct arena *a, const char *name, struct error **err);

/* In a process that takes the arena over: what a killed subject leaves becomes ours. */
void arena_take_over(void);

enum arena_fault {
    ARENA_NO_FAULT,
    ARENA_PLANNED, /* under faultline.so, as the state's plan says */
    ARENA_REAL,    /* the subject knows of it, and nobody else plays it */
};

/* Runs a command of store_scenario to its end; *ret_status as of waitpid(). */
bool arena_run(struct arena *a, const char *command, enum arena_fault fault,
               int *ret_status, struct error **err);

/* What the last run wrote to stderr; the caller frees. */
char *arena_messages(struct arena *a);

/* Ends all processes that our subjects have left. */
void arena_end_helpers(void);

/* Takes the power from the file system: what was not synced is lost. */
bool arena_cut_power(struct arena *a, struct error **err);

/* After a power cut: what the file system has kept. */
bool arena_power_on(struct arena *a, struct error **err);

/* Is what was synced there after a cut, and what was not synced lost? */
bool arena_check_cut(struct arena *a, struct error **err);

#endif
