/*
 * Runs a fuzzer's function once over each file of its corpus and prints TAP.
 *
 * In place of libFuzzer's main in an ordinary build: what a fuzzer once found
 * stays found in `make check`. fuzz_NOUN reads tests/fuzz/corpus/NOUN, or the
 * folder given to it. A failure is a crash, which the harness reports.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/mem.h"

#define MAX_FILE (16 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static char *
corpus_of(const char *program)
{
    const char *source = getenv("top_srcdir");
    const char *name = strstr(program, "fuzz_");

    /* The last one: the path may have another in it. */
    for (const char *p = name; p != NULL; p = strstr(p + 1, "fuzz_"))
        name = p;
    return mem_printf("%s/tests/fuzz/corpus/%s", source != NULL ? source : ".",
                      name != NULL ? name + strlen("fuzz_") : "");
}

static int
no_dots(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static bool
run_file(const char *folder, const char *name)
{
    AUTOFREE(char) *path = mem_printf("%s/%s", folder, name);
    AUTOFREE(char) *data = NULL;
    AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size > MAX_FILE)
        return false;
    /* Not one byte more, so that a sanitizer sees who reads behind the end. */
    data = mem_realloc(NULL, (size_t)st.st_size, 1);
    if (read(fd, data, (size_t)st.st_size) != st.st_size)
        return false;
    LLVMFuzzerTestOneInput((const uint8_t *)data, (size_t)st.st_size);
    return true;
}

int
main(int argc, char **argv)
{
    AUTOFREE(char) *folder = argc > 1 ? mem_strdup(argv[1]) : corpus_of(argv[0]);
    struct dirent **entries = NULL;
    int n = scandir(folder, &entries, no_dots, alphasort), failed = 0;

    if (n <= 0) {
        printf("Bail out! no corpus in '%s': %s\n", folder,
               n < 0 ? strerror(errno) : "it is empty");
        return 1;
    }
    printf("1..%d\n", n);
    for (int i = 0; i < n; i++) {
        bool ok = run_file(folder, entries[i]->d_name);

        printf("%s %d - %s does no harm\n", ok ? "ok" : "not ok", i + 1,
               entries[i]->d_name);
        fflush(stdout); /* before the next one crashes */
        failed += ok ? 0 : 1;
        free(entries[i]);
    }
    free(entries);
    return failed > 0 ? 1 : 0;
}
