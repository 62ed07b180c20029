#include "client/human.h"

#include <inttypes.h>
#include <string.h>

#include "common/text.h"

/*
 * Bytes of a mark at s that changes a line's direction or ends it: with one in
 * a VM's name a line could read as another one. s is UTF-8. 0: there is none.
 */
static size_t
direction_mark(const char *s)
{
    static const char *const marks[] = {
        "\u061c", "\u200e", "\u200f", "\u2028", "\u2029", "\u202a", "\u202b",
        "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068", "\u2069",
    };

    for (size_t i = 0; i < N_ELEMENTS(marks); i++)
        if (strncmp(s, marks[i], strlen(marks[i])) == 0)
            return strlen(marks[i]);
    return 0;
}

char *
human_clean(const char *s)
{
    char *copy = mem_strdup(s);
    size_t n;

    for (char *p = copy; *p != '\0'; p++)
        if (*p == '\n')
            *p = ' ';
    text_make_printable(copy);
    for (char *p = copy; *p != '\0'; p++) {
        n = direction_mark(p);
        if (n > 0)
            memset(p, '?', n);
    }
    return copy;
}

size_t
human_width(const char *s)
{
    size_t width = 0;

    for (; *s != '\0'; s++)
        if (((unsigned char)*s & 0xc0) != 0x80)
            width++;
    return width;
}

char *
human_left(int64_t ms)
{
    int64_t seconds = MAX(ms, 0) / 1000 + (MAX(ms, 0) % 1000 != 0);

    if (seconds < 3600)
        return mem_printf("%" PRId64 ":%02" PRId64, seconds / 60, seconds % 60);
    return mem_printf("%" PRId64 ":%02" PRId64 ":%02" PRId64, seconds / 3600,
                      seconds / 60 % 60, seconds % 60);
}
