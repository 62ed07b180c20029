#include "tests/unit/unit.h"

#include <poll.h>
#include <pthread.h>

#include "common/cancel.h"

static void
nobody_stops_an_operation_without_a_flag(void **state UNUSED)
{
    struct error *err = NULL;

    assert_ok(cancel_check(NULL, &err), err);
    assert_int_equal(cancel_remaining_ms(NULL, 250), 250);
    assert_int_equal(cancel_remaining_ms(NULL, -1), 0);
}

static void
a_fresh_flag_lets_go_on(void **state UNUSED)
{
    struct cancel c = { 0 };
    struct error *err = NULL;

    assert_ok(cancel_check(&c, &err), err);
    assert_int_equal(cancel_remaining_ms(&c, 250), 250);
}

static void *
request(void *opaque)
{
    cancel_request(opaque);
    return NULL;
}

static void
another_thread_can_stop_it(void **state UNUSED)
{
    struct cancel c = { 0 };
    struct error *err = NULL;
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, request, &c), 0);
    pthread_join(thread, NULL);
    assert_fails(cancel_check(&c, &err), err, ERROR_CANCELLED);
    assert_int_equal(cancel_remaining_ms(&c, 250), 0);
}

static void
a_deadline_passes(void **state UNUSED)
{
    struct cancel c = { 0 };
    struct error *err = NULL;

    cancel_set_timeout(&c, 20);
    assert_in_range(cancel_remaining_ms(&c, 250), 0, 20);
    while (cancel_remaining_ms(&c, 250) > 0)
        poll(NULL, 0, cancel_remaining_ms(&c, 250));
    assert_fails(cancel_check(&c, &err), err, ERROR_TIMEOUT);
}

static void
a_request_counts_more_than_a_deadline(void **state UNUSED)
{
    struct cancel c = { .deadline_ms = 1 };
    struct error *err = NULL;

    cancel_request(&c);
    assert_fails(cancel_check(&c, &err), err, ERROR_CANCELLED);
}

static void
a_deadline_can_be_removed(void **state UNUSED)
{
    struct cancel c = { .deadline_ms = 1 };
    struct error *err = NULL;

    assert_false(cancel_check(&c, NULL));
    cancel_set_timeout(&c, 0);
    assert_ok(cancel_check(&c, &err), err);
}

static void
the_longest_timeout_does_not_overflow(void **state UNUSED)
{
    struct cancel c = { 0 };
    struct error *err = NULL;

    cancel_set_timeout(&c, INT64_MAX);
    assert_ok(cancel_check(&c, &err), err);
    assert_int_equal(cancel_remaining_ms(&c, INT32_MAX), INT32_MAX);
}

static void
what_stops_the_one_above_stops_those_below_and_not_the_other_way(void **state UNUSED)
{
    struct cancel above = { 0 };
    struct cancel one = { .above = &above };
    struct cancel other = { .above = &above };
    struct error *err = NULL;

    cancel_request(&one);
    assert_fails(cancel_check(&one, &err), err, ERROR_CANCELLED);
    assert_true(cancel_check(&other, NULL));
    assert_int_equal(cancel_remaining_ms(&other, 50), 50);
    cancel_request(&above);
    assert_fails(cancel_check(&other, &err), err, ERROR_CANCELLED);
    assert_int_equal(cancel_remaining_ms(&other, 50), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            what_stops_the_one_above_stops_those_below_and_not_the_other_way),
        cmocka_unit_test(nobody_stops_an_operation_without_a_flag),
        cmocka_unit_test(a_fresh_flag_lets_go_on),
        cmocka_unit_test(another_thread_can_stop_it),
        cmocka_unit_test(a_deadline_passes),
        cmocka_unit_test(a_request_counts_more_than_a_deadline),
        cmocka_unit_test(a_deadline_can_be_removed),
        cmocka_unit_test(the_longest_timeout_does_not_overflow),
    };

    return cmocka_run_group_tests_name("cancel", tests, NULL, NULL);
}
