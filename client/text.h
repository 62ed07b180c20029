/*
 * Text for people: foreign strings made harmless, widths, percent-encoding.
 *
 * Names come from domains, peers and messages of other hosts; nothing of them
 * reaches a terminal uncleaned. All functions are pure; any thread.
 */
#ifndef CLIENT_TEXT_H
#define CLIENT_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "common/mem.h"

/*
 * A copy that a terminal can be given: control characters (C0, DEL, C1),
 * direction overrides and bytes that are not UTF-8 become '?', line ends a space.
 */
char *text_clean(const char *s);

/* Columns of a cleaned text, one per code point. */
size_t text_width(const char *s);

/* s as one segment of a URL's path. */
char *text_path_segment(const char *s);

/* Time left as "0:02" or "1:02:03"; the caller frees. */
char *text_left(int64_t ms);

#endif
