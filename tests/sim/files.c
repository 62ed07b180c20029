#include "tests/sim/files.h"

#include "tests/unit/replica_kit.h"

#include <limits.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void
write_file(const char *path, const char *text, int flags)
{
    AUTOFD(fd) = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

void
file_write(const char *path, const char *text)
{
    write_file(path, text, O_TRUNC);
}

void
file_append(const char *path, const char *text)
{
    write_file(path, text, O_APPEND);
}

char *
file_read_bytes(const char *path, size_t *ret_n)
{
    AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    char *bytes;

    if (fd < 0)
        return NULL;
    assert_int_equal(fstat(fd, &st), 0);
    bytes = mem_alloc((size_t)st.st_size + 1, 1);
    assert_int_equal(read(fd, bytes, (size_t)st.st_size), st.st_size);
    *ret_n = (size_t)st.st_size;
    return bytes;
}

char *
file_read(const char *path)
{
    size_t n;

    return file_read_bytes(path, &n);
}

void
files_remove(const char *path)
{
    kit_remove_tree(path);
}

/* The link itself would be valgrind's program under valgrind. */
char *
file_of_this_program(void)
{
    char path[PATH_MAX] = "";
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);

    assert_true(n > 0);
    return mem_strdup(path);
}

void
run_program(const char *const *argv)
{
    pid_t pid;
    int status;

    assert_int_equal(
        posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *)(uintptr_t)argv, environ),
        0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}
