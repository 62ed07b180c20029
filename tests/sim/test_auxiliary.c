/* What a point has beside its disks: it travels when it changes, and is put in place. */
#include "tests/sim/world.h"

#include <event2/thread.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json.h"
#include "daemon/ops.h"
#include "tests/sim/files.h"

#define TPM         "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
#define FILE_OF_TPM "tpm2/tpm2-00.permall"

static char *
tpm_path(const struct world *w, char side, const char *below)
{
    return mem_printf("%s/%c/swtpm/" WORLD_VM "/%s", w->folder, side, below);
}

/* As swtpm does it; so long ago that nobody takes it for being written still. */
static void
tpm_becomes(const struct world *w, char side, const char *text)
{
    static time_t then = 1000000000;
    const struct timespec times[2] = { { .tv_sec = then }, { .tv_sec = then } };
    AUTOFREE(char) *root = mem_printf("%s/%c/swtpm", w->folder, side);
    AUTOFREE(char) *own = tpm_path(w, side, "");
    AUTOFREE(char) *folder = tpm_path(w, side, "tpm2");
    AUTOFREE(char) *path = tpm_path(w, side, FILE_OF_TPM);
    AUTOFREE(char) *aside = tpm_path(w, side, "tpm2/TMP2-00.permall");

    mkdir(root, 0700);
    mkdir(own, 0700);
    mkdir(folder, 0700);
    file_write(aside, text);
    then++;
    assert_int_equal(utimensat(AT_FDCWD, aside, times, 0), 0);
    assert_int_equal(rename(aside, path), 0);
}

static void
tpm_is(const struct world *w, char side, const char *below, const char *wanted)
{
    AUTOFREE(char) *path = tpm_path(w, side, below);
    AUTOFREE(char) *text = file_read(path);

    if (wanted == NULL) {
        assert_null(text);
        return;
    }
    if (text == NULL)
        fail_msg("'%s' is not there", path);
    assert_string_equal(text, wanted);
}

static int
setup(void **state)
{
    struct world *w = world_new();
    struct error *err = NULL;

    w->devices = TPM;
    world_open_target(w);
    world_open_source(w);
    fake_capture_set_disk(w->source.capture, "vda", 1u << 20);
    world_plug(w);
    world_guest_writes(w, 10);
    tpm_becomes(w, 'a', "first");
    world_protect(w);
    assert_ok(world_cycle(w, &err), err);
    *state = w;
    return 0;
}

static int
teardown(void **state)
{
    world_free(*state);
    return 0;
}

static uint64_t
cycle(struct world *w)
{
    AUTOPTR(replication) *r = world_replication(&w->source);
    struct error *err = NULL;

    assert_ok(world_cycle(w, &err), err);
    return r->newest.sequence;
}

static void
a_point_is_made_when_only_the_tpm_has_changed(void **state)
{
    struct world *w = *state;
    uint64_t before = cycle(w);
    struct error *err = NULL;

    assert_int_equal(cycle(w), before);
    tpm_becomes(w, 'a', "second");
    assert_int_equal(cycle(w), before + 1);
    assert_int_equal(cycle(w), before + 1);
    tpm_becomes(w, 'a', "third!");
    assert_int_equal(cycle(w), before + 2);
    assert_ok(world_failover(w, &err), err);
    tpm_is(w, 'b', FILE_OF_TPM, "third!");
}

static void
a_tpm_that_was_written_just_now_is_looked_at_again(void **state)
{
    struct world *w = *state;
    AUTOFREE(char) *path = tpm_path(w, 'a', FILE_OF_TPM);
    uint64_t before = cycle(w);

    file_write(path, "fresh");
    assert_int_equal(cycle(w), before + 1);
    /* Within the same tick of the file system's clock, and of the same size. */
    file_write(path, "other");
    assert_int_equal(cycle(w), before + 2);
}

static void
an_older_point_has_the_tpm_of_its_time(void **state)
{
    struct world *w = *state;
    AUTOFREE(char) *select = NULL;
    uint64_t wanted;
    struct error *err = NULL;

    tpm_becomes(w, 'a', "second");
    wanted = cycle(w);
    tpm_becomes(w, 'a', "third!");
    cycle(w);
    select =
        mem_printf("{\"type\":\"id\",\"value\":\"%llu\"}", (unsigned long long)wanted);
    assert_ok(world_failover_to(w, select, &err), err);
    tpm_is(w, 'b', FILE_OF_TPM, "second");
}

static void
a_state_that_was_there_is_kept(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    tpm_becomes(w, 'b', "of another time");
    assert_ok(world_failover(w, &err), err);
    tpm_is(w, 'b', FILE_OF_TPM, "first");
    tpm_is(w, 'b', "tpm2.before-2/tpm2-00.permall", "of another time");
}

/* The VM has run since: a second run must not take from it what it wrote. */
static void
a_failover_that_is_run_again_leaves_the_state_to_the_vm(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    fake_fail(w->target.d.hypervisor, FAKE_START, 1, ERROR_HYPERVISOR);
    assert_fails(world_failover(w, &err), err, ERROR_HYPERVISOR);
    tpm_is(w, 'b', FILE_OF_TPM, "first");
    tpm_becomes(w, 'b', "the VM's own");
    assert_ok(world_failover(w, &err), err);
    tpm_is(w, 'b', FILE_OF_TPM, "the VM's own");
}

static void
a_state_that_cannot_be_put_in_place_starts_nothing(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    fake_fail(w->target.d.hypervisor, FAKE_PUT_TPM, 1, ERROR_HYPERVISOR);
    assert_fails(world_failover(w, &err), err, ERROR_HYPERVISOR);
    assert_int_equal(fake_starts(w->target.d.hypervisor, WORLD_VM), 0);
    assert_ok(world_failover(w, &err), err);
    tpm_is(w, 'b', FILE_OF_TPM, "first");
}

static void
a_vm_without_a_tpm_gets_none_of_an_earlier_point(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    w->devices = NULL;
    world_plug(w);
    cycle(w);
    assert_ok(world_failover(w, &err), err);
    tpm_is(w, 'b', FILE_OF_TPM, NULL);
}

static void
a_tpm_that_has_no_state_yet_stops_nothing(void **state)
{
    struct world *w = *state;
    AUTOFREE(char) *path = tpm_path(w, 'a', FILE_OF_TPM);
    struct error *err = NULL;

    assert_int_equal(unlink(path), 0);
    cycle(w);
    assert_ok(world_failover(w, &err), err);
}

static void
a_failover_killed_at_each_commit_puts_the_state_in_place_once(void **state)
{
    const enum fate fates[] = { FATE_BEFORE, FATE_BEHIND };
    struct world *w = *state;

    world_close_source(w);
    world_close_target(w);
    world_save_target(w);
    for (size_t i = 0; i < N_ELEMENTS(fates); i++) {
        bool killed = true;

        for (unsigned n = 1; killed; n++) {
            killed = world_child(w, "failover", fates[i], n);
            if (killed)
                assert_false(world_child(w, "failover", FATE_NONE, 0));
            tpm_is(w, 'b', FILE_OF_TPM, "first");
            tpm_is(w, 'b', "tpm2.before-2/tpm2-00.permall", NULL);
            world_restore_target(w);
        }
    }
    world_open_target(w);
    world_open_source(w);
}

/* --- secrets ------------------------------------------------------------------------ */

#define SECRET "0b1c2d3e-0000-4000-8000-0000000000d2"
#define SEALED_TPM                                                             \
    "<tpm model='tpm-crb'><backend type='emulator' version='2.0'><encryption " \
    "secret='" SECRET "'/></backend></tpm>"

static void
seal(struct world *w, const char *value)
{
    w->devices = SEALED_TPM;
    world_plug(w);
    fake_set_secret(w->source.d.hypervisor, SECRET, value);
}

static void
secret_is(const struct world *w, const char *wanted)
{
    const char *value = fake_secret(w->target.d.hypervisor, SECRET);

    if (wanted == NULL)
        assert_null(value);
    else
        assert_string_equal(value != NULL ? value : "(none)", wanted);
}

static void
a_secret_that_the_vm_needs_comes_along_and_a_new_value_makes_a_point(void **state)
{
    struct world *w = *state;
    uint64_t before;
    struct error *err = NULL;

    seal(w, "c0ffee");
    before = cycle(w);
    assert_int_equal(cycle(w), before);
    fake_set_secret(w->source.d.hypervisor, SECRET, "beef");
    assert_int_equal(cycle(w), before + 1);
    secret_is(w, NULL);
    assert_ok(world_failover(w, &err), err);
    secret_is(w, "beef");
}

static void
a_secret_that_is_there_already_is_left_as_it_is(void **state)
{
    struct world *w = *state;
    struct error *err = NULL;

    seal(w, "c0ffee");
    cycle(w);
    fake_set_secret(w->target.d.hypervisor, SECRET, "0123");
    assert_ok(world_failover(w, &err), err);
    secret_is(w, "0123");
}

static void
a_secret_that_cannot_be_read_stops_no_point(void **state)
{
    struct world *w = *state;
    uint64_t before = cycle(w);
    struct error *err = NULL;

    w->devices = SEALED_TPM;
    world_plug(w);
    assert_int_equal(cycle(w), before + 1);
    assert_ok(world_failover(w, &err), err);
    secret_is(w, NULL);
}

/* Either side may say no; what an earlier point had is not left to the new ones. */
static void
secrets_stay_where_they_are_if_either_side_says_so(void **state)
{
    struct world *w = *state;
    bool *const says[] = { &w->source.config.replicate_secrets,
                           &w->target.config.replicate_secrets };
    struct error *err = NULL;

    seal(w, "c0ffee");
    cycle(w);
    for (size_t i = 0; i < N_ELEMENTS(says); i++) {
        *says[i] = false;
        tpm_becomes(w, 'a', i == 0 ? "2nd" : "3rd");
        cycle(w);
        *says[i] = true;
    }
    assert_ok(world_failover(w, &err), err);
    tpm_is(w, 'b', FILE_OF_TPM, "3rd");
    secret_is(w, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        TEST(a_point_is_made_when_only_the_tpm_has_changed),
        TEST(a_tpm_that_was_written_just_now_is_looked_at_again),
        TEST(an_older_point_has_the_tpm_of_its_time),
        TEST(a_state_that_was_there_is_kept),
        TEST(a_failover_that_is_run_again_leaves_the_state_to_the_vm),
        TEST(a_state_that_cannot_be_put_in_place_starts_nothing),
        TEST(a_vm_without_a_tpm_gets_none_of_an_earlier_point),
        TEST(a_tpm_that_has_no_state_yet_stops_nothing),
        TEST(a_failover_killed_at_each_commit_puts_the_state_in_place_once),
        TEST(a_secret_that_the_vm_needs_comes_along_and_a_new_value_makes_a_point),
        TEST(a_secret_that_is_there_already_is_left_as_it_is),
        TEST(a_secret_that_cannot_be_read_stops_no_point),
        TEST(secrets_stay_where_they_are_if_either_side_says_so),
    };

    evthread_use_pthreads();
    world_be_child(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
