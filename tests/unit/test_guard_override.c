/* An operator's word against the guard, the guard's status, and its sentences. */
#include "tests/unit/guard_kit.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "common/json.h"
#include "common/units.h"
#include "daemon/guard_override.h"
#include "daemon/guard_sentence.h"
#include "daemon/guard_status.h"

static void
write_record(struct host *h, bool may_run, uint64_t epoch)
{
    struct guard_record record = { .vm = (char[]){ "web" },
                                   .may_run = may_run,
                                   .epoch = epoch,
                                   .message = (char[]){ "it runs elsewhere" } };
    struct error *err = NULL;

    assert_ok(guard_write(&h->folders, WEB, &record, &err), err);
}

static void
override(struct host *h, bool allow, int64_t until_ms)
{
    struct guard_override o = { .allow = allow,
                                .until_ms = until_ms,
                                .by = (char[]){ "ann" },
                                .reason = (char[]){ "the other site burns" } };
    struct error *err = NULL;

    assert_ok(guard_override_set(&h->folders, WEB, &o, &err), err);
}

static void
what_is_allowed_starts_until_it_is_ended(void **state)
{
    struct host *h = *state;
    struct error *err = NULL;

    write_record(h, false, 2);
    override(h, true, 0);
    assert_ok(guard_judge(&h->folders, WEB, &err), err);
    assert_ok(guard_judge_incoming(&h->folders, WEB, &err), err);
    assert_ok(guard_override_end(&h->folders, WEB, &err), err);
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
}

static void
what_is_allowed_ends_with_a_newer_epoch(void **state)
{
    struct host *h = *state;
    struct error *err = NULL;

    write_record(h, true, 1); /* not confirmed since the boot */
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
    override(h, true, 0);
    assert_ok(guard_judge(&h->folders, WEB, &err), err);
    write_record(h, false, 2);
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
}

static void
what_is_denied_holds_for_every_epoch(void **state)
{
    struct host *h = *state;
    struct error *err = NULL;

    write_record(h, true, 1);
    assert_ok(guard_confirm(&h->folders, WEB, 1, &err), err);
    assert_ok(guard_judge(&h->folders, WEB, &err), err);
    override(h, false, 0);
    assert_false(guard_judge(&h->folders, WEB, &err));
    assert_non_null(strstr(error_message(err), "ann"));
    assert_non_null(strstr(error_message(err), "the other site burns"));
    error_clear(&err);
    write_record(h, true, 7);
    assert_ok(guard_confirm(&h->folders, WEB, 7, &err), err);
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
    assert_fails(guard_judge_incoming(&h->folders, WEB, &err), err, ERROR_GUARD);
}

static void
it_ends_by_itself_at_its_time(void **state)
{
    struct host *h = *state;
    int64_t now_ms = units_now_ms();
    AUTOPTR(guard_override) *o = NULL;
    struct error *err = NULL;

    write_record(h, false, 2);
    override(h, true, now_ms + 3600000);
    assert_ok(guard_override_read(&h->folders, WEB, &o, &err), err);
    assert_true(guard_override_holds(o, 2, now_ms + 3599999));
    assert_false(guard_override_holds(o, 2, now_ms + 3600000));
}

static void
it_needs_a_guarded_vm_a_reason_and_a_time_to_come(void **state)
{
    struct host *h = *state;
    struct guard_override o = { .by = (char[]){ "ann" }, .reason = (char[]){ "why" } };
    struct error *err = NULL;

    assert_fails(guard_override_set(&h->folders, WEB, &o, &err), err, ERROR_NOT_FOUND);
    write_record(h, false, 2);
    o.until_ms = 1;
    assert_fails(guard_override_set(&h->folders, WEB, &o, &err), err, ERROR_USAGE);
    o.until_ms = 0;
    o.reason = (char[]){ " " };
    assert_fails(guard_override_set(&h->folders, WEB, &o, &err), err, ERROR_USAGE);
    o.reason = (char[]){ "two\nlines" };
    assert_fails(guard_override_set(&h->folders, WEB, &o, &err), err, ERROR_USAGE);
    assert_fails(guard_override_set(&h->folders, "../web", &o, &err), err, ERROR_USAGE);
}

static void
damage(struct host *h, const char *name)
{
    AUTOFREE(char) *path = mem_printf("%s/%s", h->records, name);
    AUTOFD(fd) = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, "{\"allow\":", 9), 9);
}

static void
one_that_cannot_be_understood_refuses(void **state)
{
    struct host *h = *state;
    struct error *err = NULL;

    write_record(h, true, 1);
    assert_ok(guard_confirm(&h->folders, WEB, 1, &err), err);
    damage(h, WEB ".override");
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
    assert_ok(guard_override_end(&h->folders, WEB, &err), err);
    assert_ok(guard_judge(&h->folders, WEB, &err), err);
}

static void
it_helps_where_the_record_itself_is_damaged(void **state)
{
    struct host *h = *state;
    struct error *err = NULL;

    write_record(h, true, 1);
    damage(h, WEB);
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
    override(h, true, 0);
    assert_ok(guard_judge(&h->folders, WEB, &err), err);
}

static void
with_the_record_the_override_goes(void **state)
{
    struct host *h = *state;
    AUTOPTR(guard_override) *o = NULL;
    struct error *err = NULL;

    write_record(h, false, 1);
    override(h, true, 0);
    assert_ok(guard_remove(&h->folders, WEB, &err), err);
    assert_fails(guard_override_read(&h->folders, WEB, &o, &err), err, ERROR_NOT_FOUND);
}

/* --- status ---------------------------------------------------------------------------
 */

static void
the_status_says_what_the_hook_would_answer(void **state)
{
    struct host *h = *state;
    AUTOJSON *o = NULL;
    AUTOJSON *after = NULL;

    write_record(h, false, 2);
    o = guard_status(&h->folders, WEB);
    assert_string_equal(json_string_or(o, "answer", ""), "refuse");
    assert_non_null(strstr(json_string_or(o, "why", ""), "it runs elsewhere"));
    assert_int_equal(json_int_or(o, "epoch", 0), 2);
    assert_null(json_object_or_null(o, "override"));
    override(h, true, 0);
    after = guard_status(&h->folders, WEB);
    assert_string_equal(json_string_or(after, "answer", ""), "start");
    assert_true(json_bool_or(json_object_or_null(after, "override"), "holds", false));
}

static void
all_guarded_vms_are_listed_and_found_by_name(void **state)
{
    struct host *h = *state;
    struct guard_hook_files files = { .hook = "/nonexistent/hook" };
    AUTOJSON *o = NULL;
    char uuid[GUARD_UUID_TEXT];
    struct error *err = NULL;

    write_record(h, false, 2);
    override(h, true, 0);
    o = guard_status_all(&h->folders, &files);
    assert_int_equal(json_object_array_length(json_array_or_null(o, "items")), 1);
    assert_false(json_bool_or(json_object_or_null(o, "hook"), "effective", true));
    assert_ok(guard_status_find(&h->folders, "web", uuid, &err), err);
    assert_string_equal(uuid, WEB);
    assert_ok(guard_status_find(&h->folders, OTHER, uuid, &err), err);
    assert_fails(guard_status_find(&h->folders, "mail", uuid, &err), err,
                 ERROR_NOT_FOUND);
}

static void
make_file(const char *path, mode_t mode, time_t at)
{
    const struct timespec times[2] = { { .tv_sec = at }, { .tv_sec = at } };
    AUTOFD(fd) = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, mode), 0);
    assert_true(dprintf(fd, "%d\n", (int)getpid()) > 0);
    assert_int_equal(futimens(fd, times), 0);
}

static void
a_hook_that_libvirtd_does_not_ask_is_told(void **state)
{
    struct host *h = *state;
    AUTOFREE(char) *hook = mem_printf("%s/hook", h->root);
    AUTOFREE(char) *pid = mem_printf("%s/pid", h->root);
    AUTOFREE(char) *asked = mem_printf("%s/asked", h->root);
    struct guard_hook_files files = { .hook = hook, .pids = { pid, "/nonexistent/pid" } };
    time_t now = (time_t)(units_now_ms() / 1000);
    struct error *err = NULL;

    assert_fails(guard_hook_check(&files, &err), err, ERROR_CONFIG);
    make_file(hook, 0644, now);
    if (geteuid() != 0)
        assert_fails(guard_hook_check(&files, &err), err, ERROR_CONFIG);
    make_file(hook, 0755, now);
    assert_ok(guard_hook_check(&files, &err), err);
    make_file(pid, 0644, now - 60);
    assert_fails(guard_hook_check(&files, &err), err, ERROR_CONFIG);
    files.asked = asked;
    assert_fails(guard_hook_check(&files, &err), err, ERROR_CONFIG);
    guard_hook_asked(&files);
    assert_ok(guard_hook_check(&files, &err), err);
    files.asked = NULL;
    make_file(pid, 0644, now + 60);
    assert_ok(guard_hook_check(&files, &err), err);
}

/* --- sentences ------------------------------------------------------------------------
 */

static void
each_phase_has_a_sentence_of_its_own_with_the_right_command(void **state UNUSED)
{
    static const struct {
        enum replication_phase phase;
        const char *command;
    } wanted[] = {
        { PHASE_REPLICATING, "virt-dr failover web" },
        { PHASE_UNDOING, "virt-dr undo web" },
        { PHASE_RESOLVING, "virt-dr resolve web --keep b" },
        { PHASE_SUPERSEDED, "virt-dr reverse web" },
        { PHASE_PREPARED, "virt-dr task-cancel" },
        { PHASE_MOVED, "virt-dr unprotect web" },
    };
    char *said[N_ELEMENTS(wanted)];

    for (size_t i = 0; i < N_ELEMENTS(wanted); i++) {
        struct guard_subject s = {
            .phase = wanted[i].phase, .vm = "web", .peer = "b", .epoch = 2
        };

        said[i] = guard_sentence(&s);
        if (strstr(said[i], wanted[i].command) == NULL)
            fail_msg("'%s' does not name '%s'", said[i], wanted[i].command);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(said[i], said[k]);
    }
    for (size_t i = 0; i < N_ELEMENTS(wanted); i++)
        free(said[i]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_allowed_starts_until_it_is_ended),
        TEST(what_is_allowed_ends_with_a_newer_epoch),
        TEST(what_is_denied_holds_for_every_epoch),
        TEST(it_ends_by_itself_at_its_time),
        TEST(it_needs_a_guarded_vm_a_reason_and_a_time_to_come),
        TEST(one_that_cannot_be_understood_refuses),
        TEST(it_helps_where_the_record_itself_is_damaged),
        TEST(with_the_record_the_override_goes),
        TEST(the_status_says_what_the_hook_would_answer),
        TEST(all_guarded_vms_are_listed_and_found_by_name),
        TEST(a_hook_that_libvirtd_does_not_ask_is_told),
        TEST(each_phase_has_a_sentence_of_its_own_with_the_right_command),
    };

    return cmocka_run_group_tests_name("guard_override", tests, NULL, NULL);
}
