#include "drivers/store/backing.h"

#include <endian.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "common/mem.h"

#define MAX_BACKING_NAME 1023 /* the format's own limit */

char *
backing_of(int fd, const char *path)
{
    uint8_t header[20];
    uint64_t offset;
    uint32_t length;
    AUTOFREE(char) *name = NULL;
    const char *slash = strrchr(path, '/');

    if (pread(fd, header, sizeof header, 0) != (ssize_t)sizeof header ||
        memcmp(header, "QFI\xfb", 4) != 0)
        return NULL;
    memcpy(&offset, header + 8, sizeof offset);
    memcpy(&length, header + 16, sizeof length);
    offset = be64toh(offset);
    length = be32toh(length);
    if (offset == 0 || offset > INT64_MAX || length == 0 || length > MAX_BACKING_NAME)
        return NULL;
    name = mem_alloc(1, length + 1);
    if (pread(fd, name, length, (off_t)offset) != (ssize_t)length)
        return NULL;
    if (name[0] == '/' || slash == NULL || strncmp(name, "json:", 5) == 0)
        return TAKE(name);
    return mem_printf("%.*s/%s", (int)(slash - path), path, name);
}

void
backing_chain_free(char **chain, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(chain[i]);
    free(chain);
}

bool
backing_chain(const char *path, char ***ret, size_t *ret_n, struct error **err)
{
    char *next = mem_strdup(path), **chain = NULL;
    size_t n = 0;

    while (next != NULL && n < BACKING_MAX_CHAIN && strncmp(next, "json:", 5) != 0) {
        AUTOFD(fd) = open(next, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

        chain = mem_realloc(chain, n + 1, sizeof *chain);
        chain[n++] = next;
        if (fd < 0) {
            error_errno(err, ERROR_STORE, "open image '%s'", next);
            backing_chain_free(chain, n);
            return false;
        }
        next = backing_of(fd, next);
    }
    free(next);
    *ret = chain;
    *ret_n = n;
    return true;
}
