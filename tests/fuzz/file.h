/* A fuzzer's input as a file in a folder of its own, which goes when the process ends. */
#ifndef TESTS_FUZZ_FILE_H
#define TESTS_FUZZ_FILE_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

#include "common/mem.h"

static char fuzz_folder[64];
static int fuzz_at = -1;

static inline void
fuzz_remove_folder(void)
{
    rmdir(fuzz_folder);
}

/* Writes the file; the folder's descriptor. */
static inline int
fuzz_put(const char *name, const void *data, size_t n)
{
    AUTOFD(fd) = -1;

    if (fuzz_at < 0) {
        /* In memory if there is room: each input is a file. */
        snprintf(fuzz_folder, sizeof fuzz_folder, "%s/vdr-fuzz-XXXXXX",
                 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        if (mkdtemp(fuzz_folder) == NULL)
            abort();
        fuzz_at = open(fuzz_folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        atexit(fuzz_remove_folder);
    }
    fd = openat(fuzz_at, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, n) != (ssize_t)n)
        abort();
    return fuzz_at;
}

static inline void
fuzz_remove(const char *name)
{
    unlinkat(fuzz_at, name, 0);
}

#endif
