#include "common/text.h"

#include <stdbool.h>
#include <stddef.h>

/* Bytes of the UTF-8 sequence at s; 0 if there is none (RFC 3629, table of section 4). */
static size_t
utf8_length(const unsigned char *s)
{
    unsigned low = 0x80, high = 0xbf;
    size_t n;

    if (s[0] < 0x80)
        return 1;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    n = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (s[0] == 0xe0)
        low = 0xa0;
    else if (s[0] == 0xed)
        high = 0x9f;
    else if (s[0] == 0xf0)
        low = 0x90;
    else if (s[0] == 0xf4)
        high = 0x8f;
    for (size_t i = 1; i < n; i++, low = 0x80, high = 0xbf)
        if (s[i] < low || s[i] > high)
            return 0;
    return n;
}

static bool
is_control(const unsigned char *s)
{
    return s[0] < 0x20 || s[0] == 0x7f || (s[0] == 0xc2 && s[1] < 0xa0);
}

void
text_make_utf8(char *s)
{
    unsigned char *p = (unsigned char *)s;

    while (*p != '\0') {
        size_t n = utf8_length(p);

        if (n == 0)
            *p = '?';
        p += n == 0 ? 1 : n;
    }
}

void
text_make_printable(char *s)
{
    unsigned char *p = (unsigned char *)s;

    text_make_utf8(s);
    while (*p != '\0') {
        size_t n = utf8_length(p);

        if (is_control(p))
            for (size_t i = 0; i < n; i++)
                p[i] = '?';
        p += n;
    }
}
