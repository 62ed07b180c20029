/*
 * Ownership: who called _new frees; these macros do it at the end of a scope.
 *
 * Allocation never fails: out of memory aborts the process, which is one more
 * crash that durable state survives. Therefore every size that comes from
 * outside (peer, file, guest, user) is checked before it reaches this header.
 * Any thread may call everything here.
 */
#ifndef COMMON_MEM_H
#define COMMON_MEM_H

#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(function)     __attribute__((cleanup(function)))
#define PRINTF(string, first) __attribute__((__format__(__printf__, string, first)))
#define UNUSED                __attribute__((unused))

/* AUTOFREE(char) *s = ...;  freed with free() at the end of the scope. */
#define AUTOFREE(type) CLEANUP(mem_freep) type

/* AUTOFD(fd) = open(...);  closed at the end of the scope unless negative. */
#define AUTOFD(name) CLEANUP(mem_closep) int name

/*
 * AUTOPTR(thing) *t = thing_new();  calls thing_free(t) at the end of the
 * scope. A header that declares thing_free() says DEFINE_AUTOPTR(thing) too.
 */
#define AUTOPTR(tag) CLEANUP(tag##_freep) struct tag
#define DEFINE_AUTOPTR(tag)                        \
    static inline void tag##_freep(struct tag **p) \
    {                                              \
        tag##_free(*p);                            \
    }                                              \
    struct tag

/* Hand over: the value of the pointer, which is NULL afterwards. */
#define TAKE(pointer)                           \
    __extension__({                             \
        __typeof__(pointer) taken_ = (pointer); \
        (pointer) = NULL;                       \
        taken_;                                 \
    })

/* Hand over a file descriptor: -1 afterwards. */
#define TAKE_FD(fd)        \
    __extension__({        \
        int taken_ = (fd); \
        (fd) = -1;         \
        taken_;            \
    })

#define N_ELEMENTS(array) (sizeof(array) / sizeof((array)[0]))
#define MIN(a, b)         ((a) < (b) ? (a) : (b))
#define MAX(a, b)         ((a) > (b) ? (a) : (b))

/* Zeroed memory for one object. */
#define NEW(type) ((type *)mem_alloc(1, sizeof(type)))

/* Zeroed; count * size may not overflow (aborts). Never NULL. */
void *mem_alloc(size_t count, size_t size);

/*
 * Zeroed, and at the start of a page: the kernel copies a file's bytes to there twice as
 * fast as to 16 bytes behind it, where large memory from the others begins.
 */
void *mem_alloc_pages(size_t size);

/* As reallocarray(); new bytes are not zeroed. Never NULL. */
void *mem_realloc(void *old, size_t count, size_t size);

/* A copy of s; NULL for NULL. */
char *mem_strdup(const char *s);

/* A copy of the first n bytes of data, with a NUL behind them. */
char *mem_memdup(const void *data, size_t n);

/* A formatted string that the caller frees. */
char *mem_printf(const char *format, ...) PRINTF(1, 2);
char *mem_vprintf(const char *format, va_list args) PRINTF(1, 0);

/* Replaces the string *p: frees what was there, stores a copy of s. */
void mem_setstr(char **p, const char *s);

static inline void
mem_freep(void *p)
{
    free(*(void **)p);
}

static inline void
mem_closep(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

#endif
