#include "client/text.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

/* Bytes of the code point at s, 0 if it is no valid UTF-8 (RFC 3629, table 3-7). */
static size_t
decode(const unsigned char *s, uint32_t *ret)
{
    static const struct {
        unsigned char mask, lead, payload;
        uint32_t min;
    } forms[] = {
        { 0x80, 0x00, 0x7f, 0 },
        { 0xe0, 0xc0, 0x1f, 0x80 },
        { 0xf0, 0xe0, 0x0f, 0x800 },
        { 0xf8, 0xf0, 0x07, 0x10000 },
    };

    for (size_t n = 0; n < N_ELEMENTS(forms); n++) {
        uint32_t c = s[0] & forms[n].payload;

        if ((s[0] & forms[n].mask) != forms[n].lead)
            continue;
        for (size_t i = 1; i <= n; i++) {
            if ((s[i] & 0xc0) != 0x80)
                return 0;
            c = c << 6 | (s[i] & 0x3f);
        }
        if (c < forms[n].min || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
            return 0;
        *ret = c;
        return n + 1;
    }
    return 0;
}

static bool
is_harmful(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c <= 0x9f) ||      /* C0, DEL, C1 */
           c == 0x2028 || c == 0x2029 ||                /* line separators */
           c == 0x200e || c == 0x200f || c == 0x061c || /* direction marks */
           (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

char *
text_clean(const char *s)
{
    char *copy = mem_alloc(strlen(s) + 1, 1);
    char *out = copy;

    while (*s != '\0') {
        uint32_t c = 0;
        size_t n = decode((const unsigned char *)s, &c);

        if (n == 0 || is_harmful(c))
            *out++ = c == '\n' ? ' ' : '?';
        else
            out = (char *)memcpy(out, s, n) + n;
        s += n == 0 ? 1 : n;
    }
    return copy;
}

size_t
text_width(const char *s)
{
    size_t width = 0;

    for (; *s != '\0'; s++)
        if (((unsigned char)*s & 0xc0) != 0x80)
            width++;
    return width;
}

char *
text_path_segment(const char *s)
{
    static const char kept[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                               "0123456789-._~"; /* RFC 3986, unreserved */
    static const char hex[] = "0123456789ABCDEF";
    /* A segment of dots alone would be taken for a way up or nowhere. */
    bool only_dots = s[strspn(s, ".")] == '\0';
    char *encoded = mem_alloc(strlen(s) * 3 + 1, 1);
    char *out = encoded;

    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;

        if (strchr(kept, *s) != NULL && !only_dots) {
            *out++ = *s;
            continue;
        }
        *out++ = '%';
        *out++ = hex[c >> 4];
        *out++ = hex[c & 15];
    }
    return encoded;
}

char *
text_left(int64_t ms)
{
    int64_t seconds = (MIN(MAX(ms, 0), INT64_MAX - 999) + 999) / 1000;

    if (seconds < 3600)
        return mem_printf("%" PRId64 ":%02" PRId64, seconds / 60, seconds % 60);
    return mem_printf("%" PRId64 ":%02" PRId64 ":%02" PRId64, seconds / 3600,
                      seconds / 60 % 60, seconds % 60);
}
