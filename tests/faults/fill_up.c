/*
 * A file system that is really full: with less and less room left, the store runs
 * into its end at another place each time. Prints TAP.
 *
 *     fill_up [--all]
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "tests/faults/arena.h"

#define FS          "xfs"
#define MOST_BYTES  (12u << 20) /* what the scenario takes, about */
#define STEP_BYTES  (2u << 20)
#define SMALL_BYTES (1u << 18) /* the step with --all */

/* A replica's whole life, and that of one on original images. */
static const char *const scenarios[] = { "to-thin-more", "to-kept" };

/* Takes all space but so much. */
static bool
take_space(struct arena *a, uint64_t left_bytes, struct error **err)
{
    struct statvfs fs;
    AUTOFD(fd) = -1;
    uint64_t free_bytes;

    snprintf(a->state->ballast, sizeof a->state->ballast, "%s/files/ballast", a->base);
    fd = open(a->state->ballast, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || fstatvfs(fd, &fs) < 0)
        return error_errno(err, ERROR_STORE, "open '%s'", a->state->ballast);
    free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    return posix_fallocate(fd, 0, (off_t)(free_bytes - left_bytes)) == 0 ||
           error_set(err, ERROR_STORE, "the file system is too small");
}

static bool
run(struct arena *a, const char *command, enum arena_fault fault, struct error **err)
{
    AUTOFREE(char) *text = NULL;
    int status = 0;

    if (!arena_run(a, command, fault, &status, err))
        return false;
    if (status == 0)
        return true;
    text = arena_messages(a);
    return error_set(err, ERROR_INTERNAL, "%s (status %x): %s", command, (unsigned)status,
                     text);
}

static bool
try_with(struct arena *a, const char *scenario, uint64_t left_bytes, bool *ret_met,
         struct error **err)
{
    if (!arena_clear(a, err) || !take_space(a, left_bytes, err))
        return false;
    a->state->action = FAULTLINE_FULL;
    a->state->fired = a->state->full = 1;
    if (!run(a, scenario, ARENA_REAL, err))
        return false;
    *ret_met = a->state->n_refused > 0;
    unlink(a->state->ballast);
    return run(a, "verify", ARENA_NO_FAULT, err);
}

static bool
skip(const char *why)
{
    const char *required = getenv("REQUIRE_REAL");

    if (required != NULL && strcmp(required, "1") == 0) {
        printf("Bail out! %s, and REQUIRE_REAL=1\n", why);
        return false;
    }
    printf("1..0 # SKIP %s\n", why);
    return true;
}

/* All amounts of room; a comment for each that failed. */
static bool
try_all(struct arena *a, const char *scenario, uint64_t step_bytes, size_t *ret_n,
        size_t *ret_met)
{
    bool ok = true;

    for (uint64_t left = step_bytes; left <= MOST_BYTES; left += step_bytes) {
        AUTOPTR(error) *err = NULL;
        bool met = false;

        if (!try_with(a, scenario, left, &met, &err)) {
            printf("# %s with %llu KiB left: %s\n", scenario,
                   (unsigned long long)left >> 10, error_message(err));
            ok = false;
        }
        *ret_n += 1;
        *ret_met += met;
    }
    return ok;
}

int
main(int argc, char **argv)
{
    AUTOFREE(char) *path = realpath(argv[0], NULL);
    bool all = argc > 1 && strcmp(argv[1], "--all") == 0, ok = true, met;
    AUTOPTR(error) *err = NULL;
    size_t n = 0, n_met = 0;
    struct arena a;

    if (path == NULL || !arena_open(dirname(path), FS, &a, &err))
        return skip(err != NULL ? error_message(err) : "no path") ? 0 : 1;
    if (!arena_clear(&a, &err) || !run(&a, "originals", ARENA_NO_FAULT, &err)) {
        printf("Bail out! %s\n", error_message(err));
        ok = false;
    }
    for (size_t i = 0; ok && i < N_ELEMENTS(scenarios); i++)
        ok = try_all(&a, scenarios[i], all ? SMALL_BYTES : STEP_BYTES, &n, &n_met);
    met = n_met >= n / 4;
    arena_close(&a);
    printf("%sok 1 - a file system that is full loses no point, and is left by itself\n",
           ok ? "" : "not ");
    printf("%sok 2 - it was met at %zu of %zu sizes\n", met ? "" : "not ", n_met, n);
    printf("1..2\n");
    return ok && met ? 0 : 1;
}
