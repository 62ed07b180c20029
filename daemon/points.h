/*
 * The recovery points of one replica, in memory and as documents (kind "point").
 *
 * A set has its points sorted by sequence, which is the order in which they
 * were captured. Their times never fall along it: after the source's clock stepped
 * back, points have the time of the one before them. All changes are durable
 * before they are visible here. Any thread; a set has a lock of its own, which is taken
 * under a replication's lock, never the other way round, and held over a commit.
 * Snapshots are the caller's.
 */
#ifndef DAEMON_POINTS_H
#define DAEMON_POINTS_H

#include <json-c/json.h>
#include <stdint.h>

#include "common/error.h"
#include "drivers/capture.h"
#include "drivers/state.h"

#define POINTS_MAX_TAGS 8
#define POINTS_TAG_MAX  63 /* of a-z, A-Z, 0-9, '.', '_', '-'; begins with a letter */

struct point {
    char name[CAPTURE_NAME_MAX + 1]; /* its id for users */
    bool application;                /* consistent for applications, else for a crash */
    bool pinned;
    bool damaged;
    uint64_t sequence;
    int64_t time_ms; /* when it was captured, wall clock of the source */
    int64_t received_ms;
    uint64_t transfer_bytes; /* on the wire, and about what its journal takes */
    char **tags;             /* NULL without one */
    size_t n_tags;
    char *damage; /* a sentence; NULL unless damaged */
};

struct points;

/* Reads the documents of that replication. ERROR_STATE names one that is bad. */
bool points_open(struct state *state, const char *replication_id, struct points **ret,
                 struct error **err);
void points_free(struct points *p);
DEFINE_AUTOPTR(points);

/* A copy of all, by sequence; points_list_free() takes it back. NULL if there is none. */
struct point *points_list(struct points *p, size_t *ret_n);
void points_list_free(struct point *list, size_t n);

/* The document of a new point; *ret_key is the caller's to free, the JSON to put. */
struct json_object *
points_document(struct points *p, const struct point *point, char **ret_key);

/* It has been stored with points_document(): known from now on. */
void points_added(struct points *p, const struct point *point);

/* By name, sequence number or tag. ERROR_POINT_NOT_FOUND. point_clear() *ret. */
bool
points_find(struct points *p, const char *key, struct point *ret, struct error **err);

/* The lowest sequence above that one; false if there is none. */
bool points_next(struct points *p, uint64_t above, uint64_t *ret);

/* That one, as points_find(); false if there is none. */
bool points_get(struct points *p, uint64_t sequence, struct point *ret);

/*
 * Forgets those with these sequences; unknown ones are no error. One commit, of
 * many thousands several: what a failure leaves is known still.
 */
bool
points_remove(struct points *p, const uint64_t *sequences, size_t n, struct error **err);
bool points_remove_all(struct points *p, struct error **err);

/* The next ones: ERROR_POINT_NOT_FOUND if the point has gone meanwhile. */
bool
points_set_pinned(struct points *p, uint64_t sequence, bool pinned, struct error **err);

/* Its tags are these from now on. One point has a tag at a time: others lose it.
   ERROR_USAGE: not a tag, too many, or another point's id. */
bool points_set_tags(struct points *p, uint64_t sequence, const char *const *tags,
                     size_t n, struct error **err);
bool points_tag(struct points *p, uint64_t sequence, const char *tag, struct error **err);

/* ERROR_POINT_NOT_FOUND: no point has it. */
bool points_untag(struct points *p, const char *tag, struct error **err);

/* Those from first to last; text NULL: they are whole again. */
bool points_set_damaged(struct points *p, uint64_t first, uint64_t last, const char *text,
                        struct error **err);

/* As the API shows it. */
struct json_object *point_json(const struct point *point);

/* A copy that owns what it points to; point_clear() frees that. */
void point_copy(struct point *ret, const struct point *point);
void point_clear(struct point *point);

#endif
