#include "tests/unit/guard_kit.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define REASON "it was failed over to 'b'; 'virt-dr reverse web' protects it from there"

static void
write_record(struct host *h, bool may_run, uint64_t epoch, enum guard_policy policy)
{
    struct guard_record record = {
        .vm = (char[]){ "web" },
        .may_run = may_run,
        .epoch = epoch,
        .unconfirmed = policy,
        .message = (char[]){ REASON },
    };
    struct error *err = NULL;

    assert_ok(guard_write(&h->folders, WEB, &record, &err), err);
}

/* Puts these n bytes where the record is, as a crash or a disk might leave them. */
static void
damage_record(struct host *h, const char *bytes, size_t n)
{
    AUTOFREE(char) *path = mem_printf("%s/%s", h->records, WEB);
    AUTOFD(fd) = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), n);
}

static size_t
record_text(struct host *h, char *buf, size_t size)
{
    AUTOFREE(char) *path = mem_printf("%s/%s", h->records, WEB);
    AUTOFD(fd) = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, size);

    if (n <= 0 || (size_t)n >= size) {
        fail_msg("no record of a sensible size");
        return 0;
    }
    buf[n] = '\0';
    return (size_t)n;
}

static void
a_vm_without_a_record_is_none_of_our_business(void **state)
{
    struct host *h = *state;
    struct guard_record *record = NULL;
    struct error *err = NULL;

    assert_ok(guard_judge(&h->folders, WEB, &err), err);
    write_record(h, false, 1, GUARD_HOLD);
    assert_ok(guard_judge(&h->folders, OTHER, &err), err);
    assert_fails(guard_read(&h->folders, OTHER, &record, &err), err, ERROR_NOT_FOUND);
    assert_null(record);
}

static void
a_record_is_read_as_it_was_written(void **state)
{
    struct host *h = *state;
    AUTOPTR(guard_record) *record = NULL;
    struct error *err = NULL;

    write_record(h, true, UINT64_MAX, GUARD_START);
    assert_ok(guard_read(&h->folders, WEB, &record, &err), err);
    assert_string_equal(record->vm, "web");
    assert_true(record->may_run);
    assert_true(record->epoch == UINT64_MAX);
    assert_int_equal(record->unconfirmed, GUARD_START);
    assert_string_equal(record->message, REASON);
}

static void
what_was_moved_away_may_come_back_but_not_start(void **state)
{
    struct host *h = *state;
    struct guard_record record = { .vm = (char[]){ "web" },
                                   .epoch = 2,
                                   .incoming = true,
                                   .message = (char[]){ REASON } };
    struct error *err = NULL;

    assert_ok(guard_judge_incoming(&h->folders, WEB, &err), err);
    assert_ok(guard_write(&h->folders, WEB, &record, &err), err);
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
    assert_ok(guard_judge_incoming(&h->folders, WEB, &err), err);
    assert_ok(guard_judge(&h->folders, WEB, &err), err);
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
    assert_ok(guard_judge_incoming(&h->folders, WEB, &err), err);
    record.incoming = false; /* superseded since: failed over, say */
    assert_ok(guard_write(&h->folders, WEB, &record, &err), err);
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
    assert_fails(guard_judge_incoming(&h->folders, WEB, &err), err, ERROR_GUARD);
    assert_ok(guard_remove(&h->folders, WEB, &err), err);
    record.incoming = true;
    assert_ok(guard_write(&h->folders, WEB, &record, &err), err);
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
}

static void
the_newest_record_counts(void **state)
{
    struct host *h = *state;
    struct error *err = NULL;

    write_record(h, true, 1, GUARD_START);
    assert_ok(guard_judge(&h->folders, WEB, &err), err);
    write_record(h, false, 2, GUARD_START);
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
}

static void
a_refusal_names_the_vm_and_says_what_the_record_says(void **state)
{
    struct host *h = *state;
    AUTOPTR(error) *err = NULL;

    write_record(h, false, 3, GUARD_START);
    assert_false(guard_judge(&h->folders, WEB, &err));
    assert_int_equal(error_code(err), ERROR_GUARD);
    assert_non_null(strstr(error_message(err), "'web'"));
    assert_non_null(strstr(error_message(err), REASON));
}

static void
a_confirmation_does_not_help_a_vm_that_may_not_run(void **state)
{
    struct host *h = *state;
    struct error *err = NULL;

    write_record(h, false, 3, GUARD_HOLD);
    assert_ok(guard_confirm(&h->folders, WEB, 3, &err), err);
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
}

static void
after_a_boot_a_vm_is_held_until_its_epoch_is_confirmed(void **state)
{
    struct host *h = *state;
    struct error *err = NULL;

    write_record(h, true, 3, GUARD_HOLD);
    assert_false(guard_is_confirmed(&h->folders, WEB, 3));
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
    assert_ok(guard_confirm(&h->folders, WEB, 3, &err), err);
    assert_true(guard_is_confirmed(&h->folders, WEB, 3));
    assert_ok(guard_judge(&h->folders, WEB, &err), err);
}

static void
a_confirmation_of_another_epoch_or_vm_does_not_count(void **state)
{
    struct host *h = *state;
    struct error *err = NULL;

    write_record(h, true, 3, GUARD_HOLD);
    assert_ok(guard_confirm(&h->folders, OTHER, 3, &err), err);
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
    assert_ok(guard_confirm(&h->folders, WEB, 2, &err), err);
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
    assert_ok(guard_confirm(&h->folders, WEB, 33, &err), err);
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
}

static void
a_confirmation_of_another_boot_does_not_count(void **state)
{
    struct host *h = *state;
    AUTOFREE(char) *path = mem_printf("%s/%s", h->confirmations, WEB);
    struct error *err = NULL;
    char text[256];
    char *boot;
    ssize_t n;

    write_record(h, true, 3, GUARD_HOLD);
    assert_ok(guard_confirm(&h->folders, WEB, 3, &err), err);
    AUTOFD(fd) = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    n = read(fd, text, sizeof text - 1);
    assert_true(n > 0);
    text[n] = '\0';
    boot = strstr(text, "boot=");
    assert_non_null(boot);
    boot[5] = boot[5] == '0' ? '1' : '0';
    assert_int_equal(pwrite(fd, text, (size_t)n, 0), n);
    assert_false(guard_is_confirmed(&h->folders, WEB, 3));
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
}

static void
the_operator_may_choose_to_start_without_a_confirmation(void **state)
{
    struct host *h = *state;
    struct error *err = NULL;

    write_record(h, true, 3, GUARD_START);
    assert_ok(guard_judge(&h->folders, WEB, &err), err);
}

static void
a_record_that_was_cut_off_anywhere_refuses(void **state)
{
    struct host *h = *state;
    struct error *err = NULL;
    char text[1024];
    size_t n;

    write_record(h, true, 3, GUARD_START);
    n = record_text(h, text, sizeof text);
    for (size_t keep = 0; keep < n; keep++) {
        damage_record(h, text, keep);
        assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
    }
    damage_record(h, text, n);
    assert_ok(guard_judge(&h->folders, WEB, &err), err);
}

static void
a_record_that_cannot_be_understood_refuses(void **state)
{
    static const char *const bad[] = {
        "garbage\n",
        "version=2\nvm=web\nmay_run=yes\nepoch=1\nunconfirmed=start\nmessage=\n",
        "version=1\nvm=web\nmay_run=maybe\nepoch=1\nunconfirmed=start\nmessage=\n",
        "version=1\nvm=web\nmay_run=yes\nepoch=-1\nunconfirmed=start\nmessage=\n",
        "version=1\nvm=web\nmay_run=yes\nepoch=1x\nunconfirmed=start\nmessage=\n",
        "version=1\nvm=web\nmay_run=yes\nepoch=\nunconfirmed=start\nmessage=\n",
        "version=1\nvm=web\nmay_run=yes\nepoch=1\nunconfirmed=go\nmessage=\n",
        "version=1\nvm=web\nmay_run=no\nepoch=1\nunconfirmed=hold\nincoming=\n"
        "message=\n",
        "version=1\nvm=web\nmay_run=yes\nepoch=1\nunconfirmed=start\n",
        "version=1\nvm=web\nmay_run=yes\nmay_run=no\nepoch=1\nunconfirmed=start\n"
        "message=\n",
        "version=1\nvm=web\nmay_run=yes\nepoch=1\nunconfirmed=start\nmessage=\nnew=1\n",
    };
    static const char zero[] =
        "version=1\nvm=web\nmay_run=yes\nepoch=1\nunconfirmed=start\nmessage=\n\0no\n";
    struct host *h = *state;
    struct error *err = NULL;

    write_record(h, true, 1, GUARD_START);
    for (size_t i = 0; i < N_ELEMENTS(bad); i++) {
        damage_record(h, bad[i], strlen(bad[i]));
        assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
    }
    damage_record(h, zero, sizeof zero - 1);
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
}

static void
a_record_that_cannot_be_read_refuses(void **state)
{
    struct host *h = *state;
    AUTOFREE(char) *path = mem_printf("%s/%s", h->records, WEB);
    AUTOFREE(char) *huge = mem_alloc(1, 1 << 20);
    struct error *err = NULL;

    write_record(h, true, 1, GUARD_START);
    memset(huge, 'a', 1 << 20);
    damage_record(h, huge, 1 << 20);
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(symlink(path, path), 0);
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
}

static void
a_folder_of_records_that_is_not_mounted_refuses(void **state)
{
    struct host *h = *state;
    AUTOFREE(char) *away = mem_printf("%s/away", h->root);
    struct error *err = NULL;

    write_record(h, true, 1, GUARD_START);
    assert_int_equal(rename(h->records, away), 0);
    assert_int_equal(symlink(away, h->records), 0);
    assert_ok(guard_judge(&h->folders, WEB, &err), err);
    assert_int_equal(unlink(h->records), 0);
    assert_int_equal(symlink("/nonexistent/guard", h->records), 0);
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
}

static void
a_write_that_a_crash_cut_off_leaves_the_old_record(void **state)
{
    struct host *h = *state;
    AUTOFREE(char) *aside = mem_printf("%s/.%s.new", h->records, WEB);
    AUTOPTR(guard_record) *record = NULL;
    struct error *err = NULL;

    write_record(h, false, 1, GUARD_HOLD);
    AUTOFD(fd) = open(aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "version=1\nvm=w", 14), 14);
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);

    write_record(h, true, 2, GUARD_START);
    assert_ok(guard_read(&h->folders, WEB, &record, &err), err);
    assert_true(record->epoch == 2);
    assert_int_equal(access(aside, F_OK), -1);
}

static void
a_write_that_fails_leaves_the_old_record(void **state)
{
    struct host *h = *state;
    AUTOFREE(char) *aside = mem_printf("%s/.%s.new", h->records, WEB);
    struct guard_record record = { .may_run = true, .unconfirmed = GUARD_START };
    struct error *err = NULL;

    write_record(h, false, 1, GUARD_HOLD);
    assert_int_equal(mkdir(aside, 0700), 0);
    assert_fails(guard_write(&h->folders, WEB, &record, &err), err, ERROR_STATE);
    assert_fails(guard_judge(&h->folders, WEB, &err), err, ERROR_GUARD);
}

static void
words_with_line_ends_cannot_forge_a_line(void **state)
{
    struct host *h = *state;
    struct guard_record forged = {
        .vm = (char[]){ "web\nmay_run=yes" },
        .message = (char[]){ "libvirt says:\nmay_run=yes\n" },
    };
    AUTOPTR(guard_record) *record = NULL;
    struct error *err = NULL;

    assert_ok(guard_write(&h->folders, WEB, &forged, &err), err);
    assert_ok(guard_read(&h->folders, WEB, &record, &err), err);
    assert_false(record->may_run);
    assert_string_equal(record->vm, "web may_run=yes");
}

static void
a_very_long_message_is_cut_and_not_refused(void **state)
{
    struct host *h = *state;
    AUTOFREE(char) *words = mem_alloc(1, 200000);
    struct guard_record record = { .message = words };
    struct error *err = NULL;

    memset(words, 'x', 199999);
    assert_ok(guard_write(&h->folders, WEB, &record, &err), err);
    AUTOPTR(guard_record) *back = NULL;
    assert_ok(guard_read(&h->folders, WEB, &back, &err), err);
    assert_in_range(strlen(back->message), 100, 10000);
}

static void
what_is_no_uuid_never_becomes_a_path(void **state)
{
    static const char *const bad[] = {
        "",
        "web",
        "../../../../etc/passwd",
        "0f8c1a52-6a3e-4c11-9d55-7f0e8b1d2c3",
        "0f8c1a52-6a3e-4c11-9d55-7f0e8b1d2c3aa",
        "0f8c1a52/6a3e-4c11-9d55-7f0e8b1d2c3a",
        "0f8c1a5g-6a3e-4c11-9d55-7f0e8b1d2c3a",
    };
    struct host *h = *state;
    struct guard_record record = { .may_run = true };
    struct error *err = NULL;

    for (size_t i = 0; i < N_ELEMENTS(bad); i++) {
        assert_fails(guard_write(&h->folders, bad[i], &record, &err), err, ERROR_USAGE);
        assert_fails(guard_confirm(&h->folders, bad[i], 1, &err), err, ERROR_USAGE);
        assert_fails(guard_remove(&h->folders, bad[i], &err), err, ERROR_USAGE);
        assert_false(guard_is_confirmed(&h->folders, bad[i], 1));
        assert_fails(guard_judge(&h->folders, bad[i], &err), err, ERROR_GUARD);
    }
}

static void
a_uuid_in_capitals_is_the_same_vm(void **state)
{
    struct host *h = *state;
    struct error *err = NULL;

    write_record(h, false, 1, GUARD_HOLD);
    assert_fails(guard_judge(&h->folders, "0F8C1A52-6A3E-4C11-9D55-7F0E8B1D2C3A", &err),
                 err, ERROR_GUARD);
}

static void
a_removed_record_leaves_nothing_behind(void **state)
{
    struct host *h = *state;
    struct error *err = NULL;

    assert_ok(guard_remove(&h->folders, WEB, &err), err);
    write_record(h, false, 1, GUARD_HOLD);
    assert_ok(guard_confirm(&h->folders, WEB, 1, &err), err);
    assert_ok(guard_remove(&h->folders, WEB, &err), err);
    assert_ok(guard_judge(&h->folders, WEB, &err), err);
    assert_false(guard_is_confirmed(&h->folders, WEB, 1));
    assert_int_equal(rmdir(h->records), 0);
    assert_int_equal(rmdir(h->confirmations), 0);
}

static void
folders_that_the_hook_does_not_read_are_refused(void **state)
{
    struct host *h = *state;
    struct error *err = NULL;

    write_record(h, true, 1, GUARD_START);
    assert_ok(guard_confirm(&h->folders, WEB, 1, &err), err);
    assert_fails(guard_is_effective(&h->folders, &err), err, ERROR_CONFIG);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_vm_without_a_record_is_none_of_our_business),
        TEST(a_record_is_read_as_it_was_written),
        TEST(what_was_moved_away_may_come_back_but_not_start),
        TEST(the_newest_record_counts),
        TEST(a_refusal_names_the_vm_and_says_what_the_record_says),
        TEST(a_confirmation_does_not_help_a_vm_that_may_not_run),
        TEST(after_a_boot_a_vm_is_held_until_its_epoch_is_confirmed),
        TEST(a_confirmation_of_another_epoch_or_vm_does_not_count),
        TEST(a_confirmation_of_another_boot_does_not_count),
        TEST(the_operator_may_choose_to_start_without_a_confirmation),
        TEST(a_record_that_was_cut_off_anywhere_refuses),
        TEST(a_record_that_cannot_be_understood_refuses),
        TEST(a_record_that_cannot_be_read_refuses),
        TEST(a_folder_of_records_that_is_not_mounted_refuses),
        TEST(a_write_that_a_crash_cut_off_leaves_the_old_record),
        TEST(a_write_that_fails_leaves_the_old_record),
        TEST(words_with_line_ends_cannot_forge_a_line),
        TEST(a_very_long_message_is_cut_and_not_refused),
        TEST(what_is_no_uuid_never_becomes_a_path),
        TEST(a_uuid_in_capitals_is_the_same_vm),
        TEST(a_removed_record_leaves_nothing_behind),
        TEST(folders_that_the_hook_does_not_read_are_refused),
    };

    return cmocka_run_group_tests_name("guard", tests, NULL, NULL);
}
