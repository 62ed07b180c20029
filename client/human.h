/*
 * Text for people: foreign strings made harmless, widths, time left.
 *
 * Names come from domains, peers and messages of other hosts; nothing of them
 * reaches a terminal uncleaned. All functions are pure; any thread.
 */
#ifndef CLIENT_HUMAN_H
#define CLIENT_HUMAN_H

#include <stddef.h>
#include <stdint.h>

#include "common/mem.h"

/*
 * A copy that a terminal can be given: text_make_printable(), direction
 * overrides become '?' too, and a line's end a space. The caller frees.
 */
char *human_clean(const char *s);

/* Columns of a cleaned text, one per code point. */
size_t human_width(const char *s);

/* Time left as "0:02" or "1:02:03"; the caller frees. */
char *human_left(int64_t ms);

#endif
