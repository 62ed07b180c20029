/* Scratch images and other empty ones, as qemu-img sees them. */
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/units.h"
#include "drivers/capture/scratch_files.h"
#include "drivers/capture/scratch_image.h"

extern char **environ;

static char folder[] = "/tmp/vdr-scratch-XXXXXX";

static int
run(const char *const *argv)
{
    pid_t pid;
    int status;

    assert_int_equal(
        posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *)argv, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define RUN(...) assert_int_equal(run((const char *const[]){ __VA_ARGS__, NULL }), 0)

static void
an_image_of_any_size_is_sound_and_empty(void **state UNUSED)
{
    static const uint64_t sizes[] = { 512, 64 << 20, (512 << 20) + 512, 3ull << 40,
                                      SCRATCH_IMAGE_MAX_BYTES };
    AUTOFREE(char) *path = scratch_files_image(folder, "stem", "vda");
    struct error *err = NULL;
    uint64_t used = 0;

    for (size_t i = 0; i < N_ELEMENTS(sizes); i++) {
        AUTOFREE(char) *is_size = mem_printf(
            "qemu-img info --output=json '%s' | grep -q '\"virtual-size\": %llu,'", path,
            (unsigned long long)sizes[i]);

        assert_ok(scratch_image_create(folder, path, sizes[i], &err), err);
        RUN("qemu-img", "check", "-q", "-f", "qcow2", path);
        RUN("sh", "-c", is_size);
    }
    assert_true(scratch_files_used(folder, "stem", &used));
    assert_in_range(used, 1, 512 << 10);
    assert_fails(scratch_image_create(folder, path, SCRATCH_IMAGE_MAX_BYTES + 512, &err),
                 err, ERROR_UNSUPPORTED_DISK);
}

static void
an_image_shows_what_its_header_names_below(void **state UNUSED)
{
    AUTOFREE(char) *below = scratch_files_image(folder, "stem", "below");
    AUTOFREE(char) *path = scratch_files_image(folder, "stem", "above");
    AUTOFREE(char) *on_raw = mem_printf("%s.on-raw", path);
    AUTOFREE(char) *raw = mem_printf("%s/raw", folder);
    const struct store_original images[] = { { below, "qcow2" }, { raw, "raw" } };
    const char *paths[] = { path, on_raw };
    struct error *err = NULL;

    RUN("qemu-img", "create", "-q", "-f", "raw", raw, "1M");
    RUN("qemu-io", "-f", "raw", "-c", "write -P 7 64k 64k", raw);
    RUN("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, below);
    for (size_t i = 0; i < N_ELEMENTS(images); i++) {
        AUTOFD(fd) = open(paths[i], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        assert_ok(blank_write(fd, paths[i], 1 << 20, &images[i], &err), err);
        RUN("qemu-img", "check", "-q", "-f", "qcow2", paths[i]);
        RUN("qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", paths[i], raw);

        /* Its header can be written anew, and more can be put into it. */
        RUN("qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-F", images[1 - i].format,
            "-b", images[1 - i].path, paths[i]);
        RUN("qemu-img", "bitmap", "--add", "-f", "qcow2", paths[i], "record");
        RUN("qemu-img", "resize", "-q", "-f", "qcow2", paths[i], "2M");
        RUN("qemu-img", "check", "-q", "-f", "qcow2", paths[i]);
        RUN("qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-b", "", paths[i]);
        RUN("qemu-img", "check", "-q", "-f", "qcow2", paths[i]);
        unlink(paths[i]);
    }
    unlink(raw);
    unlink(below);
}

static void
a_name_below_that_is_too_long_is_refused(void **state UNUSED)
{
    AUTOFREE(char) *path = scratch_files_image(folder, "stem", "above");
    AUTOFD(fd) = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    char name[1025] = "";
    const struct store_original below = { name, "raw" };
    struct error *err = NULL;

    memset(name, 'x', sizeof name - 1);
    assert_fails(blank_write(fd, path, 1 << 20, &below, &err), err, ERROR_PROTOCOL);
    name[1023] = '\0';
    assert_ok(blank_write(fd, path, 1 << 20, &below, &err), err);
    unlink(path);
}

static void
an_image_takes_what_is_written_to_it(void **state UNUSED)
{
    AUTOFREE(char) *path = scratch_files_image(folder, "stem", "vdb");
    struct error *err = NULL;

    assert_ok(scratch_image_create(folder, path, 1ull << 40, &err), err);
    RUN("qemu-io", "-f", "qcow2", "-c", "write -q -P 7 900G 1M", "-c",
        "read -q -P 7 900G 1M", "-c", "read -q -P 0 0 1M", path);
    RUN("qemu-img", "check", "-q", "-f", "qcow2", path);
}

static void
only_what_is_called_after_the_stem_is_removed(void **state UNUSED)
{
    AUTOFREE(char) *other = scratch_files_image(folder, "stem2", "vda");
    struct error *err = NULL;
    uint64_t used = 0;

    assert_ok(scratch_image_create(folder, other, 1 << 20, &err), err);
    assert_ok(scratch_files_remove(folder, "stem", &err), err);
    assert_true(scratch_files_used(folder, "stem", &used));
    assert_int_equal(used, 0);
    assert_int_equal(access(other, F_OK), 0);
    assert_ok(scratch_files_remove(folder, "stem2", &err), err);
    assert_int_equal(access(other, F_OK), -1);
}

static int
set_up(void **state UNUSED)
{
    return mkdtemp(folder) == NULL;
}

static int
tear_down(void **state UNUSED)
{
    return rmdir(folder);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_image_of_any_size_is_sound_and_empty),
        cmocka_unit_test(an_image_shows_what_its_header_names_below),
        cmocka_unit_test(a_name_below_that_is_too_long_is_refused),
        cmocka_unit_test(an_image_takes_what_is_written_to_it),
        cmocka_unit_test(only_what_is_called_after_the_stem_is_removed),
    };

    return cmocka_run_group_tests_name("scratch_image", tests, set_up, tear_down);
}
