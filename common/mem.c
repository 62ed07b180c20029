#include "common/mem.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define PAGE_BYTES 4096

static void *
check(void *p)
{
    if (p == NULL) {
        static const char message[] = "virt-dr: out of memory\n";
        ssize_t ignored = write(STDERR_FILENO, message, sizeof message - 1);
        (void)ignored;
        abort();
    }
    return p;
}

void *
mem_alloc(size_t count, size_t size)
{
    return check(calloc(count == 0 ? 1 : count, size == 0 ? 1 : size));
}

void *
mem_alloc_pages(size_t size)
{
    void *p = NULL;

    if (posix_memalign(&p, PAGE_BYTES, size) != 0)
        p = NULL;
    return memset(check(p), 0, size);
}

void *
mem_realloc(void *old, size_t count, size_t size)
{
    return check(reallocarray(old, count == 0 ? 1 : count, size == 0 ? 1 : size));
}

char *
mem_strdup(const char *s)
{
    return s == NULL ? NULL : check(strdup(s));
}

char *
mem_memdup(const void *data, size_t n)
{
    char *copy;

    if (n == SIZE_MAX)
        abort();
    copy = check(malloc(n + 1));
    if (n > 0)
        memcpy(copy, data, n);
    copy[n] = '\0';
    return copy;
}

char *
mem_vprintf(const char *format, va_list args)
{
    char *s = NULL;

    if (vasprintf(&s, format, args) < 0)
        s = NULL;
    return check(s);
}

char *
mem_printf(const char *format, ...)
{
    va_list args;
    char *s;

    va_start(args, format);
    s = mem_vprintf(format, args);
    va_end(args);
    return s;
}

void
mem_setstr(char **p, const char *s)
{
    char *copy = mem_strdup(s);

    free(*p);
    *p = copy;
}
