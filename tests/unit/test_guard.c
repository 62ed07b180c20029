#include "tests/unit/unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/guard.h"

#define UUID "11111111-2222-3333-4444-555555555555"

struct place {
    char folder[64];
    char records[96];
    char confirmations[96];
    struct guard_folders folders;
};

static int
set_up(void **state)
{
    struct place *p = NEW(struct place);

    snprintf(p->folder, sizeof p->folder, "/tmp/virt-dr-guard-XXXXXX");
    if (mkdtemp(p->folder) == NULL)
        return -1;
    snprintf(p->records, sizeof p->records, "%s/records", p->folder);
    snprintf(p->confirmations, sizeof p->confirmations, "%s/run", p->folder);
    p->folders.records = p->records;
    p->folders.confirmations = p->confirmations;
    *state = p;
    return 0;
}

static int
tear_down(void **state)
{
    struct place *p = *state;

    guard_remove(&p->folders, UUID, NULL);
    rmdir(p->records);
    rmdir(p->confirmations);
    rmdir(p->folder);
    free(p);
    return 0;
}

static void
write_record(struct place *p, bool may_run, uint64_t epoch, enum guard_policy policy)
{
    char vm[] = "web01", message[] = "it runs on the other host";
    struct guard_record record = { .vm = vm,
                                   .may_run = may_run,
                                   .epoch = epoch,
                                   .unconfirmed = policy,
                                   .message = message };
    struct error *err = NULL;

    assert_ok(guard_write(&p->folders, UUID, &record, &err), err);
}

/* Writes raw text where the record is. */
static void
spoil_record(struct place *p, const char *text)
{
    char path[160];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", p->records, UUID);
    f = fopen(path, "we");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void
a_vm_without_a_record_may_start(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;

    assert_ok(guard_judge(&p->folders, UUID, &err), err);
    write_record(p, false, 1, GUARD_HOLD);
    assert_ok(guard_judge(&p->folders, "99999999-2222-3333-4444-555555555555", &err),
              err);
}

static void
a_record_is_read_as_it_was_written(void **state)
{
    struct place *p = *state;
    AUTOPTR(guard_record) *record = NULL;
    struct error *err = NULL;

    write_record(p, true, 7, GUARD_START);
    assert_ok(guard_read(&p->folders, UUID, &record, &err), err);
    assert_string_equal(record->vm, "web01");
    assert_true(record->may_run);
    assert_int_equal(record->epoch, 7);
    assert_int_equal(record->unconfirmed, GUARD_START);
    assert_string_equal(record->message, "it runs on the other host");
}

static void
a_refusal_says_why(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;

    write_record(p, false, 2, GUARD_HOLD);
    assert_ok(guard_confirm(&p->folders, UUID, 2, &err), err);
    assert_false(guard_judge(&p->folders, UUID, &err));
    assert_int_equal(error_code(err), ERROR_GUARD);
    assert_non_null(strstr(error_message(err), "it runs on the other host"));
    error_clear(&err);
}

static void
after_a_reboot_a_confirmation_is_needed(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;

    write_record(p, true, 3, GUARD_HOLD);
    assert_fails(guard_judge(&p->folders, UUID, &err), err, ERROR_GUARD);
    assert_ok(guard_confirm(&p->folders, UUID, 3, &err), err);
    assert_true(guard_is_confirmed(&p->folders, UUID, 3));
    assert_ok(guard_judge(&p->folders, UUID, &err), err);
}

static void
a_confirmation_of_another_epoch_does_not_count(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;

    write_record(p, true, 3, GUARD_HOLD);
    assert_ok(guard_confirm(&p->folders, UUID, 2, &err), err);
    assert_false(guard_is_confirmed(&p->folders, UUID, 3));
    assert_fails(guard_judge(&p->folders, UUID, &err), err, ERROR_GUARD);
}

static void
the_policy_start_needs_no_confirmation(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;

    write_record(p, true, 3, GUARD_START);
    assert_ok(guard_judge(&p->folders, UUID, &err), err);
}

static void
a_record_that_cannot_be_understood_refuses(void **state)
{
    static const char *const texts[] = {
        "",
        "garbage",
        "version=1\nvm=web01\n",
        "version=1\nvm=web01\nmay_run=perhaps\nepoch=1\nunconfirmed=start\nmessage=\n",
        "version=1\nvm=web01\nmay_run=yes\nepoch=-1\nunconfirmed=start\nmessage=\n",
        "version=1\nvm=web01\nmay_run=yes\nepoch=1",
        "version=99\nvm=web01\nmay_run=yes\nepoch=1\nunconfirmed=start\nmessage=\n",
    };
    struct place *p = *state;
    struct error *err = NULL;

    write_record(p, true, 1, GUARD_START);
    for (size_t i = 0; i < N_ELEMENTS(texts); i++) {
        spoil_record(p, texts[i]);
        assert_fails(guard_judge(&p->folders, UUID, &err), err, ERROR_GUARD);
    }
}

static void
a_message_stays_one_line(void **state)
{
    struct place *p = *state;
    char vm[] = "web01", message[] = "no\nmay_run=yes";
    struct guard_record record = { .vm = vm, .epoch = 1, .message = message };
    struct error *err = NULL;

    if (guard_write(&p->folders, UUID, &record, &err))
        assert_fails(guard_judge(&p->folders, UUID, &err), err, ERROR_GUARD);
    error_clear(&err);
}

static void
what_was_removed_guards_nothing(void **state)
{
    struct place *p = *state;
    struct error *err = NULL;

    write_record(p, false, 1, GUARD_HOLD);
    assert_ok(guard_remove(&p->folders, UUID, &err), err);
    assert_ok(guard_judge(&p->folders, UUID, &err), err);
    assert_ok(guard_remove(&p->folders, UUID, &err), err);
    assert_false(guard_is_confirmed(&p->folders, UUID, 1));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_vm_without_a_record_may_start),
        TEST(a_record_is_read_as_it_was_written),
        TEST(a_refusal_says_why),
        TEST(after_a_reboot_a_confirmation_is_needed),
        TEST(a_confirmation_of_another_epoch_does_not_count),
        TEST(the_policy_start_needs_no_confirmation),
        TEST(a_record_that_cannot_be_understood_refuses),
        TEST(a_message_stays_one_line),
        TEST(what_was_removed_guards_nothing),
    };

    return cmocka_run_group_tests_name("guard", tests, NULL, NULL);
}
