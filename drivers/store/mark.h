/*
 * Marks: the sealed moments in a layout, oldest first.
 *
 * A mark names for each disk the layer that shows it, which others may show too;
 * layers above it came later. Part of struct layout, with its rules: plain data, one
 * owner.
 */
#ifndef DRIVERS_STORE_MARK_H
#define DRIVERS_STORE_MARK_H

#include <json-c/json.h>

#include "drivers/store/layout.h"

#define MARK_MAX 1000 /* in one layout */

/* The mark of that seq; NULL if there is none. */
struct layout_mark *mark_find(const struct layout *l, uint64_t seq);

/* The newest mark that is not after seq; NULL if there is none. */
struct layout_mark *mark_before(const struct layout *l, uint64_t seq);

/* NULL if the disk came after the mark. */
struct layout_view *mark_view(const struct layout_mark *m, const char *target);

/*
 * Adds a mark that shows the layers below the tips, with the present blobs; the tips
 * are empty. seq is above all others'. Borrowed.
 */
struct layout_mark *mark_add(struct layout *l, uint64_t seq, bool base);
void mark_drop(struct layout *l, uint64_t seq);

/* Does a mark name this layer? */
bool mark_names_layer(const struct layout *l, const char *file);
bool mark_names_blob(const struct layout *l, const char *file);

/* Marks that name upper name lower from now on. */
void mark_move(struct layout *l, const char *upper, const char *lower);

/* Appends a copy to a layout that has none of that seq. */
void mark_copy(struct layout *to, const struct layout_mark *m);
void mark_clear(struct layout_mark *m); /* what it owns */

/* As in layout.json; parsing appends, and refuses what the layout's disks do not have. */
bool mark_parse(struct json_object *o, struct layout *l, struct error **err);
struct json_object *mark_json(const struct layout_mark *m);

#endif
